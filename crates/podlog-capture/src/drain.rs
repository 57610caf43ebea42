//! From the program's pipes into the log.

mod take_over;

use std::time::{Duration, Instant, SystemTime};

use podlog_driver::{CriFileSink, SinkError};
use podlog_line::{Gap, Stream, Timestamp};
use rustix::event::Timespec;
use rustix::io::Errno;

use crate::copier::Output;
use crate::journal::{CHUNK, Journal, Ledger, Work};
use crate::last_words;
use crate::outlet::Outlet;
use crate::plumbing::{Plumbing, sink_options};
use crate::policy::{MAX_POPPED, RateLimit};

/// How long an unfinished line waits for its end before it is shown as it is, such as a prompt.
pub(crate) const HOLD: Duration = Duration::from_millis(250);
/// How often to try again to write what could not be written.
pub(crate) const RETRY: Duration = Duration::from_millis(200);
/// How long in all, after the last process has ended, to wait for the end of its output, the time to write it not
/// counted. It is there at once, unless somebody outside the container holds the other end of the pipe.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long, after the last process has ended, to wait for room on a full disk.
pub(crate) const LAST_ROOM: Duration = Duration::from_secs(10);
/// The sink gets a chunk in pieces of so small a part of a file's size that the log is rotated at most once for each: a
/// byte of output can be 42 bytes of log.
const PIECES_OF_A_FILE: u64 = 64;
/// What comes out of a buffer is a chunk.
const _: () = assert!(MAX_POPPED <= CHUNK);

/// The program's output and the log it goes to. With a buffer between them, what comes out of the buffer is given to
/// [`write`](Self::write) and [`declare`](Self::declare), and nothing is read here.
///
/// Whatever it has in its hands is noted in the [`Journal`], so that the next one goes on where this one is killed.
pub(crate) struct Drain<'a> {
    plumbing: &'a Plumbing,
    journal: Journal,
    sink: CriFileSink,
    /// How much is logged; a buffer's is elsewhere.
    limit: Option<RateLimit>,
    /// Markers that are still to be written; the balance in the journal has what they declare.
    owed: Vec<Gap>,
    /// When what came out of a buffer last was read.
    buffered_at: Option<Timestamp>,
    /// How long an unfinished line waits here.
    patience: Duration,
    /// Bytes given to the sink at once.
    piece: usize,
    /// Since when the last line of a stream waits for its end.
    held_since: [Option<Instant>; 2],
    /// What the sink could not write.
    stalled: Option<Stalled>,
    first_error: Option<String>,
    /// Records and bytes that earlier copiers dropped.
    lost_before: [u64; 2],
    /// Bytes that were never read.
    abandoned: u64,
}

/// The log cannot be written; the program is not read meanwhile.
#[derive(Clone, Copy)]
struct Stalled {
    /// When to try again.
    until: Instant,
    /// What is done when that works.
    given: Given,
}

/// What the sink was given.
#[derive(Clone, Copy)]
enum Given {
    Piece(Piece),
    /// The marker in the note.
    Marker,
}

