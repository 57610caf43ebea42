//! `…/nodes/<name>/proxy/<path>`: requests that are meant for a kubelet, e.g. `kubectl get --raw` of its metrics.
//!
//! As `pkg/registry/core/node/rest/proxy.go` and `k8s.io/apimachinery/pkg/util/proxy`. Unlike there, who may only read cannot go
//! on with another protocol: that is how commands are run.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST, HeaderName, LOCATION,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use podlog_api::{ApiError, Object, Reason};
use podlog_serving::metrics::Held;
use podlog_serving::{Body, Permit, empty_body, relay_body};

use crate::http::{Answer, App, Call, Target};
use crate::logs::{address, port};
use crate::streams;

/// Headers that say to us who asks, which is nobody else's business.
const OF_THE_USER: [&str; 2] = ["impersonate-", "x-remote-"];
/// Over which addresses a request came.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What it asked for.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Who may read an answer of ours is not for a kubelet to say.
const OF_OTHER_SITES: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

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
    let kubelet = Kubelet { host: address(&node, &app.preferred_address_types)?, port: port(&node) };
    let path = match behind_proxy(&call.path) {
        Some(path) => path,
        None if matches!(call.method, Method::GET | Method::HEAD) => return Ok(to_folder(&call)),
        None => "/",
    };
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let path_and_query = format!("{path}{query}");
    if call.upgrade.is_some() {
        return streams::go_on(app, call, (&kubelet.host, kubelet.port), &path_and_query, held).await;
    }
    kubelet.forward(app, call, &path_and_query, held).await
}

/// Where it is.
struct Kubelet {
    host: String,
    port: u16,
}

impl Kubelet {
    async fn forward(
        &self,
        app: &App,
        call: Call,
        path_and_query: &str,
        held: Held,
    ) -> Result<Answer, ApiError> {
        let prefix = before_proxied(&call.path).to_owned();
        let (permit, request) = request(call, path_and_query)?;
        let response = app.nodes.forward(&self.host, self.port, request).await;
        let (mut parts, body) = response
            .map_err(|cause| {
                let text = format!("error trying to reach service: {cause}");
                ApiError::new(503, Reason::ServiceUnavailable, text)
            })?
            .into_parts();
        relocate(&mut parts.headers, &prefix);
        for name in &OF_OTHER_SITES {
            parts.headers.remove(name);
        }
        let body = relay_body(body, (permit, held), |(permit, _), error| {
            tracing::warn!(attributes = ?permit.attributes(), %error, "a kubelet's answer broke off");
        });
        Ok(Response::from_parts(parts, body))
    }
}

/// The request as the kubelet shall have it, and the permit for it.
fn request(call: Call, path_and_query: &str) -> Result<(Permit, Request<Body>), ApiError> {
    let body = call.body.lock().take().unwrap_or_else(empty_body);
    let request = Request::builder().method(call.method).uri(path_and_query).body(body);
    let mut request = request.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut headers = without_user(call.headers);
    say_where_from(&mut headers, call.address, &call.path);
    *request.headers_mut() = headers;
    Ok((call.permit, request))
}

/// As `net/http/httputil.ReverseProxy` and `k8s.io/apimachinery/pkg/util/proxy/transport.go`.
fn say_where_from(headers: &mut HeaderMap, address: IpAddr, path: &str) {
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let addresses: Vec<String> = before.map(str::to_owned).chain([address.to_string()]).collect();
    for (name, value) in [(FORWARDED_FOR, addresses.join(", ").as_str()), (FORWARDED_URI, path)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn without_user(mut headers: HeaderMap) -> HeaderMap {
    let is_of_the_user =
        |name: &&HeaderName| OF_THE_USER.iter().any(|prefix| name.as_str().starts_with(prefix));
    let named: Vec<HeaderName> = headers.keys().filter(is_of_the_user).cloned().collect();
    for name in named.iter().chain([&AUTHORIZATION, &HOST]) {
        headers.remove(name);
    }
    headers
}

/// What a kubelet calls `/x` is behind the proxy for whoever asked.
fn relocate(headers: &mut HeaderMap, prefix: &str) {
    let here = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(here) = here.filter(|here| here.starts_with('/') && !here.starts_with("//")) else { return };
    if !here.starts_with(prefix)
        && let Ok(there) = HeaderValue::try_from(format!("{prefix}{here}"))
    {
        headers.insert(LOCATION, there);
    }
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
    let behind = &path[before_proxied(path).len()..];
    Some(behind).filter(|behind| !behind.is_empty())
}

/// `/api/v1/nodes/<name>/proxy`, whatever the node is called.
fn before_proxied(path: &str) -> &str {
    path.match_indices('/').nth(5).map_or(path, |(at, _)| &path[..at])
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
    fn kubelets_are_not_told_who_asks_and_their_places_are_behind_the_proxy() {
        let headers = [
            ("authorization", "Bearer secret"),
            ("host", "podlog"),
            ("impersonate-user", "ann"),
            ("x-remote-group", "devs"),
            ("accept", "text/plain"),
        ];
        let headers =
            headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let left = without_user(headers.into_iter().collect());
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        let prefix = "/api/v1/nodes/n/proxy";
        for (here, there) in [
            ("/logs/", "/api/v1/nodes/n/proxy/logs/"),
            ("/api/v1/nodes/n/proxy/logs/", "/api/v1/nodes/n/proxy/logs/"),
            ("logs/", "logs/"),
            ("//elsewhere/logs", "//elsewhere/logs"),
            ("https://elsewhere/logs", "https://elsewhere/logs"),
        ] {
            let mut headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(here))]);
            relocate(&mut headers, prefix);
            assert_eq!(headers[LOCATION], there, "{here}");
        }
    }

    #[test]
    fn kubelets_are_told_where_a_request_comes_from() {
        for (before, expected) in [
            (&[][..], "10.0.0.9"),
            (&["1.1.1.1, 2.2.2.2"], "1.1.1.1, 2.2.2.2, 10.0.0.9"),
            (&["1.1.1.1", "2.2.2.2"], "1.1.1.1, 2.2.2.2, 10.0.0.9"),
        ] {
            let mut headers: HeaderMap =
                before.iter().map(|value| (FORWARDED_FOR, HeaderValue::from_static(value))).collect();
            headers.insert(FORWARDED_URI, HeaderValue::from_static("/made/up"));
            say_where_from(&mut headers, [10, 0, 0, 9].into(), "/api/v1/nodes/n/proxy/metrics");
            assert_eq!(headers[FORWARDED_FOR], expected, "{before:?}");
            assert_eq!(headers[FORWARDED_URI], "/api/v1/nodes/n/proxy/metrics");
            assert_eq!(headers.len(), 2);
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
