//! `podlog kubelet`: a node by itself, or in front of another kubelet.

mod api_server;
mod certificates;
mod front;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use podlog_api::node_labels;
use podlog_kubelet::certificates::{CertificateStore, Wanted};
use podlog_kubelet::config::KubeletConfiguration;
use podlog_kubelet::runtime::ContainerRuntime;
use podlog_kubelet::runtime::cri::{CriRuntime, Endpoint};
use podlog_kubelet::{Front, Kubelet, KubeletOptions, internal_ip};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::kubelet::KubeletArgs;
use crate::cli::up::Runtime;
use crate::exit::Exit;
use crate::lock::Lock;
use crate::memory;
use crate::up::{allow_many_files, node_name, process_runtime, stop_signal, warn_of_fields};
use api_server::Connection;

const DEFAULT_PORT: u16 = 10250;
const DEFAULT_HEALTHZ_PORT: u16 = 10248;
const DEFAULT_ENDPOINT: &str = "unix:///run/containerd/containerd.sock";
/// Where upstream keeps the logs of pods.
const DEFAULT_POD_LOGS: &str = "/var/log/pods";

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn run(args: &KubeletArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    allow_many_files();
    memory::keep_small();
    let config = configuration(args)?;
    let name = node_name(args.hostname_override.clone(), "--hostname-override")?;
    // Whoever stands in front uses what another kubelet holds.
    let _lock = args.front.front.is_none().then(|| hold(&args.root_dir)).transpose()?;
    podlog_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args, config, name, started));
    // Blocking work of a cancelled request must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// One kubelet a directory.
fn hold(root_dir: &Path) -> anyhow::Result<Lock> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(root_dir);
    made.with_context(|| format!("cannot use --root-dir {}", root_dir.display()))?;
    let file = root_dir.join("podlog-kubelet.lock");
    let lock = Lock::take(&file).with_context(|| format!("cannot lock {}", file.display()))?;
    lock.map_err(|pid| {
        let root_dir = root_dir.display();
        anyhow::anyhow!(
            "{root_dir} is in use by `podlog kubelet` with pid {pid}: end it, or name another --root-dir"
        )
    })
}

fn configuration(args: &KubeletArgs) -> anyhow::Result<KubeletConfiguration> {
    if let Some(problem) = node_labels::wrong_for_kubelets(&args.node_labels()) {
        anyhow::bail!("failed to validate kubelet flags: {problem}");
    }
    let overrides = args.overrides();
    let (config, warnings) = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read --config {}", path.display()))?;
            KubeletConfiguration::parse_with(&text, &overrides)
                .with_context(|| format!("--config {} is not usable", path.display()))?
        }
        None => KubeletConfiguration::of_flags(&overrides).context("the flags are not usable")?,
    };
    warn_of_fields(args.config.as_deref(), &warnings);
    for flag in args.ignored() {
        anstream::eprintln!("warning: --{flag} has no effect here: podlog's kubelet does not use it");
    }
    Ok(config)
}

async fn serve(
    args: &KubeletArgs,
    config: KubeletConfiguration,
    node: String,
    started: Instant,
) -> anyhow::Result<Exit> {
    let stop = stop_signal()?;
    let connected = stop.run_until_cancelled(connect(args, &node)).await;
    let Some(connection) = connected.transpose()? else { return Ok(Exit::Success) };
    let mut tasks = JoinSet::new();
    let running = match &args.front.front {
        Some(url) => {
            let front =
                front::start(args, url, config, &node, connection.as_ref(), &mut tasks, &stop).await?;
            Running::Front(front)
        }
        None => Running::Kubelet(start(args, config, &node, connection.as_ref(), &mut tasks, &stop).await?),
    };
    if let Some(connection) = connection {
        tasks.spawn(connection.keep_fresh(stop.clone()));
    }
    announce(&node, running.local_addr(), started)?;
    stop.cancelled().await;
    running.shutdown().await;
    while tasks.join_next().await.is_some() {}
    Ok(Exit::Success)
}

/// A node, or what stands before one.
enum Running {
    Kubelet(Kubelet),
    Front(Front),
}

