//! Routes of the endpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podlog_api::deleted_pods::Wanted;
use podlog_api::{Compatibility, deleted_pods};
use podlog_serving::metrics::{self, Counters, Gauges, Histograms, Registry};
use podlog_serving::{Body, Handler, Peer, Permit, Upgrade, json_body, text_body};
use serde_json::json;

use super::access::Gate;
use super::desk::LogDesk;
use super::files::Files;
use super::{resources, summary};
use crate::pods::{Context, PodId, Pods};
use crate::usage::{self, Disks, PodUsage};

/// Answers requests to the endpoint.
pub(crate) struct LogServer {
    pub(super) context: Arc<Context>,
    pub(super) pods: Pods,
    gate: Gate,
    pub(super) desk: LogDesk,
    pub(super) files: Files,
    metrics: ServerMetrics,
}

/// Numbers about the endpoint, names as `pkg/kubelet/server/metrics/metrics.go`.
struct ServerMetrics {
    registry: Registry,
    requests: Counters,
    seconds: Histograms,
    inflight: Gauges,
}

const LABELS: &[&str] = &["method", "path", "server_type", "long_running"];

impl ServerMetrics {
    fn new(registry: Registry) -> Self {
        ServerMetrics {
            requests: registry.counters(
                "kubelet_http_requests_total",
                "Number of the http requests received since the server started",
                LABELS,
            ),
            seconds: registry.histograms(
                "kubelet_http_requests_duration_seconds",
                "Duration in seconds to serve http requests",
                LABELS,
                metrics::REQUEST_SECONDS,
            ),
            inflight: registry.gauges(
                "kubelet_http_inflight_requests",
                "Number of the inflight http requests",
                LABELS,
            ),
            registry,
        }
    }
}

/// First parts of paths that are served; others are counted together.
const PATHS: &[&str] = &[
    "attach",
    "configz",
    "containerLogs",
    "exec",
    "healthz",
    "logs",
    "metrics",
    "podlog",
    "pods",
    "portForward",
    "run",
    "runningpods",
    "stats",
];

