//! A kubelet by itself: how fast it hands out logs, and what it holds when there is nothing to do.

mod runtime;

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use podlog_driver::{CriFileSink, FileLimits};
use podlog_kubelet::Kubelet;
use podlog_line::{Stream, Timestamp};
use podlog_serving::{Body, Handler, Limits, NodeClient, Peer, Server, ServerTls, Verify, stream_body};
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    followers::raise_open_files,
    node::{self, KubeletProcess, LOG},
    report::{Row, Target, median},
    site::Site,
    usage,
};
use runtime::OneContainer;

/// Bytes that the reference hands out at once.
const CHUNK: usize = 256 << 10;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    raise_open_files();
    let mut rows = vec![throughput(options)?, first_byte(options)?];
    rows.extend(followers(options)?);
    rows.extend(idle(options)?);
    Ok(rows)
}

/// Servers on threads of their own: what this thread does is the client's, and is not counted.
struct Servers {
    _runtime: tokio::runtime::Runtime,
    client: tokio::runtime::Runtime,
}

impl Servers {
    fn new() -> anyhow::Result<Servers> {
        let _runtime = tokio::runtime::Runtime::new()?;
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Servers { _runtime, client })
    }

    /// CPU time of everything but this thread.
    fn cpu() -> anyhow::Result<Duration> {
        Ok(usage::process_time(std::process::id())?.saturating_sub(usage::thread_time()))
    }

    /// Bytes that came, and seconds of the servers' CPU.
    fn get(&self, client: &NodeClient, port: u16, path: &str) -> anyhow::Result<(u64, f64)> {
        let before = Servers::cpu()?;
        let bytes = self.client.block_on(async {
            let mut body = client.get("127.0.0.1", port, path, Verify::Ca).await?.into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(anyhow::Error::from_boxed)?;
                bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            anyhow::Ok(bytes)
        })?;
        Ok((bytes, Servers::cpu()?.saturating_sub(before).as_secs_f64()))
    }

    /// A kubelet whose one pod's log is `log`.
    fn kubelet(&self, site: &Site, log: &Path) -> anyhow::Result<Kubelet> {
        let runtime = Arc::new(OneContainer::new(log.to_owned()));
        let kubelet = self._runtime.block_on(node::start(site, 1, &[], runtime))?;
        let client = site.client()?;
        let port = kubelet.local_addr().port();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let path = format!("{LOG}?tailLines=1");
            let answer = self.client.block_on(client.get("127.0.0.1", port, &path, Verify::Ca));
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(kubelet);
            }
            anyhow::ensure!(Instant::now() < deadline, "the kubelet does not hand out its log");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Lines of 100 bytes, as many as fit.
fn write_log(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::options().append(true).create(true).open(path)?);
    let line = format!("2026-01-01T00:00:00.000000000Z stdout F {}\n", "x".repeat(99));
    for _ in 0..bytes / line.len() as u64 {
        file.write_all(line.as_bytes())?;
    }
    Ok(file.flush()?)
}

/// A server of the same TLS and HTTP that hands out a file as it is.
struct FileServer(PathBuf);

#[async_trait]
impl Handler for FileServer {
    async fn handle(&self, _: Request<hyper::body::Incoming>, _: Peer) -> Response<Body> {
        let (sender, body) = stream_body();
        let path = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let Ok(mut file) = std::fs::File::open(path) else { return };
            loop {
                let mut chunk = vec![0; CHUNK];
                match std::io::Read::read(&mut file, &mut chunk) {
                    Ok(0) => return sender.blocking_finish(),
                    Ok(read) => {
                        chunk.truncate(read);
                        if sender.blocking_send(chunk).is_err() {
                            return;
                        }
                    }
                    Err(error) => return sender.blocking_fail(error),
                }
            }
        });
        Response::new(body)
    }
}

/// A log from page cache, beside a file, for each second of the servers' CPU.
fn throughput(options: &Options) -> anyhow::Result<Row> {
    let (directory, servers) = (options.directory()?, Servers::new()?);
    let site = Site::new(directory.path())?;
    let log = directory.path().join("0.log");
    write_log(&log, options.size(1 << 30, 4 << 20))?;
    let kubelet = servers.kubelet(&site, &log)?;
    let tls = ServerTls::load(site.pair("server"))?;
    let reference =
        servers._runtime.block_on(Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()))?;
    let (reference_port, end) = (reference.local_addr().port(), CancellationToken::new());
    servers._runtime.spawn(reference.serve(Arc::new(FileServer(log)), end.clone()));
    let client = site.client()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds() {
        for (port, values) in [(kubelet.local_addr().port(), &mut ours), (reference_port, &mut theirs)] {
            let (bytes, seconds) = servers.get(&client, port, LOG)?;
            values.push(bytes as f64 / 1e6 / seconds.max(1e-9));
        }
    }
    end.cancel();
    Ok(Row::new("kubelet", "GET /containerLogs over TLS, lines of 100 bytes", median(&ours), "MB/CPU-s")
        .beside("a file over the same TLS", &ours, &theirs)
        .target(Target::RatioAtLeast(0.6)))
}

