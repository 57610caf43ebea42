//! The API server with many objects: reading one, reading all, starting, and what it holds.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use podlog_api::{
    Object,
    json::{Layout, to_body},
};
use podlog_apiserver::{Registry, registry::Part};
use podlog_serving::{NodeClient, Verify};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    Options,
    report::{Row, Target, median, percentile},
    site::{ServerProcess, Site, create},
    usage,
};

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(all(options))
}

async fn all(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let count: usize = options.size(10_000, 200);
    fill(&site, count).await?;
    let mut ready = Vec::new();
    for _ in 0..options.rounds() {
        ready.push(ServerProcess::start(&site)?.ready_after.as_secs_f64() * 1e3);
    }
    let what = |what: &str| format!("{count} pods stored: {what}");
    let mut rows = vec![Row::new("api", what("ready"), median(&ready), "ms").target(Target::AtMost(300.0))];
    let server = ServerProcess::start(&site)?;
    let load = Load { site: Arc::new(site), port: server.address.port(), count };

    let (rate, seconds) = options.size((5_000, 10), (200, 1));
    let first = load.paced(rate, options.size(5, 1)).await?;
    settle(&server).await?;
    let (served, asked) = (usage::process_time(server.pid())?, usage::process_time(std::process::id())?);
    let times = load.paced(rate, seconds).await?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times.len() as f64;
    let served = each(usage::process_time(server.pid())? - served);
    let asked = each(usage::process_time(std::process::id())? - asked);
    let get = |share: &str| what(&format!("get pod at {rate}/s, {share}"));
    rows.push(Row::new("api", get("p99"), percentile(&times, 0.99), "ms").target(Target::AtMost(2.0)));
    rows.push(Row::new("api", get("p50"), median(&times), "ms"));
    rows.push(Row::new(
        "api",
        get("p99 from the moment the server is ready"),
        percentile(&first, 0.99),
        "ms",
    ));
    rows.push(Row::new("api", get("CPU time of the server a request"), served, "µs"));
    rows.push(Row::new("api", get("CPU time of who asks a request"), asked, "µs"));
    let most = load.as_fast_as_it_goes(options.size(5, 1)).await?;
    rows.push(Row::new("api", what("get pod, 64 at a time"), most, "a second"));

    let (mut ours, mut anew) = (Vec::new(), Vec::new());
    let client = load.site.client()?;
    for _ in 0..options.rounds() {
        let cpu = usage::process_time(server.pid())?;
        let list = read(&client, load.port, "/api/v1/pods").await?;
        ours.push((usage::process_time(server.pid())? - cpu).as_secs_f64() * 1e3);
        anew.push(encode_anew(&list, count)?.as_secs_f64() * 1e3);
    }
    let row = Row::new("api", what("list, CPU time of the server"), median(&ours), "ms");
    rows.push(row.beside("each decoded and encoded anew", &ours, &anew).target(Target::RatioAtMost(0.34)));
    let mib = |kib: f64| kib / 1024.0;
    let resident = mib(usage::memory(server.pid())?.resident);
    rows.push(
        Row::new("api", what("resident after all that"), resident, "MiB").target(Target::AtMost(150.0)),
    );
    let most = mib(usage::peak(server.pid())?);
    rows.push(Row::new("api", what("resident at most"), most, "MiB"));
    Ok(rows)
}

/// Until controllers have seen everything: the server is at rest.
pub(crate) async fn settle(server: &ServerProcess) -> anyhow::Result<()> {
    loop {
        let before = usage::process_time(server.pid())?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if usage::process_time(server.pid())? - before < Duration::from_millis(5) {
            return Ok(());
        }
    }
}

/// Nodes that pods are on.
const NODES: usize = 50;

