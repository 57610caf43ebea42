//! One log over the wire.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use kube::client::Body;
use podlog_api::{LOG_OPTIONS_HEADER, LOG_RESUMED_HEADER, LogExtensions, LogResumed, PodLogOptions};
use tokio::time::Instant;

use super::unpack::Unpacker;
use crate::api::broken;
use crate::error::Subject;
use crate::{ClientError, Connection};

/// Pause before a log is asked for again whose container has not started.
const RETRY: Duration = Duration::from_secs(1);
/// What API servers make of a kubelet's 404, as it answers for a pod that was just given to it; names of pods and logs follow.
const UNKNOWN_TO_NODE: &str = "the server could not find the requested resource (";

/// Path and query of a container's log.
pub(crate) fn log_path(namespace: &str, pod: &str, options: &PodLogOptions) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?{}", options.to_query())
}

/// What arrives of a log.
pub(crate) struct LogBody {
    body: Body,
    unpacker: Unpacker,
}

impl LogBody {
    fn of(response: Response<Body>) -> Result<Self, ClientError> {
        let unpacker = Unpacker::of(header(response.headers(), CONTENT_ENCODING.as_str()))?;
        Ok(LogBody { body: response.into_body(), unpacker })
    }

    /// The next piece; `None` at a clean end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            let Some(frame) = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await else {
                return self.unpacker.end().err().map(Err);
            };
            // Trailers are not part of a log.
            let data = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => return Some(Err(broken(&error))),
            };
            match self.unpacker.unpack(data) {
                Ok(data) if data.is_empty() => {}
                unpacked => return Some(unpacked),
            }
        }
    }
}

/// A log that a server has begun to send.
pub(crate) struct Opened {
    pub(crate) body: LogBody,
    /// The names of the options beyond Kubernetes that were honoured.
    honoured: String,
    /// Whether it begins where the cursor stands that was asked for.
    pub(crate) resumed: LogResumed,
}

impl Opened {
    /// Whether it comes in frames.
    pub(crate) fn has_frames(&self) -> bool {
        is_in(&self.honoured, "frames")
    }

    /// Whether the server has honoured all of this.
    pub(super) fn honours(&self, asked: &LogExtensions) -> bool {
        asked.names().into_iter().all(|name| is_in(&self.honoured, name))
    }
}

/// Asks for a log. Of what is asked for beyond Kubernetes, `needed` has to be honoured.
///
/// # Errors
/// Also when it is not: what the server sends then is another log.
pub(crate) async fn request(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    options: &PodLogOptions,
    needed: &LogExtensions,
) -> Result<Opened, ClientError> {
    let subject = Subject { verb: "get", resource: "pods", name: pod };
    let response = connection.stream(&log_path(namespace, pod, options), subject).await?;
    // A pod that has no node yet has no log, whatever was asked for.
    if response.status() == StatusCode::OK {
        check_honoured(needed, response.headers())?;
    }
    let honoured = header(response.headers(), LOG_OPTIONS_HEADER).to_owned();
    let resumed = header(response.headers(), LOG_RESUMED_HEADER).parse().unwrap_or_default();
    Ok(Opened { body: LogBody::of(response)?, honoured, resumed })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_in(honoured: &str, name: &str) -> bool {
    honoured.split(',').any(|honoured| honoured.trim() == name)
}

/// Flags by the names of their parameters.
const FLAGS: [(&str, &str); 12] = [
    ("allInstances", "--all-instances"),
    ("cursor", "--cursor"),
    ("cursors", "--cursors"),
    ("deleted", "--deleted"),
    ("exclude", "--exclude"),
    ("file", "--file"),
    ("fixedStrings", "--fixed-strings"),
    ("instance", "--instance"),
    ("match", "--match"),
    ("uid", "--uid"),
    ("untilSeconds", "--until"),
    ("untilTime", "--until-time"),
];

/// Servers ignore what they do not know; those that know options beyond Kubernetes say which they honoured.
fn check_honoured(asked: &LogExtensions, headers: &HeaderMap) -> Result<(), ClientError> {
    let honoured = header(headers, LOG_OPTIONS_HEADER);
    let ignored: Vec<&str> = asked.names().into_iter().filter(|name| !is_in(honoured, name)).collect();
    if ignored.is_empty() {
        return Ok(());
    }
    let flags: Vec<&str> =
        FLAGS.iter().filter(|(name, _)| ignored.contains(name)).map(|(_, flag)| *flag).collect();
    Err(ClientError::Invalid(format!(
        "the server or the kubelet behind it does not know {}: both have to be podlog's",
        flags.join(", ")
    )))
}

/// Asks for a log by `request`; one that is followed is asked for again each second while its container has not started,
/// as kubectl does since 1.36. `say` gets each new reason.
pub(super) async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
    follow: bool,
    patience: Duration,
    say: &(dyn Fn(&str) + Sync),
    request: impl Fn() -> F,
) -> Result<T, ClientError> {
    let deadline = Instant::now() + patience;
    let mut said = String::new();
    loop {
        match request().await {
            Err(error) if follow && may_pass(&error) && Instant::now() + RETRY < deadline => {
                let text = error.to_string();
                if text != said {
                    say(&text);
                    said = text;
                }
                tokio::time::sleep(RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// A container that is not there yet, a node that has not heard of the pod yet, or one that cannot be reached right now.
fn may_pass(error: &ClientError) -> bool {
    error.status().is_some_and(|status| match status.code {
        400 | 500 | 503 => true,
        404 => status.message.starts_with(UNKNOWN_TO_NODE),
        _ => false,
    })
}
