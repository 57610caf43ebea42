//! Every pod runs as a service account and finds its token (`plugin/pkg/admission/serviceaccount`).

use std::time::Duration;

use podlog_api::resource::{self, Resource};
use podlog_api::{ApiError, Object};
use serde_json::{Map, Value, json};

use crate::registry::{Registry, metadata};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and seven seconds that tell projected tokens from others.
const TOKEN_SECONDS: i64 = 3607;
/// The account that every namespace gets, and that a pod has which names none.
const DEFAULT: &str = "default";
/// How long a pod waits for it. Upstream looks ten times, every 100 to 200 ms.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Waits for the account that a new namespace is about to get: a namespace and a pod in it may come in one go.
pub(super) async fn arrival(registry: &Registry, pod: &Object) -> Result<(), ApiError> {
    if pod.annotation(MIRROR).is_some() || account_of(pod) != DEFAULT {
        return Ok(());
    }
    let (accounts, namespace) = (accounts()?, pod.namespace());
    let mut watch = registry.watch_in(accounts, Some(namespace), registry.store().revision());
    let arrived = async {
        while registry.find(accounts, namespace, DEFAULT)?.is_none() {
            watch.next().await?;
        }
        Ok(())
    };
    // Whoever needs it says what is missing.
    tokio::time::timeout(PATIENCE, arrived).await.unwrap_or(Ok(()))
}

pub(super) fn complete(registry: &Registry, pods: &Resource, pod: &mut Object) -> Result<(), ApiError> {
    if pod.annotation(MIRROR).is_some() {
        return refuse_account_of_mirror(pods, pod);
    }
    let name = account_of(pod).to_owned();
    let account = find(registry, pods, pod, &name)?;
    let spec = pod.map_mut("spec");
    spec.insert("serviceAccountName".into(), json!(name));
    spec.insert("serviceAccount".into(), json!(name));
    let wants_token =
        [pod.at("/spec/automountServiceAccountToken"), account.at("/automountServiceAccountToken")]
            .into_iter()
            .find_map(|value| value?.as_bool())
            .unwrap_or(true);
    if wants_token {
        mount_token(pod);
    }
    let pull_secrets = account.array("/imagePullSecrets");
    if pod.array("/spec/imagePullSecrets").is_empty() && !pull_secrets.is_empty() {
        pod.map_mut("spec").insert("imagePullSecrets".into(), Value::Array(pull_secrets.to_vec()));
    }
    Ok(())
}

fn account_of(pod: &Object) -> &str {
    match pod.text("/spec/serviceAccountName") {
        "" => DEFAULT,
        named => named,
    }
}

fn accounts() -> Result<&'static Resource, ApiError> {
    resource::find("", "v1", "serviceaccounts").ok_or_else(ApiError::no_such_path)
}

fn refuse_account_of_mirror(pods: &Resource, pod: &Object) -> Result<(), ApiError> {
    if pod.text("/spec/serviceAccountName").is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(
        pods.group,
        pods.plural,
        pod.name(),
        "a mirror pod may not reference service accounts",
    ))
}

fn find(registry: &Registry, pods: &Resource, pod: &Object, name: &str) -> Result<Object, ApiError> {
    let namespace = pod.namespace();
    registry.get(accounts()?, namespace, name).map_err(|e| {
        if e.code != 404 {
            return e;
        }
        ApiError::forbidden(
            pods.group,
            pods.plural,
            pod.name(),
            format_args!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            ),
        )
    })
}

fn mount_token(pod: &mut Object) {
    let volume = match existing_volume(pod) {
        Some(name) => name,
        None => format!("{VOLUME_PREFIX}{}", metadata::suffix()),
    };
    let spec = pod.map_mut("spec");
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            used |= mount(container, &volume);
        }
    }
    if used {
        add_volume(spec, &volume);
    }
}

fn existing_volume(pod: &Object) -> Option<String> {
    let names = pod.array("/spec/volumes").iter().filter_map(|v| v["name"].as_str());
    names.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next()
}

/// Mounts the volume unless the container has something of its own there.
fn mount(container: &mut Value, volume: &str) -> bool {
    let Value::Object(container) = container else { return false };
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    if !mounts.is_array() {
        *mounts = json!([]);
    }
    let Value::Array(mounts) = mounts else { return false };
    if mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn add_volume(spec: &mut Map<String, Value>, name: &str) {
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    let Value::Array(volumes) = volumes else { return };
    if volumes.iter().any(|v| v["name"] == name) {
        return;
    }
    volumes.push(json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                ]}}
            ]
        }
    }));
}
