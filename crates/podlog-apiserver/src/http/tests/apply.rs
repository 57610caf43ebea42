//! Server-side apply over HTTP.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ADMIN, Answered, App, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(app: &Arc<App>, user: &str, target: &str, query: &str, body: &str) -> Answered {
    let headers = [("x-user", user), ("content-type", "application/apply-patch+yaml")];
    app.send("PATCH", &format!("{target}?{query}"), &headers, body).await
}

fn map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {data}\n")
}

fn managers(object: &Value) -> Vec<(String, String)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| (text(&entry["manager"]), text(&entry["operation"]))).collect()
}

fn pair(manager: &str, operation: &str) -> (String, String) {
    (manager.to_owned(), operation.to_owned())
}

#[tokio::test]
async fn an_object_is_made_changed_and_fought_over() {
    let app = server().await;
    let target = format!("{MAPS}/c");
    let made = apply(&app, ADMIN.1, &target, "fieldManager=one", &map(r#"{a: "1", b: "2"}"#)).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let again = apply(&app, ADMIN.1, &target, "fieldManager=one", &map(r#"{a: "1", b: "2"}"#)).await;
    assert_eq!((again.code, again.json()), (200, made.json()), "nothing changes, and nothing is written");

    let refused = apply(&app, ADMIN.1, &target, "fieldManager=two", &map(r#"{a: "9"}"#)).await;
    let message = r#"Apply failed with 1 conflict: conflict with "one": .data.a"#;
    assert_eq!((refused.code, refused.json()["message"].as_str()), (409, Some(message)));
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "FieldManagerConflict");

    let forced = apply(&app, ADMIN.1, &target, "fieldManager=two&force=true", &map(r#"{a: "9"}"#)).await;
    assert_eq!((forced.code, forced.json()["data"].clone()), (200, json!({"a": "9", "b": "2"})));
    let left = apply(&app, ADMIN.1, &target, "fieldManager=one", &map("{}")).await;
    assert_eq!(left.json()["data"], json!({"a": "9"}));

    let headers = [ADMIN, ("content-type", "application/merge-patch+json"), ("user-agent", "curl/8")];
    let edited = app.send("PATCH", &target, &headers, r#"{"data":{"a":"3"}}"#).await;
    assert_eq!(managers(&edited.json()), [pair("one", "Apply"), pair("curl", "Update")]);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let app = server().await;
    let target = format!("{MAPS}/c");
    for (query, body, code, message) in [
        ("", map("{}"), 422, "fieldManager: Required value: is required for apply patch"),
        ("fieldManager=%0a", map("{}"), 422, "invalid character U+000A (at position 0)"),
        ("fieldManager=m", map("{a: [1]}"), 400, "cannot unmarshal"),
        ("fieldManager=m", "nope: 1".to_owned(), 400, "nope"),
        (
            "fieldManager=m",
            map("{}").replace("name: c", "name: d"),
            400,
            "does not match the name on the URL",
        ),
    ] {
        let answer = apply(&app, ADMIN.1, &target, query, &body).await;
        assert_eq!(answer.code, code, "{query} {body}: {}", answer.text());
        assert!(answer.text().contains(message), "{query} {body}: {}", answer.text());
    }
    let long = apply(&app, ADMIN.1, &target, &format!("fieldManager={}", "m".repeat(129)), &map("{}")).await;
    assert_eq!(long.code, 422, "{}", long.text());
    let headers = [ADMIN, ("content-type", "application/merge-patch+json")];
    let forced = app.send("PATCH", &format!("{target}?force=true"), &headers, "{}").await;
    assert!(forced.text().contains("may not be specified for non-apply patch"), "{}", forced.text());
}

#[tokio::test]
async fn who_may_only_patch_does_not_create() {
    let app = server().await;
    let role = json!({"metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    assert_eq!(app.post(roles, role).await.code, 201);
    let binding = json!({"metadata": {"name": "patcher"}, "subjects": [{"kind": "User", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"}});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(app.post(bindings, binding).await.code, 201);
    let target = format!("{MAPS}/c");
    let mut refused = apply(&app, "ann", &target, "fieldManager=m", &map("{}")).await;
    // The policy follows the store within a moment.
    while refused.text().contains("cannot patch") {
        tokio::task::yield_now().await;
        refused = apply(&app, "ann", &target, "fieldManager=m", &map("{}")).await;
    }
    assert_eq!(refused.code, 403, "{}", refused.text());
    assert!(
        refused.text().contains(r#"User \"ann\" cannot create resource \"configmaps\""#),
        "{}",
        refused.text()
    );
    assert_eq!(apply(&app, ADMIN.1, &target, "fieldManager=o", &map("{}")).await.code, 201);
    let allowed = apply(&app, "ann", &target, "fieldManager=m", &map(r#"{k: "v"}"#)).await;
    assert_eq!(allowed.code, 200, "{}", allowed.text());
}

#[tokio::test]
async fn defaults_belong_to_nobody_and_a_scaler_keeps_its_replicas() {
    let app = server().await;
    let target = format!("{DEPLOYMENTS}/w");
    let manifest = |more: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: w}}, spec: {{{more} selector: {{matchLabels: {{a: b}}}}, \
             template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
        )
    };
    let made = apply(&app, ADMIN.1, &target, "fieldManager=one", &manifest("replicas: 1,")).await;
    assert_eq!((made.code, made.json()["spec"]["replicas"].as_i64()), (201, Some(1)), "{}", made.text());
    let fields = made.json()["metadata"]["managedFields"][0]["fieldsV1"].clone();
    let template = json!({"f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {"f:containers": {r#"k:{"name":"c"}"#: {".": {}, "f:image": {}, "f:name": {}}}}});
    assert_eq!(fields, json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": template}}));

    let scale = json!({"metadata": {"name": "w"}, "spec": {"replicas": 3}}).to_string();
    let headers = [ADMIN, ("content-type", "application/json"), ("user-agent", "scaler/1")];
    assert_eq!(app.send("PUT", &format!("{target}/scale"), &headers, scale).await.code, 200);
    let refused = apply(&app, ADMIN.1, &target, "fieldManager=one", &manifest("replicas: 1,")).await;
    let message = r#"Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas"#;
    assert_eq!((refused.code, refused.json()["message"].as_str()), (409, Some(message)));
    let kept = apply(&app, ADMIN.1, &target, "fieldManager=one", &manifest("")).await;
    assert_eq!((kept.code, kept.json()["spec"]["replicas"].as_i64()), (200, Some(3)), "{}", kept.text());
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let app = server().await;
    let target = format!("{MAPS}/c");
    let tried = apply(&app, ADMIN.1, &target, "fieldManager=one&dryRun=All", &map(r#"{a: "1"}"#)).await;
    assert_eq!(tried.code, 201, "{}", tried.text());
    assert_eq!(app.get(&target).await.code, 404);
}
