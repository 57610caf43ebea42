//! From the program's pipes into the log.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use podlog_container::Log;
use podlog_driver::{CriFileSink, FileLimits, SinkError};
use podlog_line::{Stream, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::stdio::Ours;

/// Bytes read at once.
const BUFFER: usize = 128 * 1024;
/// How long an unfinished line waits for its end before it is shown as it is, such as a prompt.
const HOLD: Duration = Duration::from_millis(250);
/// How often to try again to write what could not be written, while the program says nothing.
const RETRY: Duration = Duration::from_secs(1);
/// How long, after the last process has ended, to wait for the end of its output. It is there at once, unless somebody
/// outside the container holds the other end of the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The program's output and the log it goes to. The log's errors never stop the draining: the program must not wait for a
/// full disk.
pub(crate) struct Drain {
    sources: Vec<Source>,
    held: Option<OwnedFd>,
    sink: CriFileSink,
    buffer: Box<[u8]>,
    waiting_since: Option<Instant>,
    first_error: Option<String>,
}

struct Source {
    stream: Stream,
    descriptor: OwnedFd,
}

/// What never reached the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Records that were dropped.
    pub(crate) records: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// The first reason.
    pub(crate) why: String,
}

impl Drain {
    /// Opens the log, before there is any output.
    pub(crate) fn open(log: &Log) -> Result<Self, SinkError> {
        let limits = FileLimits { max_bytes: log.max_bytes, max_files: log.max_files };
        Ok(Self {
            sources: Vec::new(),
            held: None,
            sink: CriFileSink::open(&log.path, limits)?,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            waiting_since: None,
            first_error: None,
        })
    }

    /// Begins to drain a program.
    pub(crate) fn attach(&mut self, ours: Ours) {
        let source = |stream| move |descriptor| Source { stream, descriptor };
        self.sources.push(source(Stream::Stdout)(ours.stdout));
        self.sources.extend(ours.stderr.map(source(Stream::Stderr)));
        self.held = ours.held;
    }

    /// The descriptors that have not ended; a place in the list is what [`read`](Self::read) takes.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().map(|source| source.descriptor.as_fd())
    }

    /// Reads once from each of these sources that has something to say.
    pub(crate) fn read(&mut self, ready: &[usize]) {
        // From the last to the first: an ended source leaves the list.
        for &index in ready.iter().rev() {
            if self.read_one(index) == Progress::Ended {
                let ended = self.sources.remove(index);
                let result = self.sink.end(ended.stream, now());
                self.note(result);
            }
        }
        self.note_waiting();
    }

    fn read_one(&mut self, index: usize) -> Progress {
        let source = &self.sources[index];
        match rustix::io::read(&source.descriptor, &mut self.buffer[..]) {
            Ok(0) => Progress::Ended,
            Ok(length) => {
                let result = self.sink.write(source.stream, &self.buffer[..length], now());
                self.note(result);
                Progress::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Open,
            // A terminal says so when its last user is gone.
            Err(_) => Progress::Ended,
        }
    }

    fn note(&mut self, result: Result<(), SinkError>) {
        if let Err(error) = result {
            self.first_error.get_or_insert_with(|| describe(&error));
        }
    }

    fn note_waiting(&mut self) {
        let is_waiting = self.sink.has_partial() || self.has_backlog();
        self.waiting_since = is_waiting.then(|| self.waiting_since.unwrap_or_else(Instant::now));
    }

    fn has_backlog(&self) -> bool {
        self.sink.stats().backlog_bytes > 0
    }

    /// How long until [`flush`](Self::flush) has something to do; `None` while nothing waits.
    pub(crate) fn hold(&self) -> Option<Duration> {
        let patience = if self.has_backlog() { RETRY } else { HOLD };
        self.waiting_since.map(|since| patience.saturating_sub(since.elapsed()))
    }

    /// Writes what has waited long enough: unfinished lines, and what there was no room for.
    pub(crate) fn flush(&mut self) {
        if self.hold() != Some(Duration::ZERO) {
            return;
        }
        let result = self.sink.flush_partial(now());
        self.note(result);
        self.waiting_since = None;
        self.note_waiting();
    }

    /// Opens the log file anew.
    pub(crate) fn reopen(&mut self) -> Result<(), SinkError> {
        self.sink.reopen()
    }

    /// Drains what is left after the last process has ended.
    pub(crate) fn finish(mut self) -> Option<Lost> {
        self.held = None;
        let deadline = Instant::now() + LAST_WORDS;
        while !self.sources.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = self.ready(left);
            if ready.is_empty() || left.is_zero() {
                break;
            }
            self.read(&ready);
        }
        for source in std::mem::take(&mut self.sources) {
            let result = self.sink.end(source.stream, now());
            self.note(result);
        }
        self.lost()
    }

    fn lost(&self) -> Option<Lost> {
        let stats = self.sink.stats();
        let bytes = stats.dropped_bytes + stats.backlog_bytes;
        let why = self.first_error.clone().unwrap_or_default();
        (bytes > 0).then_some(Lost { records: stats.dropped_records, bytes, why })
    }

    fn ready(&self, timeout: Duration) -> Vec<usize> {
        let mut polled: Vec<_> = self
            .descriptors()
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let _ = poll(&mut polled, Some(&timespec(timeout)));
        (0..polled.len()).filter(|&index| !polled[index].revents().is_empty()).collect()
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Open,
    Ended,
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A duration as `poll` takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}
