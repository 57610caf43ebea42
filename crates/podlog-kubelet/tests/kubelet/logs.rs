//! `/containerLogs/…` over TLS, with real files.

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt;
use podlog_api::{Compatibility, FrameReader, LogFrame};
use podlog_kubelet::runtime::ContainerRuntime;
use podlog_serving::NodeBody;
use serde_json::json;

use crate::bench::Bench;

const PATH: &str = "/containerLogs/default/web/c";

/// A bench with the pod `web`, whose container `c` runs.
async fn running() -> Bench {
    running_with(Compatibility::Exact).await
}

async fn running_with(compatibility: Compatibility) -> Bench {
    let bench = Bench::with(compatibility).await;
    let spec =
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "x", "command": ["run"]}]});
    bench.api.create_pod("web", spec);
    bench.wait_phase("web", "Running").await;
    bench
}

#[tokio::test]
async fn options_choose_the_part() {
    let bench = running().await;
    bench.runtime.log("c", &["one", "two", "three"]);
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=1", "three\n"),
        ("?tailLines=0", ""),
        ("?tail=2", "two\nthree\n"),
        ("?limitBytes=5", "one\nt"),
        ("?sinceSeconds=3600&tailLines=1", "three\n"),
        ("?sinceTime=2999-01-01T00:00:00Z", ""),
        ("?stream=Stderr", ""),
        ("?stream=Stdout&tailLines=1", "three\n"),
    ] {
        assert_eq!(bench.get(&format!("{PATH}{query}")).await, (200, expected.to_owned()), "{query}");
    }
    let (_, stamped) = bench.get(&format!("{PATH}?timestamps=true&tailLines=1")).await;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z three\n"), "{stamped}");
}

#[tokio::test]
async fn options_beyond_kubernetes_are_honoured_and_named() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let records: String = ["a 1", "b 2", "a.b 3", "c 4"]
        .iter()
        .enumerate()
        .map(|(second, text)| format!("2026-01-01T00:00:0{second}.5Z stdout F {text}\n"))
        .collect();
    fs::write(path, records).unwrap();
    for (query, expected, honoured) in [
        ("?match=a&match=c", "a 1\na.b 3\nc 4\n", "match"),
        ("?match=a.b&fixedStrings=true", "a.b 3\n", "fixedStrings,match"),
        ("?match=a&exclude=3", "a 1\n", "exclude,match"),
        ("?untilTime=2026-01-01T00:00:01.5Z", "a 1\nb 2\n", "untilTime"),
        ("?untilSeconds=3600&tailLines=1", "c 4\n", "untilSeconds"),
        ("?match=a&tailLines=2&exclude=3", "a 1\n", "exclude,match"),
        ("?allInstances=true&tailLines=1", "c 4\n", "allInstances"),
        ("?frames=true&tailLines=0", "", "frames"),
    ] {
        let response = bench.request(Some("admin"), &format!("{PATH}{query}")).await;
        assert_eq!(response.headers()["podlog-log-options"], honoured, "{query}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, expected.as_bytes(), "{query}");
    }
    let (_, with_cursors) = bench.get(&format!("{PATH}?cursors=true&limitBytes=1000")).await;
    let (cursor, text) = with_cursors.lines().nth(1).unwrap().split_once(' ').unwrap();
    assert_eq!(text, "b 2");
    assert_eq!(bench.get(&format!("{PATH}?cursor={cursor}")).await, (200, "a.b 3\nc 4\n".to_owned()));
    assert_eq!(bench.get(&format!("{PATH}?cursor=none")).await, (400, "invalid cursor".to_owned()));
    let response = bench.request(Some("admin"), &format!("{PATH}?tailLines=1")).await;
    assert!(!response.headers().contains_key("podlog-log-options"));
}

/// Reads frames until their content is so long, and at least to the end of one.
async fn frames(body: &mut NodeBody, length: usize) -> Vec<LogFrame> {
    frames_until(body, |frames| frames.iter().map(|frame| frame.content.len()).sum::<usize>() >= length).await
}

