//! `/containerLogs/{namespace}/{pod}/{container}`: checks, then a container's log as a stream.
//!
//! Texts and their order as `getContainerLogs` of `pkg/kubelet/server/server.go`. What upstream notices after it has
//! answered 200, and then prints into the log, is noticed before here: it is a 400 with the same text, unless
//! [`Compatibility::Upstream`] is asked for.

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use podlog_api::{Compatibility, LOG_OPTIONS_HEADER, LOG_RESUMED_HEADER, LogExtensions, PodLogOptions};
use podlog_serving::{Body, Permit, stream_body, text_body};

use super::choose::container_id;
use super::ending::Ending;
use super::framing::Framing;
use super::handler::{LogServer, plain};
use super::hub::{Shareable, Source};
use super::reading::{Chunk, Instances, Reading, ReadingError, Wanted};
use super::selection::{nanoseconds, selection};
use super::stream::LogStream;
use crate::go;
use crate::pods::{PodId, find_container};
use crate::runtime::{ContainerId, ContainerStatus};

/// A refusal: code and text.
type Refused = (StatusCode, String);

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
    let options =
        PodLogOptions::from_kubelet_query(query, server.compatibility.stream_rules()).map_err(|error| {
            let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::BAD_REQUEST);
            (code, error.to_string())
        })?;
    let instance = choose(server, namespace, pod, container, options.previous)?;
    let selection = selection(&options, server.compatibility, Timestamp::now());
    let selection = selection.map_err(|error| bad_request(error.to_string()))?;
    tracing::debug!(user = permit.user().username, namespace, pod, container, instance, "serving a log");
    let extensions = &options.extensions;
    let wanted = Wanted {
        selection,
        instances: if extensions.all_instances { Instances::UpTo } else { Instances::Only },
        framing: if extensions.frames { Framing::Frames } else { Framing::Plain },
    };
    let response = match (serve(server, &instance, wanted, permit).await, server.compatibility) {
        (Err(text), Compatibility::Upstream) => Response::new(text_body(text)),
        (served, _) => served.map_err(bad_request)?,
    };
    Ok(with_honoured(response, extensions))
}

/// Says what was honoured of what Kubernetes cannot be asked for.
fn with_honoured(response: Response<Body>, extensions: &LogExtensions) -> Response<Body> {
    if extensions.is_empty() {
        return response;
    }
    with_header(response, LOG_OPTIONS_HEADER, &extensions.names().join(","))
}

/// `value` is printable ASCII.
fn with_header(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Streams the log of an instance. A failure is one that Kubernetes prints into a 200.
async fn serve(
    server: &LogServer,
    instance: &str,
    wanted: Wanted,
    permit: Permit,
) -> Result<Response<Body>, String> {
    let status = instance_status(server, instance).await?;
    let follow = wanted.selection.follow;
    let is_resumed = wanted.selection.after.is_some();
    let shareable = Shareable::of(&wanted, nanoseconds(Timestamp::now()));
    let (reading, first) = open(server, &status, wanted).await.map_err(|error| error.to_string())?;
    let resumed = is_resumed.then(|| reading.resumed());
    let ending = Ending {
        runtime: server.context.runtime.clone(),
        endings: server.pods.endings(),
        instance: status.container.id.clone(),
        compatibility: server.compatibility,
        asked: None,
    };
    let source = Source { ending, watching: server.watching(status.log_path.clone()) };
    let stream =
        LogStream { reading: Some(reading), source, follow, shareable, hub: server.hub.clone(), permit };
    let (sender, body) = stream_body();
    tokio::spawn(stream.run(first, sender));
    let response = Response::new(body);
    Ok(match resumed {
        Some(resumed) => with_header(response, LOG_RESUMED_HEADER, &resumed.to_string()),
        None => response,
    })
}

fn bad_request(text: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, text.into())
}

fn names<'a>(segments: &[&'a str]) -> Result<(&'a str, &'a str, &'a str), Refused> {
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

async fn instance_status(server: &LogServer, instance: &str) -> Result<ContainerStatus, String> {
    let id = instance.split_once("://").map_or("", |(_, id)| id);
    let status = server.context.runtime.container_status(&ContainerId(id.to_owned())).await;
    status.map_err(|error| {
        tracing::warn!(instance, %error, "cannot find a container whose log is wanted");
        format!("unable to retrieve container logs for {instance}")
    })
}

/// Opens the log and reads its first chunk, so that a log that cannot be read is refused in time.
async fn open(
    server: &LogServer,
    status: &ContainerStatus,
    wanted: Wanted,
) -> Result<(Reading, Chunk), ReadingError> {
    let (indexes, metrics) = (server.indexes.clone(), server.reading_metrics());
    let mut reading = Reading::open(status.log_path.clone(), wanted, indexes, metrics).await?;
    let first = reading.chunk().await?;
    Ok((reading, first))
}
