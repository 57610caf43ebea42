//! A log on its way to one client.
//!
//! Files are read on blocking threads, one chunk ahead of the connection: a slow client holds memory for two chunks and
//! no thread. A follower waits for hints and asks the runtime whether there will be more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podlog_driver::{LogChanges, LogReader, ReadError, ReadState};
use podlog_serving::{BodySender, Permit, ReceiverGone};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// Size of a chunk; a little more is taken when lines are long.
const CHUNK: usize = 256 * 1024;
/// How often a follower asks whether the container runs, when nothing says that one has ended.
const ASK: Duration = Duration::from_secs(1);

/// What was read, and whether there is more.
pub(super) struct Chunk {
    pub(super) data: Vec<u8>,
    pub(super) state: ReadState,
}

/// Reads a chunk. Blocking.
pub(super) fn read(reader: &mut LogReader) -> Result<Chunk, ReadError> {
    let mut data = Vec::with_capacity(CHUNK);
    loop {
        let state = reader.read_chunk(&mut data)?;
        if state != ReadState::More || data.len() >= CHUNK / 2 {
            return Ok(Chunk { data, state });
        }
    }
}

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
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) hints: Hints,
    /// Changes whenever some container has ended.
    pub(super) endings: watch::Receiver<u64>,
    pub(super) instance: ContainerId,
    pub(super) follow: bool,
    /// When the runtime was asked last.
    pub(super) asked: Option<Instant>,
    /// Nobody streams a log without.
    pub(super) permit: Permit,
}

/// Why a stream ends early.
enum Broken {
    /// The client has gone.
    Gone,
    Read(ReadError),
    Runtime(RuntimeError),
    Task(tokio::task::JoinError),
}

impl From<ReceiverGone> for Broken {
    fn from(_: ReceiverGone) -> Self {
        Broken::Gone
    }
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        Broken::Read(error)
    }
}

impl LogStream {
    /// Sends `first` and all that follows. What goes wrong aborts the body, so that it does not look complete.
    pub(super) async fn run(mut self, reader: LogReader, first: Chunk, sender: BodySender) {
        let user = self.permit.user().username.clone();
        match self.send_all(reader, first, &sender).await {
            Ok(reader) => {
                let malformed = reader.stats().malformed;
                if malformed > 0 {
                    let instance = &self.instance.0;
                    tracing::warn!(
                        instance,
                        lines = malformed,
                        "lines of a log file are no records and were left out"
                    );
                }
                sender.finish().await;
            }
            Err(Broken::Gone) => tracing::debug!(user, instance = self.instance.0, "the client has gone"),
            Err(Broken::Read(error)) => self.abort(sender, error).await,
            Err(Broken::Runtime(error)) => self.abort(sender, error).await,
            Err(Broken::Task(error)) => self.abort(sender, error).await,
        }
    }

    async fn abort(&self, sender: BodySender, error: impl std::error::Error + Send + Sync + 'static) {
        tracing::warn!(instance = self.instance.0, %error, "a log stream was aborted");
        sender.fail(error).await;
    }

    async fn send_all(
        &mut self,
        mut reader: LogReader,
        first: Chunk,
        sender: &BodySender,
    ) -> Result<LogReader, Broken> {
        let mut state;
        (reader, state) = catch_up(reader, first, sender).await?;
        let mut ended = !self.follow;
        while state != ReadState::LimitReached && !ended {
            ended = self.wait(sender).await?;
            let chunk;
            (reader, chunk) = read_async(reader).await?;
            (reader, state) = catch_up(reader, chunk, sender).await?;
        }
        if state != ReadState::LimitReached {
            let rest;
            (reader, rest) = finish_async(reader).await?;
            sender.send(rest).await?;
        }
        Ok(reader)
    }

    /// Waits until there may be more to read. Returns whether the container has ended: what it wrote is then all there.
    async fn wait(&mut self, sender: &BodySender) -> Result<bool, Broken> {
        // A busy log gives a thousand hints a second; the runtime is not asked that often.
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= ASK);
        if (is_due || self.endings.has_changed().unwrap_or(false)) && self.has_ended().await? {
            return Ok(true);
        }
        tokio::select! {
            () = sender.closed() => Err(Broken::Gone),
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
            Err(error) => Err(Broken::Runtime(error)),
        }
    }
}

/// Sends a chunk and everything up to the end of what is there; reads the next chunk while one is sent.
async fn catch_up(
    mut reader: LogReader,
    first: Chunk,
    sender: &BodySender,
) -> Result<(LogReader, ReadState), Broken> {
    let Chunk { data, mut state } = first;
    let mut data = Bytes::from(data);
    while state == ReadState::More {
        let (sent, next) = tokio::join!(sender.send(data), read_async(reader));
        sent?;
        let chunk;
        (reader, chunk) = next?;
        (data, state) = (Bytes::from(chunk.data), chunk.state);
    }
    sender.send(data).await?;
    Ok((reader, state))
}

async fn read_async(mut reader: LogReader) -> Result<(LogReader, Chunk), Broken> {
    let task = tokio::task::spawn_blocking(move || {
        let chunk = read(&mut reader)?;
        Ok::<_, ReadError>((reader, chunk))
    });
    Ok(task.await.map_err(Broken::Task)??)
}

async fn finish_async(mut reader: LogReader) -> Result<(LogReader, Vec<u8>), Broken> {
    let task = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        reader.finish(&mut rest)?;
        Ok::<_, ReadError>((reader, rest))
    });
    Ok(task.await.map_err(Broken::Task)??)
}
