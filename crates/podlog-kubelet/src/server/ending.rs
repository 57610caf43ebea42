//! Whether there will be more of a log.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podlog_api::Compatibility;
use podlog_driver::synchronize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::ReusableBoxFuture;

use super::hints::Hints;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// How often a follower asks whether the container runs, when nothing says that one has ended.
const ASK: Duration = Duration::from_secs(1);
/// How long a runtime may refuse to tell: containerd does so while it starts.
const REFUSING: Duration = Duration::from_secs(10);
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
    pub(super) asking: Asking,
}

/// What is asked of the runtime.
#[derive(Default)]
pub(super) struct Asking {
    /// When a question was put, or answered, last.
    last: Option<Instant>,
    /// The one that is under way.
    question: Option<Question>,
    /// Since when it has refused to tell.
    refusing: Option<Instant>,
}

type Question = ReusableBoxFuture<'static, Result<bool, RuntimeError>>;

/// A question stays with who put it.
impl Clone for Asking {
    fn clone(&self) -> Self {
        Asking { question: None, ..*self }
    }
}

impl Asking {
    /// The answer to the question that is under way, if one is.
    async fn answer(&mut self) -> Result<bool, RuntimeError> {
        let Some(question) = &mut self.question else { return pending().await };
        let answer = question.await;
        (self.question, self.last) = (None, Some(Instant::now()));
        answer
    }
}

impl Ending {
    /// Waits until there may be more to read, however long the runtime takes to answer. Returns whether the container has
    /// ended: what it wrote is then all there.
    ///
    /// Nothing is lost when the future is dropped: a question that is under way is waited for by the next one.
    pub(super) async fn wait(&mut self, hints: &mut Hints) -> Result<bool, RuntimeError> {
        loop {
            self.ask_if_due();
            let is_asked = self.asking.question.is_some();
            tokio::select! {
                answer = self.asking.answer() => if self.has_ended(answer)? {
                    return Ok(true);
                },
                () = hints.changed() => return Ok(false),
                // One that ends while the question is under way makes another one due.
                Ok(()) = self.endings.changed(), if !is_asked => self.asking.last = None,
            }
        }
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

    /// Takes back a question that nobody waits for any more.
    pub(super) fn rest(&mut self) {
        self.asking.question = None;
    }

    /// A busy log gives many hints a second; the runtime is not asked that often.
    fn ask_if_due(&mut self) {
        let is_due = self.asking.last.is_none_or(|last| last.elapsed() >= ASK);
        if self.asking.question.is_none() && (is_due || self.endings.has_changed().unwrap_or(false)) {
            self.endings.mark_unchanged();
            let Ending { runtime, instance, compatibility, journal, .. } = self;
            let question = ask(runtime.clone(), instance.clone(), *compatibility, journal.clone());
            (self.asking.question, self.asking.last) = (Some(Question::new(question)), Some(Instant::now()));
        }
    }

    fn has_ended(&mut self, answer: Result<bool, RuntimeError>) -> Result<bool, RuntimeError> {
        match answer {
            // It does not answer: nobody says that the container has ended.
            Err(RuntimeError::Unavailable(_)) => Ok(false),
            Err(RuntimeError::Rpc { .. })
                if self.asking.refusing.get_or_insert_with(Instant::now).elapsed() < REFUSING =>
            {
                Ok(false)
            }
            told => {
                self.asking.refusing = None;
                told
            }
        }
    }
}

/// Whether the container has ended, and what it wrote is all there.
async fn ask(
    runtime: Arc<dyn ContainerRuntime>,
    instance: ContainerId,
    compatibility: Compatibility,
    journal: Option<PathBuf>,
) -> Result<bool, RuntimeError> {
    let has_ended = match runtime.container_status(&instance).await {
        Ok(status) => !matches!(status.container.state, ContainerState::Running | ContainerState::Created),
        // Only what has ended is removed. The files that are open are read to their end; should others be gone
        // before their time, the reader says so.
        Err(RuntimeError::NotFound { .. }) if compatibility == Compatibility::Exact => true,
        Err(error) => return Err(error),
    };
    if let (true, Some(socket)) = (has_ended, journal) {
        let written = tokio::task::spawn_blocking(move || synchronize(&socket, WRITING)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(instance = instance.0, %error, "waiting a moment for the end of a log in the journal");
            sleep(UNASKED).await;
        }
    }
    Ok(has_ended)
}
