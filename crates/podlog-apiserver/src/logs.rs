//! `GET …/pods/<name>/log`: finds the kubelet that has the log and passes its bytes on, unread.
//!
//! Order of checks and choice of the container as `pkg/registry/core/pod/strategy.go` (`LogLocation`) and
//! `pkg/registry/core/pod/rest/log.go`. Unlike upstream, a kubelet's stream that breaks breaks the client's too: a log that
//! may be incomplete never ends as if it were complete.

use std::sync::Arc;

use http::header::ACCEPT;
use http::{Response, StatusCode};
use podlog_api::accept::{self, Endpoint};
use podlog_api::node_response::{self, MAX_BODY_BYTES};
use podlog_api::resource::find;
use podlog_api::{ApiError, LOG_OPTIONS_HEADER, LOG_RESUMED_HEADER, Object, PodLogOptions, Reason};
use podlog_serving::metrics::Held;
use podlog_serving::{NodeBody, Upgrade, Verify, relay_body};
use serde_json::Value;

use crate::deleted_pods;
use crate::http::{Answer, App, Call, ReadError, Target, first, no_content, read_limited};
use crate::log_coding::Coding;

/// Where kubelets listen that do not say.
const KUBELET_PORT: u16 = 10250;

/// Where the kubelet of a node listens.
pub(crate) fn kubelet_of(app: &App, node_name: &str) -> Result<(String, u16), ApiError> {
    let nodes = find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let node = app.registry.get(nodes, "", node_name)?;
    Ok((address(&node, &app.preferred_address_types)?, port(&node)))
}

/// Answers with a log.
pub(crate) async fn answer(
    app: &Arc<App>,
    call: Call,
    target: &Target,
    held: Held,
) -> Result<Answer, ApiError> {
    if !accept::wants_log_media_type(first(&call.headers, ACCEPT)) {
        call.wanted(Endpoint::Log)?;
    }
    let mut options = PodLogOptions::from_query(&call.raw_query, app.stream_rules)?;
    options.validate(&target.name, app.stream_rules)?;
    app.metrics.log_requested(options.insecure_skip_tls_verify_backend);
    let pod = if options.extensions.deleted {
        let pod = deleted_pods::find_one(app, &call, target, options.extensions.uid.as_deref()).await?;
        options.extensions.uid = Some(pod.uid().to_owned());
        pod
    } else {
        app.registry.get(target.resource, &target.namespace, &target.name)?
    };
    let container = choose_container(&pod, &options.container)?;
    let node_name = pod.text("/spec/nodeName");
    if node_name.is_empty() {
        return Ok(no_content());
    }
    let (host, port) = kubelet_of(app, node_name)?;
    let path = log_path(&pod, &container, &options);
    let verify = if options.insecure_skip_tls_verify_backend { Verify::Skip } else { Verify::Ca };
    let response = app.nodes.get(&host, port, &path, verify).await.map_err(|error| {
        let text = error.to_string();
        if text.contains("x509:") {
            app.metrics.backend_refused();
        }
        tracing::warn!(
            pod = pod.name(),
            namespace = pod.namespace(),
            node = node_name,
            error = text,
            "node did not answer"
        );
        ApiError::new(500, Reason::Unknown, text)
    })?;
    let code = response.status().as_u16();
    if !node_response::is_success(code) {
        return Err(refused(pod.name(), code, response.into_body()).await);
    }
    Ok(stream(call, response, held))
}

/// The container whose log is meant.
pub(crate) fn choose_container(pod: &Object, wanted: &str) -> Result<String, ApiError> {
    let names = |pointer: &str| -> Vec<String> {
        pod.array(pointer).iter().filter_map(|c| Some(c["name"].as_str()?.to_owned())).collect()
    };
    let regular = names("/spec/containers");
    let all: Vec<String> =
        [names("/spec/initContainers"), regular.clone(), names("/spec/ephemeralContainers")].concat();
    let pod = pod.name();
    if !wanted.is_empty() {
        return if all.iter().any(|name| name == wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod}")))
        };
    }
    match regular.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {pod}"))),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// Where the node's kubelet is reached.
pub(crate) fn address(node: &Object, preferred: &[String]) -> Result<String, ApiError> {
    let addresses = node.array("/status/addresses");
    let text = |address: &Value, key: &str| address[key].as_str().unwrap_or_default().to_owned();
    let found = preferred
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address["type"] == kind.as_str()))
        .map(|address| text(address, "address"));
    found.ok_or_else(|| {
        let known: Vec<String> =
            addresses.iter().map(|a| format!("{{{} {}}}", text(a, "type"), text(a, "address"))).collect();
        let why = format!("no preferred addresses found; known addresses: [{}]", known.join(" "));
        ApiError::new(500, Reason::Unknown, why)
    })
}

/// Where the node's kubelet listens.
pub(crate) fn port(node: &Object) -> u16 {
    let told = node.integer("/status/daemonEndpoints/kubeletEndpoint/Port");
    told.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT)
}

