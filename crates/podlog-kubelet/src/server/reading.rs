//! A log being read on blocking threads, one chunk at a time. What is wrong with it reaches our log and our metrics.

use std::path::PathBuf;

use podlog_driver::{LogReader, LogSource, ReadError, ReadState, ReadStats};
use podlog_line::Selection;
use podlog_serving::metrics::Counters;
use tokio::task::{JoinError, spawn_blocking};

/// Size of a chunk; a little more is taken when lines are long.
const CHUNK: usize = 256 * 1024;

/// What was read, and whether there is more.
pub(super) struct Chunk {
    pub(super) data: Vec<u8>,
    pub(super) state: ReadState,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("reading a log failed")]
    Task(#[from] JoinError),
}

/// A log that is being read.
pub(super) struct Reading {
    /// Not here while a blocking thread has it.
    reader: Option<LogReader>,
    path: PathBuf,
    /// What was told of its damage.
    told: ReadStats,
    damage: Counters,
}

impl Reading {
    /// Opens a log; `damage` counts what is missing in it, by reason.
    pub(super) async fn open(
        path: PathBuf,
        selection: Selection,
        damage: Counters,
    ) -> Result<Self, ReadingError> {
        let source = path.clone();
        let reader = spawn_blocking(move || LogSource::open(source)?.read(&selection)).await??;
        Ok(Reading { reader: Some(reader), path, told: ReadStats::default(), damage })
    }

    /// The next chunk.
    pub(super) async fn chunk(&mut self) -> Result<Chunk, ReadingError> {
        self.with(chunk).await
    }

    /// What there is of unfinished lines: the writer has ended, and everything was read.
    pub(super) async fn rest(&mut self) -> Result<Vec<u8>, ReadingError> {
        let finish = |reader: &mut LogReader| {
            let mut rest = Vec::new();
            reader.finish(&mut rest).map(|()| rest)
        };
        self.with(finish).await
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut LogReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadingError> {
        let mut reader = self.reader.take().expect("a stream ends with the first panic of its reader");
        let task = spawn_blocking(move || {
            let done = work(&mut reader);
            (reader, done)
        });
        let (reader, done) = task.await?;
        self.tell(reader.stats());
        self.reader = Some(reader);
        Ok(done?)
    }

    /// Counts damage that was met since the last time. Our log is told once of each kind: a log may be full of it.
    fn tell(&mut self, met: ReadStats) {
        let told = std::mem::replace(&mut self.told, met);
        for (reason, met, told) in [
            ("malformed", met.malformed, told.malformed),
            ("missing_file", met.missing_files, told.missing_files),
            ("truncated", met.truncations, told.truncations),
            ("damaged_file", met.damaged_files, told.damaged_files),
        ] {
            if met == told {
                continue;
            }
            self.damage.with(&[reason]).add(met.saturating_sub(told));
            if told == 0 {
                tracing::warn!(path = %self.path.display(), reason, count = met, "a container's log is damaged");
            }
        }
    }
}

fn chunk(reader: &mut LogReader) -> Result<Chunk, ReadError> {
    let mut data = Vec::with_capacity(CHUNK);
    loop {
        let state = reader.read_chunk(&mut data)?;
        if state != ReadState::More || data.len() >= CHUNK / 2 {
            return Ok(Chunk { data, state });
        }
    }
}
