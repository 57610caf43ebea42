use std::collections::BTreeSet;

use super::*;

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get("$ref") {
                found.insert(target.clone());
            }
            object.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_is_defined() {
    for path in v3_index()["paths"].as_object().expect("paths").keys() {
        let document = v3_document(path).expect(path);
        let mut references = BTreeSet::new();
        collect_references(&document, &mut references);
        assert!(!references.is_empty());
        for target in references {
            let name = target.strip_prefix("#/components/schemas/").expect("prefix");
            assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {target}");
        }
    }
    let document = v2();
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    for target in references {
        let name = target.strip_prefix("#/definitions/").expect("prefix");
        assert!(document["definitions"].get(name).is_some(), "{target}");
    }
}

#[test]
fn patch_operations_take_field_validation() {
    for row in resource::all().iter().filter(|row| row.has_verb("patch")) {
        let document = v3_document(&document_path(row.group, row.version)).expect("document");
        let path = row.object_path(if row.namespaced { "{namespace}" } else { "" }, "{name}");
        let patch = &document["paths"][&path]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": row.group, "version": row.version, "kind": row.kind})
        );
        let parameters = patch["parameters"].as_array().expect("parameters");
        let is_query = |p: &Value| p["name"] == "fieldValidation" && p["in"] == "query";
        assert!(parameters.iter().any(is_query), "{path}");
        let types: Vec<&String> =
            patch["requestBody"]["content"].as_object().expect("content").keys().collect();
        let served =
            ["apply-patch+yaml", "json-patch+json", "merge-patch+json", "strategic-merge-patch+json"];
        assert_eq!(types, served.map(|name| format!("application/{name}")).iter().collect::<Vec<_>>());
    }
}

#[test]
fn schemas_name_their_kinds() {
    let document = v3_document("apis/apps/v1").expect("apps/v1");
    let schemas = &document["components"]["schemas"];
    for (name, group, version, kind) in [
        ("io.k8s.api.apps.v1.Deployment", "apps", "v1", "Deployment"),
        ("io.k8s.api.apps.v1.DeploymentList", "apps", "v1", "DeploymentList"),
        ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "v1", "Scale"),
    ] {
        let expected = json!([{"group": group, "version": version, "kind": kind}]);
        assert_eq!(schemas[name]["x-kubernetes-group-version-kind"], expected, "{name}");
    }
    let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert!(spec["description"].is_string());
    assert!(schemas["io.k8s.api.apps.v1.Deployment"].get("required").is_none());
}

#[test]
fn index_and_hashes() {
    let index = v3_index();
    let pods = index["paths"]["api/v1"]["serverRelativeURL"].as_str().expect("url");
    assert_eq!(pods, format!("/openapi/v3/api/v1?hash={}", v3_hash("api/v1").expect("hash")));
    assert_ne!(v3_hash("api/v1"), v3_hash("apis/apps/v1"));
    assert!(v3_document("api/v2").is_none() && v3_hash("apis/nope/v1").is_none());
}

#[test]
fn version_two() {
    let document = v2();
    let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["parameters"][0]["in"], "body");
    assert_eq!(create["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert_eq!(create["responses"]["201"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    let spec = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
}

#[test]
fn lists_say_how_they_merge() {
    let document = v3_document("api/v1").expect("api/v1");
    let field = |definition: &str, field: &str| {
        document["components"]["schemas"][format!("io.k8s.api.core.v1.{definition}")]["properties"][field]
            .clone()
    };
    let containers = field("PodSpec", "containers");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let ports = field("Container", "ports");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(field("PodSpec", "volumes")["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(field("Container", "command").get("x-kubernetes-patch-strategy"), None);
}

#[test]
fn who_gets_protobuf() {
    for (accept, expected) in [
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", true),
        ("application/json, application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=0.5", true),
        ("application/json, */*", false),
    ] {
        assert_eq!(accepts_v2_protobuf(accept), expected, "{accept}");
    }
}
