//! Following through a kubelet's HTTPS: how late lines are, and what followers hold. The kubelet runs in a process of its
//! own, with real captures.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use http_body_util::BodyExt;
use podlog_serving::{NodeBody, NodeClient, Verify};

use crate::{
    Options,
    latency::Arrivals,
    node::{KubeletProcess, LOG},
    report::{Row, Target, median, percentile},
    site::Site,
    usage,
};

const RATE: u64 = 10_000;
/// Follows over one connection.
const STREAMS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rows = runtime.block_on(latency(options))?;
    for (streams, count) in [(1, options.size(2_000, 20)), (STREAMS, options.size(10_000, 200))] {
        rows.extend(runtime.block_on(followers(options, streams, count))?);
    }
    Ok(rows)
}

/// From write(2) until a follower behind TLS has the line.
async fn latency(options: &Options) -> anyhow::Result<Vec<Row>> {
    let lines = RATE * options.size(2, 1) / options.size(1, 5);
    let bench = std::env::current_exe()?.display().to_string();
    let command = [&bench, "spam", &format!("--lines={lines}"), &format!("--rate={RATE}")].map(str::to_owned);
    let mut runs = Vec::new();
    for _ in 0..options.rounds() {
        let directory = options.directory()?;
        let site = Site::new(directory.path())?;
        let kubelet = KubeletProcess::start(&site, 1, &command)?;
        // Lines of before nobody waited for.
        let mut body = follow(&site.client()?, kubelet.address, "&tailLines=0").await?;
        let mut arrivals = Arrivals::default();
        while !arrivals.is_over {
            arrivals.take(&next(&mut body).await?)?;
        }
        runs.push(arrivals.microseconds);
    }
    let rows = [(0.5, None), (0.99, Some(Target::AtMost(10_000.0)))].map(|(share, target)| {
        let values: Vec<f64> = runs.iter().map(|run| percentile(run, share)).collect();
        let what = format!("write to follower through TLS, p{:.0}, {RATE} lines/s", share * 100.0);
        let mut row = Row::new("https", what, median(&values), "µs");
        row.target = target;
        row
    });
    Ok(rows.into())
}

/// Follows of a silent log, so many over each connection.
async fn followers(options: &Options, streams: usize, count: usize) -> anyhow::Result<Vec<Row>> {
    crate::followers::raise_open_files();
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let command = ["/bin/sh", "-c", "echo a line; sleep 3600"].map(str::to_owned);
    let kubelet = KubeletProcess::start(&site, 1, &command)?;
    let resident = || usage::memory(kubelet.pid()).map(|memory| memory.resident);
    // What is made once, and kept, is no follower's.
    drop(first_line(&site.client()?, kubelet.address).await?);
    let before = resident()?;
    let mut open = Vec::new();
    for _ in 0..count / streams {
        let client = site.client()?;
        let mut bodies = Vec::new();
        for _ in 0..streams {
            bodies.push(first_line(&client, kubelet.address).await?);
        }
        open.push((client, bodies));
    }
    let each = (resident()? - before) / count as f64;
    let instances = crate::followers::inotify_instances(kubelet.pid());
    let over = if streams == 1 { "a connection each".to_owned() } else { format!("{streams} a connection") };
    let what = format!("{count} followers through TLS, {over}");
    let memory = Row::new("https", format!("{what}: memory of each"), each, "KiB");
    // A connection has its keys and buffers.
    let memory = memory.target(Target::AtMost(if streams == 1 { 40.0 } else { 20.0 }));
    let instances = Row::new("https", format!("{what}: inotify instances"), instances as f64, "");
    Ok(vec![memory, instances.target(Target::AtMost(1.0))])
}

async fn first_line(client: &NodeClient, kubelet: SocketAddr) -> anyhow::Result<NodeBody> {
    let mut body = follow(client, kubelet, "").await?;
    next(&mut body).await?;
    Ok(body)
}

/// A follow of the log of the only pod, once that runs.
async fn follow(client: &NodeClient, kubelet: SocketAddr, options: &str) -> anyhow::Result<NodeBody> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = format!("{LOG}?follow=true{options}");
        let response = client.get("127.0.0.1", kubelet.port(), &path, Verify::Ca).await?;
        if response.status() == 200 {
            return Ok(response.into_body());
        }
        anyhow::ensure!(Instant::now() < deadline, "the pod does not run: {}", response.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn next(body: &mut NodeBody) -> anyhow::Result<bytes::Bytes> {
    let frame = body.frame().await.context("the log ended")?;
    let frame = frame.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(frame.into_data().unwrap_or_default())
}