async fn frames_until(body: &mut NodeBody, is_enough: impl Fn(&[LogFrame]) -> bool) -> Vec<LogFrame> {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::<LogFrame>::new());
    while !is_enough(&frames) || !reader.is_between_frames() {
        let piece = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap();
        let Some(piece) = piece.map(|piece| piece.unwrap().into_data().unwrap()) else { break };
        let mut rest = &piece[..];
        while let Some(frame) = reader.next(&mut rest).unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn content(frames: &[LogFrame]) -> String {
    frames.iter().map(|frame| String::from_utf8_lossy(&frame.content).into_owned()).collect()
}

#[tokio::test]
async fn a_log_in_frames_goes_on_behind_each_of_them() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let record =
        |stream: &str, tag: &str, text: &str| format!("2026-01-01T00:00:01Z {stream} {tag} {text}\n");
    let parts: String = (0..300).map(|_| record("stdout", "P", &"x".repeat(16 << 10))).collect();
    let append = |text: &str| {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let query = format!("{PATH}?frames=true&timestamps=true&follow=true");
    append(&record("stderr", "F", "first"));
    let mut body = bench.request(Some("admin"), &query).await.into_body();
    let stamp = "2026-01-01T00:00:01.000000000Z ";
    let long = "x".repeat(300 * (16 << 10));
    let mut all = Vec::new();
    for (text, expected) in [
        (String::new(), format!("{stamp}first\n")),
        // A prompt is seen at once, and so is what is there of a long line.
        (record("stdout", "P", "prompt? "), format!("{stamp}prompt? ")),
        (record("stdout", "F", "answer"), "answer\n".into()),
        (parts, format!("{stamp}{long}")),
        (record("stdout", "F", "end") + &record("stderr", "F", "last"), format!("end\n{stamp}last\n")),
    ] {
        append(&text);
        let frames = frames(&mut body, expected.len()).await;
        assert!(content(&frames) == expected, "{:.100} instead of {expected:.100}", content(&frames));
        all.extend(frames);
    }
    assert!(all.iter().all(|frame| frame.content.len() <= 2 << 20));
    for (index, frame) in all.iter().enumerate() {
        let cursor = frame.cursor.as_ref().expect("a place");
        let expected = content(&all[index + 1..]);
        let query = format!("{PATH}?timestamps=true&cursor={cursor}");
        let (_, plain) = bench.get(&query).await;
        assert!(plain == expected, "behind {index}: {:.100} instead of {expected:.100}", plain);
        let mut body = bench.request(Some("admin"), &format!("{query}&frames=true")).await.into_body();
        let rest = content(&frames(&mut body, usize::MAX).await);
        assert!(rest == expected, "behind {index} in frames: {rest:.100} instead of {expected:.100}");
    }
    bench.runtime.end("c", 0);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn what_was_searched_in_vain_is_not_searched_again() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let record = |text: &str| format!("2026-01-01T00:00:01Z stdout F {text}\n");
    fs::write(&path, record("wanted 1")).unwrap();
    let query = format!("{PATH}?match=wanted&frames=true&follow=true");
    let mut body = bench.request(Some("admin"), &query).await.into_body();
    assert_eq!(content(&frames(&mut body, 1).await), "wanted 1\n");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    for _ in 0..50 {
        std::io::Write::write_all(&mut file, record("noise").repeat(500).as_bytes()).unwrap();
    }
    let silent = frames_until(&mut body, |frames| !frames.is_empty()).await;
    assert_eq!(content(&silent), "");
    let cursor = silent[0].cursor.as_ref().expect("a place");
    std::io::Write::write_all(&mut file, record("wanted 2").as_bytes()).unwrap();
    let (_, rest) = bench.get(&format!("{PATH}?cursor={cursor}")).await;
    assert!(rest.lines().count() <= 15_001 && rest.ends_with("noise\nwanted 2\n") || rest == "wanted 2\n");
    assert_eq!(content(&frames(&mut body, 1).await), "wanted 2\n");
}

#[tokio::test]
async fn whether_the_place_of_a_cursor_is_still_there_is_told() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let record = |text: &str| format!("2026-01-01T00:00:00.5Z stdout F {text}\n");
    fs::write(&path, record("one") + &record("two")).unwrap();
    let (_, with_cursors) = bench.get(&format!("{PATH}?cursors=true")).await;
    let (cursor, _) = with_cursors.split_once(' ').unwrap();
    let query = format!("{PATH}?cursor={cursor}");
    let response = bench.request(Some("admin"), &query).await;
    assert_eq!(response.headers()["podlog-log-resumed"], "exact");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "two\n");
    fs::write(&path, record("three")).unwrap();
    let response = bench.request(Some("admin"), &query).await;
    assert_eq!(response.headers()["podlog-log-resumed"], "gone");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.contains("podlog.gap") && text.ends_with("three\n"), "{text}");
    let response = bench.request(Some("admin"), PATH).await;
    assert!(!response.headers().contains_key("podlog-log-resumed"));
}