/// Makes pods as a cluster has them, with status, conditions and owners, and their nodes.
pub(crate) async fn fill(site: &Site, count: usize) -> anyhow::Result<()> {
    let server = site.server().await?;
    let registry = server.registry();
    create(registry, "serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await?;
    for number in 0..NODES {
        create(registry, "nodes", "", node(number)).await?;
    }
    let made = stream::iter(0..count).map(|number| run_pod(registry, number));
    made.buffer_unordered(256).try_collect::<()>().await?;
    server.shutdown().await?;
    Ok(())
}

/// Nothing is heard of them any more; but for the first 40 seconds of a server that means nothing.
fn node(number: usize) -> Value {
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": STARTED, "lastTransitionTime": STARTED});
    json!({
        "metadata": {"name": format!("node-{number}"), "labels": {"kubernetes.io/os": "linux"}},
        "status": {"conditions": [ready], "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "250"}},
    })
}

/// Gives pods that were made a status that differs from the one of before.
pub(crate) async fn change(registry: &Registry, pods: Range<usize>) -> anyhow::Result<()> {
    let changed = stream::iter(pods).map(|number| {
        update_status(registry, number, |status| {
            let changes = status["observedGeneration"].as_u64().unwrap_or(0) + 1;
            status["observedGeneration"] = json!(changes);
        })
    });
    changed.buffer_unordered(64).try_collect().await
}

async fn run_pod(registry: &Registry, number: usize) -> anyhow::Result<()> {
    create(registry, "pods", "default", pod(number)).await?;
    update_status(registry, number, |made| *made = status(number)).await
}

async fn update_status(
    registry: &Registry,
    number: usize,
    change: impl Fn(&mut Value) + Send + Sync,
) -> anyhow::Result<()> {
    let pods = podlog_api::resource::find("", "v1", "pods").context("no pods")?;
    let update = |pod: &mut Object| {
        change(&mut pod.0["status"]);
        Ok(())
    };
    registry.update_with(pods, "default", &name(number), Part::Status, update).await?;
    Ok(())
}

fn name(number: usize) -> String {
    format!("pod-{number:05}")
}

const STARTED: &str = "2026-01-01T00:00:00Z";

fn pod(number: usize) -> Value {
    let variables: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n} of {number}")}))
        .collect();
    json!({
        "metadata": {
            "name": name(number),
            "labels": {"app": format!("app-{}", number % 100), "tier": "back", "pod-template-hash": "6d5f9c7b8d"},
            "annotations": {"example.com/about": "what people write down about their pods, and forget"},
            "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Fleet", "name": format!("fleet-{}", number % 100),
                "uid": format!("00000000-0000-4000-8000-{:012}", number % 100), "controller": true}],
        },
        "spec": {
            "nodeName": format!("node-{}", number % NODES),
            "containers": [{
                "name": "main", "image": "registry.example.com/team/app:1.2.3", "args": ["--listen=:8080", "--verbose"],
                "env": variables, "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

fn status(number: usize) -> Value {
    let conditions: Vec<Value> = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    .map(|name| json!({"type": name, "status": "True", "lastProbeTime": null, "lastTransitionTime": STARTED}))
    .to_vec();
    let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    json!({
        "phase": "Running", "conditions": conditions, "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}],
        "podIP": address, "podIPs": [{"ip": address}], "startTime": STARTED, "qosClass": "Burstable",
        "containerStatuses": [{
            "name": "main", "ready": true, "started": true, "restartCount": 0, "image": "registry.example.com/team/app:1.2.3",
            "imageID": "registry.example.com/team/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "containerID": format!("containerd://{number:064x}"), "state": {"running": {"startedAt": STARTED}}, "lastState": {},
        }],
    })
}

async fn read(client: &NodeClient, port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let response = client.get("127.0.0.1", port, path, Verify::Ca).await?;
    anyhow::ensure!(response.status() == 200, "{path}: {}", response.status());
    let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(body.to_bytes().to_vec())
}

/// Clients that get pods, one HTTP/2 connection each, all on a thread of their own.
struct Load {
    site: Arc<Site>,
    port: u16,
    count: usize,
}

/// As many get pods.
const CLIENTS: usize = 8;
/// What is asked for together: more often than this, nobody is woken.
const TICK: Duration = Duration::from_millis(1);

/// One question after the other.
#[derive(Clone)]
struct Asker {
    clients: Arc<Vec<NodeClient>>,
    port: u16,
    count: usize,
}

impl Asker {
    async fn ask(&self, number: usize) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/default/pods/{}", name(number * 7919 % self.count));
        let pod = read(&self.clients[number % CLIENTS], self.port, &path).await?;
        anyhow::ensure!(pod.ends_with(b"}\n"), "a part of {path} is missing");
        Ok(())
    }
}

impl Load {
    /// Asks at an even pace, whatever the answers take; milliseconds from when each was due.
    async fn paced(&self, rate: u32, seconds: u32) -> anyhow::Result<Vec<f64>> {
        self.run(async move |asker| {
            let mut asked = JoinSet::new();
            // What waits for its turn is late all the same.
            let turns = Arc::new(Semaphore::new(CLIENTS * 100));
            let mut due = pace(rate, seconds);
            let mut number = 0;
            while let Some((time, together)) = due.recv().await {
                for _ in 0..together {
                    let (asker, turn) = (asker.clone(), turns.clone().acquire_owned().await?);
                    number += 1;
                    asked.spawn(async move {
                        asker.ask(number).await?;
                        drop(turn);
                        anyhow::Ok(time.elapsed().as_secs_f64() * 1e3)
                    });
                }
            }
            let mut times = Vec::new();
            while let Some(time) = asked.join_next().await {
                times.push(time??);
            }
            Ok(times)
        })
        .await
    }

    /// Answers a second, to 64 that ask again as soon as they have an answer.
    async fn as_fast_as_it_goes(&self, seconds: u64) -> anyhow::Result<f64> {
        self.run(async move |asker| {
            let begun = Instant::now();
            let end = begun + Duration::from_secs(seconds);
            let ask = |first: usize| {
                let asker = asker.clone();
                async move {
                    let mut answers = 0;
                    while Instant::now() < end {
                        asker.ask(first + 64 * answers).await?;
                        answers += 1;
                    }
                    anyhow::Ok(answers)
                }
            };
            let answers = futures_util::future::try_join_all((0..64).map(ask)).await?;
            Ok(answers.iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64())
        })
        .await
    }

    /// Connects, then works.
    async fn run<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(Asker) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (site, port, count) = (self.site.clone(), self.port, self.count);
        let thread = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let clients = (0..CLIENTS).map(|_| site.client()).collect::<Result<_, _>>()?;
                let asker = Asker { clients: Arc::new(clients), port, count };
                for client in 0..CLIENTS {
                    asker.ask(client).await?;
                }
                work(asker).await
            })
        };
        tokio::task::spawn_blocking(thread).await?
    }
}

