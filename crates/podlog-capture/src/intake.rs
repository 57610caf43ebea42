//! From the program's pipes into a buffer, whatever the log does: a program that must not wait does not.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use podlog_line::Stream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::copier::Output;
use crate::drain::{HOLD, LAST_ROOM, LAST_WORDS, Lost, Source, now, timespec};
use crate::journal::{CHUNK, Journal, Ledger, Moving};
use crate::pace::Pace;
use crate::plumbing::{Plumbing, sink_options};
use crate::policy::RateLimit;
use crate::queue::Queue;

/// How long the program may not be read while the buffer is being emptied.
const SETTLING: Duration = Duration::from_millis(50);

/// The program's output on its way into a buffer. Each byte is counted in the [`Ledger`] before it leaves the work pipe.
pub(crate) struct Intake<'a, 'scope> {
    plumbing: &'a Plumbing,
    sources: Vec<Source<'a>>,
    ledger: Ledger,
    queue: &'a Queue,
    writer: Option<ScopedJoinHandle<'scope, Lost>>,
    chunk: Vec<u8>,
    limit: Option<RateLimit>,
    /// Since when a line waits for its end.
    begun: Option<Instant>,
    pace: Pace,
    is_stuck: bool,
}

impl<'a, 'scope> Intake<'a, 'scope> {
    /// Goes on where the last one was killed, if there was one. `writer` empties the queue.
    ///
    /// # Errors
    /// When there is no memory, or the work pipe cannot be read.
    pub(crate) fn open(
        plumbing: &'a Plumbing,
        queue: &'a Queue,
        writer: ScopedJoinHandle<'scope, Lost>,
    ) -> io::Result<Self> {
        let left = plumbing.in_work();
        let ledger = Ledger::open(&plumbing.memory, left)?;
        let was_moving = ledger.was_moving();
        let mut intake = Self {
            plumbing,
            sources: Source::all(plumbing),
            ledger,
            queue,
            writer: Some(writer),
            chunk: vec![0; CHUNK],
            limit: plumbing.limit(),
            begun: None,
            pace: Pace::new(Instant::now(), plumbing.pipe_bytes()),
            is_stuck: false,
        };
        if let (Moving::Stream(stream), 1..) = (was_moving, left) {
            intake.fetch(stream, left)?;
        }
        Ok(intake)
    }

    /// Moves what is in the work pipe to the buffer.
    fn fetch(&mut self, stream: Stream, length: usize) -> Result<(), Errno> {
        self.ledger.coming(stream, length);
        self.plumbing.fetch(&mut self.chunk[..length])?;
        self.ledger.came(stream);
        self.push(stream, length);
        Ok(())
    }

    fn push(&mut self, stream: Stream, length: usize) {
        let (chunk, at) = (&self.chunk[..length], now());
        let (gap, bytes) = match &mut self.limit {
            None => (None, chunk),
            Some(limit) => {
                let admitted = limit.admit(stream, chunk, at, Instant::now());
                (admitted.gap, admitted.bytes)
            }
        };
        let has_begun = self.queue.push(stream, gap, bytes, at);
        self.begun = has_begun.then(|| self.begun.unwrap_or_else(Instant::now));
    }

