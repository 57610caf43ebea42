//! What is noted of requests that do not last, however they end.

use std::sync::Arc;

use async_trait::async_trait;
use http::Request;
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::metrics::Registry;
use podlog_serving::{Authorizer, AuthzError, Peer, empty_body, stream_body};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ADMIN, App, server};
use crate::audit::Auditor;
use crate::auth::{ClusterAuthorizer, Member};
use crate::config::{AuditConfig, AuditLogConfig};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that notes everything.
async fn audited(change: impl FnOnce(&mut App)) -> (Arc<App>, TempDir) {
    let Ok(mut app) = Arc::try_unwrap(server().await) else { panic!("somebody else has the server") };
    let folder = tempfile::tempdir().unwrap();
    let (policy, path) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
        .unwrap();
    let log = AuditLogConfig { path, max_bytes: 1 << 20, max_backups: None, max_age_days: None };
    app.auditor = Some(Auditor::start(&AuditConfig { policy, log }, &Registry::new()).unwrap());
    change(&mut app);
    (Arc::new(app), folder)
}

/// Everything that was noted.
fn events(app: &App, folder: &TempDir) -> Vec<Value> {
    app.auditor.as_ref().unwrap().close();
    let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Stages, codes and words of all that was noted, and why something was allowed.
fn noted(app: &App, folder: &TempDir) -> Vec<String> {
    let shown = |event: &Value| {
        let (status, why) = (&event["responseStatus"], &event["annotations"]["authorization.k8s.io/reason"]);
        let words = [&event["stage"], &status["code"], &status["reason"], &status["message"], why];
        let words = words.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned));
        words.into_iter().filter(|word| word != "null" && !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    events(app, folder).iter().map(shown).collect()
}

#[tokio::test]
async fn what_went_well_is_noted_as_it_was_told() {
    let (app, folder) = audited(|_| {}).await;
    let uid = app.post(MAPS, json!({"metadata": {"name": "c"}})).await.json()["metadata"]["uid"].clone();
    assert_eq!(app.send("DELETE", &format!("{MAPS}/c"), &[ADMIN], "").await.code, 200);
    let events = events(&app, &folder);
    let told: Vec<&Value> = events.iter().map(|event| &event["responseStatus"]).collect();
    let details = json!({"name": "c", "kind": "configmaps", "uid": uid});
    let deleted = json!({"metadata": {}, "status": "Success", "details": details, "code": 200});
    assert_eq!(told, [&Value::Null, &json!({"metadata": {}, "code": 201}), &Value::Null, &deleted]);
}

#[tokio::test]
async fn whoever_leaves_before_there_is_an_answer_is_noted_too() {
    let (app, folder) = audited(|_| {}).await;
    let (sender, body) = stream_body();
    let request = Request::post(MAPS).header(ADMIN.0, ADMIN.1).header("content-type", "application/json");
    let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
    sender.send("{").await.unwrap();
    tokio::select! {
        biased;
        _ = app.serve(request.body(body).unwrap(), peer) => panic!("the body has not ended"),
        // It has run as far as it can.
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(noted(&app, &folder), ["RequestReceived", "ResponseComplete 500 context canceled"]);
}

#[tokio::test]
async fn a_panic_is_the_last_that_is_noted() {
    let (app, folder) = audited(|_| {}).await;
    let parts = Request::get("/api/v1/pods").body(()).unwrap().into_parts().0;
    let info = podlog_api::RequestInfo::parse(&parts.method, "/api/v1/pods", "");
    let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
    let auditor = app.auditor.as_ref().unwrap();
    let record = auditor.begin(&UserInfo::default(), &info, &parts, &peer, "id").unwrap();
    record.panicked("no such row");
    record.answered(http::Response::new(empty_body()), None).await;
    drop(record);
    let said = "Panic 500 InternalError APIServer panic'd: no such row";
    assert_eq!(noted(&app, &folder), ["RequestReceived", said]);
}

/// Never knows.
struct Unsure;

#[async_trait]
impl Authorizer for Unsure {
    async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Result<Decision, AuthzError> {
        Err(AuthzError("<the webhook is down>".into()))
    }
}

#[tokio::test]
async fn who_cannot_be_judged_is_told_in_plain_text() {
    let unsure = |app: &mut App| {
        let members = vec![Member::Webhook(Arc::new(Unsure))];
        app.authorizer = Arc::new(ClusterAuthorizer::new(app.registry.clone(), members));
    };
    let (app, folder) = audited(unsure).await;
    let answer = app.send("GET", "/api/v1/pods?a=b&c=d", &[("x-user", "bob")], "").await;
    let text = "Internal Server Error: \"/api/v1/pods?a=b&amp;c=d\": &lt;the webhook is down&gt;\n";
    assert_eq!((answer.code, answer.text().as_str()), (500, text));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(noted(&app, &folder), ["RequestReceived", "ResponseComplete 500 internal error"]);
}