/// A part of the chunk, or the held part of a line.
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
    /// Bytes of them, of what was never read, and of what was dropped by policy without room to declare it.
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
        let unknown = |error| format!("take over from the last copier: {}", describe(&error));
        let options = sink_options(log);
        // What has left the work pipe on its way to a buffer is counted before it is asked for.
        Ledger::open(&plumbing.memory, |stream| plumbing.in_work(stream)).map_err(unknown)?;
        let journal = Journal::open(&plumbing.memory, options.max_content()).map_err(unknown)?;
        let written = take_over::count_written(plumbing, &journal).map_err(unknown)?;
        let sink = CriFileSink::open_with(&log.path, options).map_err(|error| describe(&error))?;
        let is_buffered = plumbing.overflow().is_some();
        let mut drain = Self {
            plumbing,
            limit: plumbing.limit().filter(|_| !is_buffered),
            owed: Vec::new(),
            buffered_at: None,
            // A line has waited in the buffer.
            patience: if is_buffered { Duration::ZERO } else { HOLD },
            lost_before: journal.lost(),
            journal,
            sink,
            piece: usize::try_from(log.max_bytes / PIECES_OF_A_FILE)
                .map_or(CHUNK, |size| size.clamp(1, CHUNK)),
            held_since: [None; 2],
            stalled: None,
            first_error: None,
            abandoned: 0,
        };
        drain.take_over(written).map_err(unknown)?;
        Ok(drain)
    }

    /// What is being done with a chunk that is about to be in the buffer.
    fn new_chunk(&self, stream: Stream, filled: usize) -> Work {
        match self.limit {
            Some(_) => Work::Raw { stream, filled },
            None => Work::Chunk { stream, filled, from: 0 },
        }
    }

    fn is_buffered(&self) -> bool {
        self.plumbing.overflow().is_some()
    }

    /// Takes what comes out of a buffer, [`MAX_POPPED`] bytes at most, which were read `at` a time. Not to be called while
    /// the log [cannot be written](Output::can_take).
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], at: Timestamp) {
        self.buffered_at = Some(at);
        self.journal.begin_buffered(stream, bytes, self.sink.position());
        self.write_out();
    }

    /// Writes a marker, as soon as the log can be written.
    pub(crate) fn declare(&mut self, gap: Gap) {
        // What a buffer says of times is never later than what comes out of it next.
        self.buffered_at = gap.to.or(self.buffered_at);
        self.owed.push(gap);
        self.write_out();
    }

    /// The time of what is written next.
    fn time(&self) -> Timestamp {
        self.buffered_at.unwrap_or_else(now)
    }

    /// Drops what the rate limit does not let through of the chunk in the buffer.
    fn limit(&mut self) {
        let (Some(limit), Work::Raw { stream, filled }) = (&mut self.limit, self.journal.note().work) else {
            return;
        };
        let admitted = limit.admit(stream, &self.journal.buffer()[..filled], now(), Instant::now());
        let (from, length) = (admitted.skipped, admitted.bytes.len());
        let work = match length {
            0 => Work::None,
            _ => Work::Chunk { stream, filled: from + length, from },
        };
        self.journal.limit(work, admitted.gap, stream, (filled - length) as u64);
    }

    /// Writes what the note says, and the markers that are owed, as far as there is room.
    fn write_out(&mut self) {
        while self.stalled.is_none() {
            let note = self.journal.note();
            match (note.gap, note.work) {
                (Some(gap), _) => {
                    let at = self.time();
                    let result = self.sink.gap(gap, at);
                    self.note_error(result);
                    self.settle(Given::Marker);
                }
                (None, Work::Chunk { stream, filled, from }) => self.write_piece(stream, filled, from),
                _ => match self.owed.pop() {
                    Some(gap) => self.journal.begin_gap(gap, self.sink.position()),
                    None => return,
                },
            }
        }
    }

    fn write_piece(&mut self, stream: Stream, filled: usize, from: usize) {
        let at = self.time();
        let to = (from + self.piece).min(filled);
        let bytes = &self.journal.buffer()[from..to];
        let ends_line = memchr::memrchr(b'\n', bytes).is_some();
        let result = self.sink.write(stream, bytes, at);
        self.note_error(result);
        self.settle(Given::Piece(Piece { stream, to, ends_line }));
    }

    /// Writes what is held of a stream's last line as it is.
    fn flush_line(&mut self, stream: Stream) {
        self.journal.begin(Work::Flush { stream }, self.sink.position());
        let at = self.time();
        let result = self.sink.end(stream, at);
        self.note_error(result);
        self.settle(Given::Piece(Piece { stream, to: 0, ends_line: true }));
    }

    /// Takes note of what the sink has written, or waits for room.
    fn settle(&mut self, given: Given) {
        if self.sink.is_stalled() {
            self.stalled = Some(Stalled { until: Instant::now() + RETRY, given });
            return;
        }
        match given {
            Given::Piece(piece) => self.settle_piece(piece),
            Given::Marker => self.settle_marker(),
        }
    }

    fn settle_marker(&mut self) {
        if let Some(stream) = self.journal.note().gap.and_then(|gap| gap.stream) {
            self.held_since[stream.index()] = None;
        }
        self.journal.declared(self.sink.position());
    }

    fn settle_piece(&mut self, piece: Piece) {
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

    fn retry(&mut self) {
        let Some(Stalled { given, .. }) = self.stalled.take() else { return };
        let result = self.sink.flush();
        self.note_error(result);
        self.settle(given);
        self.write_out();
    }

    /// Opens the log file anew.
    ///
    /// # Errors
    /// When that cannot be done, or the old file is not complete yet because there is no room.
    pub(crate) fn reopen_log(&mut self) -> Result<(), String> {
        if self.stalled.is_some() {
            return Err(self.first_error.clone().unwrap_or_else(|| "the log cannot be written".to_owned()));
        }
        self.sink.reopen().map_err(|error| describe(&error))
    }

    /// Drains what is left after the last process has ended: all of what it has written, however slow the disk is.
    pub(crate) fn finish_within(&mut self, words: Duration, room: Duration) -> Lost {
        let last_room = Instant::now() + room;
        // What comes out of a buffer is read by somebody else.
        let outlets = if self.is_buffered() { &[] } else { self.plumbing.outlets() };
        let unread = last_words::read(outlets, self, words, last_room);
        self.abandon(unread);
        self.lost()
    }

    /// `unread`: somebody else writes to what is left, or may do so one day; or there is no room for it.
    fn abandon(&mut self, unread: u64) {
        self.abandoned += unread;
        if self.abandoned > 0 {
            self.first_error.get_or_insert_with(|| "somebody outside the container writes on".to_owned());
        }
        for stream in Stream::ALL {
            if self.stalled.is_none() && self.held_since[stream.index()].is_some() {
                self.flush_line(stream);
            }
        }
        while let Some(gap) = self.limit.as_mut().and_then(RateLimit::finish) {
            self.declare(gap);
        }
        if let (Some(stalled), Work::Chunk { filled, from, .. }) = (self.stalled, self.journal.note().work) {
            let to = match stalled.given {
                Given::Piece(piece) => piece.to,
                Given::Marker => from,
            };
            self.abandoned += (filled - to) as u64;
        }
    }

    fn lost(&self) -> Lost {
        let stats = self.sink.stats();
        let [records, bytes] = self.lost_before;
        let missing: u64 = Stream::ALL.into_iter().map(|stream| self.journal.missing(stream)).sum();
        Lost {
            records: records + stats.dropped_records,
            bytes: bytes + stats.dropped_bytes + stats.backlog_bytes + self.abandoned + missing,
            why: self.first_error.clone().unwrap_or_default(),
        }
    }
}

