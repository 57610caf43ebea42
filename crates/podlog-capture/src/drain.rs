//! From the program's pipes into the log.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};

use podlog_driver::{CriFileSink, SinkError, content_since};
use podlog_line::{Gap, GapReason, Stream, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

use crate::journal::{CHUNK, Journal, Moving, Work};
use crate::pace::Pace;
use crate::plumbing::{Plumbing, sink_options};

/// How long an unfinished line waits for its end before it is shown as it is, such as a prompt.
const HOLD: Duration = Duration::from_millis(250);
/// How often to try again to write what could not be written.
const RETRY: Duration = Duration::from_millis(200);
/// How long in all, after the last process has ended, to wait for the end of its output, the time to write it not
/// counted. It is there at once, unless somebody outside the container holds the other end of the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long, after the last process has ended, to wait for room on a full disk.
const LAST_ROOM: Duration = Duration::from_secs(10);
/// The sink gets a chunk in pieces of so small a part of a file's size that the log is rotated at most once for each: a
/// byte of output can be 42 bytes of log.
const PIECES_OF_A_FILE: u64 = 64;

/// The program's output and the log it goes to.
///
/// Whatever it has in its hands is noted in the [`Journal`], so that the next one goes on where this one is killed.
pub(crate) struct Drain<'a> {
    plumbing: &'a Plumbing,
    sources: Vec<Source<'a>>,
    journal: Journal,
    sink: CriFileSink,
    /// Bytes given to the sink at once.
    piece: usize,
    /// Since when the last line of a stream waits for its end.
    held_since: [Option<Instant>; 2],
    /// What the sink could not write.
    stalled: Option<Stalled>,
    pace: Pace,
    first_error: Option<String>,
    /// Records and bytes that earlier copiers dropped.
    lost_before: [u64; 2],
    /// Bytes that were never read.
    abandoned: u64,
}

struct Source<'a> {
    stream: Stream,
    descriptor: BorrowedFd<'a>,
    /// What may still be read of it after the container's end, in bytes; no limit before.
    allowance: u64,
}

/// The log cannot be written; the program is not read meanwhile.
#[derive(Clone, Copy)]
struct Stalled {
    /// When to try again.
    until: Instant,
    /// What is done when that works.
    piece: Piece,
}

/// What the sink was given.
#[derive(Clone, Copy)]
struct Piece {
    stream: Stream,
    /// How far of the chunk it reaches.
    to: usize,
    /// Whether a line ended in it.
    ends_line: bool,
}

/// What never reached the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Records that were dropped.
    pub(crate) records: u64,
    /// Bytes of them, and of what was never read.
    pub(crate) bytes: u64,
    /// The first reason.
    pub(crate) why: String,
}

impl<'a> Drain<'a> {
    /// Opens the log, and goes on where the last copier was killed, if there was one.
    ///
    /// # Errors
    /// Why the log cannot be opened, or what the last copier had in its hands cannot be found out.
    pub(crate) fn open(plumbing: &'a Plumbing) -> Result<Self, String> {
        let log = &plumbing.log;
        let take_over = |error| format!("take over from the last copier: {}", describe(&error));
        let options = sink_options(log);
        let journal = Journal::open(&plumbing.memory, options.max_content()).map_err(take_over)?;
        let written = count_written(plumbing, &journal).map_err(take_over)?;
        let sink = CriFileSink::open_with(&log.path, options).map_err(|error| describe(&error))?;
        let source = |(stream, descriptor)| Source { stream, descriptor, allowance: u64::MAX };
        let mut drain = Self {
            plumbing,
            sources: plumbing.outputs().map(source).collect(),
            lost_before: journal.lost(),
            journal,
            sink,
            piece: usize::try_from(log.max_bytes / PIECES_OF_A_FILE)
                .map_or(CHUNK, |size| size.clamp(1, CHUNK)),
            held_since: [None; 2],
            stalled: None,
            pace: Pace::new(Instant::now()),
            first_error: None,
            abandoned: 0,
        };
        drain.take_over(written).map_err(take_over)?;
        Ok(drain)
    }

