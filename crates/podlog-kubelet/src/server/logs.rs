//! `/containerLogs/{namespace}/{pod}/{container}`: checks, then a container's log as a stream.
//!
//! Texts and their order as `getContainerLogs` of `pkg/kubelet/server/server.go`. What upstream notices after it has
//! answered 200, and then prints into the log, is noticed before here: it is a 400 with the same text, unless
//! [`Compatibility::Upstream`] is asked for.

use http::request::Parts;
use http::{Response, StatusCode};
use podlog_serving::{Body, Permit};

use super::choose::container_id;
use super::handler::{LogServer, plain};
use crate::go;
use crate::pods::{PodId, find_container};

/// A refusal: code and text.
pub(super) type Refused = (StatusCode, String);

/// Answers a request for a log; `segments` is what follows `/containerLogs/` in the path.
pub(super) async fn answer(
    server: &LogServer,
    parts: &Parts,
    segments: &[&str],
    permit: Permit,
) -> Response<Body> {
    let query = parts.uri.query().unwrap_or_default();
    match log(server, segments, query, permit).await {
        Ok(response) => response,
        Err((code, text)) => plain(code, text),
    }
}

async fn log(
    server: &LogServer,
    segments: &[&str],
    query: &str,
    permit: Permit,
) -> Result<Response<Body>, Refused> {
    let (namespace, pod, container) = names(segments)?;
    let options = server.desk.options(query)?;
    let instance = choose(server, namespace, pod, container, options.previous)?;
    tracing::debug!(user = permit.user().username, namespace, pod, container, instance, "serving a log");
    server.desk.answer(&instance, &options, permit).await
}

pub(super) fn bad_request(text: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, text.into())
}

pub(super) fn names<'a>(segments: &[&'a str]) -> Result<(&'a str, &'a str, &'a str), Refused> {
    let part = |index: usize| segments.get(index).copied().unwrap_or_default();
    let (namespace, pod, container) = (part(0), part(1), part(2));
    if segments.len() > 3 {
        return Err((StatusCode::NOT_FOUND, "404: Page Not Found".into()));
    }
    for (value, what) in [(pod, "podID"), (container, "container name"), (namespace, "podNamespace")] {
        if value.is_empty() {
            return Err(bad_request(format!(r#"{{"message": "Missing {what}."}}"#)));
        }
    }
    Ok((namespace, pod, container))
}

/// The instance whose log is meant, `<runtime>://<id>`.
fn choose(
    server: &LogServer,
    namespace: &str,
    name: &str,
    container: &str,
    previous: bool,
) -> Result<String, Refused> {
    let quoted = go::quote(name);
    let unknown_pod = || (StatusCode::NOT_FOUND, format!("pod {quoted} does not exist"));
    let pod = server.pods.find(namespace, name).ok_or_else(unknown_pod)?;
    if find_container(&pod, container).is_none() {
        let text = format!("container {} not found in pod {quoted}", go::quote(container));
        return Err((StatusCode::NOT_FOUND, text));
    }
    let own = server.context.statuses.get(&PodId::of(&pod));
    let status = own.or_else(|| pod.status.clone()).unwrap_or_default();
    container_id(name, &status, container, previous).map_err(bad_request)
}
