//! The node's endpoint in front of another kubelet: requests for logs are answered here, all others are passed on.
//!
//! Nothing is registered and nothing is written. Who may do what is decided here as the kubelet behind would: it cannot
//! see who asks, as it sees our certificate.

mod choose;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use podlog_api::Compatibility;
use podlog_serving::metrics::{self, Counters, Registry};
use podlog_serving::{Body, Forwarder, Handler, Limits, Peer, Permit, ServeError, Server, ServerTls};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access::{Gate, GateError};
use super::choose::container_id;
use super::desk::{LogDesk, LogOf};
use super::handler::{content, plain};
use super::logs::names;
use crate::config::KubeletConfiguration;
use crate::kubelet::{ApiConnection, watcher};
use crate::pods::PodId;
use crate::runtime::{ContainerRuntime, ContainerState, RuntimeError};
use choose::{Choice, Found, choose, choose_instance};

/// Where our own numbers are: the kubelet behind has nothing there.
const METRICS: &str = "/podlog/metrics";

/// What a front is started with.
pub struct FrontOptions {
    /// Name of the Node object, which the kubelet behind has made.
    pub node_name: String,
    /// Where it listens: the address and port at which API servers look for the node's kubelet.
    pub listen: SocketAddr,
    /// Who may ask, and who decides what they may do: what the kubelet behind would be configured to.
    pub config: KubeletConfiguration,
    /// CA bundle for client certificates where the configuration names none.
    pub client_ca: Option<PathBuf>,
    /// Certificate and key of the endpoint.
    pub serving: ServerTls,
    /// How logs are read, and what becomes of a log that breaks off.
    pub compatibility: Compatibility,
    /// The API server, with the kubelet's credentials.
    pub api_server: ApiConnection,
    /// The kubelet behind.
    pub behind: Forwarder,
}

