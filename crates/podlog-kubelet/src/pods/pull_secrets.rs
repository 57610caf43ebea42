//! Credentials for an image, from a pod's `imagePullSecrets`.
//!
//! Rules as `pkg/credentialprovider`: servers match by host (each label may be a glob) and by a path that the image begins
//! with; the most specific comes first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::context::Context;
use super::spec::PodId;
use crate::events::Level;
use crate::objects::{Data, Kind};
use crate::runtime::RegistryAuth;

/// One server's entry of a client's configuration file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigJson {
    auths: BTreeMap<String, Entry>,
}

/// Credentials to try for `image`, one after the other; none when it is to be pulled without.
pub(super) async fn credentials(context: &Context, pod: &Pod, image: &str) -> Vec<RegistryAuth> {
    let secrets = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
    let namespace = PodId::of(pod).namespace;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for secret in secrets {
        match context.objects.data(Kind::Secret, &namespace, &secret.name).await {
            Ok(data) => found.extend(entries(&data)),
            Err(_) => missing.push(secret.name.as_str()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        context.events.pod(pod, Level::Warning, "FailedToRetrieveImagePullSecret", message);
    }
    matching(found, image)
}

/// What a secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` holds.
fn entries(data: &Data) -> Vec<RegistryAuth> {
    let new = data.get(".dockerconfigjson").and_then(|json| serde_json::from_slice::<ConfigJson>(json).ok());
    let old = data.get(".dockercfg").and_then(|json| serde_json::from_slice(json).ok());
    let all: BTreeMap<String, Entry> = new.map(|config| config.auths).or(old).unwrap_or_default();
    all.into_iter().map(|(server, entry)| auth(server, entry)).collect()
}

fn auth(server_address: String, entry: Entry) -> RegistryAuth {
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = match pair {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    RegistryAuth {
        username,
        password,
        auth: String::new(),
        server_address,
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
    }
}

fn matching(mut all: Vec<RegistryAuth>, image: &str) -> Vec<RegistryAuth> {
    let repository = repository(image);
    all.retain(|auth| is_for(&auth.server_address, &repository));
    all.sort_by_key(|auth| Reverse(server(&auth.server_address)));
    all
}

/// Where an image comes from: host and path, without tag and digest.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("index.docker.io/{name}"),
        None => format!("index.docker.io/library/{name}"),
    }
}

/// A server without its scheme and the version of its interface. Docker's own registry has two names.
fn server(address: &str) -> String {
    let bare = address.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare.strip_prefix("docker.io") {
        Some(path) if path.is_empty() || path.starts_with('/') => format!("index.docker.io{path}"),
        _ => bare.to_owned(),
    }
}

fn is_for(address: &str, repository: &str) -> bool {
    let server = server(address);
    let (pattern, path) = server.split_once('/').unwrap_or((&server, ""));
    let repository = match repository.strip_prefix("docker.io/") {
        Some(rest) => format!("index.docker.io/{rest}"),
        None => repository.to_owned(),
    };
    let (host, own_path) = repository.split_once('/').unwrap_or((&repository, ""));
    let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    let is_host = pattern.len() == host.len() && pattern.iter().zip(&host).all(|(p, h)| glob(p, h));
    is_host && own_path.starts_with(path)
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_match_images() {
        for (server, image, expected) in [
            ("https://index.docker.io/v1/", "busybox", true),
            ("docker.io", "docker.io/library/busybox:1", true),
            ("index.docker.io", "team/app:2", true),
            ("quay.io", "busybox", false),
            ("quay.io", "quay.io/a/b@sha256:00", true),
            ("quay.io/a", "quay.io/a/b", true),
            ("quay.io/c", "quay.io/a/b", false),
            ("*.example.com", "eu.example.com/x", true),
            ("*.example.com", "example.com/x", false),
            ("*.example.com", "a.b.example.com/x", false),
            ("reg*y.example.com:5000", "registry.example.com:5000/x:1", true),
            ("localhost:5000", "localhost:5000/x", true),
        ] {
            assert_eq!(is_for(server, &repository(image)), expected, "{server} {image}");
        }
    }

    #[test]
    fn both_kinds_of_secrets_are_read_and_the_most_specific_comes_first() {
        let both = STANDARD.encode("me:pass:word");
        let new = format!(
            r#"{{"auths": {{"quay.io": {{"auth": "{both}"}}, "quay.io/team": {{"username": "u", "password": "p"}}}}}}"#
        );
        let old = r#"{"quay.io": {"username": "old", "password": "p"}}"#;
        let users = |key: &str, json: &str| {
            let data = Data::from([(key.to_owned(), json.as_bytes().to_vec())]);
            let auths = matching(entries(&data), "quay.io/team/app:1").into_iter();
            auths.map(|auth| (auth.username, auth.password)).collect::<Vec<_>>()
        };
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(users(".dockerconfigjson", &new), [pair("u", "p"), pair("me", "pass:word")]);
        assert_eq!(users(".dockercfg", old), [pair("old", "p")]);
        assert!(users(".dockerconfigjson", "no json").is_empty());
    }

    #[test]
    fn secrets_are_not_printed() {
        let auth = RegistryAuth { username: "user".into(), password: "hush".into(), ..Default::default() };
        assert!(!format!("{auth:?}").contains("hush"));
    }
}