impl Running {
    fn local_addr(&self) -> SocketAddr {
        match self {
            Running::Kubelet(kubelet) => kubelet.local_addr(),
            Running::Front(front) => front.local_addr(),
        }
    }

    async fn shutdown(self) {
        match self {
            Running::Kubelet(kubelet) => kubelet.shutdown().await,
            Running::Front(front) => front.shutdown().await,
        }
    }
}

/// The API server, if there is to be one.
async fn connect(args: &KubeletArgs, node: &str) -> anyhow::Result<Option<Connection>> {
    let Some(kubeconfig) = &args.kubeconfig else { return Ok(None) };
    if let Some(bootstrap) = &args.bootstrap_kubeconfig {
        let store = CertificateStore::client(&args.cert_dir());
        certificates::bootstrap(bootstrap, kubeconfig, &store, node).await?;
    }
    Connection::load(kubeconfig).await.map(Some)
}

async fn start(
    args: &KubeletArgs,
    config: KubeletConfiguration,
    node: &str,
    connection: Option<&Connection>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<Kubelet> {
    let runtime = container_runtime(args, &config)?;
    let listen = listen(args, &config);
    let api_server = connection.map(Connection::api_server);
    let ip =
        args.node_ip().unwrap_or_else(|| internal_ip(listen, api_server.as_ref().map(|api| api.address)));
    let client = api_server.as_ref().map(|api| &api.client);
    let serving = certificates::Serving { config: &config, cert_dir: &args.cert_dir(), node, ip };
    let serving = serving.start(client, tasks, stop)?;
    if let (true, Some(client)) = (config.rotate_certificates, client) {
        let store = CertificateStore::client(&args.cert_dir());
        if certificates::is_used(args.kubeconfig.as_deref(), &store) {
            tasks.spawn(store.keep(client.clone(), Wanted::client(node), stop.clone()));
        } else {
            let file = store.current();
            tracing::warn!(file = %file.display(), "rotateCertificates has no effect: the kubeconfig does not name this file");
        }
    }
    let pod_logs_dir = config.pod_logs_dir.clone().unwrap_or_else(|| DEFAULT_POD_LOGS.into());
    let options = KubeletOptions {
        node_name: node.to_owned(),
        node_ip: Some(ip),
        node_labels: args.node_labels(),
        listen,
        root_dir: args.root_dir.clone(),
        container_links_dir: pod_logs_dir.with_file_name("containers"),
        pod_logs_dir,
        healthz: healthz(&config),
        config,
        compatibility: args.compatibility.into(),
        serving,
        client_ca: None,
        api_server,
    };
    Kubelet::start(options, runtime).await.context("cannot start the kubelet")
}

fn listen(args: &KubeletArgs, config: &KubeletConfiguration) -> SocketAddr {
    let port = if args.takes_free_port() { 0 } else { config.port.unwrap_or(DEFAULT_PORT) };
    (config.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port).into()
}

/// The plain health port; `None` when none is wanted.
fn healthz(config: &KubeletConfiguration) -> Option<SocketAddr> {
    let port = config.healthz_port.unwrap_or(DEFAULT_HEALTHZ_PORT);
    (port != 0).then(|| (config.healthz_bind_address, port).into())
}

fn container_runtime(
    args: &KubeletArgs,
    config: &KubeletConfiguration,
) -> anyhow::Result<Arc<dyn ContainerRuntime>> {
    match args.runtime {
        Runtime::Process => process_runtime(args.root_dir.join("run"), config),
        Runtime::Cri => {
            let given = Some(config.container_runtime_endpoint.as_str()).filter(|text| !text.is_empty());
            let endpoint: Endpoint = given.unwrap_or(DEFAULT_ENDPOINT).parse()?;
            Ok(CriRuntime::open(&endpoint))
        }
    }
}

/// The ready line: the command's output.
fn announce(node: &str, address: SocketAddr, started: Instant) -> std::io::Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "podlog kubelet {node} is ready after {seconds:.1} s: https://{address}")?;
    stdout.flush()
}
