//! From the program's pipes into the log.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use podlog_container::Log;
use podlog_driver::{CriFileSink, FileLimits, SinkError};
use podlog_line::{Stream, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

use crate::stdio::Ours;

/// Bytes read at once.
const BUFFER: usize = 128 * 1024;
/// How long an unfinished line waits for its end before it is shown as it is, such as a prompt.
const HOLD: Duration = Duration::from_millis(250);
/// How often to try again to write what could not be written, while the program says nothing.
const RETRY: Duration = Duration::from_secs(1);
/// How long in all, after the last process has ended, to wait for the end of its output, the time to write it not
/// counted. It is there at once, unless somebody outside the container holds the other end of the pipe.
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
    /// Bytes that were never read.
    abandoned: u64,
}

struct Source {
    stream: Stream,
    descriptor: OwnedFd,
    /// What may still be read of it after the container's end, in bytes; no limit before.
    allowance: u64,
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
            abandoned: 0,
        })
    }

    /// Begins to drain a program.
    pub(crate) fn attach(&mut self, ours: Ours) {
        let source = |stream| move |descriptor| Source { stream, descriptor, allowance: u64::MAX };
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
        let source = &mut self.sources[index];
        match rustix::io::read(&source.descriptor, &mut self.buffer[..]) {
            Ok(0) => Progress::Ended,
            Ok(length) => {
                source.allowance = source.allowance.saturating_sub(length as u64);
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

    /// Drains what is left after the last process has ended: all of what it has written, however slow the disk is.
    pub(crate) fn finish(self) -> Option<Lost> {
        self.finish_within(LAST_WORDS)
    }

    fn finish_within(mut self, mut patience: Duration) -> Option<Lost> {
        self.held = None;
        for source in &mut self.sources {
            source.allowance = source.unread() + BUFFER as u64;
        }
        while self.sources.iter().any(|source| source.allowance > 0) {
            let begun = Instant::now();
            let ready = self.ready(patience);
            if ready.is_empty() {
                break;
            }
            patience = patience.saturating_sub(begun.elapsed());
            self.read(&ready);
        }
        self.abandon();
        self.lost()
    }

    /// Somebody else writes to what is left, or may do so one day.
    fn abandon(&mut self) {
        for source in std::mem::take(&mut self.sources) {
            let result = self.sink.end(source.stream, now());
            self.note(result);
            self.abandoned += source.unread();
        }
        if self.abandoned > 0 {
            self.first_error.get_or_insert_with(|| "somebody outside the container writes on".to_owned());
        }
    }

    fn lost(&self) -> Option<Lost> {
        let stats = self.sink.stats();
        let bytes = stats.dropped_bytes + stats.backlog_bytes + self.abandoned;
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

impl Source {
    /// Bytes that wait in the pipe. A terminal does not tell all.
    fn unread(&self) -> u64 {
        ioctl_fionread(&self.descriptor).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{PipeWriter, Write};
    use std::path::Path;

    use rustix::pipe::fcntl_setpipe_size;

    use super::*;

    /// A drain whose log is in a directory, and the program's end of its stdout.
    fn drain(directory: &Path) -> (Drain, PipeWriter) {
        let path = directory.join("0.log");
        let mut drain =
            Drain::open(&Log { path, max_bytes: u64::MAX, max_files: 5, ..Log::default() }).expect("a log");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        fcntl_setpipe_size(&writer, 1 << 20).expect("a large pipe");
        drain.attach(Ours { stdout: reader.into(), stderr: None, held: None });
        (drain, writer)
    }

    fn lines(directory: &Path) -> usize {
        fs::read_to_string(directory.join("0.log")).expect("a log").matches(" stdout F line\n").count()
    }

    #[test]
    fn the_last_words_take_as_long_as_they_take() {
        for is_dead in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let (drain, mut program) = drain(directory.path());
            program.write_all(&b"line\n".repeat(200_000)).expect("room");
            let outsider = (!is_dead).then_some(program);
            assert_eq!(drain.finish_within(Duration::ZERO), None);
            assert_eq!(lines(directory.path()), 200_000);
            drop(outsider);
        }
    }

    #[test]
    fn somebody_outside_does_not_keep_a_container_from_ending() {
        let directory = tempfile::tempdir().expect("a directory");
        let (drain, mut outsider) = drain(directory.path());
        outsider.write_all(b"line\n").expect("room");
        let flood = std::thread::spawn(move || while outsider.write_all(&b"line\n".repeat(1000)).is_ok() {});
        drain.finish();
        assert!(lines(directory.path()) > 0);
        flood.join().expect("the pipe is closed");
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut drain, mut outsider) = drain(directory.path());
        outsider.write_all(b"line\n").expect("room");
        drain.abandon();
        let why = "somebody outside the container writes on".to_owned();
        assert_eq!(drain.lost(), Some(Lost { records: 0, bytes: 5, why }));
    }
}
