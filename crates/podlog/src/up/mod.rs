//! `podlog up`: API server, scheduler, controllers and kubelet in one process.

mod data_dir;
mod kubeconfig;
mod node;
mod pki;
mod renewal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use podlog_apiserver::controllers::{self, ControllerConfig};
use podlog_apiserver::{
    ApiServer, ApiServerConfig, AuthenticationConfig, AuthorizationConfig, RequestLimits, Storage,
};
use podlog_client::manifest::Manifest;
use podlog_client::{Connection, ConnectionOptions};
use podlog_kubelet::config::KubeletConfiguration;
use podlog_kubelet::runtime::ContainerRuntime;
use podlog_kubelet::runtime::cri::CriRuntime;
use podlog_kubelet::runtime::process::{ProcessRuntime, ProcessRuntimeConfig};
use podlog_kubelet::{ApiConnection, Kubelet, KubeletOptions};
use podlog_serving::ServerTls;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::up::{Runtime, UpArgs};
use crate::exit::Exit;
use crate::memory;

pub(crate) use data_dir::{DataDir, DataDirError};
use kubeconfig::Credentials;
pub(crate) use node::name as node_name;
use pki::Pki;
use renewal::NodeConnection;

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn run(args: UpArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    allow_many_files();
    memory::keep_small();
    // A mistake in what the user wrote shall not cost a start.
    let config = kubelet_configuration(&args)?;
    let manifests = podlog_client::manifest::read(&args.filenames, &mut std::io::stdin())?;
    let node_name = node_name(args.node_name.clone(), "--node-name")?;
    let data_dir = DataDir::resolve(args.data_dir.clone())?;
    data_dir.create()?;
    let _lock = data_dir.lock()?;

    podlog_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let stop = stop_signal()?;
        let cluster = Cluster::start(&args, &data_dir, node_name, config).await?;
        let outcome = cluster.serve(&args, &data_dir, manifests, started, stop).await;
        cluster.shutdown().await;
        outcome
    });
    // Blocking work of a cancelled request must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Every connection, log and watch is an open file, and the usual limit of 1024 is for programs that use `select`.
pub(crate) fn allow_many_files() {
    const ENOUGH: u64 = 65_536;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
    }
}