/// When how many are due, told in time by a thread: timers of the async runtime are late by up to a millisecond.
fn pace(rate: u32, seconds: u32) -> mpsc::UnboundedReceiver<(Instant, u32)> {
    let (sender, due) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let begun = Instant::now() + TICK;
        let ticks = 1000 * seconds;
        for tick in 0..ticks {
            let time = begun + TICK * tick;
            std::thread::sleep(time.saturating_duration_since(Instant::now()));
            let by_then = |tick: u32| u64::from(tick) * u64::from(rate) / 1000;
            let together = u32::try_from(by_then(tick + 1) - by_then(tick)).unwrap_or(u32::MAX);
            // An error means that nobody asks any more.
            let _ = sender.send((time, together));
        }
    });
    due
}

/// What a server does that keeps objects as text and makes text of them for each list.
fn encode_anew(list: &[u8], count: usize) -> anyhow::Result<Duration> {
    let list: Value = serde_json::from_slice(list)?;
    let items = list["items"].as_array().context("no items")?;
    anyhow::ensure!(items.len() == count, "{} pods", items.len());
    let stored: Vec<Vec<u8>> = items.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
    let begun = usage::thread_time();
    let items: Vec<Value> =
        stored.iter().map(|item| serde_json::from_slice(item)).collect::<Result<_, _>>()?;
    let body = to_body(&json!({"kind": "PodList", "apiVersion": "v1", "items": items}), Layout::Compact);
    anyhow::ensure!(body.len() > 2, "nothing was encoded");
    Ok(usage::thread_time() - begun)
}
