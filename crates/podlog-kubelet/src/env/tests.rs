use serde_json::{Value, json};

use super::*;
use crate::objects::fake::FakeObjects;

fn node() -> NodeFacts {
    NodeFacts {
        name: "node-1".into(),
        ip: [10, 0, 0, 7].into(),
        labels: Default::default(),
        api_server: Some("127.0.0.1:6443".parse().unwrap()),
        allocatable: [("cpu".into(), "2".into()), ("memory".into(), "4Gi".into())].into(),
    }
}

fn pod(container: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "prod", "uid": "u-1", "labels": {"app": "web", "tier": "a\"b"},
                     "annotations": {"note": "hi"}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "bot", "containers": [container]},
    }))
    .unwrap()
}

async fn run(container: Value) -> Result<Environment, String> {
    let objects = FakeObjects::default();
    objects.put(Kind::ConfigMap, "cfg", &[("color", "blue"), ("a=b", "x"), ("level", "5")]);
    objects.put(Kind::Secret, "sec", &[("password", "s3cret")]);
    let pod = pod(container);
    let container = &pod.spec.as_ref().unwrap().containers[0];
    environment(&pod, container, &node(), &objects).await.map_err(|error| error.to_string())
}

fn own(environment: &Environment) -> Vec<(&str, &str)> {
    let vars = environment.vars.iter().map(|var| (var.name.as_str(), var.value.as_str()));
    vars.filter(|(name, _)| !name.starts_with("KUBERNETES_")).collect()
}

#[test]
fn references_expand_as_upstream() {
    let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
    for (text, expected) in [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("cost: 5$", "cost: 5$"),
        ("", ""),
    ] {
        assert_eq!(expand(text, lookup), expected, "{text}");
    }
}

#[tokio::test]
async fn values_come_from_everywhere() {
    let value_from = |source: Value| json!({"name": "c", "env": [{"name": "V", "valueFrom": source}]});
    for (container, expected) in [
        (json!({"name": "c", "env": [{"name": "V", "value": "x"}]}), "x"),
        (
            json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "V", "value": "$(A)-$(NONE)"}]}),
            "1-$(NONE)",
        ),
        (json!({"name": "c", "env": [{"name": "V", "value": "$(KUBERNETES_SERVICE_HOST)"}]}), "127.0.0.1"),
        (value_from(json!({"fieldRef": {"fieldPath": "metadata.name"}})), "web"),
        (value_from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})), "web"),
        (value_from(json!({"fieldRef": {"fieldPath": "metadata.annotations['none']"}})), ""),
        (value_from(json!({"fieldRef": {"fieldPath": "spec.nodeName"}})), "node-1"),
        (value_from(json!({"fieldRef": {"fieldPath": "spec.serviceAccountName"}})), "bot"),
        (value_from(json!({"fieldRef": {"fieldPath": "status.podIP"}})), "10.0.0.7"),
        (value_from(json!({"resourceFieldRef": {"resource": "limits.cpu"}})), "2"),
        (value_from(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}})), "4096"),
        (value_from(json!({"resourceFieldRef": {"resource": "requests.memory"}})), "0"),
        (value_from(json!({"configMapKeyRef": {"name": "cfg", "key": "color"}})), "blue"),
        (value_from(json!({"secretKeyRef": {"name": "sec", "key": "password"}})), "s3cret"),
    ] {
        let environment = run(container.clone()).await.unwrap();
        assert_eq!(environment.get("V"), Some(expected), "{container}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let value_from = |source: Value| json!({"name": "c", "env": [{"name": "V", "valueFrom": source}]});
    for (container, expected) in [
        (
            value_from(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
            Err(r#"configmap "none" not found"#),
        ),
        (
            value_from(json!({"secretKeyRef": {"name": "none", "key": "k"}})),
            Err(r#"secret "none" not found"#),
        ),
        (
            value_from(json!({"configMapKeyRef": {"name": "cfg", "key": "k"}})),
            Err("couldn't find key k in ConfigMap prod/cfg"),
        ),
        (
            value_from(json!({"secretKeyRef": {"name": "sec", "key": "k"}})),
            Err("couldn't find key k in Secret prod/sec"),
        ),
        (value_from(json!({"secretKeyRef": {"name": "sec", "key": "k", "optional": true}})), Ok(0)),
        (value_from(json!({"secretKeyRef": {"name": "none", "key": "k", "optional": true}})), Ok(0)),
        (
            json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]}),
            Err(r#"secret "none" not found"#),
        ),
        (json!({"name": "c", "envFrom": [{"secretRef": {"name": "none", "optional": true}}]}), Ok(0)),
        (
            value_from(json!({"fieldRef": {"fieldPath": "spec.hostname"}})),
            Err("unsupported fieldPath: spec.hostname"),
        ),
    ] {
        let found = run(container.clone()).await.map(|environment| own(&environment).len());
        assert_eq!(found, expected.map_err(str::to_owned), "{container}");
    }
}

#[tokio::test]
async fn whole_maps_with_a_prefix_and_bad_names() {
    let environment = run(json!({
        "name": "c", "env": [{"name": "P_color", "value": "red"}],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cfg"}}, {"secretRef": {"name": "sec"}}],
    }))
    .await
    .unwrap();
    assert_eq!(own(&environment), [("P_color", "red"), ("P_level", "5"), ("password", "s3cret")]);
    assert_eq!(
        environment.warnings,
        ["Keys [a=b] from the EnvFrom configMap prod/cfg were skipped since they are considered invalid \
          environment variable names."]
    );
}

#[test]
fn maps_are_sorted_and_quoted() {
    let pod = pod(json!({"name": "c"}));
    assert_eq!(field_value(&pod, &node(), "metadata.labels").unwrap(), "app=\"web\"\ntier=\"a\\\"b\"");
}
