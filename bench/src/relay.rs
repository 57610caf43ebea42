//! The way of a log through the API server: how fast, and what it holds.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use podlog_serving::{
    Body, Dialer, Handler, Limits, NodeClient, Peer, Server, ServerTls, Verify, stream_body,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    report::{Row, Target, median},
    site::{LOG, ServerProcess, Site, create_pod},
    usage,
};

/// What is written at once, by kubelet and reference alike.
const CHUNK: usize = 32 << 10;

/// Which of the rows are measured; all of them unless told.
#[derive(clap::Args)]
pub(crate) struct Relay {
    /// Measure this alone.
    #[arg(long)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One log, as fast as it goes.
    Throughput,
    /// What follows hold at which nothing happens.
    Idle,
    /// What is left of follows that connect and go.
    Cycles,
}

impl Relay {
    pub(crate) fn measure(&self, options: &Options) -> anyhow::Result<Vec<Row>> {
        let runtime = tokio::runtime::Runtime::new()?;
        let wanted = |part| self.part.is_none_or(|only| only == part);
        let mut rows = Vec::new();
        if wanted(Part::Throughput) {
            rows.push(runtime.block_on(throughput(options))?);
        }
        if wanted(Part::Idle) {
            rows.push(runtime.block_on(idle(options))?);
        }
        if wanted(Part::Cycles) {
            rows.push(runtime.block_on(cycles(options))?);
        }
        Ok(rows)
    }
}

/// A kubelet whose logs are long, or silent when they are followed.
struct Kubelet {
    bytes: usize,
}

#[async_trait]
impl Handler for Kubelet {
    async fn handle(&self, request: Request<hyper::body::Incoming>, _: Peer) -> Response<Body> {
        let (sender, body) = stream_body();
        let follow = request.uri().query().is_some_and(|query| query.contains("follow=true"));
        let chunks = if follow { 1 } else { self.bytes / CHUNK };
        tokio::spawn(async move {
            let chunk = Bytes::from(vec![b'x'; if follow { 100 } else { CHUNK }]);
            for _ in 0..chunks {
                if sender.send(chunk.clone()).await.is_err() {
                    return;
                }
            }
            if follow {
                return sender.closed().await;
            }
            sender.finish().await;
        });
        Response::new(body)
    }
}

async fn kubelet(site: &Site, bytes: usize) -> anyhow::Result<SocketAddr> {
    let tls = ServerTls::load(site.pair("server"))?;
    let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await?;
    let address = server.local_addr();
    tokio::spawn(server.serve(Arc::new(Kubelet { bytes }), CancellationToken::new()));
    Ok(address)
}

/// One log, as fast as it goes, beside as many bytes through two TLS connections that a loop joins.
async fn throughput(options: &Options) -> anyhow::Result<Row> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let bytes: usize = options.size(2 << 30, 16 << 20);
    let server = site.server().await?;
    create_pod(server.registry(), kubelet(&site, bytes).await?).await?;
    let client = site.client()?;
    let bare = bare(&site, bytes).await?;
    let dialer = Dialer::tls(site.ca(), Some(site.pair("admin")))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds() {
        let begun = Instant::now();
        anyhow::ensure!(
            read_log(&client, server.local_addr()).await? == bytes,
            "a part of the log is missing"
        );
        ours.push(rate(bytes, begun.elapsed()));
        let begun = Instant::now();
        let mut connection = dialer.dial("127.0.0.1", bare.port()).await?;
        let mut buffer = vec![0; CHUNK];
        let mut read = 0;
        while read < bytes {
            read += connection.read(&mut buffer).await?;
        }
        theirs.push(rate(bytes, begun.elapsed()));
    }
    let row = Row::new("relay", "one log through the API server", median(&ours), "MB/s");
    Ok(row.beside("bare TLS copy", &ours, &theirs).target(Target::RatioAtLeast(0.5)))
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

