//! Pods and pod templates.

use serde_json::{Map, Value, json};

use super::{default, default_number, map_in, maps_in};
use crate::{Object, child_map};

/// Mode of files in volumes that are made of objects, `0644`.
const FILE_MODE: u32 = 0o644;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn pod(object: &mut Object) {
    let spec = object.map_mut("spec");
    pod_spec(spec);
    default(spec, "enableServiceLinks", json!(true));
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers"] {
        for container in maps_in(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
}

/// The defaults that pods and templates share.
pub(super) fn pod_spec(spec: &mut Map<String, Value>) {
    for volume in maps_in(spec, "volumes") {
        self::volume(volume);
    }
    for list in CONTAINER_LISTS {
        maps_in(spec, list).for_each(container);
    }
    service_account(spec);
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "schedulerName", json!("default-scheduler"));
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are kept the same (pkg/apis/core/v1/conversion.go).
fn service_account(spec: &mut Map<String, Value>) {
    if let Some(name) = spec.get("serviceAccount").cloned() {
        default(spec, "serviceAccountName", name);
    }
    if let Some(name) = spec.get("serviceAccountName").cloned() {
        spec.insert("serviceAccount".into(), name);
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = map_in(container, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    for (name, amount) in limits {
        let requested = requests.as_object_mut().map(|requests| requests.entry(name));
        if let Some(requested) = requested {
            requested.or_insert(amount);
        }
    }
}

fn host_ports(container: &mut Map<String, Value>) {
    for port in maps_in(container, "ports") {
        let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or(0);
        default_number(port, "hostPort", number);
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    default(container, "imagePullPolicy", json!(policy));
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    default(container, "resources", json!({}));
    for port in maps_in(container, "ports") {
        default(port, "protocol", json!("TCP"));
    }
    for variable in maps_in(container, "env") {
        if let Some(source) = map_in(variable, "valueFrom") {
            field_reference(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = map_in(container, probe) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = map_in(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = map_in(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

fn probe(probe: &mut Map<String, Value>) {
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = map_in(probe, "grpc") {
        default(grpc, "service", json!(""));
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = map_in(handler, "httpGet") {
        default(get, "path", json!("/"));
        default(get, "scheme", json!("HTTP"));
    }
}

/// `fieldRef` in an environment variable's source or in a file of a downward API volume.
fn field_reference(owner: &mut Map<String, Value>) {
    if let Some(reference) = map_in(owner, "fieldRef") {
        default(reference, "apiVersion", json!("v1"));
    }
}

/// `Always` for images whose tag is `latest`, said or implied: their content may change.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = match last.split_once(':') {
        Some((_, tag)) => tag,
        None if digest.is_empty() && !image.is_empty() => "latest",
        None => "",
    };
    if tag == "latest" { "Always" } else { "IfNotPresent" }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map_in(volume, source) {
            default(source, "defaultMode", json!(FILE_MODE));
        }
    }
    if let Some(host_path) = map_in(volume, "hostPath") {
        host_path.entry("type").or_insert_with(|| json!(""));
    }
    if let Some(image) = map_in(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        default(image, "pullPolicy", json!(policy));
    }
    if let Some(downward) = map_in(volume, "downwardAPI") {
        maps_in(downward, "items").for_each(field_reference);
    }
    if let Some(projected) = map_in(volume, "projected") {
        maps_in(projected, "sources").for_each(projection);
    }
}

fn projection(source: &mut Map<String, Value>) {
    if let Some(token) = map_in(source, "serviceAccountToken") {
        default(token, "expirationSeconds", json!(3600));
    }
    if let Some(downward) = map_in(source, "downwardAPI") {
        maps_in(downward, "items").for_each(field_reference);
    }
}

/// The pod template of a workload.
pub(super) fn template(object: &mut Object) {
    let spec = object.map_mut("spec");
    let template = spec.entry("template").or_insert_with(|| json!({}));
    if template.is_object() {
        pod_spec(child_map(template, "spec"));
    }
}
