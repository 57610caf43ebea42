//! Logs of instances for clients, whoever found out which instance they mean.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use podlog_api::{Compatibility, LOG_OPTIONS_HEADER, LOG_RESUMED_HEADER, LogExtensions, PodLogOptions};
use podlog_driver::{IndexCache, JournalSource, LogWatcher};
use podlog_serving::metrics::Registry;
use podlog_serving::{Body, Permit, stream_body, text_body};
use tokio::sync::watch;

use super::ending::{Asking, Ending};
use super::framing::Framing;
use super::hints::{Watched, Watching};
use super::hub::{Hub, Shareable, Source};
use super::logs::{Refused, bad_request};
use super::reading::{Chunk, Instances, Kept, Reading, ReadingError, ReadingMetrics, Wanted};
use super::selection::{nanoseconds, selection};
use super::stream::LogStream;
use crate::config::JournalFiles;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus};

/// Which log is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogOf {
    /// That of an instance which the runtime knows, `<runtime>://<id>`.
    Instance(String),
    /// That of an instance which the runtime has forgotten, by its current file: nothing is added to it any more.
    Forgotten(PathBuf),
}

impl fmt::Display for LogOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogOf::Instance(instance) => f.write_str(instance),
            LogOf::Forgotten(path) => path.display().fmt(f),
        }
    }
}

/// Hands out logs.
pub(crate) struct LogDesk {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    /// Changes whenever some container has ended.
    pub(crate) endings: watch::Receiver<u64>,
    /// The one watcher of log files; `None` where the system has none left.
    pub(crate) watcher: Option<LogWatcher>,
    pub(crate) compatibility: Compatibility,
    /// Where logs are looked for that are in no files.
    journal: JournalFiles,
    pub(super) readings: ReadingMetrics,
    pub(super) hub: Hub,
    /// What was found in log files that others write.
    pub(super) indexes: IndexCache,
}

impl LogDesk {
    pub(crate) fn new(
        runtime: Arc<dyn ContainerRuntime>,
        endings: watch::Receiver<u64>,
        watcher: Option<LogWatcher>,
        compatibility: Compatibility,
        journal: JournalFiles,
        registry: &Registry,
    ) -> Self {
        LogDesk {
            journal,
            runtime,
            endings,
            watcher,
            compatibility,
            readings: ReadingMetrics::new(registry),
            hub: Hub::default(),
            indexes: IndexCache::default(),
        }
    }

    /// What a query asks for.
    pub(crate) fn options(&self, query: &str) -> Result<PodLogOptions, Refused> {
        PodLogOptions::from_kubelet_query(query, self.compatibility.stream_rules()).map_err(|error| {
            let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::BAD_REQUEST);
            (code, error.to_string())
        })
    }

    /// A log.
    pub(crate) async fn answer(
        &self,
        log: &LogOf,
        options: &PodLogOptions,
        permit: Permit,
    ) -> Result<Response<Body>, Refused> {
        let selection = selection(options, self.compatibility, Timestamp::now());
        let selection = selection.map_err(|error| bad_request(error.to_string()))?;
        let extensions = &options.extensions;
        let wanted = Wanted {
            selection,
            instances: if extensions.all_instances { Instances::UpTo } else { Instances::Only },
            framing: if extensions.frames { Framing::Frames } else { Framing::Plain },
        };
        let served = serve(self, log, wanted, permit).await;
        let response = match (served, self.compatibility) {
            (Err(text), Compatibility::Upstream) => Response::new(text_body(text)),
            (served, _) => served.map_err(bad_request)?,
        };
        Ok(with_honoured(response, extensions))
    }

    /// What changes when there is more of a log.
    fn watching(&self, reading: &Reading, path: PathBuf) -> Watching {
        let watched = reading.journal().map_or(Watched::File(path), Watched::Directory);
        Watching { watcher: self.watcher.clone(), watched }
    }

    /// Where the log of an instance may be.
    fn kept(&self, id: &ContainerId, path: PathBuf) -> Kept {
        let directories = &self.journal.directories;
        // Entries are found by the whole id.
        let is_known = !id.0.is_empty() && !directories.is_empty();
        let journal = is_known.then(|| JournalSource::new(directories.clone(), id.0.clone()));
        Kept { path, journal }
    }
}

/// Says what was honoured of what Kubernetes cannot be asked for.
pub(super) fn with_honoured(response: Response<Body>, extensions: &LogExtensions) -> Response<Body> {
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

/// Streams a log. A failure is one that Kubernetes prints into a 200.
async fn serve(
    desk: &LogDesk,
    log: &LogOf,
    mut wanted: Wanted,
    permit: Permit,
) -> Result<Response<Body>, String> {
    let (instance, path) = match log {
        LogOf::Instance(instance) => {
            let status = instance_status(desk, instance).await?;
            (status.container.id, status.log_path)
        }
        LogOf::Forgotten(path) => {
            wanted.selection.follow = false;
            (ContainerId(String::new()), path.clone())
        }
    };
    let follow = wanted.selection.follow;
    let is_resumed = wanted.selection.after.is_some();
    let shareable = Shareable::of(&wanted, nanoseconds(Timestamp::now()));
    let kept = desk.kept(&instance, path.clone());
    let (reading, first) = open(desk, kept, wanted).await.map_err(|error| error.to_string())?;
    let resumed = is_resumed.then(|| reading.resumed());
    let ending = Ending {
        runtime: desk.runtime.clone(),
        endings: desk.endings.clone(),
        instance,
        compatibility: desk.compatibility,
        journal: reading.journal().map(|_| desk.journal.socket.clone()),
        asking: Asking::default(),
    };
    let source = Source { ending, watching: desk.watching(&reading, path) };
    let stream =
        LogStream { reading: Some(reading), source, follow, shareable, hub: desk.hub.clone(), permit };
    let (sender, body) = stream_body();
    tokio::spawn(stream.run(first, sender));
    let response = Response::new(body);
    Ok(match resumed {
        Some(resumed) => with_header(response, LOG_RESUMED_HEADER, &resumed.to_string()),
        None => response,
    })
}

async fn instance_status(desk: &LogDesk, instance: &str) -> Result<ContainerStatus, String> {
    let id = instance.split_once("://").map_or("", |(_, id)| id);
    let status = desk.runtime.container_status(&ContainerId(id.to_owned())).await;
    status.map_err(|error| {
        tracing::warn!(instance, %error, "cannot find a container whose log is wanted");
        format!("unable to retrieve container logs for {instance}")
    })
}

/// Opens the log and reads its first chunk, so that a log that cannot be read is refused in time.
async fn open(desk: &LogDesk, kept: Kept, wanted: Wanted) -> Result<(Reading, Chunk), ReadingError> {
    let (indexes, metrics) = (desk.indexes.clone(), desk.readings.clone());
    let mut reading = Reading::open(kept, wanted, indexes, metrics).await?;
    let first = reading.chunk().await?;
    Ok((reading, first))
}
