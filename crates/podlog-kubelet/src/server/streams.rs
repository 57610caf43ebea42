//! `/exec`, `/attach`, `/portForward` and `/run`: the runtime says where its streams are, and the connection goes on there. What goes
//! over it is not read.
//!
//! Paths, parameters and texts as `pkg/kubelet/server/server.go` and `k8s.io/kubelet/pkg/cri/streaming`.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podlog_api::query::Query;
use podlog_serving::{Body, Permit, Upgrade};

use super::handler::{LogServer, content, not_allowed, plain};
use super::logs::{Refused, bad_request};
use crate::go;
use crate::pods::{PodId, labels};
use crate::runtime::{
    ContainerId, ContainerState, RuntimeError, SandboxId, SandboxState, StreamUrl, Streams,
};

/// For who is told to come back later, in seconds (`CacheTTL`).
const LATER: &str = "60";
/// Of a command by `/run`: as long as its client waits.
const UNLIMITED: Duration = Duration::ZERO;

/// Answers a request; `segments` is its path.
pub(super) async fn answer(
    server: &LogServer,
    parts: &Parts,
    segments: &[&str],
    upgrade: Option<Upgrade>,
    permit: Permit,
) -> Response<Body> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let is_run = segments[0] == "run";
    match parts.method {
        Method::POST if is_run => run(server, segments, &query).await,
        _ if is_run => return not_allowed("POST"),
        Method::GET | Method::POST => stream(server, segments, &query, upgrade, permit).await,
        _ => return not_allowed("GET, POST"),
    }
    .unwrap_or_else(|(code, text)| {
        let mut refusal = plain(code, text);
        if code == StatusCode::TOO_MANY_REQUESTS {
            refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(LATER));
        }
        refusal
    })
}

/// Runs a command to its end, and answers with all that it has printed.
async fn run(server: &LogServer, segments: &[&str], query: &Query) -> Result<Response<Body>, Refused> {
    let container = container(server, segments).await?;
    let command: Vec<String> = query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    let result = server.context.runtime.exec_sync(&container, &command, UNLIMITED).await.map_err(refused)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if result.exit_code != 0 {
        let (code, complaint) = (result.exit_code, text(&result.stderr));
        return Err(failed(format!("command '{}' exited with {code}: {complaint}", command.join(" "))));
    }
    Ok(content("text/plain; charset=utf-8", text(&[result.stdout, result.stderr].concat())))
}

async fn stream(
    server: &LogServer,
    segments: &[&str],
    query: &Query,
    upgrade: Option<Upgrade>,
    permit: Permit,
) -> Result<Response<Body>, Refused> {
    let runtime = &server.context.runtime;
    let upgrade_of =
        |upgrade: Option<Upgrade>| upgrade.ok_or_else(|| bad_request("Upgrade request required"));
    let (url, upgrade) = match segments[0] {
        "exec" => {
            let streams = streams(query)?;
            let container = container(server, segments).await?;
            let upgrade = upgrade_of(upgrade)?;
            (runtime.exec(&container, &query.all("command"), streams).await, upgrade)
        }
        "attach" => {
            let streams = streams(query)?;
            let container = container(server, segments).await?;
            let upgrade = upgrade_of(upgrade)?;
            (runtime.attach(&container, streams).await, upgrade)
        }
        _ => {
            let ports = match &upgrade {
                Some(upgrade) if upgrade.is_websocket() => ports(query)?,
                _ => Vec::new(),
            };
            let sandbox = sandbox(server, segments).await?;
            (runtime.port_forward(&sandbox, &ports).await, upgrade_of(upgrade)?)
        }
    };
    let StreamUrl { host, port, path } = url.map_err(refused)?;
    let user = &permit.user().username;
    tracing::debug!(user, pod = segments[2], kind = segments[0], "passing a stream on to the runtime");
    upgrade.pass_on(&host, port, &path, permit).await.map_err(|error| failed(error.to_string()))
}

fn failed(text: impl Into<String>) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, text.into())
}

