//! From a manifest to the pod that runs here.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use podlog_api::{Object, defaults, resource, validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where a pod comes from: `file`, or `api` or nothing.
pub(super) const SOURCE: &str = "kubernetes.io/config.source";
/// What distinguishes a manifest from others; the uid of the pod.
pub(super) const HASH: &str = "kubernetes.io/config.hash";
/// Of a mirror: the hash of what it shows.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// When a manifest was read.
pub(super) const SEEN: &str = "kubernetes.io/config.seen";

/// Why a file is no static pod.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ManifestError {
    #[error("it is not YAML or JSON: {0}")]
    Syntax(String),
    #[error("it holds {0}: a static pod is one Pod of v1")]
    Kind(String),
    #[error("{0}")]
    Invalid(String),
    #[error("static pods may not reference {0}: they run without an API server")]
    Reference(&'static str),
}

/// Whether this node's files ask for the pod.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api")
}

/// Whether the pod only shows another one, which files ask for.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

pub(super) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The pod that a manifest asks for, as it runs on `node`.
pub(super) fn pod(text: &str, path: &Path, node: &str, seen: Timestamp) -> Result<Pod, ManifestError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let source: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ManifestError::Syntax(error.to_string()))?;
    let kind = (source["apiVersion"].as_str(), source["kind"].as_str());
    if kind != (Some("v1"), Some("Pod")) {
        return Err(ManifestError::Kind(format!("kind {} of {}", source["kind"], source["apiVersion"])));
    }
    if let Some(what) = reference(&source["spec"]) {
        return Err(ManifestError::Reference(what));
    }
    let mut object = Object::new(source);
    complete(&mut object, path, node, seen);
    if let Some(kind) = resource::find("", "v1", "pods") {
        defaults::apply(kind, &mut object);
        let problems = validation::create(kind, &object);
        if !problems.is_empty() {
            let texts = problems.iter().map(|cause| format!("{}: {}", cause.field, cause.message));
            let texts: Vec<_> = texts.collect();
            return Err(ManifestError::Invalid(texts.join(", ")));
        }
    }
    serde_json::from_value(object.0).map_err(|error| ManifestError::Invalid(error.to_string()))
}

/// What the node adds, as `applyDefaults` of `pkg/kubelet/config/common.go`.
fn complete(object: &mut Object, path: &Path, node: &str, seen: Timestamp) {
    let hash = hash(object, path, node);
    let Value::Object(metadata) = &mut object.0["metadata"] else { return };
    let given = metadata.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty());
    let uid = given.map_or(hash, str::to_owned);
    if let Some(name) = metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        metadata.insert("name".into(), format!("{name}-{}", node.to_lowercase()).into());
    }
    metadata.entry("namespace").or_insert_with(|| "default".into());
    metadata.insert("uid".into(), uid.clone().into());
    metadata.remove("resourceVersion");
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    for (key, value) in [(HASH, uid), (SEEN, seen.to_string()), (SOURCE, "file".to_owned())] {
        annotations[key] = value.into();
    }
    let spec = &mut object.0["spec"];
    spec["nodeName"] = node.into();
    let everything = json!({ "operator": "Exists", "effect": "NoExecute" });
    match spec["tolerations"].as_array_mut() {
        Some(tolerations) if !tolerations.contains(&everything) => tolerations.push(everything),
        Some(_) => {}
        None => spec["tolerations"] = json!([everything]),
    }
    object.0["status"] = json!({ "phase": "Pending" });
}

/// 32 hex digits that stand for the manifest, its place and the node.
fn hash(object: &Object, path: &Path, node: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(podlog_api::json::to_vec(&object.0));
    hasher.update(format!("host:{node}file:{}", path.display()));
    hasher.finalize().iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What of the API the pod refers to.
fn reference(spec: &Value) -> Option<&'static str> {
    const KEYS: &[(&str, &str)] = &[
        ("serviceAccountName", "serviceaccounts"),
        ("serviceAccountToken", "serviceaccounts"),
        ("secretRef", "secrets"),
        ("secretKeyRef", "secrets"),
        ("secretName", "secrets"),
        ("imagePullSecrets", "secrets"),
        ("configMapRef", "configmaps"),
        ("configMapKeyRef", "configmaps"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("resourceClaims", "resourceclaims"),
        ("clusterTrustBundle", "clustertrustbundles"),
    ];
    match spec {
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            let is_empty = inner.is_null() || *inner == "" || *inner == json!([]);
            let named = KEYS.iter().find(|(name, _)| name == key && !is_empty);
            named.map(|(_, what)| *what).or_else(|| reference(inner))
        }),
        Value::Array(items) => items.iter().find_map(reference),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str, path: &str) -> Result<Pod, ManifestError> {
        pod(text, Path::new(path), "node-1", Timestamp::UNIX_EPOCH)
    }

    const WEB: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {a: b}}, \
                       spec: {containers: [{name: c, image: x}]}}";

    #[test]
    fn the_node_completes_a_manifest() {
        let pod = made(WEB, "/m/web.yaml").unwrap();
        let uid = pod.metadata.uid.clone().unwrap();
        assert!(uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{uid}");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(annotation(&pod, HASH), Some(uid.as_str()));
        assert_eq!(annotation(&pod, SOURCE), Some("file"));
        assert!(is_static(&pod) && !is_mirror(&pod));
        let spec = pod.spec.clone().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(spec.termination_grace_period_seconds, Some(30), "defaults are applied");
        assert_eq!(spec.tolerations.unwrap().len(), 1);
        assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));

        let same = |text: &str, path: &str| made(text, path).unwrap().metadata.uid.unwrap() == uid;
        assert!(same(WEB, "/m/web.yaml"));
        assert!(!same(WEB, "/m/other.yaml"), "another file is another pod");
        assert!(!same(&WEB.replace("image: x", "image: other"), "/m/web.yaml"), "another manifest, too");
    }

    #[test]
    fn what_is_no_static_pod_is_refused() {
        for (from, to, expected) in [
            ("kind: Pod", "kind: Job", "it holds kind \"Job\" of \"v1\": a static pod is one Pod of v1"),
            ("name: web,", "", "metadata.name: Required value: name or generateName is required"),
            (
                "image: x",
                "image: x, envFrom: [{secretRef: {name: s}}]",
                "static pods may not reference secrets: they run without an API server",
            ),
            (
                "containers:",
                "serviceAccountName: a, containers:",
                "static pods may not reference serviceaccounts: they run without an API server",
            ),
        ] {
            let text = WEB.replace(from, to);
            assert_eq!(made(&text, "/m").unwrap_err().to_string(), expected, "{text}");
        }
        assert!(made("{", "/m").is_err());
        assert!(made("- 1", "/m").is_err());
    }
}
