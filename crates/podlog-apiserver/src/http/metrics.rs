//! What the server tells Prometheus, under kube-apiserver's names (`k8s.io/apiserver/pkg/endpoints/metrics`).

use std::time::Duration;

use podlog_api::{Attributes, RequestInfo};
use podlog_serving::metrics::{Counters, Gauges, Held, Histograms, REQUEST_SECONDS, Registry};

/// All metrics of the server.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    requests: Counters,
    durations: Histograms,
    long_running: Gauges,
    in_flight: Gauges,
    dropped: Counters,
    insecure_backend: Counters,
    backend_tls_failures: Counters,
}

const SERIES: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        Metrics {
            requests: registry.counters(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, resource and HTTP response code.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component", "code"],
            ),
            durations: registry.histograms(
                "apiserver_request_duration_seconds",
                "Response latency in seconds for each verb and resource.",
                SERIES,
                REQUEST_SECONDS,
            ),
            long_running: registry.gauges(
                "apiserver_longrunning_requests",
                "Requests that last, such as watches and logs, by verb and resource.",
                SERIES,
            ),
            in_flight: registry.gauges(
                "apiserver_current_inflight_requests",
                "Requests that are being answered and do not last.",
                &["request_kind"],
            ),
            dropped: registry.counters(
                "apiserver_dropped_requests_total",
                "Requests that were refused because there were too many at once.",
                &["request_kind"],
            ),
            insecure_backend: registry.counters(
                "kube_apiserver_pod_logs_insecure_backend_total",
                "Requests for pod logs by whether the node's certificate was to be verified.",
                &["usage"],
            ),
            backend_tls_failures: registry.counters(
                "kube_apiserver_pod_logs_backend_tls_failure_total",
                "Requests for pod logs that failed because of the node's certificate.",
                &[],
            ),
            registry,
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, info: &RequestInfo, code: u16, took: Duration) {
        let labels = Labels::of(info);
        let series = labels.series();
        let code = code.to_string();
        let mut with_code: Vec<&str> = series.to_vec();
        with_code.push(&code);
        self.requests.with(&with_code).increment();
        if !info.is_long_running() {
            self.durations.with(&series).observe(took.as_secs_f64());
        }
    }

    /// Counts a request as lasting until dropped.
    pub(crate) fn lasting(&self, info: &RequestInfo) -> Held {
        self.long_running.with(&Labels::of(info).series()).hold()
    }

    /// Counts a request as being answered until dropped.
    pub(crate) fn in_flight(&self, info: &RequestInfo) -> Held {
        self.in_flight.with(&[request_kind(info)]).hold()
    }

    /// Counts a request that was refused because there were too many.
    pub(crate) fn dropped(&self, info: &RequestInfo) {
        self.dropped.with(&[request_kind(info)]).increment();
    }

    /// Counts a request for a log.
    pub(crate) fn log_requested(&self, skips_verification: bool) {
        let usage = if skips_verification { "skip_tls_allowed" } else { "enforce_tls" };
        self.insecure_backend.with(&[usage]).increment();
    }

    /// Counts a node whose certificate was refused.
    pub(crate) fn backend_refused(&self) {
        self.backend_tls_failures.with(&[]).increment();
    }
}

fn request_kind(info: &RequestInfo) -> &'static str {
    if matches!(info.attributes.verb(), "get" | "list" | "head") { "readOnly" } else { "mutating" }
}

struct Labels<'a> {
    verb: String,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
}

impl<'a> Labels<'a> {
    fn of(info: &'a RequestInfo) -> Self {
        match &info.attributes {
            Attributes::Resource { verb, group, version, resource, subresource, namespace, name, .. } => {
                // Only what is served becomes a label: anything else would let clients make series.
                let known = podlog_api::resource::find(group, version, resource);
                Labels {
                    verb: verb_label(verb, subresource),
                    group: known.map_or("", |r| r.group),
                    version: known.map_or("", |r| r.version),
                    resource: known.map_or("", |r| r.plural),
                    subresource: known.and_then(|r| r.subresource(subresource)).map_or("", |s| s.name),
                    scope: scope(namespace, name),
                }
            }
            Attributes::NonResource { verb, .. } => Labels {
                verb: verb_label(verb, ""),
                group: "",
                version: "",
                resource: "",
                subresource: "",
                scope: "",
            },
        }
    }

    fn series(&self) -> [&str; 7] {
        [&self.verb, self.group, self.version, self.resource, self.subresource, self.scope, "apiserver"]
    }
}

fn scope(namespace: &str, name: &str) -> &'static str {
    if !name.is_empty() {
        "resource"
    } else if !namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    }
}

fn verb_label(verb: &str, subresource: &str) -> String {
    match (verb, subresource) {
        (_, "log" | "proxy" | "exec" | "attach" | "portforward") => "CONNECT".into(),
        ("create", _) => "POST".into(),
        ("update", _) => "PUT".into(),
        ("get" | "list" | "watch" | "patch" | "delete" | "deletecollection" | "post" | "put" | "head", _) => {
            verb.to_ascii_uppercase()
        }
        _ => "other".into(),
    }
}