async fn read_log(client: &NodeClient, server: SocketAddr) -> anyhow::Result<usize> {
    let response = client.get("127.0.0.1", server.port(), LOG, Verify::Ca).await?;
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| anyhow::anyhow!("{error}"))?;
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(read)
}

/// Two hops without HTTP: where the second ends.
async fn bare(site: &Site, bytes: usize) -> anyhow::Result<SocketAddr> {
    let tls = ServerTls::load(site.pair("server"))?;
    let far = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpListener::bind("127.0.0.1:0").await?;
    let (far_address, near_address) = (far.local_addr()?, near.local_addr()?);
    let source = tls.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = far.accept().await {
            let mut connection = source.accept(tcp).await?;
            let chunk = vec![b'x'; CHUNK];
            for _ in 0..bytes / CHUNK {
                connection.write_all(&chunk).await?;
            }
            connection.flush().await?;
            // Who has everything hangs up.
            let _ = connection.read(&mut [0]).await;
        }
        anyhow::Ok(())
    });
    let dialer = Dialer::tls(site.ca(), Some(site.pair("admin")))?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = near.accept().await {
            let mut client = tls.accept(tcp).await?;
            let mut node = dialer.dial("127.0.0.1", far_address.port()).await?;
            let mut buffer = vec![0; CHUNK];
            let mut left = bytes;
            while left > 0 {
                let read = node.read(&mut buffer).await?;
                client.write_all(&buffer[..read]).await?;
                left -= read;
            }
            client.flush().await?;
            let _ = client.read(&mut [0]).await;
        }
        anyhow::Ok(())
    });
    Ok(near_address)
}

/// A kubelet whose log is silent, and an API server in a process of its own.
async fn silent(site: &Site) -> anyhow::Result<ServerProcess> {
    let address = kubelet(site, 0).await?;
    let server = site.server().await?;
    create_pod(server.registry(), address).await?;
    server.shutdown().await?;
    crate::followers::raise_open_files();
    let server = ServerProcess::start(site)?;
    // What is made once, and kept, is no follower's.
    drop(follow(&site.client()?, server.address).await?);
    Ok(server)
}

/// Follows of a silent log, each over a connection of its own.
async fn idle(options: &Options) -> anyhow::Result<Row> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let server = silent(&site).await?;
    let count: usize = options.size(5_000, 50);
    let before = usage::memory(server.pid())?.resident;
    let mut open = Vec::new();
    for _ in 0..count {
        let client = site.client()?;
        let body = follow(&client, server.address).await?;
        open.push((client, body));
    }
    let each = (usage::memory(server.pid())?.resident - before) / count as f64;
    let what = format!("{count} idle follows, a connection each: memory of each");
    Ok(Row::new("relay", what, each, "KiB").target(Target::AtMost(30.0)))
}

/// Follows that connect and go.
async fn cycles(options: &Options) -> anyhow::Result<Row> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let server = silent(&site).await?;
    let cycles: usize = options.size(100_000, 500);
    let warm = cycles / 10;
    let mut at_first = 0.0;
    for cycle in 0..cycles {
        drop(follow(&site.client()?, server.address).await?);
        if cycle == warm {
            at_first = usage::memory(server.pid())?.resident;
        }
    }
    let growth = usage::memory(server.pid())?.resident - at_first;
    let what = format!("{cycles} follows connected and aborted: growth after the first {warm}");
    Ok(Row::new("relay", what, growth, "KiB").target(Target::AtMost(4096.0)))
}

/// A follow whose first bytes have come.
async fn follow(client: &NodeClient, server: SocketAddr) -> anyhow::Result<podlog_serving::NodeBody> {
    let path = format!("{LOG}?follow=true");
    let response = client.get("127.0.0.1", server.port(), &path, Verify::Ca).await?;
    anyhow::ensure!(response.status() == 200, "{}", response.status());
    let mut body = response.into_body();
    body.frame().await.context("the log ended")?.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(body)
}
