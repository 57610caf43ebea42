//! Watches, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use podlog_serving::Body;
use serde_json::{Value, json};

use super::{ADMIN, App, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The frames of a watch.
struct Frames {
    body: Body,
    read: Vec<u8>,
}

impl Frames {
    async fn open(app: &Arc<App>, target: &str, headers: &[(&str, &str)]) -> Frames {
        let answer = app.open("GET", target, &[&[ADMIN][..], headers].concat(), "").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        Frames { body: answer.into_body(), read: Vec::new() }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame())
                .await
                .expect("a frame in time");
            self.read.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    /// `TYPE name` of the next frame.
    async fn said(&mut self) -> String {
        let Some(frame) = self.next().await else { return "end".into() };
        format!(
            "{} {}",
            frame["type"].as_str().unwrap(),
            frame["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }
}

async fn map(app: &Arc<App>, name: &str, tier: &str) {
    let made = app.post(MAPS, json!({"metadata": {"name": name, "labels": {"tier": tier}}})).await;
    assert_eq!(made.code, 201, "{}", made.text());
}

async fn relabel(app: &Arc<App>, name: &str, tier: &str) {
    let patch = json!({"metadata": {"labels": {"tier": tier}}}).to_string();
    let headers = [ADMIN, ("content-type", "application/merge-patch+json")];
    assert_eq!(app.send("PATCH", &format!("{MAPS}/{name}"), &headers, patch).await.code, 200);
}

async fn delete(app: &Arc<App>, name: &str) {
    assert_eq!(app.send("DELETE", &format!("{MAPS}/{name}"), &[ADMIN], "").await.code, 200);
}

#[tokio::test]
async fn a_watch_starts_with_what_is_there_or_where_it_is_told() {
    let app = server().await;
    map(&app, "a", "x").await;
    let list = app.get(MAPS).await.json();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut all = Frames::open(&app, &format!("{MAPS}?watch=true"), &[]).await;
    let mut later = Frames::open(&app, &format!("{MAPS}?watch=1&resourceVersion={version}"), &[]).await;
    let mut named = Frames::open(
        &app,
        "/api/v1/configmaps?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Db",
        &[],
    )
    .await;
    assert_eq!(all.said().await, "ADDED a");
    map(&app, "b", "x").await;
    delete(&app, "a").await;
    for frames in [&mut all, &mut later] {
        assert_eq!(frames.said().await, "ADDED b");
        assert_eq!(frames.said().await, "DELETED a");
    }
    assert_eq!(named.said().await, "ADDED b");
    app.shutdown.cancel();
    assert_eq!(
        (all.said().await, named.said().await),
        ("end".into(), "end".into()),
        "shutdown ends watches in order"
    );
}

#[tokio::test]
async fn objects_come_and_go_for_a_selector() {
    let app = server().await;
    let mut front = Frames::open(&app, &format!("{MAPS}?watch=1&labelSelector=tier%3Dfront"), &[]).await;
    map(&app, "a", "back").await;
    relabel(&app, "a", "front").await;
    relabel(&app, "a", "back").await;
    map(&app, "b", "front").await;
    delete(&app, "b").await;
    for expected in ["ADDED a", "DELETED a", "ADDED b", "DELETED b"] {
        assert_eq!(front.said().await, expected);
    }
}

/// Maps of 3 KiB come, change, and every other one goes.
async fn turmoil(app: &Arc<App>, count: usize) {
    let padding = "x".repeat(3000);
    for number in 0..count {
        let name = format!("map-{number:03}");
        let made = json!({"metadata": {"name": name, "labels": {"tier": "x"}}, "data": {"padding": padding}});
        assert_eq!(app.post(MAPS, made).await.code, 201);
        relabel(app, &name, "y").await;
        if number % 2 == 0 {
            delete(app, &name).await;
        }
    }
}

#[tokio::test]
async fn who_reads_late_sees_everything_once_and_in_order() {
    let app = server().await;
    turmoil(&app, 24).await;
    let version = app.registry.store().revision();
    let later = format!("{MAPS}?watch=1&resourceVersion={version}");
    // What is told as it is stored, and what is made of objects.
    let (mut all, mut chosen) = (
        Frames::open(&app, &later, &[]).await,
        Frames::open(&app, &format!("{later}&labelSelector=tier"), &[]).await,
    );
    let mut initial = Frames::open(&app, &format!("{MAPS}?watch=1"), &[]).await;
    let mut selected = Frames::open(&app, &format!("{MAPS}?watch=1&labelSelector=tier"), &[]).await;
    for number in (1..24).step_by(2) {
        delete(&app, &format!("map-{number:03}")).await;
    }
    turmoil(&app, 40).await;
    for number in (1..24).step_by(2) {
        let (one, other) = (initial.next().await.unwrap(), selected.next().await.unwrap());
        assert_eq!(one, other);
        assert_eq!(
            (&one["type"], &one["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!(format!("map-{number:03}")))
        );
        let revision = one["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(revision <= version, "{one}");
    }
    let mut last = version;
    while last < app.registry.store().revision() {
        let first = all.next().await.unwrap();
        for others in [&mut chosen, &mut initial, &mut selected] {
            assert_eq!(others.next().await.unwrap(), first);
        }
        let revision =
            first["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        // Nothing else was written meanwhile: no revision is left out.
        assert_eq!(revision, last + 1, "{first}");
        last = revision;
    }
}

#[tokio::test]
async fn a_streaming_list_is_marked_and_ends_in_time() {
    let app = server().await;
    map(&app, "a", "x").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut frames = Frames::open(&app, &format!("{MAPS}?{query}"), &[]).await;
    assert_eq!(frames.said().await, "ADDED a");
    let bookmark = frames.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(frames.next().await.unwrap()["type"], "BOOKMARK", "one more before the end");
    assert_eq!(frames.said().await, "end");
}

#[tokio::test]
async fn tables_tell_their_columns_once() {
    let app = server().await;
    map(&app, "a", "x").await;
    map(&app, "b", "x").await;
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let mut frames = Frames::open(&app, &format!("{MAPS}?watch=1"), &[accept]).await;
    let (first, second) = (frames.next().await.unwrap(), frames.next().await.unwrap());
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(
        (&second["object"]["columnDefinitions"], &second["object"]["rows"][0]["cells"][0]),
        (&Value::Null, &json!("b"))
    );
}

#[tokio::test]
async fn too_old_and_too_new_versions() {
    let app = server().await;
    map(&app, "a", "x").await;
    app.registry.store().compact(app.registry.store().revision()).await.unwrap();
    let mut frames = Frames::open(&app, &format!("{MAPS}?watch=1&resourceVersion=1"), &[]).await;
    let error = frames.next().await.unwrap();
    assert_eq!((error["type"].as_str(), error["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(frames.said().await, "end");
    let future = app.get(&format!("{MAPS}?watch=1&resourceVersion=99999")).await;
    assert_eq!(future.code, 504, "{}", future.text());
}

#[tokio::test]
async fn the_old_form_of_a_watch_shows_no_more_than_it_names() {
    let app = server().await;
    map(&app, "a", "x").await;
    map(&app, "b", "x").await;
    let prefix = "/api/v1/watch/namespaces/default/configmaps";
    let mut one = Frames::open(&app, &format!("{prefix}/b"), &[]).await;
    let mut some = Frames::open(&app, &format!("{prefix}?labelSelector=tier%3Dy"), &[]).await;
    map(&app, "c", "y").await;
    relabel(&app, "b", "y").await;
    assert_eq!([one.said().await, one.said().await], ["ADDED b", "MODIFIED b"]);
    assert_eq!([some.said().await, some.said().await], ["ADDED c", "ADDED b"]);
}

#[tokio::test]
async fn odd_numbers_do_no_harm() {
    let app = server().await;
    map(&app, "a", "x").await;
    let target = format!("{MAPS}?watch=1&resourceVersion=00&timeoutSeconds={}", i64::MAX);
    let mut watch = Frames::open(&app, &target, &[]).await;
    assert_eq!(watch.said().await, "ADDED a");
}
