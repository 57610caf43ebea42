//! A log being read on blocking threads, one chunk at a time. What is wrong with it reaches our log and our metrics.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use podlog_api::LogResumed;
use podlog_driver::{IndexCache, JournalSource, LogSource, Place, ReadError, ReadState, ReadStats, Resumed};
use podlog_line::Selection;
use podlog_serving::metrics::{Counters, Gauge, Held, Registry};
use tokio::task::{JoinError, spawn_blocking};

use super::framing::{FramedReader, Framing};
use super::log::Log;

/// Size of a chunk; a little more is taken when lines are long.
const CHUNK: usize = 256 * 1024;
/// A busy log may grow between the looks of two readings: so often is it tried to look at the same moment.
const MEETING_ATTEMPTS: usize = 8;
const PRESENT: &str = "a stream ends with the first panic of its reader";

/// What was read, and whether there is more.
pub(super) struct Chunk {
    pub(super) data: Bytes,
    pub(super) state: ReadState,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("reading a log failed")]
    Task(#[from] JoinError),
    #[error("its log is in the journal, where the instances of a container are read one by one")]
    InstancesInJournal,
}

/// Which instances of a container are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instances {
    /// The one whose log it is.
    Only,
    /// Those before it, too, oldest first, where log files are named after their number.
    UpTo,
}

impl Instances {
    fn open(self, path: &Path) -> Result<LogSource, ReadError> {
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        match (self, path.parent(), number) {
            (Instances::UpTo, Some(directory), Some(number)) => LogSource::open_history(directory, number),
            _ => LogSource::open(path),
        }
    }
}

/// Where a log may be kept.
pub(super) struct Kept {
    /// Its current file.
    pub(super) path: PathBuf,
    /// Where it is when there is no file.
    pub(super) journal: Option<JournalSource>,
}

impl Kept {
    fn open(self, wanted: &Wanted, indexes: IndexCache) -> Result<Log, ReadingError> {
        let selection = &wanted.selection;
        let files = wanted.instances.open(&self.path);
        let missing = match files {
            Ok(source) => return Ok(Log::Files(source.with_indexes(indexes).read(selection)?)),
            Err(error @ (ReadError::Resolve { .. } | ReadError::Open { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        let journal = self.journal.map(|journal| journal.read(selection)).transpose()?.flatten();
        match (journal, wanted.instances) {
            (Some(reader), Instances::Only) => Ok(Log::Journal(reader)),
            (Some(_), Instances::UpTo) => Err(ReadingError::InstancesInJournal),
            (None, _) => Err(missing.into()),
        }
    }
}

/// What is wanted of a log.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) selection: Selection,
    pub(super) instances: Instances,
    pub(super) framing: Framing,
}

/// What two readings have delivered until they stood at one place, if they did.
pub(super) struct Meeting {
    /// Output of the reading that was there.
    pub(super) ours: Bytes,
    /// Output of the one that has come.
    pub(super) theirs: Result<Bytes, ReadingError>,
    /// Where they stand at one place, which of them can go on for both.
    pub(super) met: Option<Covers>,
}

/// Which of two readings another can take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covers {
    /// The other: this one goes on.
    Other,
    /// This one: the other goes on.
    This,
}

/// Numbers about readings.
#[derive(Clone)]
pub(super) struct ReadingMetrics {
    /// What is missing in logs, by reason.
    pub(super) damage: Counters,
    /// Readings that go on.
    pub(super) readings: Gauge,
}

impl ReadingMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        ReadingMetrics {
            damage: registry.counters(
                "podlog_kubelet_log_damage_total",
                "Number of lines, files and truncations that are missing in logs that were read, by what they are",
                &["reason"],
            ),
            readings: registry
                .gauges(
                    "podlog_kubelet_log_readings",
                    "Number of readings of logs that go on; followers that have caught up share one",
                    &[],
                )
                .with(&[]),
        }
    }
}

/// A log that is being read.
pub(super) struct Reading {
    /// Not here while a blocking thread has it.
    reader: Option<Box<FramedReader>>,
    path: PathBuf,
    /// What was told of its damage.
    told: ReadStats,
    metrics: ReadingMetrics,
    _held: Held,
}

impl Reading {
    pub(super) async fn open(
        kept: Kept,
        wanted: Wanted,
        indexes: IndexCache,
        metrics: ReadingMetrics,
    ) -> Result<Self, ReadingError> {
        let (path, framing) = (kept.path.clone(), wanted.framing);
        let log = spawn_blocking(move || kept.open(&wanted, indexes)).await??;
        Ok(Reading::new(FramedReader::new(log, framing), path, ReadStats::default(), metrics))
    }

