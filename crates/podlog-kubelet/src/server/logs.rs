//! `/containerLogs/{namespace}/{pod}/{container}`: checks, then a container's log as a stream.
//!
//! Texts and their order as `getContainerLogs` of `pkg/kubelet/server/server.go`. What upstream notices after it has
//! answered 200, and then prints into the log, is noticed before here: it is a 400 with the same text.

use http::request::Parts;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use podlog_api::{PodLogOptions, StreamRules};
use podlog_driver::{LogSource, ReadError};
use podlog_line::{Selection, Streams};
use podlog_serving::{Body, Permit, stream_body};

use super::choose::container_id;
use super::handler::{LogServer, plain};
use super::stream::{Chunk, LogStream, read};
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
        Ok(body) => Response::new(body),
        Err((code, text)) => plain(code, text),
    }
}

async fn log(server: &LogServer, segments: &[&str], query: &str, permit: Permit) -> Result<Body, Refused> {
    let (namespace, pod, container) = names(segments)?;
    let options = PodLogOptions::from_kubelet_query(query, StreamRules::Exact).map_err(|error| {
        let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::BAD_REQUEST);
        (code, error.to_string())
    })?;
    let instance = choose(server, namespace, pod, container, options.previous)?;
    let status = instance_status(server, &instance).await?;
    let selection = selection(&options, Timestamp::now());
    let (reader, first) = open(&status, selection).await.map_err(|error| bad_request(error.to_string()))?;
    tracing::debug!(user = permit.user().username, namespace, pod, container, instance, "serving a log");
    let (sender, body) = stream_body();
    let stream = LogStream {
        runtime: server.context.runtime.clone(),
        hints: server.hints(&status.log_path),
        endings: server.pods.endings(),
        instance: status.container.id.clone(),
        follow: options.follow,
        asked: None,
        permit,
    };
    tokio::spawn(stream.run(reader, first, sender));
    Ok(body)
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

async fn instance_status(server: &LogServer, instance: &str) -> Result<ContainerStatus, Refused> {
    let id = instance.split_once("://").map_or("", |(_, id)| id);
    let status = server.context.runtime.container_status(&ContainerId(id.to_owned())).await;
    status.map_err(|error| {
        tracing::warn!(instance, %error, "cannot find a container whose log is wanted");
        bad_request(format!("unable to retrieve container logs for {instance}"))
    })
}

/// Opens the log and reads its first chunk, so that a log that cannot be read is refused in time.
async fn open(
    status: &ContainerStatus,
    selection: Selection,
) -> Result<(podlog_driver::LogReader, Chunk), ReadError> {
    let path = status.log_path.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let mut reader = LogSource::open(path)?.read(&selection)?;
        let first = read(&mut reader)?;
        Ok((reader, first))
    });
    match opened.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The part of the log that the options ask for.
fn selection(options: &PodLogOptions, now: Timestamp) -> Selection {
    let ago =
        options.since_seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    let since = ago.into_iter().chain(options.since_time).max();
    let nanoseconds = |at: Timestamp| {
        let nanoseconds = at.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        podlog_line::Timestamp::from_nanoseconds(nanoseconds as i64)
    };
    Selection {
        since: since.map(nanoseconds),
        tail: options.tail_lines.and_then(|lines| u64::try_from(lines).ok()),
        limit_bytes: options.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        timestamps: options.timestamps,
        streams: match options.stream.as_deref() {
            Some("Stdout") => Streams::Stdout,
            Some("Stderr") => Streams::Stderr,
            _ => Streams::Both,
        },
        follow: options.follow,
        ..Selection::default()
    }
}
