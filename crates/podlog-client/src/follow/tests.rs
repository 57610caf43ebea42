//! Followers against a server that answers as told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{PodSet, follow_pods};
use crate::Colour;
use crate::manifest;
use crate::output::tests::Captured;
use crate::testing::{Answer, FakeApi, Script};

fn manifests(text: &str) -> Vec<manifest::Manifest> {
    manifest::read(&["-".into()], &mut text.as_bytes()).unwrap()
}

fn pod(restarts: i64, state: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": restarts, "state": {state: {}}}]},
    })
}

fn event(kind: &str, object: Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

#[test]
fn sets_hold_what_manifests_make() {
    let set = PodSet::of_manifests(
        &manifests(
            "{apiVersion: v1, kind: Pod, metadata: {name: one}}\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: prod}, spec: {selector: {matchLabels: {app: web}}}}\n---\n{apiVersion: batch/v1, kind: Job, metadata: {name: j}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}",
        ),
        "default",
    );
    let pod = |namespace: &str, name: &str, labels: Value| {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}}))
            .unwrap()
    };
    let rows = [
        (pod("default", "one", json!({})), true),
        (pod("prod", "one", json!({})), false),
        (pod("prod", "x", json!({"app": "web", "more": "y"})), true),
        (pod("default", "x", json!({"app": "web"})), false),
        (pod("default", "x", json!({"batch.kubernetes.io/job-name": "j"})), true),
        (pod("default", "c", json!({})), false),
    ];
    for (pod, expected) in rows {
        assert_eq!(set.contains(&pod), expected, "{:?}", pod.metadata);
    }
    assert!(
        PodSet::of_manifests(&manifests("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}"), "default")
            .is_empty()
    );
}

const ALL_INSTANCES: &str =
    "GET /api/v1/namespaces/default/pods/web/log?allInstances=true&container=app&follow=true&frames=true";

/// A pod that is restarted once.
fn on_pods(api: &FakeApi) -> &Arc<Script> {
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod(0, "running")]});
    let watch = "GET /api/v1/namespaces/default/pods?&watch=true&timeoutSeconds=290&allowWatchBookmarks=true&resourceVersion=1";
    api.script
        .on_json("GET /api/v1/namespaces/default/pods?&limit=500", list)
        .on(watch, Answer::Hangs(event("MODIFIED", pod(1, "running"))))
}

/// What is printed up to `last`, and the notes.
async fn follow_until(api: &FakeApi, last: &str) -> (String, Vec<String>) {
    let (out, cancel) = (Captured::default(), CancellationToken::new());
    let set =
        PodSet::of_manifests(&manifests("{apiVersion: v1, kind: Pod, metadata: {name: web}}"), "default");
    let notes = Arc::new(Mutex::new(Vec::new()));
    let connection = api.connect().await;
    let (sink, note, stop) = (Box::new(out.clone()), notes.clone(), cancel.clone());
    let following = tokio::spawn(async move {
        let note = Arc::new(move |text: &str| note.lock().unwrap().push(text.to_owned()));
        follow_pods(&connection, &set, sink, Colour::Never, note, stop).await
    });
    let arrived = async {
        while !out.text().contains(last) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), arrived).await;
    assert!(waited.is_ok(), "{}\n{:#?}", out.text(), api.script.requests());
    cancel.cancel();
    following.await.unwrap().unwrap();
    let notes = notes.lock().unwrap().clone();
    (out.text(), notes)
}

#[tokio::test]
async fn restarts_and_broken_connections_lose_and_repeat_nothing() {
    let api = FakeApi::start().await;
    let after = |cursor: &str| ALL_INSTANCES.replace("&follow", &format!("&cursor={cursor}&follow"));
    let honours = "allInstances,cursor,frames";
    on_pods(&api)
        .on(ALL_INSTANCES, Answer::HonoursAndBreaks(honours, "4 c1\n1\n2\n3 c2\nthr9 c3\nto".into()))
        .on(&after("c2"), Answer::HonoursAndBreaks(honours, "3 c3\nee\n".into()))
        .on(&after("c3"), Answer::Honours(honours, "2 c4\n4\n1 c5\n?".into()))
        .on(&after("c5"), Answer::Honours(honours, "6 c6\n\nfive\n".into()))
        .on(&after("c6"), Answer::HonoursAndHangs(honours, String::new()));
    let (text, notes) = follow_until(&api, "five").await;
    let lines = ["1", "2", "three", "4", "?", "five"].map(|line| format!("[pod/web/app] {line}\n"));
    assert_eq!(text, lines.concat());
    assert_eq!(notes, ["web/app: unexpected EOF"]);
}

#[tokio::test]
async fn logs_of_kubernetes_own_are_taken_up_by_time() {
    let api = FakeApi::start().await;
    let time = |second: u32| format!("2024-01-01T00:00:0{second}.5Z");
    let log = |query: &str| format!("GET /api/v1/namespaces/default/pods/web/log?container=app&{query}");
    let first = format!("{} 1\n{} 2\n", time(1), time(2));
    on_pods(&api)
        .on(ALL_INSTANCES, Answer::Breaks("1\n2\n".into()))
        .on(&log("follow=true&timestamps=true"), Answer::Breaks(format!("{first}{} thr", time(3))))
        .on(
            &log("follow=true&sinceTime=2024-01-01T00%3A00%3A03Z&timestamps=true"),
            Answer::Text(200, format!("{} three\n{} 4\n", time(3), time(4))),
        )
        .on(
            &log("previous=true&sinceTime=2024-01-01T00%3A00%3A03Z&timestamps=true"),
            Answer::Text(200, format!("{} three\n{} 4\n", time(3), time(4))),
        )
        .on(
            &log("previous=true&sinceTime=2024-01-01T00%3A00%3A04Z&timestamps=true"),
            Answer::Text(200, format!("{} 4\n", time(4))),
        )
        .on(
            &log("follow=true&sinceTime=2024-01-01T00%3A00%3A04Z&timestamps=true"),
            Answer::Hangs(format!("{} 4\n{} five\n", time(4), time(5))),
        );
    let (text, notes) = follow_until(&api, "five").await;
    let lines = ["1", "2", "three", "4", "five"].map(|line| format!("[pod/web/app] {line}\n"));
    assert_eq!(text, lines.concat());
    assert_eq!(notes, ["web/app: unexpected EOF"]);
}