    /// Takes the place of a copier that was killed. `written`: how much of what was on its way is in the log; `None` when
    /// nobody can tell.
    fn take_over(&mut self, written: Option<u64>) -> io::Result<()> {
        let work = self.journal.note().work;
        for stream in Stream::ALL.into_iter().filter(|stream| Some(*stream) != work.stream()) {
            self.hold_again(stream, 0);
        }
        match (work, self.journal.was_moving()) {
            (Work::None, Moving::Stream(stream)) if self.plumbing.in_work() > 0 => {
                self.begin_chunk(stream, self.plumbing.in_work())?;
            }
            (Work::None, Moving::Terminal) => self.declare_loss(Stream::Stdout),
            (Work::None, _) => {}
            (Work::Flush { stream }, _) => {
                let kept = self.hold_again(stream, written.unwrap_or(u64::MAX));
                self.journal.advance(Work::None, self.sink.position(), stream, &kept);
            }
            (Work::Chunk { stream, filled, from }, _) => {
                let missing = self.plumbing.in_work().min(filled);
                self.plumbing.fetch(&mut self.journal.buffer_mut()[filled - missing..filled])?;
                let held = self.journal.held(stream).len();
                let written = written.map_or(usize::MAX, saturating_usize);
                let kept = self.hold_again(stream, written as u64);
                let from = from.saturating_add(written.saturating_sub(held)).min(filled);
                let work = Work::Chunk { stream, filled, from };
                self.journal.advance(work, self.sink.position(), stream, &kept);
                self.write_out();
            }
        }
        if let (None, Some(stream)) = (written, work.stream()) {
            self.declare_loss(stream);
        }
        Ok(())
    }

    /// Says in the log that something may be missing here: nobody knows whether, and how much.
    fn declare_loss(&mut self, stream: Stream) {
        self.journal.moving(Moving::Nothing);
        self.journal.begin(Work::Flush { stream }, self.sink.position());
        let gap = Gap { stream: Some(stream), ..Gap::new(GapReason::CaptureKilled) };
        let result = self.sink.gap(gap, now());
        self.note_error(result);
        self.settle(Piece { stream, to: 0, ends_line: true });
    }

    /// Gives the sink what was held of a stream's last line, but for the `written` bytes of it that are in the log. It is
    /// no longer than what a sink holds back: nothing is written.
    fn hold_again(&mut self, stream: Stream, written: u64) -> Vec<u8> {
        let held = self.journal.held(stream);
        let kept = held[saturating_usize(written).min(held.len())..].to_vec();
        let result = self.sink.write(stream, &kept, now());
        self.note_error(result);
        self.held_since[stream.index()] = (!kept.is_empty()).then(Instant::now);
        kept
    }

