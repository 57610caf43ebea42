//! `GET …/nodes/<name>/proxy/<path>`: what a kubelet has to say besides logs, e.g. `kubectl get --raw` of its metrics.
//!
//! As `pkg/registry/core/node/rest/proxy.go`, for requests that only read.

use std::sync::Arc;

use http::header::{CONNECTION, HeaderName, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use podlog_api::{ApiError, Object, Reason};
use podlog_serving::metrics::Held;
use podlog_serving::{Verify, empty_body, relay_body};

use crate::http::{Answer, App, Call, Target};
use crate::logs::{address, port};

/// Headers that are about one connection.
const OF_ONE_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Answers with what the node's kubelet answers.
pub(crate) async fn answer(
    app: &Arc<App>,
    call: Call,
    target: &Target,
    held: Held,
) -> Result<Answer, ApiError> {
    let (name, asked_port) = name_and_port(&target.name);
    let node = app.registry.get(target.resource, "", name)?;
    check_port(&node, name, asked_port)?;
    let host = address(&node, &app.preferred_address_types)?;
    let Some(path) = behind_proxy(&call.path) else { return Ok(to_folder(&call)) };
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let response = app.nodes.get(&host, port(&node), &format!("{path}{query}"), Verify::Ca).await;
    let (parts, body) = response
        .map_err(|error| {
            let text = format!("error trying to reach service: {}", error.cause);
            ApiError::new(503, Reason::ServiceUnavailable, text)
        })?
        .into_parts();
    let mut answer = Response::new(relay_body(body, (call.permit, held), |(permit, _), error| {
        tracing::warn!(attributes = ?permit.attributes(), %error, "a kubelet's answer broke off");
    }));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = beyond_one_hop(parts.headers);
    Ok(answer)
}

/// `name`, `name:port` or `https:name:port`.
fn name_and_port(text: &str) -> (&str, Option<&str>) {
    let text = text.strip_prefix("https:").unwrap_or(text);
    text.split_once(':')
        .map_or((text, None), |(name, port)| (name, Some(port).filter(|port| !port.is_empty())))
}

/// Other ports are spoken to without TLS by upstream, which is not for us.
fn check_port(node: &Object, name: &str, asked: Option<&str>) -> Result<(), ApiError> {
    let kubelets = port(node).to_string();
    match asked {
        Some(asked) if asked != kubelets => Err(ApiError::bad_request(format!(
            "only the kubelet of node {name} can be reached, which listens on port {kubelets}"
        ))),
        _ => Ok(()),
    }
}

/// The path for the kubelet; `None` when not even its first slash is there.
fn behind_proxy(path: &str) -> Option<&str> {
    // Behind /api/v1/nodes/<name>/proxy, whatever the node is called.
    path.match_indices('/').nth(5).map(|(at, _)| &path[at..])
}

/// Sends the client to the same with a slash at the end, so that relative links lead to the right place.
fn to_folder(call: &Call) -> Answer {
    let mut answer = Response::new(empty_body());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let location = HeaderValue::try_from(format!("{}/{query}", call.path)).ok();
    answer.headers_mut().extend(location.map(|location| (LOCATION, location)));
    answer
}

fn beyond_one_hop(mut headers: HeaderMap) -> HeaderMap {
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_taken_apart() {
        let rows = [
            ("n", ("n", None)),
            ("n:10250", ("n", Some("10250"))),
            ("https:n:10250", ("n", Some("10250"))),
            ("https:n:", ("n", None)),
        ];
        for (text, expected) in rows {
            assert_eq!(name_and_port(text), expected, "{text}");
        }
        let rows = [
            ("/api/v1/nodes/n/proxy", None),
            ("/api/v1/nodes/n/proxy/", Some("/")),
            ("/api/v1/nodes/n/proxy/stats/summary", Some("/stats/summary")),
            ("/api/v1/nodes/n/proxy/a%2Fb/proxy/", Some("/a%2Fb/proxy/")),
            ("/api/v1/nodes/proxy-1/proxy", None),
            ("/api/v1/nodes/proxy-1/proxy/metrics", Some("/metrics")),
        ];
        for (path, expected) in rows {
            assert_eq!(behind_proxy(path), expected, "{path}");
        }
    }

    #[test]
    fn only_the_kubelets_port_can_be_reached() {
        let node = Object::new(serde_json::json!({"metadata": {"name": "n"}}));
        assert!(check_port(&node, "n", None).is_ok());
        assert!(check_port(&node, "n", Some("10250")).is_ok());
        assert_eq!(check_port(&node, "n", Some("22")).unwrap_err().code, 400);
    }
}
