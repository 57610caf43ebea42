//! Many followers of one log, over TLS: fast ones, slow ones, and some that leave.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use podlog_driver::{CriFileSink, FileLimits};
use podlog_line::{Stream, Timestamp};
use podlog_serving::{NodeBody, NodeClient, Verify};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::Bench;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

async fn running() -> Bench {
    let bench = Bench::new().await;
    run_pod(&bench, "web", "c").await;
    bench
}

pub(crate) async fn run_pod(bench: &Bench, pod: &str, container: &str) {
    let containers = json!([{"name": container, "image": "x", "command": ["run"]}]);
    bench.api.create_pod(pod, json!({"restartPolicy": "Never", "containers": containers}));
    bench.wait_phase(pod, "Running").await;
}

pub(crate) async fn open(
    client: &NodeClient,
    port: u16,
    pod: &str,
    container: &str,
    query: &str,
) -> NodeBody {
    let path = format!("/containerLogs/default/{pod}/{container}?follow=true{query}");
    let response =
        timeout(PATIENCE, client.get("127.0.0.1", port, &path, Verify::Ca)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

async fn chunk(body: &mut NodeBody) -> Option<Bytes> {
    let frame = timeout(PATIENCE, body.frame()).await.unwrap()?;
    Some(frame.unwrap().into_data().unwrap())
}

/// Reads until so many bytes have come.
pub(crate) async fn read_to(body: &mut NodeBody, length: usize) -> String {
    let mut text = Vec::new();
    while text.len() < length {
        text.extend_from_slice(&chunk(body).await.expect("more"));
    }
    String::from_utf8(text).unwrap()
}

async fn readings(bench: &Bench) -> usize {
    let (_, metrics) = bench.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("podlog_kubelet_log_readings "));
    line.unwrap().parse().unwrap()
}

pub(crate) async fn wait_readings(bench: &Bench, count: usize) {
    timeout(PATIENCE, async {
        while readings(bench).await != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("readings to be so many");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_that_have_caught_up_share_one_reading() {
    let bench = running().await;
    let (client, port) = (bench.client(Some("admin")), bench.port());
    bench.runtime.log("c", &["one", "two"]);
    let mut bodies = Vec::new();
    for number in 0..40 {
        let (query, expected) = if number % 2 == 0 { ("", "one\ntwo\n") } else { ("&tailLines=1", "two\n") };
        let mut body = open(&client, port, "web", "c", query).await;
        assert_eq!(read_to(&mut body, expected.len()).await, expected);
        bodies.push(body);
    }
    wait_readings(&bench, 1).await;
    let mut stamped = open(&client, port, "web", "c", "&timestamps=true&tailLines=0").await;
    wait_readings(&bench, 2).await;
    for round in 0..3 {
        let line = format!("round {round}");
        bench.runtime.log("c", &[&line]);
        for body in &mut bodies {
            assert_eq!(read_to(body, line.len() + 1).await, format!("{line}\n"));
        }
        let text = String::from_utf8(chunk(&mut stamped).await.unwrap().to_vec()).unwrap();
        assert!(text.starts_with("20") && text.ends_with(&format!("Z {line}\n")), "{text}");
    }
    drop(stamped);
    bodies.truncate(20);
    wait_readings(&bench, 1).await;
    bench.runtime.log("c", &["last"]);
    bench.runtime.end("c", 0);
    for body in bodies {
        assert_eq!(timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes(), "last\n");
    }
    wait_readings(&bench, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_followers_that_left() {
    let bench = running().await;
    let (client, port) = (bench.client(Some("admin")), bench.port());
    bench.runtime.log("c", &["one"]);
    for _ in 0..3 {
        let mut bodies = Vec::new();
        for _ in 0..10 {
            let mut body = open(&client, port, "web", "c", "").await;
            read_to(&mut body, 4).await;
            bodies.push(body);
        }
        drop(bodies);
        wait_readings(&bench, 0).await;
    }
}

/// How a follower reads.
#[derive(Clone, Copy)]
enum Pace {
    Fast,
    /// Rests so long after each chunk.
    Slow(Duration),
    /// Leaves after so many bytes.
    Leaves(usize),
}

/// Reads at its pace; whether all that has come is right, and all has come of what it waited for.
async fn follow(mut body: NodeBody, pace: Pace) -> usize {
    let (mut next, mut length, mut rest) = (0_usize, 0, Vec::new());
    while let Some(data) = chunk(&mut body).await {
        length += data.len();
        rest.extend_from_slice(&data);
        let whole = memrchr_line(&rest);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            assert_eq!(line, numbered(next).as_bytes(), "line {next}");
            next += 1;
        }
        rest.drain(..whole);
        match pace {
            Pace::Fast => {}
            Pace::Slow(pause) => tokio::time::sleep(pause).await,
            Pace::Leaves(after) if length >= after => return next,
            Pace::Leaves(_) => {}
        }
    }
    assert!(rest.is_empty());
    next
}

fn memrchr_line(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn numbered(number: usize) -> String {
    format!("{number} {}\n", "x".repeat(number % 500))
}

/// Writes numbered lines in bursts, rotating often.
fn write(path: PathBuf, lines: usize) {
    let mut sink = CriFileSink::open(&path, FileLimits { max_bytes: 200_000, max_files: 10_000 }).unwrap();
    for first in (0..lines).step_by(250) {
        let burst: String = (first..lines.min(first + 250)).map(numbered).collect();
        sink.write(Stream::Stdout, burst.as_bytes(), Timestamp::from_seconds(1_767_225_600, 0)).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_and_slow_followers_get_every_line_once() {
    const LINES: usize = 20_000;
    let bench = running().await;
    let (client, port) = (bench.client(Some("admin")), bench.port());
    let path = bench.runtime.newest("c").unwrap().log_path;
    let writer = thread::spawn(move || write(path, LINES));
    let mut followers = JoinSet::new();
    for number in 0..24_u64 {
        let pace = match number % 4 {
            0 => Pace::Slow(Duration::from_millis(number)),
            1 => Pace::Leaves(number as usize * 20_000),
            _ => Pace::Fast,
        };
        let body = open(&client, port, "web", "c", "").await;
        followers.spawn(async move { (follow(body, pace).await, matches!(pace, Pace::Leaves(_))) });
        tokio::time::sleep(Duration::from_millis(number)).await;
    }
    tokio::task::spawn_blocking(|| writer.join()).await.unwrap().unwrap();
    bench.runtime.end("c", 0);
    while let Some(ended) = followers.join_next().await {
        let (lines, leaves) = ended.unwrap();
        assert!(leaves || lines == LINES, "{lines} lines");
    }
    wait_readings(&bench, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_end_at_once_are_followed_to_their_end() {
    let bench = Bench::new().await;
    let (client, port) = (bench.client(Some("admin")), bench.port());
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut followers = JoinSet::new();
    for number in 0..20 {
        let (pod, container) = (format!("p{number}"), format!("c{number}"));
        run_pod(&bench, &pod, &container).await;
        let body = open(&client, port, &pod, &container, "").await;
        followers.spawn(body.collect());
        bench.runtime.log(&container, &lines);
        bench.runtime.end(&container, 0);
    }
    while let Some(body) = timeout(PATIENCE, followers.join_next()).await.unwrap() {
        assert_eq!(body.unwrap().unwrap().to_bytes(), expected.as_bytes());
    }
}
