//! From the program's pipes into a buffer, whatever the log does: a program that must not wait does not.

use std::io;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use podlog_line::Stream;
use rustix::io::Errno;

use crate::copier::Output;
use crate::drain::{HOLD, LAST_ROOM, LAST_WORDS, Lost, now};
use crate::journal::{CHUNK, Ledger};
use crate::last_words;
use crate::outlet::Outlet;
use crate::plumbing::Plumbing;
use crate::policy::RateLimit;
use crate::queue::Queue;

/// How long the program may not be read while the buffer is being emptied.
const SETTLING: Duration = Duration::from_millis(50);

/// The program's output on its way into a buffer. Each byte is counted in the [`Ledger`] before it leaves the work pipe.
pub(crate) struct Intake<'a, 'scope> {
    plumbing: &'a Plumbing,
    ledger: Ledger,
    queue: &'a Queue,
    writer: Option<ScopedJoinHandle<'scope, Lost>>,
    chunk: Vec<u8>,
    limit: Option<RateLimit>,
    /// Since when a line waits for its end.
    begun: Option<Instant>,
}

impl<'a, 'scope> Intake<'a, 'scope> {
    /// Goes on where the last one was killed, if there was one. `writer` empties the queue.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn open(
        plumbing: &'a Plumbing,
        queue: &'a Queue,
        writer: ScopedJoinHandle<'scope, Lost>,
    ) -> io::Result<Self> {
        let ledger = Ledger::open(&plumbing.memory, |stream| plumbing.in_work(stream))?;
        Ok(Self {
            plumbing,
            ledger,
            queue,
            writer: Some(writer),
            chunk: vec![0; CHUNK],
            limit: plumbing.limit(),
            begun: None,
        })
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
}

impl Output for Intake<'_, '_> {
    /// What does not fit the buffer is dropped.
    fn can_take(&self) -> bool {
        true
    }

    fn take(&mut self, outlet: &Outlet, length: usize) -> Result<(), Errno> {
        self.ledger.coming(outlet.stream, length);
        outlet.fetch(&mut self.chunk[..length])?;
        self.ledger.came(outlet.stream);
        self.push(outlet.stream, length);
        Ok(())
    }

    /// A line that has not ended waits as any other.
    fn ended(&mut self, _stream: Stream) {}

    fn read_terminal(&mut self, terminal: &Outlet) -> Result<usize, Errno> {
        self.ledger.set_at_terminal(true);
        let taken = rustix::io::read(terminal, &mut self.chunk[..]);
        if let Ok(length @ 1..) = taken {
            self.ledger.coming(terminal.stream, length);
            self.ledger.came(terminal.stream);
            self.push(terminal.stream, length);
        }
        self.ledger.set_at_terminal(false);
        taken
    }

    fn due(&self) -> Option<Instant> {
        let line = self.begun.map(|begun| begun + HOLD);
        let has_losses = self.limit.as_ref().is_some_and(RateLimit::has_losses);
        let losses = has_losses.then(|| Instant::now() + HOLD);
        [line, losses].into_iter().flatten().min()
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
        let unread = last_words::read(self.plumbing.outlets(), self, LAST_WORDS, Instant::now());
        while let Some(gap) = self.limit.as_mut().and_then(RateLimit::finish) {
            self.queue.push_gap(gap, now());
        }
        self.queue.settle(now());
        self.queue.close(Instant::now() + LAST_ROOM);
        let written = self.writer.take().and_then(|writer| writer.join().ok()).unwrap_or_default();
        let outside = "somebody outside the container writes on";
        let why = if written.why.is_empty() && unread > 0 { outside.to_owned() } else { written.why };
        Lost { bytes: written.bytes + unread, why, ..written }
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
