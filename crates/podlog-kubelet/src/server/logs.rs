//! `/containerLogs/{namespace}/{pod}/{container}`: checks, then a container's log as a stream.
//!
//! Texts and their order as `getContainerLogs` of `pkg/kubelet/server/server.go`. What upstream notices after it has
//! answered 200, and then prints into the log, is noticed before here: it is a 400 with the same text, unless
//! [`Compatibility::Upstream`] is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podlog_api::PodLogOptions;
use podlog_serving::{Body, Permit};

use super::choose::{NEWEST, container_id, nth, unknown_instance};
use super::desk::LogOf;
use super::files;
use super::handler::{LogServer, plain};
use crate::go;
use crate::layout::Layout;
use crate::pods::{PodId, find_container, labels};
use crate::runtime::ContainerState;

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
    if options.extensions.file.is_some() {
        let pod = known(server, namespace, pod, container)?;
        return files::answer(server, &pod, container, &options, permit).await;
    }
    let log = choose(server, (namespace, pod, container), &options).await?;
    tracing::debug!(user = permit.user().username, namespace, pod, container, %log, "serving a log");
    server.desk.answer(&log, &options, permit).await
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

/// The log that is meant.
async fn choose(
    server: &LogServer,
    named: (&str, &str, &str),
    options: &PodLogOptions,
) -> Result<LogOf, Refused> {
    if options.extensions.deleted {
        return choose_deleted(server, named, options).await;
    }
    let (namespace, name, container) = named;
    let pod = known(server, namespace, name, container)?;
    let id = PodId::of(&pod);
    if let Some(asked) = options.extensions.instance {
        return choose_instance(server, &id, container, asked).await;
    }
    let own = server.context.statuses.get(&id);
    let status = own.or_else(|| pod.status.clone()).unwrap_or_default();
    container_id(name, &status, container, options.previous).map(LogOf::Instance).map_err(bad_request)
}

/// The pod, which has this container.
fn known(server: &LogServer, namespace: &str, name: &str, container: &str) -> Result<Arc<Pod>, Refused> {
    let quoted = go::quote(name);
    let unknown_pod = || (StatusCode::NOT_FOUND, format!("pod {quoted} does not exist"));
    let pod = server.pods.find(namespace, name).ok_or_else(unknown_pod)?;
    if find_container(&pod, container).is_none() {
        let text = format!("container {} not found in pod {quoted}", go::quote(container));
        return Err((StatusCode::NOT_FOUND, text));
    }
    Ok(pod)
}

/// An instance by number, whether the runtime still knows it or not.
async fn choose_instance(
    server: &LogServer,
    pod: &PodId,
    container: &str,
    asked: i64,
) -> Result<LogOf, Refused> {
    let runtime = &server.context.runtime;
    let mut known = runtime.list_containers(Some((labels::POD_UID, &pod.uid))).await.unwrap_or_default();
    known.retain(|known| known.name == container && known.state != ContainerState::Created);
    let numbers = known.iter().map(|known| known.attempt).collect();
    let (number, path) = on_disk(server, pod, container, asked, numbers).await?;
    let same = known.into_iter().find(|known| known.attempt == number);
    Ok(match same {
        Some(known) => LogOf::Instance(format!("{}://{}", server.context.runtime_name, known.id.0)),
        None => LogOf::Forgotten(path),
    })
}

/// An instance of a deleted pod: the newest unless another is asked for.
async fn choose_deleted(
    server: &LogServer,
    (namespace, name, container): (&str, &str, &str),
    options: &PodLogOptions,
) -> Result<LogOf, Refused> {
    let extensions = &options.extensions;
    let Some(pod) = server.context.retained.find(namespace, name, extensions.uid.as_deref()) else {
        let text = format!("no logs of a deleted pod {} are here", go::quote(name));
        return Err((StatusCode::NOT_FOUND, text));
    };
    let asked = extensions.instance.or(options.previous.then_some(-1));
    let (_, path) = on_disk(server, &pod, container, asked.unwrap_or(NEWEST), BTreeSet::new()).await?;
    Ok(LogOf::Forgotten(path))
}

/// The number of the instance that is asked for, and its log. The runtime may know some that have no files.
async fn on_disk(
    server: &LogServer,
    pod: &PodId,
    container: &str,
    asked: i64,
    known: BTreeSet<u32>,
) -> Result<(u32, PathBuf), Refused> {
    let layout = server.context.layout.clone();
    let (id, name) = (pod.clone(), container.to_owned());
    let there = tokio::task::spawn_blocking(move || layout.instances(&id, &name)).await;
    let mut there = there.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    there.extend(known);
    let unknown = || bad_request(unknown_instance(&pod.name, container, asked, &there));
    let number = nth(&there, asked).ok_or_else(unknown)?;
    Ok((number, server.context.layout.pod_logs(pod).join(Layout::log_path(container, number))))
}
