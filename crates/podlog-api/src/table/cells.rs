//! The rows of the simpler kinds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::age::{human_duration, since};
use crate::{Object, selector::LabelSelector};

pub(super) fn generic(object: &Object, _: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text("/metadata/creationTimestamp"))]
}

pub(super) fn namespace(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text("/status/phase")), age(object, now)]
}

pub(super) fn config_map(object: &Object, now: Timestamp) -> Vec<Value> {
    let entries = entries(object, "/data") + entries(object, "/binaryData");
    vec![json!(object.name()), json!(entries), age(object, now)]
}

pub(super) fn secret(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text("/type")), json!(entries(object, "/data")), age(object, now)]
}

pub(super) fn service_account(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), age(object, now)]
}

pub(super) fn lease(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text("/spec/holderIdentity")), age(object, now)]
}

pub(super) fn service(object: &Object, now: Timestamp) -> Vec<Value> {
    let cluster_ip = match object.text("/spec/clusterIPs/0") {
        "" => object.text("/spec/clusterIP"),
        ip => ip,
    };
    vec![
        json!(object.name()),
        json!(object.text("/spec/type")),
        text_or(cluster_ip, "<none>"),
        json!(external_ips(object)),
        text_or(&ports(object), "<none>"),
        age(object, now),
        json!(label_text(object.at("/spec/selector"))),
    ]
}

fn external_ips(service: &Object) -> String {
    let mut ips: Vec<&str> = match service.text("/spec/type") {
        "ExternalName" => return service.text("/spec/externalName").into(),
        "LoadBalancer" => load_balancer_ips(service),
        _ => Vec::new(),
    };
    ips.extend(service.array("/spec/externalIPs").iter().filter_map(Value::as_str));
    match service.text("/spec/type") {
        _ if !ips.is_empty() => ips.join(","),
        "ClusterIP" | "NodePort" => "<none>".into(),
        "LoadBalancer" => "<pending>".into(),
        _ => "<unknown>".into(),
    }
}

fn load_balancer_ips(service: &Object) -> Vec<&str> {
    let ingress = service.array("/status/loadBalancer/ingress").iter();
    let mut ips: Vec<&str> =
        ingress.filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str())).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

fn ports(service: &Object) -> String {
    let ports = service.array("/spec/ports").iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64().unwrap_or_default() {
            0 => format!("{}/{protocol}", port["port"]),
            node_port => format!("{}:{node_port}/{protocol}", port["port"]),
        }
    });
    Vec::from_iter(ports).join(",")
}

/// Events of both API versions; `events.k8s.io/v1` names the same fields differently.
pub(super) fn event(object: &Object, now: Timestamp) -> Vec<Value> {
    let first = first_at(object, &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let series = first_at(object, &["/series/lastObservedTime"]);
    let last = series.or_else(|| first_at(object, &["/lastTimestamp", "/deprecatedLastTimestamp"])).or(first);
    let count = first_at(object, &["/series/count", "/count", "/deprecatedCount"]).and_then(Value::as_i64);
    vec![
        json!(since(last, now)),
        json!(object.text("/type")),
        json!(object.text("/reason")),
        json!(event_target(object)),
        json!(text_at(object, &["/involvedObject/fieldPath", "/regarding/fieldPath"])),
        json!(event_source(object)),
        json!(text_at(object, &["/message", "/note"]).trim()),
        json!(since(first, now)),
        json!(count.unwrap_or(1).max(1)),
        json!(object.name()),
    ]
}

fn event_target(event: &Object) -> String {
    let kind = text_at(event, &["/involvedObject/kind", "/regarding/kind"]).to_lowercase();
    match text_at(event, &["/involvedObject/name", "/regarding/name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn event_source(event: &Object) -> String {
    let component =
        ["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"];
    let component = text_at(event, &component);
    match text_at(event, &["/source/host", "/deprecatedSource/host", "/reportingInstance"]) {
        "" => component.into(),
        instance => format!("{component}, {instance}"),
    }
}

pub(super) fn role_binding(object: &Object, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let subjects = object.array("/subjects").iter().filter(|subject| subject["kind"] == kind);
        let names = subjects.map(|subject| {
            let name = subject["name"].as_str().unwrap_or_default();
            match (kind, subject["namespace"].as_str()) {
                ("ServiceAccount", Some(namespace)) if !namespace.is_empty() => format!("{namespace}/{name}"),
                _ => name.to_owned(),
            }
        });
        json!(Vec::from_iter(names).join(", "))
    };
    vec![
        json!(object.name()),
        json!(format!("{}/{}", object.text("/roleRef/kind"), object.text("/roleRef/name"))),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn certificate_request(object: &Object, now: Timestamp) -> Vec<Value> {
    let seconds = object.integer("/spec/expirationSeconds");
    let duration = seconds.map_or("<none>".into(), human_duration);
    vec![
        json!(object.name()),
        age(object, now),
        text_or(object.text("/spec/signerName"), "<none>"),
        json!(object.text("/spec/username")),
        json!(duration),
        json!(request_state(object)),
    ]
}

fn request_state(request: &Object) -> String {
    let has = |wanted: &str| request.array("/status/conditions").iter().any(|c| c["type"] == wanted);
    let decided = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if request.text("/status/certificate").is_empty() { "" } else { ",Issued" };
    format!("{decided}{failed}{issued}")
}

pub(super) fn endpoint_slice(object: &Object, now: Timestamp) -> Vec<Value> {
    let ports =
        object.array("/ports").iter().map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        });
    let endpoints = object.array("/endpoints").iter();
    let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    let addresses = addresses.filter_map(Value::as_str).map(str::to_owned);
    vec![
        json!(object.name()),
        json!(object.text("/addressType")),
        json!(first_three(ports.collect())),
        json!(first_three(addresses.collect())),
        age(object, now),
    ]
}

fn first_three(list: Vec<String>) -> String {
    match list.len() {
        0 => "<unset>".into(),
        1..=3 => list.join(","),
        length => format!("{} + {} more...", list[..3].join(","), length - 3),
    }
}

/// `text`, or `otherwise` where it is empty.
pub(super) fn text_or(text: &str, otherwise: &str) -> Value {
    json!(if text.is_empty() { otherwise } else { text })
}

/// A map of labels as `a=b,c=d`, or `<none>`.
pub(super) fn label_text(labels: Option<&Value>) -> String {
    let pairs = labels.and_then(Value::as_object).into_iter().flat_map(Map::iter);
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A `LabelSelector` object in its text form, `<none>` where it selects by nothing.
pub(super) fn selector_text(selector: Option<&Value>) -> String {
    match LabelSelector::from_value(selector.unwrap_or(&Value::Null)).map(|selector| selector.to_string()) {
        Ok(text) if text.is_empty() => "<none>".into(),
        Ok(text) => text,
        Err(_) => "<error>".into(),
    }
}

fn age(object: &Object, now: Timestamp) -> Value {
    json!(since(object.at("/metadata/creationTimestamp"), now))
}

fn entries(object: &Object, pointer: &str) -> usize {
    object.at(pointer).and_then(Value::as_object).map_or(0, Map::len)
}

fn first_at<'a>(object: &'a Object, pointers: &[&str]) -> Option<&'a Value> {
    pointers.iter().filter_map(|pointer| object.at(pointer)).find(|value| !value.is_null())
}

fn text_at<'a>(object: &'a Object, pointers: &[&str]) -> &'a str {
    pointers.iter().map(|pointer| object.text(pointer)).find(|text| !text.is_empty()).unwrap_or_default()
}