/// As `streaming.WriteError`.
fn refused(error: RuntimeError) -> Refused {
    let code = match &error {
        RuntimeError::NotFound { .. } | RuntimeError::Rpc { code: "NotFound", .. } => StatusCode::NOT_FOUND,
        RuntimeError::Rpc { code: "ResourceExhausted", .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, crate::pods::error_text(&error))
}

/// As `remotecommand.NewOptions`.
fn streams(query: &Query) -> Result<Streams, Refused> {
    let has = |name: &str| query.first(name) == Some("1");
    let tty = has("tty");
    // A terminal has one output only.
    let streams = Streams { stdin: has("input"), stdout: has("output"), stderr: has("error") && !tty, tty };
    if !streams.stdin && !streams.stdout && !streams.stderr {
        return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(streams)
}

/// As `portforward.BuildV4Options`.
fn ports(query: &Query) -> Result<Vec<u16>, Refused> {
    let asked = query.all("port");
    if asked.is_empty() {
        return Err(bad_request("query parameter \"port\" is required"));
    }
    let number = |text: &str| match text.parse::<u16>() {
        _ if text.is_empty() => Err(bad_request("query parameter \"port\" cannot be empty")),
        Ok(0) => Err(bad_request(format!("port {} must be > 0", go::quote(text)))),
        Ok(port) => Ok(port),
        Err(_) => Err(bad_request(format!("unable to parse {} as a port", go::quote(text)))),
    };
    asked.iter().flat_map(|list| list.split(',')).map(number).collect()
}

/// The pod of `/<what>/<namespace>/<pod>`, behind which the pod's uid may stand, and then so many parts more. Returns the last
/// part, too.
fn pod<'a>(
    server: &LogServer,
    segments: &[&'a str],
    more: usize,
) -> Result<(Arc<Pod>, PodId, &'a str), Refused> {
    let (namespace, name, uid) = match segments.len().checked_sub(3 + more) {
        Some(0) => (segments[1], segments[2], ""),
        Some(1) => (segments[1], segments[2], segments[3]),
        _ => return Err((StatusCode::NOT_FOUND, "404: Page Not Found".into())),
    };
    let missing = || (StatusCode::NOT_FOUND, "pod does not exist".to_owned());
    let pod = server.pods.find(namespace, name).ok_or_else(missing)?;
    let id = PodId::of(&pod);
    let is_meant = uid.is_empty() || uid == id.uid;
    if is_meant { Ok((pod, id, segments[segments.len() - 1])) } else { Err(missing()) }
}

/// The container that is meant, which runs.
async fn container(server: &LogServer, segments: &[&str]) -> Result<ContainerId, Refused> {
    let (_, id, name) = pod(server, segments, 1)?;
    let known = server.context.runtime.list_containers(Some((labels::POD_UID, &id.uid))).await;
    let known = known.map_err(refused)?.into_iter();
    let mut running = known.filter(|known| known.name == name && known.state == ContainerState::Running);
    let found = running.next().ok_or_else(|| failed(format!("container not found ({})", go::quote(name))))?;
    Ok(found.id)
}

/// The sandbox of the pod that is meant.
async fn sandbox(server: &LogServer, segments: &[&str]) -> Result<SandboxId, Refused> {
    let (_, id, _) = pod(server, segments, 0)?;
    let known = server.context.runtime.list_pod_sandboxes(Some((labels::POD_UID, &id.uid))).await;
    let ready = known.map_err(refused)?.into_iter().filter(|known| known.state == SandboxState::Ready);
    let found = ready.max_by_key(|known| known.created_at);
    let missing =
        || failed(format!("pod not found ({})", go::quote(&format!("{}_{}", id.name, id.namespace))));
    Ok(found.ok_or_else(missing)?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_chosen_as_upstream_chooses() {
        let all = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        for (query, expected) in [
            ("input=1&output=1&error=1", Ok(all)),
            ("input=1&output=1&error=1&tty=1", Ok(Streams { stderr: false, tty: true, ..all })),
            ("output=1", Ok(Streams { stdout: true, ..Streams::default() })),
            ("tty=1&error=1", Err("you must specify at least 1 of stdin, stdout, stderr")),
            ("output=true", Err("you must specify at least 1 of stdin, stdout, stderr")),
            ("", Err("you must specify at least 1 of stdin, stdout, stderr")),
        ] {
            let chosen = streams(&Query::parse(query)).map_err(|(_, text)| text);
            assert_eq!(
                chosen.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|text| *text),
                "{query}"
            );
        }
    }

    #[test]
    fn ports_are_read_as_upstream_reads_them() {
        for (query, expected) in [
            ("port=80", Ok(vec![80])),
            ("port=80,443&port=8080", Ok(vec![80, 443, 8080])),
            ("", Err("query parameter \"port\" is required")),
            ("port=", Err("query parameter \"port\" cannot be empty")),
            ("port=0", Err("port \"0\" must be > 0")),
            ("port=65536", Err("unable to parse \"65536\" as a port")),
        ] {
            let read = ports(&Query::parse(query)).map_err(|(_, text)| text);
            assert_eq!(
                read.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|text| *text),
                "{query}"
            );
        }
    }
}