/// Methods that are counted by name.
const METHODS: &[Method] =
    &[Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

impl LogServer {
    pub(crate) fn new(
        context: Arc<Context>,
        pods: Pods,
        gate: Gate,
        compatibility: Compatibility,
        registry: Registry,
    ) -> Self {
        let counted = pods.clone();
        registry.gauge_of("kubelet_desired_pods", "Number of pods bound to this node", move || {
            counted.all().len() as f64
        });
        context.retained.register(&registry);
        let desk = LogDesk::new(
            context.runtime.clone(),
            pods.endings(),
            context.watcher.clone(),
            compatibility,
            context.config.container_log_journal.clone(),
            &registry,
        );
        LogServer {
            context,
            pods,
            gate,
            desk,
            files: Files::default(),
            metrics: ServerMetrics::new(registry),
        }
    }

    async fn route(&self, parts: &Parts, permit: Permit, upgrade: Option<Upgrade>) -> Response<Body> {
        let path = parts.uri.path();
        let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let debugging = self.context.config.enable_debugging_handlers;
        match segments.as_slice() {
            [
                "exec" | "attach" | "portForward" | "run" | "containerLogs" | "runningpods" | "logs"
                | "podlog",
                ..,
            ] if !debugging => plain(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n"),
            ["exec" | "attach" | "portForward" | "run", ..] => {
                super::streams::answer(self, parts, &segments, upgrade, permit).await
            }
            _ if parts.method != Method::GET && segments[0] != "stats" => not_allowed("GET"),
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => healthy(),
            ["pods"] | ["pods", ""] => self.pod_list(false).await,
            ["runningpods"] | ["runningpods", ""] => self.pod_list(true).await,
            ["metrics"] => self.metrics(),
            ["metrics", "resource"] => self.resources().await,
            ["metrics", "cadvisor"] => content(metrics::CONTENT_TYPE, resources::machine()),
            ["metrics", "probes"] => content(metrics::CONTENT_TYPE, String::new()),
            ["metrics", "slis"] => content(metrics::CONTENT_TYPE, resources::health()),
            ["stats", "summary"] => self.summary().await,
            ["configz"] if debugging => json_answer(&json!({ "kubeletconfig": self.context.config.source })),
            ["logs", rest @ ..] => self.system_logs(rest).await,
            ["podlog", "deletedPods"] => self.deleted_pods(parts).await,
            ["containerLogs", rest @ ..] => super::logs::answer(self, parts, rest, permit).await,
            _ => plain(StatusCode::NOT_FOUND, "404: Page Not Found"),
        }
    }

    fn metrics(&self) -> Response<Body> {
        content(metrics::CONTENT_TYPE, self.metrics.registry.render())
    }

    /// Pods as a list: those bound to this node, or those of which something runs.
    async fn pod_list(&self, running: bool) -> Response<Body> {
        let runs: Option<Vec<String>> = if running {
            match self.context.runtime.list_pod_sandboxes(None).await {
                Ok(sandboxes) => Some(
                    sandboxes
                        .into_iter()
                        .filter(|sandbox| sandbox.state == crate::runtime::SandboxState::Ready)
                        .map(|sandbox| sandbox.config.uid)
                        .collect(),
                ),
                Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        } else {
            None
        };
        let mut items = Vec::new();
        for pod in self.pods.all() {
            let id = PodId::of(&pod);
            if runs.as_ref().is_some_and(|runs| !runs.contains(&id.uid)) {
                continue;
            }
            let mut pod = (*pod).clone();
            if let Some(status) = self.context.statuses.get(&id) {
                pod.status = Some(status);
            }
            items.push(pod);
        }
        json_answer(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    /// Deleted pods whose logs are here.
    async fn deleted_pods(&self, parts: &Parts) -> Response<Body> {
        let wanted = Wanted::of_query(parts.uri.query().unwrap_or_default());
        let retained = self.context.retained.clone();
        match tokio::task::spawn_blocking(move || retained.list(&wanted)).await {
            Ok(pods) => json_answer(&deleted_pods::list(pods.into_iter().map(|pod| pod.0).collect(), &[])),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn summary(&self) -> Response<Body> {
        let (context, pods) = (self.context.clone(), self.pods.all());
        let usage = self.usage(&pods, Disks::Measured).await.unwrap_or_default();
        let images = context.runtime.image_directory().await.ok().flatten();
        let make = move || {
            let disks = summary::Disks { node: context.layout.root(), images: images.as_deref() };
            summary::summary(&context.node.name, &pods, &usage, &disks)
        };
        match tokio::task::spawn_blocking(make).await {
            Ok(summary) => json_answer(&summary),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// What pods use; `None` when that cannot be found out.
    async fn usage(&self, pods: &[Arc<Pod>], disks: Disks) -> Option<HashMap<String, PodUsage>> {
        let usage = usage::of_pods(&self.context, pods, disks).await;
        usage.inspect_err(|error| tracing::warn!(%error, "cannot find out what pods use")).ok()
    }

    async fn resources(&self) -> Response<Body> {
        let pods = self.pods.all();
        let usage = self.usage(&pods, Disks::Skipped).await;
        content(metrics::CONTENT_TYPE, resources::resource(&pods, usage.as_ref()))
    }

    async fn system_logs(&self, rest: &[&str]) -> Response<Body> {
        if !self.context.config.enable_system_log_handler {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.");
        }
        super::system_logs::answer(&rest.join("/")).await
    }
}

#[async_trait]
impl Handler for LogServer {
    async fn handle(&self, request: Request<hyper::body::Incoming>, peer: Peer) -> Response<Body> {
        let (mut parts, _body) = request.into_parts();
        let upgrade = Upgrade::of(&mut parts);
        let first = parts.uri.path().split('/').nth(1).unwrap_or_default();
        let path = if PATHS.contains(&first) { first } else { "other" };
        let long = if matches!(path, "exec" | "attach" | "portForward") { "true" } else { "false" };
        // Whoever it is may come up with names.
        let method = if METHODS.contains(&parts.method) { parts.method.as_str() } else { "other" };
        let labels = [method, path, "readwrite", long];
        self.metrics.requests.with(&labels).increment();
        let _inflight = self.metrics.inflight.with(&labels).hold();
        let begun = Instant::now();
        let response = match self.gate.admit(&parts, &peer).await {
            Ok(permit) => self.route(&parts, permit, upgrade).await,
            Err(refused) => plain(refused.code, refused.text),
        };
        self.metrics.seconds.with(&labels).observe(begun.elapsed().as_secs_f64());
        response
    }
}

/// Plain text, as every failure of a kubelet.
pub(super) fn plain(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(text_body(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pub(super) fn content(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(text_body(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn healthy() -> Response<Body> {
    plain(StatusCode::OK, "ok")
}

pub(super) fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn json_answer(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(json_body(podlog_api::json::to_vec(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