#[tokio::test]
async fn all_instances_of_a_container_are_one_log() {
    let bench = Bench::new().await;
    let container = json!({"name": "c", "image": "x", "command": ["run"]});
    bench.api.create_pod("web", json!({"restartPolicy": "Always", "containers": [container]}));
    bench.wait_phase("web", "Running").await;
    bench.runtime.log("c", &["one", "two"]);
    let (_, with_cursors) = bench.get(&format!("{PATH}?cursors=true")).await;
    let (cursor, _) = with_cursors.split_once(' ').unwrap();
    let first = bench.runtime.newest("c").unwrap().container.id;
    bench.runtime.end("c", 1);
    bench
        .wait("the second instance", |bench| {
            let restarts = &bench.api.pod("web")?["status"]["containerStatuses"][0];
            (restarts["restartCount"] == 1 && restarts["state"]["running"].is_object()).then_some(())
        })
        .await;
    assert_ne!(bench.runtime.newest("c").unwrap().container.id, first);
    bench.runtime.log("c", &["three"]);
    for (query, expected) in [
        (String::new(), "three\n"),
        ("?allInstances=true".into(), "one\ntwo\nthree\n"),
        ("?allInstances=true&tailLines=2".into(), "two\nthree\n"),
        (format!("?allInstances=true&cursor={cursor}"), "two\nthree\n"),
    ] {
        assert_eq!(bench.get(&format!("{PATH}{query}")).await, (200, expected.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_before_the_first_byte() {
    let bench = running().await;
    for (path, code, text) in [
        ("/containerLogs/default/none/c", 404, r#"pod "none" does not exist"#),
        ("/containerLogs/other/web/c", 404, r#"pod "web" does not exist"#),
        ("/containerLogs/default/web/none", 404, r#"container "none" not found in pod "web""#),
        ("/containerLogs/default/web/", 400, r#"{"message": "Missing container name."}"#),
        ("/containerLogs/default/web", 400, r#"{"message": "Missing container name."}"#),
        ("/containerLogs/default", 400, r#"{"message": "Missing podID."}"#),
        ("/containerLogs/default/web/c?tailLines=x", 400, r#"{"message": "Unable to decode query."}"#),
        ("/containerLogs/default/web/c?tailLines=-1", 422, r#"{"message": "Invalid request."}"#),
        ("/containerLogs/default/web/c?stream=Both", 422, r#"{"message": "Invalid request."}"#),
        ("/containerLogs/default/web/c?untilSeconds=x", 400, r#"{"message": "Unable to decode query."}"#),
        ("/containerLogs/default/web/c?untilSeconds=-1", 422, r#"{"message": "Invalid request."}"#),
        (
            "/containerLogs/default/web/c?match=%28",
            400,
            "invalid pattern: regex parse error:\n    (\n    ^\nerror: unclosed group",
        ),
        (
            "/containerLogs/default/web/c?previous=true",
            400,
            r#"previous terminated container "c" in pod "web" not found"#,
        ),
    ] {
        assert_eq!(bench.get(path).await, (code, text.to_owned()), "{path}");
    }
    let path = bench.runtime.newest("c").unwrap().log_path;
    fs::remove_file(&path).unwrap();
    let text = format!(
        "failed to try resolving symlinks in path \"{0}\": lstat {0}: no such file or directory",
        path.display()
    );
    assert_eq!(bench.get(PATH).await, (400, text));
}

#[tokio::test]
async fn following_ends_with_the_container_and_its_last_byte() {
    let bench = running().await;
    bench.runtime.log("c", &["before"]);
    let mut body = bench.request(Some("admin"), &format!("{PATH}?follow=true")).await.into_body();
    let mut text = String::new();
    for (write, expected) in [(None, "before\n"), (Some("during"), "before\nduring\n")] {
        if let Some(line) = write {
            bench.runtime.log("c", &[line]);
        }
        while text.len() < expected.len() {
            let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap();
            text.push_str(std::str::from_utf8(frame.unwrap().unwrap().data_ref().unwrap()).unwrap());
        }
        assert_eq!(text, expected);
    }
    bench.runtime.log("c", &["last"]);
    bench.runtime.end("c", 0);
    let rest = tokio::time::timeout(Duration::from_secs(20), body.collect()).await.unwrap().unwrap();
    assert_eq!(rest.to_bytes(), "last\n");
}

#[tokio::test]
async fn a_large_log_arrives_whole() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let line = "x".repeat(100);
    let file: String =
        (0..100_000).map(|n| format!("2026-01-01T00:00:00.000000000Z stdout F {n} {line}\n")).collect();
    fs::write(path, file).unwrap();
    let (code, body) = bench.get(PATH).await;
    assert_eq!(code, 200);
    assert_eq!(body.lines().count(), 100_000);
    assert!(body.lines().enumerate().all(|(n, text)| text == format!("{n} {line}")));
}

/// A follower of a log that has one line, after that line has come.
async fn follower(bench: &Bench) -> NodeBody {
    bench.runtime.log("c", &["before"]);
    let mut body = bench.request(Some("admin"), &format!("{PATH}?follow=true")).await.into_body();
    body.frame().await.unwrap().unwrap();
    body
}

/// The rest of a body, and whether it ended as a complete one does.
async fn rest(mut body: NodeBody) -> (String, bool) {
    let mut text = String::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap() {
            None => return (text, true),
            Some(Err(_)) => return (text, false),
            Some(Ok(frame)) => text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
        }
    }
}

#[tokio::test]
async fn a_container_that_was_removed_ends_its_followers_at_its_last_byte() {
    let bench = running().await;
    let body = follower(&bench).await;
    bench.runtime.log("c", &["last"]);
    let id = bench.runtime.newest("c").unwrap().container.id;
    bench.runtime.remove_container(&id).await.unwrap();
    assert_eq!(rest(body).await, ("last\n".to_owned(), true));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_further_aborts_its_followers() {
    for (compatibility, expected) in [
        (Compatibility::Exact, (String::new(), false)),
        (Compatibility::Upstream, ("disk on fire".to_owned(), true)),
    ] {
        let bench = running_with(compatibility).await;
        let body = follower(&bench).await;
        bench.runtime.fail_statuses("disk on fire");
        assert_eq!(rest(body).await, expected, "{compatibility:?}");
    }
}

#[tokio::test]
async fn damage_is_counted() {
    let bench = running().await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    fs::write(&path, "no record\n2026-01-01T00:00:00.000000000Z stdout F one\nneither\n").unwrap();
    for count in [2, 4] {
        assert_eq!(bench.get(PATH).await, (200, "one\n".to_owned()));
        let (_, metrics) = bench.get("/metrics").await;
        let line = format!("podlog_kubelet_log_damage_total{{reason=\"malformed\"}} {count}");
        assert!(metrics.lines().any(|metric| metric == line), "{metrics}");
    }
}

#[tokio::test]
async fn upstreams_ways_can_be_had() {
    let bench = running_with(Compatibility::Upstream).await;
    let path = bench.runtime.newest("c").unwrap().log_path;
    let record = |stream: &str, tag: &str, text: &str| {
        format!("2026-01-01T00:00:00.000000000Z {stream} {tag} {text}\n")
    };
    let records = [record("stdout", "P", "a"), record("stderr", "F", "e"), record("stdout", "F", "b")];
    fs::write(&path, records.concat()).unwrap();
    for (query, code, expected) in [
        ("", 200, "ae\nb\n"),
        ("?tailLines=2", 200, "e\nb\n"),
        ("?stream=Stdout", 422, r#"{"message": "Invalid request."}"#),
    ] {
        assert_eq!(bench.get(&format!("{PATH}{query}")).await, (code, expected.to_owned()), "{query}");
    }
    fs::remove_file(&path).unwrap();
    let (code, text) = bench.get(PATH).await;
    assert_eq!(code, 200);
    assert!(text.starts_with("failed to try resolving symlinks in path"), "{text}");
}

#[tokio::test]
async fn the_log_of_a_pod_that_ended_can_be_read() {
    let bench = running().await;
    bench.runtime.log("c", &["done"]);
    bench.runtime.end("c", 0);
    bench.wait_phase("web", "Succeeded").await;
    assert_eq!(bench.get(&format!("{PATH}?follow=true")).await, (200, "done\n".to_owned()));
}
