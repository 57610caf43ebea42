//! The API server with many objects: reading one, reading all, starting, and what it holds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use podlog_api::json::{Layout, to_body};
use podlog_serving::{NodeClient, Verify};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

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
    let server = ServerProcess::start(&site)?;
    let client = site.client()?;
    let port = server.address.port();
    let what = |what: &str| format!("{count} pods stored: {what}");
    let mut rows = vec![Row::new("api", what("ready"), median(&ready), "ms").target(Target::AtMost(300.0))];

    let (rate, seconds) = options.size((5_000, 10), (200, 1));
    let times = gets(&client, port, count, rate, seconds).await?;
    let get = |share: &str| what(&format!("get pod at {rate}/s, {share}"));
    let p99 = percentile(&times, 0.99);
    rows.push(Row::new("api", get("p99"), p99, "ms").target(Target::AtMost(2.0)));
    rows.push(Row::new("api", get("p50"), median(&times), "ms"));

    let (mut ours, mut anew) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds() {
        let cpu = usage::process_time(server.pid())?;
        let list = read(&client, port, "/api/v1/pods").await?;
        ours.push((usage::process_time(server.pid())? - cpu).as_secs_f64() * 1e3);
        anew.push(encode_anew(&list, count)?.as_secs_f64() * 1e3);
    }
    let row = Row::new("api", what("list, CPU time of the server"), median(&ours), "ms");
    rows.push(row.beside("each decoded and encoded anew", &ours, &anew).target(Target::RatioAtMost(0.34)));
    let resident = usage::memory(server.pid())?.resident / 1024.0;
    rows.push(
        Row::new("api", what("resident after all that"), resident, "MiB").target(Target::AtMost(150.0)),
    );
    Ok(rows)
}

/// Makes pods as a cluster has them: with status, conditions and owners.
async fn fill(site: &Site, count: usize) -> anyhow::Result<()> {
    let server = site.server().await?;
    let registry = server.registry();
    create(registry, "serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await?;
    let made = stream::iter(0..count).map(|number| create(registry, "pods", "default", pod(number)));
    made.buffer_unordered(256).try_collect::<()>().await?;
    server.shutdown().await?;
    Ok(())
}

fn pod(number: usize) -> Value {
    let variables: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n} of {number}")}))
        .collect();
    json!({
        "metadata": {
            "name": format!("pod-{number:05}"),
            "labels": {"app": format!("app-{}", number % 100), "tier": "back", "pod-template-hash": "6d5f9c7b8d"},
            "annotations": {"example.com/about": "what people write down about their pods, and forget"},
        },
        "spec": {
            "nodeName": format!("node-{}", number % 50),
            "containers": [{
                "name": "main", "image": "registry.example.com/team/app:1.2.3", "args": ["--listen=:8080", "--verbose"],
                "env": variables, "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

async fn read(client: &NodeClient, port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let response = client.get("127.0.0.1", port, path, Verify::Ca).await?;
    anyhow::ensure!(response.status() == 200, "{path}: {}", response.status());
    let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(body.to_bytes().to_vec())
}

/// Asks at an even pace, whatever the answers take; milliseconds from when each was due.
async fn gets(
    client: &NodeClient,
    port: u16,
    count: usize,
    rate: u32,
    seconds: u32,
) -> anyhow::Result<Vec<f64>> {
    // Connections stand before the clock runs.
    read(client, port, "/api/v1/namespaces/default/pods/pod-00000").await?;
    let begun = Instant::now() + Duration::from_millis(20);
    // As many as fit on two connections; what waits for its turn is late all the same.
    let turns = Arc::new(Semaphore::new(200));
    let mut asked = JoinSet::new();
    for number in 0..rate * seconds {
        let due = begun + Duration::from_secs(1) * number / rate;
        let pause = due.saturating_duration_since(Instant::now());
        if pause > Duration::from_millis(1) {
            tokio::time::sleep(pause).await;
        }
        let path = format!("/api/v1/namespaces/default/pods/pod-{:05}", number as usize * 7919 % count);
        let client = client.clone();
        let turn = turns.clone().acquire_owned().await?;
        asked.spawn(async move {
            read(&client, port, &path).await?;
            drop(turn);
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut times = Vec::new();
    while let Some(time) = asked.join_next().await {
        times.push(time??);
    }
    Ok(times)
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
