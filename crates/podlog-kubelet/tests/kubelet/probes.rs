//! Probes of running containers.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::Bench;

fn probed(kind: &str, probe: Value) -> Value {
    let mut probe = probe;
    probe["periodSeconds"] = json!(1);
    probe["failureThreshold"] = json!(1);
    json!({"containers": [{"name": "c", "image": "x", "command": ["run"], kind: probe}], "terminationGracePeriodSeconds": 1})
}

fn exec(word: &str) -> Value {
    json!({"exec": {"command": [word]}})
}

fn ready(bench: &Bench) -> Option<bool> {
    bench.api.pod("web")?["status"]["containerStatuses"][0]["ready"].as_bool()
}

#[tokio::test]
async fn readiness_follows_the_probe() {
    let bench = Bench::new().await;
    bench.runtime.set_exec("check", 1);
    bench.api.create_pod("web", probed("readinessProbe", exec("check")));
    bench.wait_event("web", "Unhealthy: Readiness probe failed: said\n").await;
    assert_eq!(ready(&bench), Some(false));
    bench.runtime.set_exec("check", 0);
    bench.wait("ready", |bench| (ready(bench) == Some(true)).then_some(())).await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts() {
    let bench = Bench::new().await;
    bench.runtime.set_exec("check", 1);
    bench.api.create_pod("web", probed("livenessProbe", exec("check")));
    bench.wait_event("web", "Unhealthy: Liveness probe failed: said\n").await;
    bench.wait_event("web", "Killing: Container c failed liveness probe, will be restarted").await;
    bench
        .wait("a restart", |bench| bench.runtime.newest("c").filter(|status| status.container.attempt == 1))
        .await;
}

#[tokio::test]
async fn started_waits_for_the_startup_probe() {
    let bench = Bench::new().await;
    bench.runtime.set_exec("check", 1);
    let mut spec = probed("startupProbe", exec("check"));
    spec["containers"][0]["startupProbe"]["failureThreshold"] = json!(100);
    bench.api.create_pod("web", spec);
    bench.wait_event("web", "Unhealthy: Startup probe failed: said\n").await;
    assert_eq!(bench.api.pod("web").unwrap()["status"]["containerStatuses"][0]["started"], false);
    bench.runtime.set_exec("check", 0);
    bench.wait("ready", |bench| (ready(bench) == Some(true)).then_some(())).await;
}

#[tokio::test]
async fn tcp_and_http_reach_the_node() {
    let bench = Bench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let count = stream.read(&mut request).await.unwrap_or(0);
            let is_good = request[..count].starts_with(b"GET /good");
            let line = if is_good { "200 OK" } else { "500 Internal Server Error" };
            let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    for (name, probe, expected) in [
        ("tcp", json!({"tcpSocket": {"port": port}}), None),
        ("good", json!({"httpGet": {"port": port, "path": "/good"}}), None),
        (
            "bad",
            json!({"httpGet": {"port": port, "path": "/bad"}}),
            Some("Readiness probe failed: HTTP probe failed with statuscode: 500".to_owned()),
        ),
        (
            "closed",
            json!({"tcpSocket": {"port": 1}}),
            Some("Readiness probe failed: dial tcp 127.0.0.1:1: connect: connection refused".to_owned()),
        ),
        (
            "refused",
            json!({"httpGet": {"port": 1, "path": "x"}}),
            Some(
                "Readiness probe failed: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: \
                 connection refused"
                    .to_owned(),
            ),
        ),
    ] {
        bench.api.create_pod(name, probed("readinessProbe", probe));
        match expected {
            Some(text) => bench.wait_event(name, &format!("Unhealthy: {text}")).await,
            None => {
                bench
                    .wait(name, |bench| {
                        let ready = &bench.api.pod(name)?["status"]["containerStatuses"][0]["ready"];
                        (*ready == json!(true)).then_some(())
                    })
                    .await;
            }
        }
    }
}