fn log_path(pod: &Object, container: &str, options: &PodLogOptions) -> String {
    let path = format!("/containerLogs/{}/{}/{container}", pod.namespace(), pod.name());
    let query = options.to_kubelet_query();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// What the client is told when the kubelet refused.
async fn refused(pod: &str, code: u16, body: NodeBody) -> ApiError {
    match read_limited(body, MAX_BODY_BYTES).await {
        Ok(body) => node_response::to_error(pod, code, &body),
        Err(ReadError::TooLong) => {
            node_response::to_error(pod, code, b"the node's answer is too long to be shown")
        }
        Err(ReadError::Broken(error)) => ApiError::internal(error),
    }
}

/// Streams the log to whoever holds the permit for it, as it comes: nothing waits in between, so a client that reads slowly
/// holds the kubelet back, and one that leaves drops the kubelet's stream, which cancels it there. What the kubelet says about
/// options beyond Kubernetes is passed on.
fn stream(call: Call, response: Response<NodeBody>, held: Held) -> Answer {
    // What lasts as long as the stream is kept small: the permit has done its work when the stream begins.
    let Call { permit: _, headers, upgrade, path, audit, .. } = call;
    let upgrade = upgrade.filter(Upgrade::is_websocket);
    // The answer to a wish for a WebSocket is over when the stream begins, which is to be noted to its end.
    let audit = audit.filter(|_| upgrade.is_some());
    let held = (path.into_boxed_str(), (held, audit));
    let (parts, body) = response.into_parts();
    let coding = if upgrade.is_none() { Coding::negotiate(&headers) } else { Coding::PlainText };
    let stream = coding.encode(relay_body(body, held, |(path, _), error| {
        tracing::warn!(path, %error, "a kubelet's log stream broke");
    }));
    let mut answer = match upgrade {
        Some(upgrade) => upgrade.answer(&headers, stream),
        None => Response::new(stream),
    };
    if answer.status() == StatusCode::OK {
        coding.describe(answer.headers_mut());
    }
    for name in [LOG_OPTIONS_HEADER, LOG_RESUMED_HEADER] {
        if let Some(value) = parts.headers.get(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use podlog_api::StreamRules;
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Object {
        Object::new(json!({"metadata": {"name": "web", "namespace": "prod"}, "spec": spec}))
    }

    #[test]
    fn containers_are_chosen_as_upstream_chooses() {
        let one = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}]});
        let rows = [
            (&one, "", Ok("a")),
            (&one, "i", Ok("i")),
            (&two, "e", Ok("e")),
            (&two, "zzz", Err("container zzz is not valid for pod web")),
            (&two, "", Err("a container name must be specified for pod web, choose one of: [i a b e]")),
            (&json!({}), "", Err("a container name must be specified for pod web")),
        ];
        for (spec, wanted, expected) in rows {
            let found = choose_container(&pod(spec.clone()), wanted);
            match expected {
                Ok(name) => assert_eq!(found.unwrap(), name),
                Err(message) => {
                    let error = found.unwrap_err();
                    assert_eq!((error.code, error.message.as_str()), (400, message));
                    assert_eq!(error.details, None);
                }
            }
        }
    }

    #[test]
    fn addresses_follow_the_preference() {
        let preferred: Vec<String> = ["Hostname", "InternalIP"].map(str::to_owned).to_vec();
        let node = |addresses: Value| Object::new(json!({"status": {"addresses": addresses}}));
        let ip = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let rows = [
            (json!([ip, {"type": "Hostname", "address": "n1"}]), Ok("n1")),
            (json!([ip, {"type": "InternalIP", "address": "10.0.0.2"}]), Ok("10.0.0.1")),
            (
                json!([{"type": "ExternalIP", "address": "1.2.3.4"}, {"type": "InternalDNS", "address": "d"}]),
                Err("no preferred addresses found; known addresses: [{ExternalIP 1.2.3.4} {InternalDNS d}]"),
            ),
            (json!([]), Err("no preferred addresses found; known addresses: []")),
        ];
        for (addresses, expected) in rows {
            match (address(&node(addresses), &preferred), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    assert_eq!(
                        (error.code, error.reason, error.message.as_str()),
                        (500, Reason::Unknown, expected)
                    );
                }
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn ports_and_paths() {
        let node = |port: Value| {
            Object::new(json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}))
        };
        assert_eq!(port(&node(json!(12345))), 12345);
        assert_eq!(port(&node(json!(0))), 10250);
        assert_eq!(port(&node(json!(99999))), 10250);
        let options =
            PodLogOptions::from_query("tailLines=5&follow=true&container=a&pretty=true", StreamRules::Exact)
                .unwrap();
        assert_eq!(
            log_path(&pod(json!({})), "a", &options),
            "/containerLogs/prod/web/a?follow=true&tailLines=5"
        );
        assert_eq!(log_path(&pod(json!({})), "a", &PodLogOptions::default()), "/containerLogs/prod/web/a");
    }
}