    /// The descriptors that have not ended; a place in the list is what [`read`](Self::read) takes. None while the log
    /// cannot be written: then the program waits.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let sources = if self.stalled.is_none() { &self.sources[..] } else { &[] };
        sources.iter().map(|source| source.descriptor)
    }

    /// Reads once from each of these sources that has something to say. Returns for how long the next look is better put
    /// off.
    pub(crate) fn read(&mut self, ready: &[usize]) -> Option<Duration> {
        let mut bytes = 0;
        // From the last to the first: an ended source leaves the list.
        for &index in ready.iter().rev() {
            if self.stalled.is_some() {
                return None;
            }
            match self.read_one(index) {
                Progress::Open(length) => bytes += length as u64,
                Progress::Ended => {
                    let ended = self.sources.remove(index);
                    self.flush_line(ended.stream);
                }
            }
        }
        if bytes == 0 { None } else { self.pace.rest(bytes, Instant::now()) }
    }

    fn read_one(&mut self, index: usize) -> Progress {
        let Source { stream, descriptor, .. } = self.sources[index];
        let taken = if self.plumbing.is_terminal() {
            self.read_terminal(stream, descriptor)
        } else {
            self.read_pipe(stream, descriptor)
        };
        match taken {
            Ok(0) => Progress::Ended,
            Ok(length) => {
                let source = &mut self.sources[index];
                source.allowance = source.allowance.saturating_sub(length as u64);
                Progress::Open(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Open(0),
            // A terminal says so when its last user is gone.
            Err(_) => Progress::Ended,
        }
    }

    fn read_pipe(&mut self, stream: Stream, descriptor: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.journal.moving(Moving::Stream(stream));
        let length = self.plumbing.take(descriptor)?;
        if length > 0 {
            self.begin_chunk(stream, length)?;
        }
        Ok(length)
    }

    /// There is no way to move what a terminal says that cannot be interrupted: what was being read when a copier was
    /// killed is gone.
    fn read_terminal(&mut self, stream: Stream, descriptor: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.journal.moving(Moving::Terminal);
        let taken = rustix::io::read(descriptor, self.journal.buffer_mut());
        if let Ok(filled @ 1..) = taken {
            self.journal.begin(Work::Chunk { stream, filled, from: 0 }, self.sink.position());
        }
        self.journal.moving(Moving::Nothing);
        self.write_out();
        taken
    }

    /// Takes what is in the work pipe to the log.
    fn begin_chunk(&mut self, stream: Stream, filled: usize) -> Result<(), Errno> {
        self.journal.begin(Work::Chunk { stream, filled, from: 0 }, self.sink.position());
        self.plumbing.fetch(&mut self.journal.buffer_mut()[..filled])?;
        self.write_out();
        Ok(())
    }

    /// Writes the chunk in the buffer, as far as there is room.
    fn write_out(&mut self) {
        while let (Work::Chunk { stream, filled, from }, None) = (self.journal.note().work, self.stalled) {
            let to = (from + self.piece).min(filled);
            let bytes = &self.journal.buffer()[from..to];
            let piece = Piece { stream, to, ends_line: bytes.contains(&b'\n') };
            let result = self.sink.write(stream, bytes, now());
            self.note_error(result);
            self.settle(piece);
        }
    }

    /// Writes what is held of a stream's last line as it is.
    fn flush_line(&mut self, stream: Stream) {
        self.journal.begin(Work::Flush { stream }, self.sink.position());
        let result = self.sink.end(stream, now());
        self.note_error(result);
        self.settle(Piece { stream, to: 0, ends_line: true });
    }

    /// Takes note of a piece that the sink has written, or waits for room.
    fn settle(&mut self, piece: Piece) {
        if self.sink.is_stalled() {
            self.stalled = Some(Stalled { until: Instant::now() + RETRY, piece });
            return;
        }
        let Piece { stream, to, ends_line } = piece;
        let held = self.sink.held(stream);
        let since = &mut self.held_since[stream.index()];
        *since = match *since {
            _ if held.is_empty() => None,
            Some(since) if !ends_line => Some(since),
            _ => Some(Instant::now()),
        };
        let work = match self.journal.note().work {
            Work::Chunk { stream, filled, .. } if to < filled => Work::Chunk { stream, filled, from: to },
            _ => Work::None,
        };
        self.journal.advance(work, self.sink.position(), stream, held);
    }

    fn note_error(&mut self, result: Result<(), SinkError>) {
        if let Err(error) = result {
            self.first_error.get_or_insert_with(|| describe(&error));
        }
        let stats = self.sink.stats();
        if stats.dropped_bytes > 0 {
            let [records, bytes] = self.lost_before;
            self.journal.set_lost([records + stats.dropped_records, bytes + stats.dropped_bytes]);
        }
    }

    /// How long until [`flush`](Self::flush) has something to do; `None` while nothing waits.
    pub(crate) fn hold(&self) -> Option<Duration> {
        let due = match self.stalled {
            Some(stalled) => Some(stalled.until),
            None => self.held_since.into_iter().flatten().min().map(|since| since + HOLD),
        };
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Writes what has waited long enough: unfinished lines, and what there was no room for.
    pub(crate) fn flush(&mut self) {
        let now = Instant::now();
        if self.stalled.is_some_and(|stalled| stalled.until <= now) {
            self.retry();
        }
        for stream in Stream::ALL {
            let since = self.held_since[stream.index()];
            if self.stalled.is_none() && since.is_some_and(|since| since + HOLD <= now) {
                self.flush_line(stream);
            }
        }
    }

    fn retry(&mut self) {
        let Some(Stalled { piece, .. }) = self.stalled.take() else { return };
        let result = self.sink.flush();
        self.note_error(result);
        self.settle(piece);
        self.write_out();
    }

    /// Opens the log file anew.
    ///
    /// # Errors
    /// When that cannot be done, or the old file is not complete yet because there is no room.
    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        if self.stalled.is_some() {
            return Err(self.first_error.clone().unwrap_or_else(|| "the log cannot be written".to_owned()));
        }
        self.sink.reopen().map_err(|error| describe(&error))
    }

    /// Drains what is left after the last process has ended: all of what it has written, however slow the disk is.
    pub(crate) fn finish(&mut self) -> Lost {
        self.finish_within(LAST_WORDS, LAST_ROOM)
    }

    fn finish_within(&mut self, mut words: Duration, room: Duration) -> Lost {
        for source in &mut self.sources {
            source.allowance = source.unread() + CHUNK as u64;
        }
        let last_room = Instant::now() + room;
        while self.stalled.is_some() || self.sources.iter().any(|source| source.allowance > 0) {
            let begun = Instant::now();
            if self.stalled.is_some() {
                if begun >= last_room {
                    break;
                }
                std::thread::sleep(RETRY);
                self.retry();
                continue;
            }
            let ready = self.ready(words);
            if ready.is_empty() {
                break;
            }
            words = words.saturating_sub(begun.elapsed());
            self.read(&ready);
        }
        self.abandon();
        self.lost()
    }

    /// Somebody else writes to what is left, or may do so one day; or there is no room for it.
    fn abandon(&mut self) {
        for source in std::mem::take(&mut self.sources) {
            if self.stalled.is_none() {
                self.flush_line(source.stream);
            }
            self.abandoned += source.unread();
        }
        if self.abandoned > 0 {
            self.first_error.get_or_insert_with(|| "somebody outside the container writes on".to_owned());
        }
        if let (Some(stalled), Work::Chunk { filled, .. }) = (self.stalled, self.journal.note().work) {
            self.abandoned += (filled - stalled.piece.to) as u64;
        }
    }

    fn lost(&self) -> Lost {
        let stats = self.sink.stats();
        let [records, bytes] = self.lost_before;
        Lost {
            records: records + stats.dropped_records,
            bytes: bytes + stats.dropped_bytes + stats.backlog_bytes + self.abandoned,
            why: self.first_error.clone().unwrap_or_default(),
        }
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

/// How much of what a copier had on its way when it was killed is in the log.
fn count_written(plumbing: &Plumbing, journal: &Journal) -> io::Result<Option<u64>> {
    let note = journal.note();
    match note.work.stream() {
        Some(stream) => content_since(&plumbing.log.path, &note.end, stream),
        None => Ok(Some(0)),
    }
}

fn saturating_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Source<'_> {
    /// Bytes that wait in the pipe. A terminal does not tell all.
    fn unread(&self) -> u64 {
        ioctl_fionread(self.descriptor).unwrap_or(0)
    }
}

enum Progress {
    /// So many bytes were read; there may be more.
    Open(usize),
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

    use podlog_container::Log;
    use rustix::pipe::fcntl_setpipe_size;

    use super::*;
    use crate::stdio::Ours;

    /// The plumbing of a program whose log is in a directory, and the program's end of its stdout.
    fn plumbing(directory: &Path) -> (Plumbing, PipeWriter) {
        let log = Log { path: directory.join("0.log"), max_bytes: u64::MAX, max_files: 5, ..Log::default() };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (errors, _) = std::io::pipe().expect("a pipe");
        fcntl_setpipe_size(&writer, 1 << 20).expect("a large pipe");
        let ours = Ours { stdout: reader.into(), stderr: Some(errors.into()), held: None };
        (Plumbing::new(ours, log).expect("pipes"), writer)
    }

    fn lines(directory: &Path) -> usize {
        fs::read_to_string(directory.join("0.log")).expect("a log").matches(" stdout F line\n").count()
    }

    #[test]
    fn the_last_words_take_as_long_as_they_take() {
        for is_dead in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let (plumbing, mut program) = plumbing(directory.path());
            program.write_all(&b"line\n".repeat(200_000)).expect("room");
            let outsider = (!is_dead).then_some(program);
            let mut drain = Drain::open(&plumbing).expect("a log");
            assert_eq!(drain.finish_within(Duration::ZERO, Duration::ZERO), Lost::default());
            assert_eq!(lines(directory.path()), 200_000);
            drop(outsider);
        }
    }

    #[test]
    fn somebody_outside_does_not_keep_a_container_from_ending() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut outsider) = plumbing(directory.path());
        outsider.write_all(b"line\n").expect("room");
        let flood = std::thread::spawn(move || while outsider.write_all(&b"line\n".repeat(1000)).is_ok() {});
        Drain::open(&plumbing).expect("a log").finish();
        assert!(lines(directory.path()) > 0);
        drop(plumbing);
        flood.join().expect("the pipe is closed");
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut outsider) = plumbing(directory.path());
        outsider.write_all(b"line\n").expect("room");
        let mut drain = Drain::open(&plumbing).expect("a log");
        drain.abandon();
        let why = "somebody outside the container writes on".to_owned();
        assert_eq!(drain.lost(), Lost { records: 0, bytes: 5, why });
    }
}