/// The last lines of a long log. All of it but the end is a hole: the tail is looked for from the end.
fn first_byte(options: &Options) -> anyhow::Result<Row> {
    let (directory, servers) = (options.directory()?, Servers::new()?);
    let site = Site::new(directory.path())?;
    let log = directory.path().join("0.log");
    std::fs::File::create(&log)?.set_len(options.size(10 << 30, 10 << 20))?;
    std::fs::File::options().append(true).open(&log)?.write_all(b"\n")?;
    write_log(&log, 1 << 20)?;
    let kubelet = servers.kubelet(&site, &log)?;
    let (client, port) = (site.client()?, kubelet.local_addr().port());
    let path = format!("{LOG}?tailLines=10");
    let mut millis = Vec::new();
    for _ in 0..options.size(100, 3) {
        let begun = Instant::now();
        let first = servers.client.block_on(async {
            let mut body = client.get("127.0.0.1", port, &path, Verify::Ca).await?.into_body();
            anyhow::Ok(body.frame().await.is_some())
        })?;
        anyhow::ensure!(first, "an empty log");
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Row::new("kubelet", "first byte of tailLines=10, 10 GiB", median(&millis), "ms")
        .target(Target::AtMost(5.0)))
}

/// Followers of one container that prints ten lines a second.
fn followers(options: &Options) -> anyhow::Result<Vec<Row>> {
    let (directory, servers) = (options.directory()?, Servers::new()?);
    let site = Site::new(directory.path())?;
    let log = directory.path().join("0.log");
    let mut sink = CriFileSink::open(&log, FileLimits::default())?;
    let at = Timestamp::from_seconds(1_767_225_600, 0);
    sink.write(Stream::Stdout, b"the first line\n", at)?;
    let kubelet = servers.kubelet(&site, &log)?;
    let (client, port) = (site.client()?, kubelet.local_addr().port());
    let (count, lines) = (options.size(5000, 50), options.size(100, 5));
    let path = format!("{LOG}?follow=true");
    let (told, mut heard) = tokio::sync::mpsc::channel(count);
    servers.client.block_on(async {
        for _ in 0..count {
            let mut body = client.get("127.0.0.1", port, &path, Verify::Ca).await?.into_body();
            let told = told.clone();
            tokio::spawn(async move {
                let mut bytes = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    if told.send(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
        anyhow::Ok(())
    })?;
    let all = "the first line\n".len() + lines * "another line\n".len();
    let (begun, before) = (Instant::now(), Servers::cpu()?);
    servers.client.block_on(async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let (mut written, mut complete) = (0, 0);
        while complete < count {
            tokio::select! {
                _ = ticks.tick(), if written < lines => {
                    sink.write(Stream::Stdout, b"another line\n", at)?;
                    written += 1;
                }
                Some(bytes) = heard.recv() => complete += usize::from(bytes == all),
            }
        }
        anyhow::Ok(())
    })?;
    let used = Servers::cpu()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(vec![
        Row::new("kubelet", format!("{count} followers at 10 lines/s"), used, "cores")
            .target(Target::AtMost(1.0)),
    ])
}

/// A kubelet that has nothing to do, in a process of its own.
fn idle(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let site = Site::new(directory.path())?;
    let pods = options.size(100, 3);
    let command = ["sleep", "1000000"].map(str::to_owned);
    let kubelet = KubeletProcess::start(&site, pods, &command)?;
    // Captures and programs come to rest, too.
    std::thread::sleep(Duration::from_secs(options.size(20, 2)));
    let (begun, before) = (Instant::now(), usage::process_time(kubelet.pid())?);
    std::thread::sleep(Duration::from_secs(options.size(60, 2)));
    let used = usage::process_time(kubelet.pid())?.saturating_sub(before).as_secs_f64();
    let percent = 100.0 * used / begun.elapsed().as_secs_f64();
    let resident = usage::memory(kubelet.pid())?.resident / 1024.0;
    Ok(vec![
        Row::new("kubelet", format!("idle with {pods} pods, resident"), resident, "MiB")
            .target(Target::AtMost(40.0)),
        Row::new("kubelet", format!("idle with {pods} pods"), percent, "% of a core")
            .target(Target::AtMost(1.0)),
    ])
}
