//! Logs of instances that the runtime has forgotten, and of pods that are gone.

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::bench::Bench;

const PATH: &str = "/containerLogs/default/web/c";
const LIST: &str = "/podlog/deletedPods?namespace=default&name=web";

fn spec() -> Value {
    json!({"containers": [{"name": "c", "image": "x", "command": ["run"]}]})
}

/// Runs the pod `web`, has it print a line, and deletes it; returns its uid.
async fn deleted_pod(bench: &Bench, line: &str) -> String {
    let uid = bench.api.create_pod("web", spec());
    bench.wait_phase("web", "Running").await;
    bench.runtime.log("c", &[line]);
    bench.api.delete_pod("web", 1);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
    bench.wait("everything to be removed", |bench| (bench.runtime.count() == (0, 0)).then_some(())).await;
    uid
}

/// Uids of the deleted pods whose logs are there, once there are so many of them with this one first.
async fn kept(bench: &Bench, newest: &str) -> Vec<Value> {
    loop {
        let (code, text) = bench.get(LIST).await;
        assert_eq!(code, 200, "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let items = list["items"].as_array().unwrap();
        if items.first().is_some_and(|item| item["metadata"]["uid"] == newest) {
            return items.clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn logs_of_deleted_pods_are_there_for_those_who_ask_for_them() {
    let mut bench = Bench::new().await;
    let first = deleted_pod(&bench, "first").await;
    kept(&bench, &first).await;
    let second = deleted_pod(&bench, "second").await;
    for round in ["the same kubelet", "the next one"] {
        let items = kept(&bench, &second).await;
        assert_eq!(items[1]["metadata"]["uid"], first, "{round}");
        assert_eq!(items[0]["spec"]["containers"][0]["name"], "c");
        assert_eq!(items[0]["logs"]["containers"][0]["instances"], json!([0]));
        for (query, code, text) in [
            (String::new(), 404, r#"pod "web" does not exist"#),
            ("?deleted=true".into(), 200, "second\n"),
            ("?deleted=true&follow=true&tailLines=1".into(), 200, "second\n"),
            ("?deleted=true&instance=0".into(), 200, "second\n"),
            (format!("?deleted=true&uid={first}"), 200, "first\n"),
            (format!("?deleted=true&uid={second}&match=s.c"), 200, "second\n"),
            ("?deleted=true&uid=none".into(), 404, r#"no logs of a deleted pod "web" are here"#),
            (
                "?deleted=true&previous=true".into(),
                400,
                r#"instance -1 of container "c" in pod "web" is not here; there are 0"#,
            ),
        ] {
            assert_eq!(
                bench.get(&format!("{PATH}{query}")).await,
                (code, text.to_owned()),
                "{query}, {round}"
            );
        }
        let response = bench.request(Some("admin"), &format!("{PATH}?deleted=true&uid={first}")).await;
        assert_eq!(response.headers()["podlog-log-options"], "deleted,uid");
        response.into_body().collect().await.unwrap();
        let (_, text) = bench.get("/containerLogs/default/web/d?deleted=true").await;
        assert_eq!(text, r#"no log of container "d" in pod "web" is here"#);
        let (_, text) = bench.get("/podlog/deletedPods?namespace=other").await;
        assert!(text.contains("\"items\":[]"), "{text}");
        bench.stop().await;
        bench.start().await;
    }
}

#[tokio::test]
async fn logs_of_deleted_pods_stay_within_their_budget() {
    let mut bench = Bench::idle().await;
    bench.config.deleted_pod_log_max_bytes = 100;
    bench.start().await;
    let (first, _) = (deleted_pod(&bench, "first").await, deleted_pod(&bench, "second").await);
    let third = deleted_pod(&bench, "third").await;
    let items = kept(&bench, &third).await;
    assert_eq!(items.len(), 2, "{items:?}");
    let (_, metrics) = bench.get("/metrics").await;
    let bytes: u64 = items.iter().map(|item| item["logs"]["bytes"].as_u64().unwrap()).sum();
    for line in [
        "podlog_kubelet_deleted_pod_logs 2".to_owned(),
        format!("podlog_kubelet_deleted_pod_log_bytes {bytes}"),
        "podlog_kubelet_deleted_pod_logs_removed_total{reason=\"size\"} 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert_eq!(bench.get(&format!("{PATH}?deleted=true&uid={first}")).await.0, 404);
    bench.stop().await;
    bench.config.deleted_pod_log_max_age = Duration::ZERO;
    bench.start().await;
    assert_eq!(fs::read_dir(bench.path("pods")).unwrap().count(), 0, "another budget counts at once");
}

#[tokio::test]
async fn a_pod_that_was_deleted_while_no_kubelet_ran_is_remembered() {
    let mut bench = Bench::new().await;
    let uid = bench.api.create_pod("web", spec());
    bench.wait_phase("web", "Running").await;
    bench.runtime.log("c", &["last words"]);
    bench.stop().await;
    bench.api.force_delete_pod("web");
    bench.start().await;
    let items = kept(&bench, &uid).await;
    assert_eq!(items[0]["spec"]["containers"], json!([{"name": "c"}]));
    assert_eq!(bench.get(&format!("{PATH}?deleted=true")).await, (200, "last words\n".to_owned()));
}

#[tokio::test]
async fn every_instance_that_is_on_the_disk_can_be_read() {
    let mut bench = Bench::idle().await;
    bench.config.max_container_restart_period = Duration::from_millis(1);
    bench.config.container_log_max_files = 4;
    bench.start().await;
    bench.api.create_pod("web", spec());
    bench.wait_phase("web", "Running").await;
    for attempt in 0..6 {
        bench
            .wait("the next instance", |bench| {
                let status = &bench.api.pod("web")?["status"]["containerStatuses"][0];
                (status["restartCount"] == attempt && status["state"]["running"].is_object()).then_some(())
            })
            .await;
        bench.runtime.log("c", &[&format!("instance {attempt}")]);
        if attempt < 5 {
            bench.runtime.end("c", 1);
        }
    }
    bench.wait("old instances to be forgotten", |bench| (bench.runtime.count().1 == 2).then_some(())).await;
    let folder = fs::read_dir(bench.path("pods")).unwrap().next().unwrap().unwrap().path().join("c");
    bench
        .wait("old logs to be removed", |_| (fs::read_dir(&folder).unwrap().count() == 4).then_some(()))
        .await;
    for (query, code, text) in [
        ("?instance=5", 200, "instance 5\n"),
        ("?instance=-1", 200, "instance 4\n"),
        ("?previous=true", 200, "instance 4\n"),
        ("?instance=-3&follow=true", 200, "instance 2\n"),
        ("?instance=2&tailLines=1", 200, "instance 2\n"),
        ("?instance=3&allInstances=true", 200, "instance 2\ninstance 3\n"),
        ("?instance=1", 400, r#"instance 1 of container "c" in pod "web" is not here; there are 2, 3, 4, 5"#),
        (
            "?instance=-5",
            400,
            r#"instance -5 of container "c" in pod "web" is not here; there are 2, 3, 4, 5"#,
        ),
        ("?instance=1&previous=true", 422, r#"{"message": "Invalid request."}"#),
    ] {
        assert_eq!(bench.get(&format!("{PATH}{query}")).await, (code, text.to_owned()), "{query}");
    }
}
