//! What the runtime remembers of a container, and the watch over its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_container::{ContainerDir, Exit, Liveness, Metadata, ProcessStat, State};
use podlog_driver::{CriFileSink, FileLimits};
use podlog_line::{Gap, GapReason};
use tokio::sync::{mpsc, watch};

use super::control;
use super::error::{blocking, failed};
use super::status::Findings;
use crate::runtime::{ContainerEvent, ContainerId, ContainerState, RuntimeError, SandboxId};

/// How often to look at a container whose capture cannot be reached although it lives: it is about to end.
const RETRY: Duration = Duration::from_millis(5);
/// Events that wait for a receiver; a slower one loses events.
const MAX_EVENTS: usize = 1024;
const CAPTURE_LOST: &str = "capture ended without reporting; what was left of the container has been killed";

/// A container: what never changes about it, and whether its end was seen.
pub(super) struct ContainerRecord {
    pub(super) dir: ContainerDir,
    pub(super) metadata: Metadata,
    pub(super) log_path: PathBuf,
    /// Held while capture is being started.
    pub(super) starting: tokio::sync::Mutex<()>,
    settling: Mutex<()>,
    ended: watch::Sender<bool>,
}

impl ContainerRecord {
    /// A container whose configuration is on disk.
    pub(super) fn new(dir: ContainerDir, metadata: Metadata, log_path: PathBuf) -> Arc<Self> {
        let (ended, _) = watch::channel(false);
        Arc::new(Self {
            dir,
            metadata,
            log_path,
            starting: Default::default(),
            settling: Mutex::new(()),
            ended,
        })
    }

    /// Its id.
    pub(super) fn id(&self) -> ContainerId {
        ContainerId(self.metadata.id.clone())
    }

    /// Waits until [`watch_end`](Self::watch_end) has seen the end.
    pub(super) async fn wait_ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this record.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Sees a started container to its end.
    pub(super) async fn watch_end(self: Arc<Self>, events: Arc<Events>) {
        while !self.has_ended().await {
            if control::hangup(&self.dir).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
        self.ended.send_replace(true);
        events.emit(&self, ContainerState::Exited);
    }

    /// Whether it has; not if that cannot be found out, which is logged.
    pub(super) async fn has_ended(self: &Arc<Self>) -> bool {
        let record = Arc::clone(self);
        let is_over = move || {
            let findings = record.findings()?;
            Ok(findings.exit.is_some() || findings.liveness != Liveness::Alive)
        };
        blocking(is_over).await.unwrap_or_else(|error| {
            tracing::error!(container = self.metadata.id, %error, "cannot look after a container");
            false
        })
    }

    /// Reads how the container is. The first to find that its capture died without a report kills what is left of the
    /// container and writes the report.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub(super) fn findings(&self) -> Result<Findings, RuntimeError> {
        let read = || Findings::read(&self.dir).map_err(failed("cannot read container"));
        let findings = read()?;
        if !findings.is_unsettled() {
            return Ok(findings);
        }
        let _settling = self.settling.lock();
        let findings = read()?;
        if !findings.is_unsettled() {
            return Ok(findings);
        }
        if let Some(state) = &findings.state {
            kill_session(state);
            self.mark_loss();
        }
        let exit = Exit::unknown(CAPTURE_LOST.to_owned(), Timestamp::now());
        if let Err(error) = self.dir.write_exit(&exit) {
            // It is found again every time until there is room for it.
            tracing::error!(container = self.metadata.id, %error, "cannot write the end of a container");
        }
        Ok(Findings { exit: Some(exit), ..findings })
    }
}

impl ContainerRecord {
    /// Says in the log that its end is missing: nobody knows how much was in the pipes.
    fn mark_loss(&self) {
        let log = CriFileSink::open(&self.log_path, FileLimits { max_bytes: u64::MAX, max_files: u32::MAX });
        let nanoseconds = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let at = podlog_line::Timestamp::from_nanoseconds(nanoseconds);
        let marked = log.and_then(|mut log| log.gap(Gap::new(GapReason::CaptureKilled), at));
        if let Err(error) = marked {
            tracing::warn!(container = self.metadata.id, %error, "cannot mark in a log that its end is missing");
        }
    }
}

/// Kills what is left of the session that the container's first process led. The session's number is nobody else's while one of its processes lives, or its leader is the same as before.
fn kill_session(state: &State) {
    let session = state.process.pid;
    let is_reused =
        ProcessStat::read(session).is_some_and(|leader| leader.start_ticks != state.process.start_ticks);
    if is_reused || !state.process.is_of_this_boot() {
        return;
    }
    let processes = ProcessStat::all().unwrap_or_default();
    for process in processes.iter().filter(|process| process.session == session) {
        if let Err(error) = process.kill() {
            tracing::warn!(pid = process.pid, %error, "cannot kill a process left behind by a container");
        }
    }
}

/// Everybody who wants to know what happens to containers.
#[derive(Default)]
pub(super) struct Events(Mutex<Vec<mpsc::Sender<ContainerEvent>>>);

impl Events {
    /// Events from now on.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        self.0.lock().push(sender);
        receiver
    }

    /// Tells everybody who has room for it.
    pub(super) fn emit(&self, record: &ContainerRecord, state: ContainerState) {
        let sandbox = SandboxId(record.metadata.sandbox.clone());
        let event = ContainerEvent { id: record.id(), sandbox, state };
        self.0.lock().retain(|sender| {
            !matches!(sender.try_send(event.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
}