fn kubelet_configuration(args: &UpArgs) -> anyhow::Result<KubeletConfiguration> {
    let Some(path) = &args.kubelet_config else { return Ok(KubeletConfiguration::default()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read --kubelet-config {}", path.display()))?;
    let (config, mut warnings) = KubeletConfiguration::parse(&text)
        .with_context(|| format!("--kubelet-config {} is not usable", path.display()))?;
    warnings.extend(fields_of_a_kubelet_alone(&config));
    warn_of_fields(Some(path), &warnings);
    Ok(config)
}

/// Fields that `podlog kubelet` uses, and that are settled here.
fn fields_of_a_kubelet_alone(config: &KubeletConfiguration) -> impl Iterator<Item = String> {
    let given = [
        ("containerRuntimeEndpoint", !config.container_runtime_endpoint.is_empty()),
        ("rotateCertificates", config.rotate_certificates),
        ("serverTLSBootstrap", config.server_tls_bootstrap),
        ("tlsCertFile", config.tls_cert_file.is_some()),
        ("tlsPrivateKeyFile", config.tls_private_key_file.is_some()),
    ];
    let given = given.into_iter().filter(|(_, is_given)| *is_given);
    given.map(|(field, _)| format!("{field} has no effect here: it is for `podlog kubelet`"))
}

/// Says which fields of a kubelet's configuration, or flags, have no effect.
pub(crate) fn warn_of_fields(path: Option<&Path>, warnings: &[String]) {
    for warning in warnings {
        match path {
            Some(path) => anstream::eprintln!("warning: {}: {warning}", path.display()),
            None => anstream::eprintln!("warning: {warning}"),
        }
    }
}

/// Cancelled by the first SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) fn stop_signal() -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} };
        next().await;
        stopped.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(stop)
}

/// Everything that runs.
struct Cluster {
    api_server: ApiServer,
    kubelet: Kubelet,
    controllers: JoinSet<()>,
    certificates: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Cluster {
    async fn start(
        args: &UpArgs,
        data_dir: &DataDir,
        node_name: String,
        config: KubeletConfiguration,
    ) -> anyhow::Result<Self> {
        let pki = Pki::prepare(&data_dir.pki(), &node_name).context("cannot prepare certificates")?;
        let api_server = start_api_server(args, data_dir, &pki).await?;
        let address = api_server.local_addr();
        write_kubeconfig(data_dir, address, &pki)?;

        let stop = CancellationToken::new();
        let root_ca_pem = std::fs::read_to_string(pki.ca())?;
        let control = ControllerConfig {
            root_ca_pem,
            authorizer: Some(api_server.authorizer()),
            signing: Some(pki.signing()?),
        };
        let controllers = controllers::spawn_all(api_server.registry(), control, &stop);
        let connection = NodeConnection::load(address, &pki).await?;
        let kubelet = start_kubelet(args, data_dir, node_name.clone(), config, &pki, &connection).await?;
        node::ready(api_server.registry(), &node_name).await;
        let certificates = tokio::spawn(renewal::keep_fresh(pki, connection, data_dir.clone(), stop.clone()));
        Ok(Cluster { api_server, kubelet, controllers, certificates, stop })
    }

    /// Applies manifests, says that all is ready, and waits for `stop`.
    async fn serve(
        &self,
        args: &UpArgs,
        data_dir: &DataDir,
        manifests: Vec<Manifest>,
        started: Instant,
        stop: CancellationToken,
    ) -> anyhow::Result<Exit> {
        let connection = administrator(data_dir).await?;
        let pods = podlog_client::follow::PodSet::of_manifests(&manifests, connection.namespace());
        for applied in podlog_client::apply::apply(&connection, manifests).await? {
            tracing::info!("{applied}");
        }
        announce(data_dir, started, args.follow)?;
        if args.follow {
            let note = Arc::new(|text: &str| tracing::warn!("{text}"));
            let out = Box::new(std::io::stdout());
            podlog_client::follow::follow_pods(&connection, &pods, out, crate::cli::colour(), note, stop)
                .await?;
        } else {
            stop.cancelled().await;
        }
        Ok(Exit::Success)
    }

    /// Ends everything but the pods. The kubelet goes first, while it can still say how its pods are.
    async fn shutdown(mut self) {
        self.kubelet.shutdown().await;
        self.stop.cancel();
        while self.controllers.join_next().await.is_some() {}
        if let Err(error) = self.certificates.await {
            tracing::error!(%error, "the renewal of certificates failed");
        }
        match self.api_server.shutdown().await {
            Ok(drained) if drained.cut > 0 => tracing::info!(requests = drained.cut, "requests were cut"),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the API server failed"),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn start_api_server(args: &UpArgs, data_dir: &DataDir, pki: &Pki) -> anyhow::Result<ApiServer> {
    let config = ApiServerConfig {
        listen: loopback(args.secure_port),
        storage: Storage::File(data_dir.store()),
        serving: pki.apiserver.clone(),
        client_ca: pki.ca(),
        service_account_key: pki.service_account.key.clone(),
        service_account_public_key: pki.service_account.certificate.clone(),
        service_account_issuer: ApiServerConfig::DEFAULT_ISSUER.into(),
        service_account_old_keys: Vec::new(),
        authentication: AuthenticationConfig::default(),
        authorization: AuthorizationConfig::default(),
        audit: None,
        limits: RequestLimits::default(),
        kubelet_client: pki.apiserver_kubelet_client.clone(),
        kubelet_ca: Some(pki.ca()),
        // A host name need not resolve; the address that the kubelet listens on always leads to it.
        kubelet_preferred_address_types: vec!["InternalIP".into()],
        compatibility: args.compatibility.into(),
    };
    ApiServer::start(config).await.context("cannot start the API server (--secure-port)")
}

async fn start_kubelet(
    args: &UpArgs,
    data_dir: &DataDir,
    node_name: String,
    config: KubeletConfiguration,
    pki: &Pki,
    connection: &NodeConnection,
) -> anyhow::Result<Kubelet> {
    let runtime = container_runtime(args, data_dir, &config)?;
    let options = KubeletOptions {
        node_name,
        node_ip: None,
        node_labels: BTreeMap::new(),
        listen: loopback(args.kubelet_port),
        healthz: config
            .healthz_port
            .filter(|port| *port != 0)
            .map(|port| (config.healthz_bind_address, port).into()),
        root_dir: data_dir.kubelet(),
        pod_logs_dir: data_dir.pod_logs(),
        container_links_dir: data_dir.container_links(),
        config,
        compatibility: args.compatibility.into(),
        serving: ServerTls::load(pki.kubelet.clone()).context("cannot load the kubelet's certificate")?,
        client_ca: Some(pki.ca()),
        api_server: Some(ApiConnection { client: connection.client(), address: connection.api_server() }),
    };
    Kubelet::start(options, runtime).await.context("cannot start the kubelet (--kubelet-port)")
}

fn container_runtime(
    args: &UpArgs,
    data_dir: &DataDir,
    config: &KubeletConfiguration,
) -> anyhow::Result<Arc<dyn ContainerRuntime>> {
    match args.runtime {
        Runtime::Process => process_runtime(data_dir.run(), config),
        Runtime::Cri => Ok(CriRuntime::open(&args.container_runtime_endpoint)),
    }
}

/// Plain processes of this machine, captured by this very program.
pub(crate) fn process_runtime(
    root: PathBuf,
    config: &KubeletConfiguration,
) -> anyhow::Result<Arc<dyn ContainerRuntime>> {
    let config = ProcessRuntimeConfig {
        root,
        capture_command: ["/proc/self/exe", "capture"].map(OsString::from).into(),
        log_limits: config.log_limits(),
        log_policy: config.container_log_policy,
    };
    Ok(ProcessRuntime::open(config).context("cannot open the process runtime")?)
}

fn write_kubeconfig(data_dir: &DataDir, api_server: SocketAddr, pki: &Pki) -> anyhow::Result<()> {
    let path = data_dir.kubeconfig();
    kubeconfig::write(&path, &kubeconfig::kubeconfig(api_server, &credentials(pki)?))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The administrator's credentials, as they stand in the kubeconfig.
fn credentials(pki: &Pki) -> anyhow::Result<Credentials> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Credentials {
        ca: read(&pki.ca())?,
        certificate: read(&pki.admin.certificate)?,
        key: read(&pki.admin.key)?,
    })
}

async fn administrator(data_dir: &DataDir) -> anyhow::Result<Connection> {
    let options =
        ConnectionOptions { kubeconfig: Some(data_dir.kubeconfig()), ..ConnectionOptions::default() };
    Ok(options.connect().await?)
}

/// The ready line: the command's output, unless the logs of pods are.
fn announce(data_dir: &DataDir, started: Instant, follow: bool) -> std::io::Result<()> {
    let line = format!(
        "podlog is ready after {:.1} s: export KUBECONFIG={}",
        started.elapsed().as_secs_f64(),
        data_dir.kubeconfig().display()
    );
    if follow {
        anstream::eprintln!("{line}");
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
