//! Files of volumes that follow what they come from, while nothing else happens.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::Bench;

/// Of a kubelet that looks at pods once an hour.
async fn patient() -> Bench {
    let mut bench = Bench::idle().await;
    bench.config.sync_frequency = Duration::from_secs(3600);
    bench.start().await;
    bench
}

fn pod(sources: &Value) -> Value {
    json!({"serviceAccountName": "default", "volumes": [{"name": "v", "projected": {"sources": sources}}],
        "containers": [{"name": "c", "image": "x", "command": ["run"]}]})
}

fn object(kind: &str, name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "data": data})
}

fn file(bench: &Bench, uid: &str, name: &str) -> PathBuf {
    bench.path("kubelet/pods").join(uid).join("volumes/kubernetes.io~projected/v").join(name)
}

async fn wait_content(bench: &Bench, path: &PathBuf, content: &str) {
    bench.wait(content, |_| (fs::read_to_string(path).ok()? == content).then_some(())).await;
}

#[tokio::test]
async fn objects_that_change() {
    let bench = patient().await;
    // "b25l" is "one", "dHdv" is "two".
    bench.api.put("configmaps", "default", "cfg", object("ConfigMap", "cfg", &json!({"key": "one"})));
    bench.api.put("configmaps", "default", "other", object("ConfigMap", "other", &json!({"key": "one"})));
    bench.api.put("secrets", "default", "sec", object("Secret", "sec", &json!({"word": "b25l"})));
    let sources = json!([
        {"configMap": {"name": "cfg"}}, {"secret": {"name": "sec"}},
        {"configMap": {"name": "later", "optional": true}},
    ]);
    let uid = bench.api.create_pod("web", pod(&sources));
    bench.wait_phase("web", "Running").await;
    let (key, word, later) =
        (file(&bench, &uid, "key"), file(&bench, &uid, "word"), file(&bench, &uid, "late"));
    wait_content(&bench, &key, "one").await;
    wait_content(&bench, &word, "one").await;
    bench.api.put("configmaps", "default", "cfg", object("ConfigMap", "cfg", &json!({"key": "two"})));
    wait_content(&bench, &key, "two").await;
    bench.api.put("secrets", "default", "sec", object("Secret", "sec", &json!({"word": "dHdv"})));
    wait_content(&bench, &word, "two").await;
    bench.api.put("configmaps", "default", "later", object("ConfigMap", "later", &json!({"late": "new"})));
    wait_content(&bench, &later, "new").await;
}

#[tokio::test]
async fn tokens_that_get_old() {
    const LIFE: i64 = 5;
    let mut bench = patient().await;
    bench.api.set_token_life(LIFE);
    let sources = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]);
    let uid = bench.api.create_pod("web", pod(&sources));
    let token = file(&bench, &uid, "token");
    wait_content(&bench, &token, "token-1").await;
    wait_content(&bench, &token, "token-2").await;
    let asked = bench.api.tokens();
    // Four fifths of its life, of which the server's time, in whole seconds, may be short by one.
    assert!(asked[1] - asked[0] > Duration::from_secs(3), "renewed after {:?}", asked[1] - asked[0]);
    // Another kubelet does not know how old it is.
    bench.stop().await;
    bench.start().await;
    wait_content(&bench, &token, "token-3").await;
    // What cannot be renewed stays, and is as soon as that can be done.
    bench.api.set_down(true);
    bench.wait("attempts", |bench| (bench.api.refused_tokens() >= 2).then_some(())).await;
    assert_eq!(fs::read_to_string(&token).unwrap(), "token-3");
    bench.api.set_down(false);
    wait_content(&bench, &token, "token-4").await;
}
