//! Puts the parts of a kubelet together.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use podlog_api::Compatibility;
use podlog_driver::LogWatcher;
use podlog_serving::metrics::Registry;
use podlog_serving::{Limits, ServeError, Server, ServerTls};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ChangeDetection, KubeletConfiguration};
use crate::env::NodeFacts;
use crate::events::{Events, write_events};
use crate::eviction::{EvictionManager, Pressures};
use crate::healthz;
use crate::layout::Layout;
use crate::node::{self, NodeAgent};
use crate::objects::{ApiObjects, NoObjects, ObjectSource};
use crate::pods::{Context, PodManager, PodSources, Pods, StatusWriter, Surplus};
use crate::retained::{Budget, RetainedLogs};
use crate::rotation::LogRotation;
use crate::runtime::{self, ContainerRuntime, RuntimeError};
use crate::server::{Gate, GateError, LogServer};
use crate::static_pods::{Directory, MirrorPods, Mirrors};

/// What a kubelet is started with.
pub struct KubeletOptions {
    /// Name of the Node object.
    pub node_name: String,
    /// The node's `InternalIP`, where it shall be another than `listen` tells.
    pub node_ip: Option<IpAddr>,
    /// Labels of the Node object beside those that every node has.
    pub node_labels: BTreeMap<String, String>,
    /// Where the HTTPS endpoint listens; port 0 picks a free one. Its address is the node's `InternalIP`, unless it is
    /// `0.0.0.0` or `::`: then the address that leads to the API server is.
    pub listen: SocketAddr,
    /// Where `/healthz` is answered without TLS, to anybody; `None` is nowhere. A port that is taken is no reason to fail.
    pub healthz: Option<SocketAddr>,
    /// Directory for pods' volumes and the like, e.g. `<data-dir>/kubelet`.
    pub root_dir: PathBuf,
    /// Directory of pods' logs where the configuration names none, e.g. `<data-dir>/pods`.
    pub pod_logs_dir: PathBuf,
    /// Directory of symlinks to container logs, e.g. `<data-dir>/containers`.
    pub container_links_dir: PathBuf,
    /// Settings.
    pub config: KubeletConfiguration,
    /// How logs are read, and what becomes of a log that breaks off.
    pub compatibility: Compatibility,
    /// Certificate and key of the HTTPS endpoint.
    pub serving: ServerTls,
    /// CA bundle for client certificates where the configuration names none; `None` accepts none.
    pub client_ca: Option<PathBuf>,
    /// The API server; `None` runs static pods alone.
    pub api_server: Option<ApiConnection>,
}

/// The API server of a kubelet.
#[derive(Clone)]
pub struct ApiConnection {
    /// Its client, as user `system:node:<name>` in group `system:nodes`. Best made with `kube::Config::default_retry` off:
    /// the kubelet tries again by itself, and sooner.
    pub client: kube::Client,
    /// Its address as containers reach it (`KUBERNETES_SERVICE_HOST` and `_PORT`).
    pub address: SocketAddr,
}

