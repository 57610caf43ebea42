//! A log on its way to one client.
//!
//! The log is read one chunk ahead of the connection: a slow client holds memory for two chunks and no thread. A follower
//! waits for hints and asks the runtime whether there will be more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podlog_api::Compatibility;
use podlog_driver::{LogChanges, ReadState};
use podlog_serving::{BodySender, Permit, ReceiverGone};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::reading::{Chunk, Reading, ReadingError};
use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// How often a follower asks whether the container runs, when nothing says that one has ended.
const ASK: Duration = Duration::from_secs(1);

/// Hints that a log has changed.
pub(super) enum Hints {
    Watched(LogChanges),
    /// The system has no watch left: look every now and then.
    Timer,
}

impl Hints {
    async fn changed(&mut self) {
        match self {
            Hints::Watched(changes) => changes.changed().await,
            Hints::Timer => sleep(ASK).await,
        }
    }
}

/// A log on its way.
pub(super) struct LogStream {
    pub(super) reading: Reading,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) hints: Hints,
    /// Changes whenever some container has ended.
    pub(super) endings: watch::Receiver<u64>,
    pub(super) instance: ContainerId,
    pub(super) follow: bool,
    pub(super) compatibility: Compatibility,
    /// When the runtime was asked last.
    pub(super) asked: Option<Instant>,
    /// Nobody streams a log without.
    pub(super) permit: Permit,
}

/// Why a stream ends early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client has gone")]
    Gone(#[from] ReceiverGone),
    #[error(transparent)]
    Read(#[from] ReadingError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl LogStream {
    /// Sends `first` and all that follows.
    pub(super) async fn run(mut self, first: Chunk, sender: BodySender) {
        let instance = self.instance.0.clone();
        match self.send_all(first, &sender).await {
            Ok(()) => sender.finish().await,
            Err(Broken::Gone(_)) => {
                tracing::debug!(user = self.permit.user().username, instance, "the client has gone");
            }
            Err(error) => {
                tracing::warn!(instance, %error, "a log stream was aborted");
                self.break_off(sender, error).await;
            }
        }
    }

    /// A body that ends in an error does not look complete. Kubernetes prints the error into the body instead.
    async fn break_off(&self, sender: BodySender, error: Broken) {
        match self.compatibility {
            Compatibility::Exact => sender.fail(error).await,
            Compatibility::Upstream => {
                if sender.send(error.to_string()).await.is_ok() {
                    sender.finish().await;
                }
            }
        }
    }

    async fn send_all(&mut self, first: Chunk, sender: &BodySender) -> Result<(), Broken> {
        let mut state = self.catch_up(first, sender).await?;
        let mut ended = !self.follow;
        while state != ReadState::LimitReached && !ended {
            ended = self.wait(sender).await?;
            let chunk = self.reading.chunk().await?;
            state = self.catch_up(chunk, sender).await?;
        }
        if state != ReadState::LimitReached {
            sender.send(self.reading.rest().await?).await?;
        }
        Ok(())
    }

    /// Sends a chunk and everything up to the end of what is there; reads the next chunk while one is sent.
    async fn catch_up(&mut self, first: Chunk, sender: &BodySender) -> Result<ReadState, Broken> {
        let Chunk { data, mut state } = first;
        let mut data = Bytes::from(data);
        while state == ReadState::More {
            let (sent, next) = tokio::join!(sender.send(data), self.reading.chunk());
            sent?;
            let next = next?;
            (data, state) = (Bytes::from(next.data), next.state);
        }
        sender.send(data).await?;
        Ok(state)
    }

    /// Waits until there may be more to read. Returns whether the container has ended: what it wrote is then all there.
    async fn wait(&mut self, sender: &BodySender) -> Result<bool, Broken> {
        // A busy log gives a thousand hints a second; the runtime is not asked that often.
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if (is_due || self.endings.has_changed().unwrap_or(false)) && self.has_ended().await? {
            return Ok(true);
        }
        tokio::select! {
            () = sender.closed() => Err(ReceiverGone.into()),
            () = self.hints.changed() => Ok(false),
            _ = self.endings.changed() => {
                self.asked = None;
                Ok(false)
            }
        }
    }

    async fn has_ended(&mut self) -> Result<bool, Broken> {
        self.endings.mark_unchanged();
        self.asked = Some(Instant::now());
        match self.runtime.container_status(&self.instance).await {
            Ok(status) => {
                Ok(!matches!(status.container.state, ContainerState::Running | ContainerState::Created))
            }
            // It does not answer: nobody says that the container has ended.
            Err(RuntimeError::Unavailable(_)) => Ok(false),
            // Only what has ended is removed. The files that are open are read to their end; should others be gone
            // before their time, the reader fails.
            Err(RuntimeError::NotFound { .. }) if self.compatibility == Compatibility::Exact => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