impl Output for Drain<'_> {
    fn can_take(&self) -> bool {
        self.stalled.is_none()
    }

    fn take(&mut self, outlet: &Outlet, length: usize) -> Result<(), Errno> {
        self.journal.begin(self.new_chunk(outlet.stream, length), self.sink.position());
        outlet.fetch(&mut self.journal.buffer_mut()[..length])?;
        self.limit();
        self.write_out();
        Ok(())
    }

    fn ended(&mut self, stream: Stream) {
        self.flush_line(stream);
    }

    /// There is no way to move what a terminal says that cannot be interrupted: what was being read when a copier was
    /// killed is gone.
    fn read_terminal(&mut self, terminal: &Outlet) -> Result<usize, Errno> {
        self.journal.set_at_terminal(true);
        let taken = rustix::io::read(terminal, self.journal.buffer_mut());
        if let Ok(filled @ 1..) = taken {
            self.journal.begin(self.new_chunk(terminal.stream, filled), self.sink.position());
        }
        self.journal.set_at_terminal(false);
        self.limit();
        self.write_out();
        taken
    }

    fn due(&self) -> Option<Instant> {
        let line = match self.stalled {
            Some(stalled) => Some(stalled.until),
            None => self.held_since.into_iter().flatten().min().map(|since| since + self.patience),
        };
        let has_losses = self.limit.as_ref().is_some_and(RateLimit::has_losses);
        let losses = has_losses.then(|| Instant::now() + HOLD);
        [line, losses].into_iter().flatten().min()
    }

    fn flush(&mut self) {
        let now = Instant::now();
        if self.stalled.is_some_and(|stalled| stalled.until <= now) {
            self.retry();
        }
        for stream in Stream::ALL {
            let since = self.held_since[stream.index()];
            if self.stalled.is_none() && since.is_some_and(|since| since + self.patience <= now) {
                self.flush_line(stream);
            }
        }
        while let Some(gap) = self.limit.as_mut().and_then(|limit| limit.settle(now)) {
            self.declare(gap);
        }
    }

    fn reopen(&mut self) -> Option<Result<(), String>> {
        Some(self.reopen_log())
    }

    fn finish(&mut self) -> Lost {
        self.finish_within(LAST_WORDS, LAST_ROOM)
    }

    /// The journal has all of it, but for how many lines a rate limit has dropped.
    fn is_settled(&mut self) -> bool {
        while let Some(gap) = self.limit.as_mut().and_then(RateLimit::finish) {
            self.declare(gap);
        }
        true
    }
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

