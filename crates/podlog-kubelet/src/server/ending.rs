//! Whether there will be more of a log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podlog_api::Compatibility;
use podlog_driver::synchronize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::hints::Hints;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// How often a follower asks whether the container runs, when nothing says that one has ended.
const ASK: Duration = Duration::from_secs(1);
/// How long journald may take to write what it has.
const WRITING: Duration = Duration::from_secs(10);
/// How long it is given when it cannot be asked.
const UNASKED: Duration = Duration::from_secs(1);

/// Knows whether a container has ended.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    /// Changes whenever some container has ended.
    pub(super) endings: watch::Receiver<u64>,
    pub(super) instance: ContainerId,
    pub(super) compatibility: Compatibility,
    /// Where journald listens, if it is the one that has the last lines.
    pub(super) journal: Option<PathBuf>,
    /// When the runtime was asked last.
    pub(super) asked: Option<Instant>,
}

impl Ending {
    /// Waits until there may be more to read. Returns whether the container has ended: what it wrote is then all there.
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn wait(&mut self, hints: &mut Hints) -> Result<bool, RuntimeError> {
        // A busy log gives many hints a second; the runtime is not asked that often.
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if (is_due || self.endings.has_changed().unwrap_or(false)) && self.has_ended().await? {
            return Ok(true);
        }
        tokio::select! {
            () = hints.changed() => {}
            _ = self.endings.changed() => self.asked = None,
        }
        Ok(false)
    }

    /// [`Ending::wait`], but not before `moment`.
    pub(super) async fn wait_from(
        &mut self,
        moment: Instant,
        hints: &mut Hints,
    ) -> Result<bool, RuntimeError> {
        if moment > Instant::now() {
            sleep_until(moment).await;
        }
        self.wait(hints).await
    }

    /// Whether the container has ended, and what it wrote is all there.
    async fn has_ended(&mut self) -> Result<bool, RuntimeError> {
        let has_ended = self.ask().await?;
        if let (true, Some(socket)) = (has_ended, self.journal.clone()) {
            let written = tokio::task::spawn_blocking(move || synchronize(&socket, WRITING)).await;
            if let Ok(Err(error)) = written {
                tracing::debug!(instance = self.instance.0, %error, "waiting a moment for the end of a log in the journal");
                sleep(UNASKED).await;
            }
        }
        Ok(has_ended)
    }

    async fn ask(&mut self) -> Result<bool, RuntimeError> {
        self.asked = None;
        self.endings.mark_unchanged();
        let status = self.runtime.container_status(&self.instance).await;
        self.asked = Some(Instant::now());
        match status {
            Ok(status) => {
                Ok(!matches!(status.container.state, ContainerState::Running | ContainerState::Created))
            }
            // It does not answer: nobody says that the container has ended.
            Err(RuntimeError::Unavailable(_)) => Ok(false),
            // Only what has ended is removed. The files that are open are read to their end; should others be gone
            // before their time, the reader says so.
            Err(RuntimeError::NotFound { .. }) if self.compatibility == Compatibility::Exact => Ok(true),
            Err(error) => Err(error),
        }
    }
}
