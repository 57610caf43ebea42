//! One log over the wire.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::Body as _;
use kube::client::Body;
use podlog_api::PodLogOptions;
use tokio::time::Instant;

use super::target::Log;
use crate::api::broken;
use crate::error::Subject;
use crate::{ClientError, Connection};

/// Pause before a log is asked for again whose container has not started.
const RETRY: Duration = Duration::from_secs(1);

/// Path and query of a container's log.
pub(crate) fn log_path(namespace: &str, pod: &str, options: &PodLogOptions) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?{}", options.to_query())
}

/// What arrives of a log.
pub(crate) struct LogBody(Body);

impl LogBody {
    /// The next piece; `None` at a clean end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.0).poll_frame(context)).await?;
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    // Trailers are not part of a log.
                    Err(_) => {}
                },
                Err(error) => return Some(Err(broken(&error))),
            }
        }
    }
}

/// Asks for a log.
pub(crate) async fn open(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    options: &PodLogOptions,
) -> Result<LogBody, ClientError> {
    let subject = Subject { verb: "get", resource: "pods", name: pod };
    connection.stream(&log_path(namespace, pod, options), subject).await.map(LogBody)
}

/// Asks for a log; one that is followed is asked for again each second while its container has not started, as kubectl
/// does since 1.36. `say` gets each new reason.
pub(super) async fn open_patiently(
    connection: &Connection,
    log: &Log,
    patience: Duration,
    say: &(dyn Fn(&str) + Sync),
) -> Result<LogBody, ClientError> {
    let deadline = Instant::now() + patience;
    let mut said = String::new();
    loop {
        match open(connection, &log.namespace, &log.pod, &log.options).await {
            Err(error) if log.options.follow && may_pass(&error) && Instant::now() + RETRY < deadline => {
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

/// A container that is not there yet, or a node that cannot be reached right now.
fn may_pass(error: &ClientError) -> bool {
    error.status().is_some_and(|status| matches!(status.code, 400 | 500 | 503))
}