/// The time by the system's clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::{PipeWriter, Write};
    use std::path::Path;

    use podlog_container::Log;
    use rustix::pipe::fcntl_setpipe_size;

    use super::*;
    use crate::stdio::Ours;

    /// The plumbing of a program whose log is in a directory, and the program's end of its stdout.
    pub(crate) fn plumbing(directory: &Path) -> (Plumbing, PipeWriter) {
        limited_plumbing(directory, 0)
    }

    fn limited_plumbing(directory: &Path, lines_per_second: u64) -> (Plumbing, PipeWriter) {
        let path = directory.join("0.log");
        let log = Log { path, max_bytes: u64::MAX, max_files: 5, lines_per_second, ..Log::default() };
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
    fn what_a_limit_has_dropped_stands_before_what_is_judged_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = limited_plumbing(directory.path(), 1);
        let outlet = &plumbing.outlets()[0];
        let mut drain = Drain::open(&plumbing).expect("a log");
        program.write_all(b"first\nlost\n").expect("room");
        assert_eq!(outlet.take(), Ok(11));
        drain.take(outlet, 11).expect("bytes");
        drop(drain);
        // As if a copier had been killed before it could look at the next chunk.
        program.write_all(b"next\n").expect("room");
        assert_eq!(outlet.take(), Ok(5));
        let max_held = sink_options(&plumbing.log).max_content();
        let mut journal = Journal::open(&plumbing.memory, max_held).expect("a journal");
        let end = journal.note().end;
        journal.begin(Work::Raw { stream: Stream::Stdout, filled: 5 }, end);
        let mut drain = Drain::open(&plumbing).expect("a log");
        assert_eq!(drain.finish_within(Duration::ZERO, Duration::ZERO), Lost::default());
        let log = fs::read_to_string(directory.path().join("0.log")).expect("a log");
        let lines: Vec<_> = log.lines().map(|line| line.splitn(4, ' ').nth(3).expect("content")).collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "first", "next"));
        assert!(lines[1].contains("\"bytes\":5"), "{}", lines[1]);
    }

    #[test]
    fn what_a_thread_has_taken_comes_before_what_it_has_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        program.write_all(b"one\ntwo\n").expect("room");
        assert_eq!(plumbing.outlets()[0].take(), Ok(8));
        program.write_all(b"three\n").expect("room");
        let mut drain = Drain::open(&plumbing).expect("a log");
        assert_eq!(drain.finish_within(Duration::ZERO, Duration::ZERO), Lost::default());
        let log = fs::read_to_string(directory.path().join("0.log")).expect("a log");
        let words: Vec<_> = log.lines().map(|line| line.rsplit(' ').next().expect("a word")).collect();
        assert_eq!(words, ["one", "two", "three"]);
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
        drain.abandon(plumbing.outlets()[0].unread());
        let why = "somebody outside the container writes on".to_owned();
        assert_eq!(drain.lost(), Lost { records: 0, bytes: 5, why });
    }
}
