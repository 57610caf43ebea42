//! The files of a configMap, secret, downwardAPI or projected volume.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::{Sources, VolumeError};
use crate::env;
use crate::objects::{Data, Kind, ObjectError, Token, TokenQuery};
use crate::pods::PodId;

/// Files by path relative to the volume.
pub(super) type Payload = BTreeMap<String, File>;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    /// Its owner, where that is not the kubelet's user.
    pub(super) owner: Option<u32>,
}

const DEFAULT_MODE: u32 = 0o644;

/// The plugin's name in paths; `None` for volumes without files of ours.
pub(super) fn plugin(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.projected.is_some() {
        Some("projected")
    } else {
        None
    }
}

/// The objects that files of a volume come from.
pub(super) fn references(volume: &Volume) -> impl Iterator<Item = (Kind, &str)> {
    let secret = volume.secret.iter().filter_map(|secret| secret.secret_name.as_deref());
    let projections = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = projections.flat_map(|source| {
        let map = source.config_map.iter().map(|map| (Kind::ConfigMap, map.name.as_str()));
        map.chain(source.secret.iter().map(|secret| (Kind::Secret, secret.name.as_str())))
    });
    let map = volume.config_map.iter().map(|map| (Kind::ConfigMap, map.name.as_str()));
    map.chain(secret.map(|name| (Kind::Secret, name))).chain(projected)
}

/// Collects the files.
pub(super) async fn build(
    sources: &Sources<'_>,
    volume: &Volume,
    tokens: &mut HashMap<TokenQuery, Token>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    if let Some(map) = &volume.config_map {
        let reference = Reference {
            kind: Kind::ConfigMap,
            name: &map.name,
            items: map.items.as_deref(),
            optional: map.optional.unwrap_or(false),
        };
        object(sources, &reference, mode(map.default_mode), &mut payload).await?;
    } else if let Some(secret) = &volume.secret {
        let reference = Reference {
            kind: Kind::Secret,
            name: secret.secret_name.as_deref().unwrap_or_default(),
            items: secret.items.as_deref(),
            optional: secret.optional.unwrap_or(false),
        };
        object(sources, &reference, mode(secret.default_mode), &mut payload).await?;
    } else if let Some(downward) = &volume.downward_api {
        let files = downward.items.as_deref().unwrap_or_default();
        downward_api(sources, files, mode(downward.default_mode), &mut payload)?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for source in projected.sources.iter().flatten() {
            projection(sources, source, mode, tokens, &mut payload).await?;
        }
    }
    Ok(payload)
}

fn mode(default: Option<i32>) -> u32 {
    default.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE)
}

async fn projection(
    sources: &Sources<'_>,
    source: &VolumeProjection,
    mode: u32,
    tokens: &mut HashMap<TokenQuery, Token>,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    if let Some(map) = &source.config_map {
        let optional = map.optional.unwrap_or(false);
        let reference =
            Reference { kind: Kind::ConfigMap, name: &map.name, items: map.items.as_deref(), optional };
        object(sources, &reference, mode, payload).await?;
    }
    if let Some(secret) = &source.secret {
        let optional = secret.optional.unwrap_or(false);
        let reference =
            Reference { kind: Kind::Secret, name: &secret.name, items: secret.items.as_deref(), optional };
        object(sources, &reference, mode, payload).await?;
    }
    if let Some(downward) = &source.downward_api {
        downward_api(sources, downward.items.as_deref().unwrap_or_default(), mode, payload)?;
    }
    if let Some(token) = &source.service_account_token {
        service_account_token(sources, token, mode, tokens, payload).await?;
    }
    if source.cluster_trust_bundle.is_some() {
        return Err(VolumeError::Spec(
            "ClusterTrustBundle projection is not supported in this kubelet".into(),
        ));
    }
    if source.pod_certificate.is_some() {
        return Err(VolumeError::Spec("PodCertificate projection is not supported in this kubelet".into()));
    }
    Ok(())
}

struct Reference<'a> {
    kind: Kind,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
}

async fn object(
    sources: &Sources<'_>,
    reference: &Reference<'_>,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    let namespace = PodId::of(sources.pod).namespace;
    let data = match sources.objects.data(reference.kind, &namespace, reference.name).await {
        Ok(data) => data,
        Err(ObjectError::NotFound { .. }) if reference.optional => Data::new(),
        Err(error) => return Err(error.into()),
    };
    let Some(items) = reference.items.filter(|items| !items.is_empty()) else {
        payload.extend(data.into_iter().map(|(key, data)| (key, File { data, mode, owner: None })));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
                payload.insert(checked(&item.path)?, File { data: bytes.clone(), mode, owner: None });
            }
            None if reference.optional => {}
            None => return Err(VolumeError::Spec(missing_key(reference.kind, &item.key))),
        }
    }
    Ok(())
}

fn missing_key(kind: Kind, key: &str) -> String {
    match kind {
        Kind::ConfigMap => format!("configmap references non-existent config key: {key}"),
        Kind::Secret => format!("references non-existent secret key: {key}"),
    }
}

fn downward_api(
    sources: &Sources<'_>,
    files: &[DownwardAPIVolumeFile],
    mode: u32,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    for file in files {
        let value = if let Some(field) = &file.field_ref {
            env::field_value(sources.pod, sources.node, &field.field_path)
        } else if let Some(resource) = &file.resource_field_ref {
            env::resource_value(sources.pod, None, sources.node, resource)
        } else {
            continue;
        };
        let data = value.map_err(VolumeError::Spec)?.into_bytes();
        let mode = file.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
        payload.insert(checked(&file.path)?, File { data, mode, owner: None });
    }
    Ok(())
}

async fn service_account_token(
    sources: &Sources<'_>,
    projection: &ServiceAccountTokenProjection,
    mode: u32,
    tokens: &mut HashMap<TokenQuery, Token>,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    let spec = sources.pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    let query = TokenQuery {
        pod: PodId::of(sources.pod),
        service_account: account.unwrap_or_else(|| "default".into()),
        audience: projection.audience.clone().filter(|audience| !audience.is_empty()),
        expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
    };
    if tokens.get(&query).is_none_or(|token| token.renewal() <= sources.now) {
        match sources.objects.token(&query).await {
            Ok(token) => drop(tokens.insert(query.clone(), token)),
            // An old token that is still good is better than none.
            Err(error) if tokens.get(&query).is_some_and(|token| token.expires > sources.now) => {
                tracing::warn!(pod = %query.pod, %error, "cannot renew a service account token yet");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Some(token) = tokens.get(&query) else { return Ok(()) };
    let owner = super::ownership::only_user(sources.pod);
    // As `collectData` of `pkg/volume/projected/projected.go`: a group gets its right to read like that of all files.
    let is_private = owner.is_some() || super::ownership::fs_group(sources.pod).is_some();
    let mode = if is_private { 0o600 } else { mode };
    let data = token.token.clone().into_bytes();
    payload.insert(checked(&projection.path)?, File { data, mode, owner });
    Ok(())
}

/// A path that stays inside the volume.
fn checked(path: &str) -> Result<String, VolumeError> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == ".." || part.is_empty());
    if bad {
        return Err(VolumeError::Spec(format!(
            "invalid path: {path} must be relative and stay in the volume"
        )));
    }
    Ok(path.to_owned())
}