    /// Reads once. `None`: the stream has ended.
    fn read_one(&mut self, index: usize) -> Option<usize> {
        let Source { stream, descriptor, .. } = self.sources[index];
        let taken = if self.plumbing.is_terminal() {
            self.read_terminal(stream, descriptor)
        } else {
            self.read_pipe(stream, descriptor)
        };
        match taken {
            Ok(0) => None,
            Ok(length) => {
                let source = &mut self.sources[index];
                source.allowance = source.allowance.saturating_sub(length as u64);
                Some(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => Some(0),
            // A terminal says so when its last user is gone.
            Err(_) => None,
        }
    }

    fn read_pipe(&mut self, stream: Stream, descriptor: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.ledger.moving(Moving::Stream(stream));
        let length = self.plumbing.take(descriptor)?;
        if length > 0 {
            self.fetch(stream, length)?;
        }
        Ok(length)
    }

    fn read_terminal(&mut self, stream: Stream, descriptor: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.ledger.moving(Moving::Terminal);
        let taken = rustix::io::read(descriptor, &mut self.chunk[..]);
        if let Ok(length @ 1..) = taken {
            self.ledger.coming(stream, length);
            self.ledger.came(stream);
            self.push(stream, length);
        }
        self.ledger.moving(Moving::Nothing);
        taken
    }

    /// What a writer that is stuck has not written, as far as it has noted that.
    fn unwritten(&self) -> Lost {
        let max_held = sink_options(&self.plumbing.log).max_content();
        let bytes = Journal::open(&self.plumbing.memory, max_held).map_or(0, |journal| journal.unwritten());
        Lost { records: 0, bytes, why: "the log's file system does not answer".to_owned() }
    }

    fn ready(&self, timeout: Duration) -> Vec<usize> {
        let mut polled: Vec<_> = self
            .descriptors()
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let _ = poll(&mut polled, Some(&timespec(timeout)));
        (0..polled.len()).filter(|&index| !polled[index].revents().is_empty()).collect()
    }

    /// Reads what the program has written, all of it, and for a while what somebody else writes.
    fn read_last_words(&mut self) {
        for source in &mut self.sources {
            source.allowance = source.unread() + CHUNK as u64;
        }
        let mut patience = LAST_WORDS;
        while self.sources.iter().any(|source| source.allowance > 0) {
            let begun = Instant::now();
            let ready = self.ready(patience);
            if ready.is_empty() {
                break;
            }
            patience = patience.saturating_sub(begun.elapsed());
            self.read(&ready);
        }
    }
}

impl Output for Intake<'_, '_> {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().map(|source| source.descriptor)
    }

    fn hold(&self) -> Option<Duration> {
        let line = self.begun.map(|begun| (begun + HOLD).saturating_duration_since(Instant::now()));
        let losses = self.limit.as_ref().filter(|limit| limit.has_losses()).map(|_| HOLD);
        [line, losses].into_iter().flatten().min()
    }

    fn read(&mut self, ready: &[usize]) -> Option<Duration> {
        let mut bytes = 0;
        // From the last to the first: an ended source leaves the list.
        for &index in ready.iter().rev() {
            match self.read_one(index) {
                Some(length) => bytes += length as u64,
                None => drop(self.sources.remove(index)),
            }
        }
        if bytes == 0 { None } else { self.pace.rest(bytes, Instant::now()) }
    }

    fn flush(&mut self) {
        let instant = Instant::now();
        if self.begun.is_some_and(|begun| begun + HOLD <= instant) {
            self.queue.settle(now());
            self.begun = None;
        }
        while let Some(gap) = self.limit.as_mut().and_then(|limit| limit.settle(instant)) {
            self.queue.push_gap(gap, now());
        }
    }

    /// The writer does that.
    fn reopen(&mut self) -> Option<Result<(), String>> {
        self.queue.reopen();
        None
    }

    fn finish(&mut self) -> Lost {
        self.read_last_words();
        while let Some(gap) = self.limit.as_mut().and_then(RateLimit::finish) {
            self.queue.push_gap(gap, now());
        }
        self.queue.settle(now());
        self.queue.close(Instant::now() + LAST_ROOM);
        let unread: u64 = self.sources.iter().map(Source::unread).sum();
        let written = if self.queue.wait_until_over(LAST_ROOM) {
            self.writer.take().and_then(|writer| writer.join().ok()).unwrap_or_default()
        } else {
            self.is_stuck = true;
            self.unwritten()
        };
        let outside = "somebody outside the container writes on";
        let why = if written.why.is_empty() && unread > 0 { outside.to_owned() } else { written.why };
        Lost { bytes: written.bytes + unread, why, ..written }
    }

    fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// What is in the buffer would have to be declared missing: it is written first, for as long as the program's pipe can take
    /// what that prints meanwhile.
    fn is_settled(&mut self) -> bool {
        while let Some(gap) = self.limit.as_mut().and_then(RateLimit::finish) {
            self.queue.push_gap(gap, now());
        }
        self.queue.settle(now());
        self.begun = None;
        self.queue.wait_until_empty(SETTLING)
    }
}