    fn new(reader: FramedReader, path: PathBuf, told: ReadStats, metrics: ReadingMetrics) -> Self {
        let held = metrics.readings.hold();
        Reading { reader: Some(Box::new(reader)), path, told, metrics, _held: held }
    }

    /// A second reading at the same place.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let reader = self.reader.as_ref().expect(PRESENT).try_clone()?;
        Ok(Reading::new(reader, self.path.clone(), self.told, self.metrics.clone()))
    }

    /// The directory of the journal, if that is where the log is.
    pub(super) fn journal(&self) -> Option<PathBuf> {
        self.reader.as_ref().expect(PRESENT).reader().journal()
    }

    /// Whether it began where it was asked to.
    pub(super) fn resumed(&self) -> LogResumed {
        match self.reader.as_ref().expect(PRESENT).reader().resumed() {
            Resumed::Exact => LogResumed::Exact,
            Resumed::Gone { bytes } => LogResumed::Gone { bytes },
        }
    }

    /// Where it stands, if another can go on there.
    pub(super) fn place(&self) -> Option<Place> {
        self.reader.as_ref().and_then(|reader| reader.reader().place())
    }

    /// Reads on, and lets `other` read on, until both stand at one place, where this one can go on for `other`. A busy
    /// log may prevent that.
    pub(super) async fn meet(&mut self, other: &mut Reading) -> Result<Meeting, ReadingError> {
        if covers(self.place(), other.place()) {
            return Ok(Meeting { ours: Bytes::new(), theirs: Ok(Bytes::new()), met: Some(Covers::Other) });
        }
        let mut theirs = other.reader.take().expect(PRESENT);
        let work = move |ours: &mut FramedReader| meet(ours, &mut theirs).map(|meeting| (meeting, theirs));
        let (meeting, theirs) = self.with(work).await?;
        other.tell(theirs.reader().stats());
        other.reader = Some(theirs);
        if meeting.met == Some(Covers::This) {
            std::mem::swap(self, other);
        }
        Ok(meeting)
    }

    /// The next chunk.
    pub(super) async fn chunk(&mut self) -> Result<Chunk, ReadingError> {
        self.with(chunk).await
    }

    /// What there is of unfinished lines: the writer has ended, and everything was read.
    pub(super) async fn rest(&mut self) -> Result<Bytes, ReadingError> {
        let finish = |reader: &mut FramedReader| {
            let mut rest = Vec::new();
            reader.finish(&mut rest).map(|()| rest.into())
        };
        self.with(finish).await
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut FramedReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadingError> {
        let mut reader = self.reader.take().expect(PRESENT);
        let task = spawn_blocking(move || {
            let done = work(&mut reader);
            (reader, done)
        });
        let (reader, done) = task.await?;
        self.tell(reader.reader().stats());
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
            ("gap", met.gaps, told.gaps),
        ] {
            if met == told {
                continue;
            }
            self.metrics.damage.with(&[reason]).add(met.saturating_sub(told));
            if told == 0 {
                tracing::warn!(path = %self.path.display(), reason, count = met, "a container's log is damaged");
            }
        }
    }
}

fn chunk(reader: &mut FramedReader) -> Result<Chunk, ReadError> {
    let mut data = Vec::with_capacity(CHUNK);
    loop {
        let state = reader.read(&mut data)?;
        if state != ReadState::More || data.len() >= CHUNK / 2 {
            return Ok(Chunk { data: fitting(data), state });
        }
    }
}

/// Followers may hold a chunk for long: it shall not hold more memory than it has bytes.
fn fitting(data: Vec<u8>) -> Bytes {
    if data.len() < data.capacity() / 2 { Bytes::copy_from_slice(&data) } else { data.into() }
}

/// Whether a reading at `ours` can go on for one at `theirs`.
fn covers(ours: Option<Place>, theirs: Option<Place>) -> bool {
    ours.zip(theirs).is_some_and(|(ours, theirs)| ours.covers(&theirs))
}

fn meet(ours: &mut FramedReader, theirs: &mut FramedReader) -> Result<Meeting, ReadError> {
    let (mut our_output, mut their_output) = (Vec::new(), Vec::new());
    let mut met = None;
    for _ in 0..MEETING_ATTEMPTS {
        ours.read(&mut our_output)?;
        if let Err(error) = theirs.read(&mut their_output) {
            return Ok(Meeting { ours: fitting(our_output), theirs: Err(error.into()), met: None });
        }
        met = if covers(ours.reader().place(), theirs.reader().place()) {
            Some(Covers::Other)
        } else if covers(theirs.reader().place(), ours.reader().place()) {
            Some(Covers::This)
        } else {
            continue;
        };
        break;
    }
    Ok(Meeting { ours: fitting(our_output), theirs: Ok(fitting(their_output)), met })
}