/// Why a front did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// Nobody could be let in.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The endpoint cannot listen.
    #[error(transparent)]
    Listen(#[from] ServeError),
    /// The runtime does not answer.
    #[error("cannot ask the container runtime for its version")]
    Runtime(#[source] RuntimeError),
}

/// A running front.
pub struct Front {
    local_addr: SocketAddr,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Front {
    /// Starts to listen.
    ///
    /// # Errors
    /// See [`FrontError`].
    pub async fn start(
        options: FrontOptions,
        runtime: Arc<dyn ContainerRuntime>,
    ) -> Result<Front, FrontError> {
        let runtime_name = runtime.version().await.map_err(FrontError::Runtime)?.name;
        let server = Server::bind(options.listen, options.serving, Limits::default()).await?;
        let (local_addr, client) = (server.local_addr(), options.api_server.client);
        let gate =
            Gate::new(&options.config, options.client_ca.as_deref(), Some(&client), &options.node_name)?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let endings = watch::Sender::new(0);
        let registry = Registry::new();
        let server = server.with_metrics(&registry);
        let (compatibility, ended) = (options.compatibility, endings.subscribe());
        let journal = options.config.container_log_journal.clone();
        let handler = FrontServer {
            gate,
            desk: LogDesk::new(runtime.clone(), ended, watcher(), compatibility, journal, &registry),
            pods: client.clone(),
            runtime_name,
            behind: options.behind,
            requests: registry.counters(
                "podlog_front_requests_total",
                "Number of requests, by who answered them",
                &["by"],
            ),
            registry,
        };
        tasks.spawn(tell_endings(runtime, endings, shutdown.clone()));
        tasks.spawn(compare_port(client, options.node_name, local_addr.port(), shutdown.clone()));
        let serving = shutdown.clone();
        tasks.spawn(async move {
            let drained = server.serve(Arc::new(handler), serving).await;
            if drained.cut > 0 {
                tracing::info!(streams = drained.cut, "streams were cut by the shutdown");
            }
        });
        Ok(Front { local_addr, shutdown, tasks })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops it. The kubelet behind and its pods are not touched.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Counts ends of containers, for followers.
async fn tell_endings(
    runtime: Arc<dyn ContainerRuntime>,
    endings: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let mut events = runtime.events();
    while let Some(Some(event)) = shutdown.run_until_cancelled(events.recv()).await {
        if event.state == ContainerState::Exited {
            endings.send_modify(|count| *count += 1);
        }
    }
}

/// API servers dial the port that the kubelet behind has reported: ours must have the same number.
async fn compare_port(client: kube::Client, node: String, port: u16, shutdown: CancellationToken) {
    let nodes = Api::<Node>::all(client);
    let Some(Ok(found)) = shutdown.run_until_cancelled(nodes.get(&node)).await else { return };
    let endpoints = found.status.and_then(|status| status.daemon_endpoints);
    let reported = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint).map(|endpoint| endpoint.port);
    if let Some(reported) = reported.filter(|reported| *reported != i32::from(port)) {
        tracing::warn!(
            node,
            reported,
            port,
            "API servers do not come here: they dial the port that the kubelet behind reports; give both the same port, \
             on different addresses"
        );
    }
}

struct FrontServer {
    gate: Gate,
    desk: LogDesk,
    /// For pods whose runtime leaves open which instance is meant.
    pods: kube::Client,
    runtime_name: String,
    behind: Forwarder,
    requests: Counters,
    registry: Registry,
}

#[async_trait]
impl Handler for FrontServer {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let permit = match self.gate.admit(&parts, &peer).await {
            Ok(permit) => permit,
            Err(refused) => {
                self.requests.with(&["nobody"]).increment();
                return plain(refused.code, refused.text);
            }
        };
        if parts.method == Method::GET {
            if parts.uri.path() == METRICS {
                return content(metrics::CONTENT_TYPE, self.registry.render());
            }
            if let Some(rest) = parts.uri.path().strip_prefix("/containerLogs/")
                && let Some(answer) = self.log(rest, parts.uri.query().unwrap_or_default(), permit).await
            {
                self.requests.with(&["front"]).increment();
                return answer;
            }
        }
        self.requests.with(&["behind"]).increment();
        self.pass_on(Request::from_parts(parts, body)).await
    }
}

impl FrontServer {
    /// The log, if we know whose it is; else the kubelet behind knows better, or why it cannot be had.
    async fn log(&self, path: &str, query: &str, permit: Permit) -> Option<Response<Body>> {
        let segments: Vec<&str> = path.split('/').collect();
        let (namespace, pod, container) = names(&segments).ok()?;
        let options = self.desk.options(query).ok()?;
        let wanted = PodId { namespace: namespace.to_owned(), name: pod.to_owned(), uid: String::new() };
        let extensions = &options.extensions;
        if extensions.deleted || extensions.file.is_some() {
            return None;
        }
        let found = self.find(&wanted).await?;
        let choice = match extensions.instance {
            Some(asked) => choose_instance(&found, container, asked),
            None => choose(&found, container, options.previous),
        };
        let instance = match choice {
            Choice::Instance(id) => format!("{}://{}", self.runtime_name, id.0),
            Choice::StatusKnows => self.instance_by_status(&wanted, container, options.previous).await?,
            Choice::Unknown => return None,
        };
        tracing::debug!(user = permit.user().username, namespace, pod, container, instance, "serving a log");
        let answer = self.desk.answer(&LogOf::Instance(instance), &options, permit).await;
        Some(answer.unwrap_or_else(|(code, text)| plain(code, text)))
    }

    /// What the runtime has of a pod. What is left of one of the same name before it is nobody's who may read the logs of this
    /// one: its namespace may be another one of that name.
    async fn find(&self, pod: &PodId) -> Option<Found> {
        let runtime = &self.desk.runtime;
        let found = Found::read(&**runtime, pod).await;
        let found =
            found.inspect_err(|error| tracing::warn!(%error, "cannot ask the runtime for a log: passed on"));
        let found = found.ok()??;
        let is_meant = found.is_alive || self.pod(pod).await?.metadata.uid.as_ref() == Some(&found.uid);
        is_meant.then_some(found)
    }

    /// The instance that the pod's status names.
    async fn instance_by_status(&self, pod: &PodId, container: &str, previous: bool) -> Option<String> {
        let status = self.pod(pod).await?.status?;
        container_id(&pod.name, &status, container, previous).ok()
    }

    /// The pod of that name, as the API server has it.
    async fn pod(&self, pod: &PodId) -> Option<Pod> {
        Api::namespaced(self.pods.clone(), &pod.namespace).get(&pod.name).await.ok()
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Response<Body> {
        match self.behind.forward(request).await {
            Ok(response) => response,
            Err(cause) => {
                let behind = &self.behind;
                tracing::warn!(%behind, %cause, "cannot pass a request on");
                let text = format!("podlog: cannot reach the kubelet behind, {behind}: {cause}\n");
                plain(StatusCode::BAD_GATEWAY, text)
            }
        }
    }
}