/// Why a kubelet did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeletError {
    /// A directory cannot be made.
    #[error("cannot create {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime does not answer.
    #[error("cannot ask the container runtime for its version")]
    Runtime(#[source] RuntimeError),
    /// Nobody could be let in.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The HTTPS endpoint cannot listen.
    #[error(transparent)]
    Listen(#[from] ServeError),
}

/// A running kubelet.
pub struct Kubelet {
    local_addr: SocketAddr,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Kubelet {
    /// Starts: listens, registers the node, adopts what runs, and follows the pods bound to this node. Returns once it
    /// listens; the API server may come later.
    ///
    /// # Errors
    /// See [`KubeletError`].
    pub async fn start(
        options: KubeletOptions,
        runtime: Arc<dyn ContainerRuntime>,
    ) -> Result<Kubelet, KubeletError> {
        let version = runtime.version().await.map_err(KubeletError::Runtime)?;
        let layout = layout(&options)?;
        let retained = RetainedLogs::open(layout.clone(), Budget::of(&options.config));
        let server = Server::bind(options.listen, options.serving.clone(), Limits::default()).await?;
        let local_addr = server.local_addr();
        let facts = facts(&options, local_addr);
        let client = options.api_server.as_ref().map(|api| api.client.clone());
        let is_ours = version.name == runtime::process::NAME;
        let (events, event_queue) = Events::queue();
        let statuses = StatusWriter::default();
        let context = Arc::new(Context {
            runtime,
            runtime_name: version.name.clone(),
            objects: objects(client.clone(), options.config.change_detection),
            surplus: Surplus::default(),
            events: events.clone(),
            statuses: statuses.clone(),
            pressures: Pressures::default(),
            node: facts.clone(),
            layout,
            retained: retained.clone(),
            config: options.config.clone(),
            watcher: watcher(),
        });
        let rotation = LogRotation {
            runtime: context.runtime.clone(),
            limits: options.config.log_limits(),
            watcher: context.watcher.clone(),
        };
        let pods = Pods::default();
        let gate = Gate::new(&options.config, options.client_ca.as_deref(), client.as_ref(), &facts.name)?;
        let metrics = Registry::new();
        let server = server.with_metrics(&metrics);
        let mut eviction = EvictionManager::new(context.clone(), pods.clone(), &metrics);
        eviction.prepare().await;
        let pressures = context.pressures.clone();
        let handler = LogServer::new(context.clone(), pods.clone(), gate, options.compatibility, metrics);

        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        // Our own runtime behind a socket rotates by itself.
        let rotates = rotation.runtime.log_rotation() == runtime::LogRotation::ByKubelet && !is_ours;
        if rotates {
            tasks.spawn(rotation.run(shutdown.clone()));
        }
        tasks.spawn(retained.run(shutdown.clone()));
        let mirrors = Mirrors::default();
        if let Some(client) = client.clone() {
            let runtime = (context.runtime.clone(), version);
            let port = local_addr.port();
            let agent = NodeAgent::new(&options.config, facts.clone(), port, runtime, pressures, events);
            let (node, mirrors) = (facts.name.clone(), mirrors.clone());
            tasks.spawn(write_events(client.clone(), node.clone(), event_queue, shutdown.clone()));
            tasks.spawn(agent.run(client.clone(), shutdown.clone()));
            tasks.spawn(statuses.clone().run(client.clone(), shutdown.clone()));
            tasks.spawn(MirrorPods { mirrors, statuses, node, client }.run(shutdown.clone()));
        }
        let manifests = options.config.static_pod_path.clone().map(|path| {
            let look = options.config.file_check_frequency;
            let (sender, receiver) = mpsc::channel(1);
            tasks.spawn(Directory::new(path, facts.name.clone(), look).run(sender, shutdown.clone()));
            receiver
        });
        tasks.spawn(eviction.run(shutdown.clone()));
        let manager = PodManager::new(context, pods, mirrors, shutdown.clone());
        tasks.spawn(manager.run(PodSources { api: client, manifests }, facts.name));
        if let Some(address) = options.healthz {
            tasks.spawn(healthz::serve(address, shutdown.clone()));
        }
        let serving = shutdown.clone();
        tasks.spawn(async move {
            let drained = server.serve(Arc::new(handler), serving).await;
            if drained.cut > 0 {
                tracing::info!(streams = drained.cut, "log streams were cut by the shutdown");
            }
        });
        Ok(Kubelet { local_addr, shutdown, tasks })
    }

    /// Where the HTTPS endpoint listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the kubelet. Pods keep running, and the next kubelet on the same directories adopts them.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn objects(client: Option<kube::Client>, detection: ChangeDetection) -> Arc<dyn ObjectSource> {
    match client {
        Some(client) => Arc::new(ApiObjects::new(client, detection)),
        None => Arc::new(NoObjects),
    }
}

fn facts(options: &KubeletOptions, local_addr: SocketAddr) -> NodeFacts {
    let api_server = options.api_server.as_ref().map(|api| api.address);
    NodeFacts {
        name: options.node_name.clone(),
        labels: options.node_labels.clone(),
        ip: options.node_ip.unwrap_or_else(|| node::internal_ip(local_addr, api_server)),
        api_server,
        allocatable: node::capacity::allocatable(options.config.max_pods),
    }
}

pub(crate) fn watcher() -> Option<LogWatcher> {
    let watcher = LogWatcher::new();
    if let Err(error) = &watcher {
        tracing::warn!(%error, "cannot watch log files: followers look at them every second");
    }
    watcher.ok()
}

fn layout(options: &KubeletOptions) -> Result<Layout, KubeletError> {
    let pod_logs = options.config.pod_logs_dir.clone().unwrap_or_else(|| options.pod_logs_dir.clone());
    let layout = Layout::new(options.root_dir.clone(), pod_logs, options.container_links_dir.clone());
    layout.create().map_err(|(path, source)| KubeletError::Directory { path, source })?;
    Ok(layout)
}
