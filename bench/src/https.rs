//! Following through a kubelet's HTTPS: how late lines are, and what followers hold. The kubelet runs in a process of its
//! own, with real captures.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use http_body_util::BodyExt;
use podlog_driver::FileLimits;
use podlog_kubelet::{
    Kubelet, KubeletOptions,
    config::{AuthorizationMode, KubeletConfiguration},
    runtime::{
        ContainerRuntime, LogPolicy,
        process::{ProcessRuntime, ProcessRuntimeConfig},
    },
};
use podlog_serving::{NodeBody, NodeClient, ServerTls, Verify};
use serde_json::json;

use crate::{
    Options,
    container::program,
    latency::Arrivals,
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
        let kubelet = KubeletProcess::start(&site, &command)?;
        let mut body = follow(&site.client()?, kubelet.address).await?;
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
    let kubelet = KubeletProcess::start(&site, &command)?;
    let resident = || usage::memory(kubelet.child.id()).map(|memory| memory.resident);
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
    let instances = crate::followers::inotify_instances(kubelet.child.id());
    let over = if streams == 1 { "a connection each".to_owned() } else { format!("{streams} a connection") };
    let what = format!("{count} followers through TLS, {over}");
    let memory = Row::new("https", format!("{what}: memory of each"), each, "KiB");
    // A connection has its keys and buffers.
    let memory = memory.target(Target::AtMost(if streams == 1 { 40.0 } else { 20.0 }));
    let instances = Row::new("https", format!("{what}: inotify instances"), instances as f64, "");
    Ok(vec![memory, instances.target(Target::AtMost(1.0))])
}

async fn first_line(client: &NodeClient, kubelet: SocketAddr) -> anyhow::Result<NodeBody> {
    let mut body = follow(client, kubelet).await?;
    next(&mut body).await?;
    Ok(body)
}

/// A follow of the log of the only pod, once that runs.
async fn follow(client: &NodeClient, kubelet: SocketAddr) -> anyhow::Result<NodeBody> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = "/containerLogs/default/web-n/c?follow=true";
        let response = client.get("127.0.0.1", kubelet.port(), path, Verify::Ca).await?;
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

/// Runs a kubelet with one static pod until its standard input ends.
#[derive(clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    folder: PathBuf,
    /// What the pod runs.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        podlog_serving::install_crypto_provider();
        tokio::runtime::Runtime::new()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let runtime = ProcessRuntime::open(ProcessRuntimeConfig {
            root: self.folder.join("run"),
            capture_command: vec![program()?.into()],
            log_limits: FileLimits::default(),
            log_policy: LogPolicy::default(),
        })?;
        let kubelet = Kubelet::start(self.options()?, runtime.clone()).await?;
        writeln!(std::io::stdout(), "{}", kubelet.local_addr())?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        kubelet.shutdown().await;
        for container in runtime.list_containers(None).await? {
            runtime.stop_container(&container.id, Duration::ZERO).await?;
        }
        Ok(())
    }

    fn options(&self) -> anyhow::Result<KubeletOptions> {
        let manifests = self.folder.join("manifests");
        fs::create_dir_all(&manifests)?;
        let containers = json!([{"name": "c", "image": "host", "command": self.command}]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}});
        fs::write(manifests.join("web.json"), pod.to_string())?;
        let mut config =
            KubeletConfiguration { static_pod_path: Some(manifests), ..KubeletConfiguration::default() };
        config.authorization.mode = AuthorizationMode::AlwaysAllow;
        config.authentication.webhook_enabled = false;
        let site = Site { folder: self.folder.clone() };
        Ok(KubeletOptions {
            node_name: "n".into(),
            node_ip: None,
            node_labels: std::collections::BTreeMap::new(),
            listen: ([127, 0, 0, 1], 0).into(),
            healthz: None,
            root_dir: self.folder.join("kubelet"),
            pod_logs_dir: self.folder.join("pods"),
            container_links_dir: self.folder.join("containers"),
            config,
            compatibility: podlog_api::Compatibility::default(),
            serving: ServerTls::load(site.pair("server"))?,
            client_ca: Some(site.ca()),
            api_server: None,
        })
    }
}

struct KubeletProcess {
    address: SocketAddr,
    child: Child,
}

impl KubeletProcess {
    fn start(site: &Site, command: &[String]) -> anyhow::Result<KubeletProcess> {
        let mut kubelet = Command::new(std::env::current_exe()?);
        kubelet.arg("serve-https").arg("--folder").arg(&site.folder).arg("--").args(command);
        let mut child = kubelet.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the kubelet did not start")?;
        Ok(KubeletProcess { address, child })
    }
}

/// It ends with its standard input, and its container with it.
impl Drop for KubeletProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
