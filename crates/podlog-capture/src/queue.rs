//! Between the thread that takes what a program prints and the one that writes it, when the program must not wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use podlog_line::{Gap, Stream, Timestamp};

use crate::copier::Output;
use crate::drain::{Drain, Lost};
use crate::policy::{Buffer, Popped};

/// A buffer, and what else the writer is to do.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// The writer has nothing to do.
    written: Condvar,
}

struct State {
    buffer: Buffer,
    /// Requests to open the log file anew.
    reopen: usize,
    /// Nothing more will come; who cannot write after that moment gives up.
    closed: Option<Instant>,
    /// The writer has something in its hands, or cannot write.
    is_busy: bool,
    /// Somebody waits until it has not.
    is_awaited: bool,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Write the bytes that were asked for.
    Chunk { stream: Stream, at: Timestamp },
    /// Declare what is missing.
    Gap(Gap),
    /// Open the log file anew.
    Reopen,
    /// See what has waited long enough.
    Nothing,
    /// End.
    Over,
}

/// What the writer can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Writable,
    Stalled,
}

impl Queue {
    pub(crate) fn new(buffer: Buffer) -> Self {
        let state = State { buffer, reopen: 0, closed: None, is_busy: false, is_awaited: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), written: Condvar::new() }
    }

    /// Takes in what was read of a stream `at` a time, behind a gap. Returns whether a line is unfinished now.
    pub(crate) fn push(&self, stream: Stream, gap: Option<Gap>, bytes: &[u8], at: Timestamp) -> bool {
        let mut state = self.lock();
        if let Some(gap) = gap {
            // What came before the gap stands before it.
            state.buffer.settle(at);
            state.buffer.push_gap(gap);
        }
        state.buffer.push(stream, bytes, at);
        self.changed.notify_one();
        state.buffer.has_unfinished()
    }

    /// Something is missing here, and nothing follows for the time being.
    pub(crate) fn push_gap(&self, gap: Gap, at: Timestamp) {
        let mut state = self.lock();
        state.buffer.settle(at);
        state.buffer.push_gap(gap);
        self.changed.notify_one();
    }

    /// Lines that have not ended have waited long enough.
    pub(crate) fn settle(&self, at: Timestamp) {
        self.lock().buffer.settle(at);
        self.changed.notify_one();
    }

    /// Asks for the log file to be opened anew.
    pub(crate) fn reopen(&self) {
        self.lock().reopen += 1;
        self.changed.notify_one();
    }

    /// Waits until everything is written, for so long at most. Returns whether it is.
    pub(crate) fn wait_until_empty(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        state.is_awaited = true;
        let has_work = |state: &mut State| state.is_busy || !state.buffer.is_empty();
        let waited = self.written.wait_timeout_while(state, patience, has_work);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_awaited = false;
        !waited.timed_out()
    }

    /// Nothing more will come. While the log cannot be written, that is tried until `deadline`. The first call counts.
    pub(crate) fn close(&self, deadline: Instant) {
        self.lock().closed.get_or_insert(deadline);
        self.changed.notify_one();
    }

    /// What to do next; waits for it, for so long at most.
    fn next(&self, log: Log, timeout: Option<Duration>, bytes: &mut Vec<u8>) -> Next {
        let mut state = self.lock();
        if let Some(next) = state.next(log, bytes) {
            state.is_busy = true;
            return next;
        }
        state.is_busy = log == Log::Stalled;
        if state.is_awaited {
            self.written.notify_all();
        }
        // For ever is as good as for an hour.
        let timeout = timeout.unwrap_or(Duration::from_secs(3600));
        let waited = self.changed.wait_timeout(state, timeout);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_busy = true;
        state.next(log, bytes).unwrap_or(Next::Nothing)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self, log: Log, bytes: &mut Vec<u8>) -> Option<Next> {
        if self.reopen > 0 {
            self.reopen -= 1;
            return Some(Next::Reopen);
        }
        if log == Log::Stalled {
            let is_over = self.closed.is_some_and(|deadline| deadline <= Instant::now());
            return is_over.then_some(Next::Over);
        }
        match self.buffer.pop(bytes) {
            Some(Popped::Chunk { stream, at }) => Some(Next::Chunk { stream, at }),
            Some(Popped::Gap(gap)) => Some(Next::Gap(gap)),
            None => self.closed.map(|_| Next::Over),
        }
    }
}

/// Writes what comes out of the buffer until nothing more will come. `tell` is told how each request to open the log anew
/// went.
pub(crate) fn write(mut drain: Drain<'_>, queue: &Queue, tell: impl Fn(Result<(), String>)) -> Lost {
    let mut bytes = Vec::new();
    loop {
        let log = if drain.can_take() { Log::Writable } else { Log::Stalled };
        let patience = drain.due().map(|due| due.saturating_duration_since(Instant::now()));
        match queue.next(log, patience, &mut bytes) {
            Next::Chunk { stream, at } => drain.write(stream, &bytes, at),
            Next::Gap(gap) => drain.declare(gap),
            Next::Reopen => tell(drain.reopen_log()),
            Next::Nothing => {}
            Next::Over => {
                return drain.finish_within(Duration::ZERO, Duration::ZERO);
            }
        }
        drain.flush();
    }
}

#[cfg(test)]
mod tests {
    use podlog_line::GapReason;

    use super::*;
    use crate::policy::Overflow;

    #[test]
    fn a_writer_that_is_stalled_takes_nothing_and_gives_up_in_time() {
        let queue = Queue::new(Buffer::new(Overflow::DropNewest, 0));
        let at = Timestamp::from_nanoseconds(1);
        let gap = Gap { stream: Some(Stream::Stdout), ..Gap::new(GapReason::RateLimit) };
        let mut bytes = Vec::new();
        let now = Some(Duration::ZERO);
        assert!(queue.push(Stream::Stdout, None, b"a\nb", at), "an unfinished line");
        assert_eq!(queue.next(Log::Stalled, now, &mut bytes), Next::Nothing);
        queue.reopen();
        assert_eq!(queue.next(Log::Stalled, now, &mut bytes), Next::Reopen);
        assert!(!queue.push(Stream::Stdout, Some(gap), b"c\n", at));
        let mut all = Vec::new();
        queue.close(Instant::now() + Duration::from_secs(3600));
        assert_eq!(queue.next(Log::Stalled, now, &mut bytes), Next::Nothing);
        loop {
            match queue.next(Log::Writable, now, &mut bytes) {
                Next::Chunk { .. } => all.extend_from_slice(&bytes),
                Next::Gap(_) => all.push(b'|'),
                next => break assert_eq!(next, Next::Over),
            }
        }
        assert_eq!(String::from_utf8_lossy(&all), "a\nb|c\n");
        let queue = Queue::new(Buffer::new(Overflow::DropNewest, 0));
        queue.push(Stream::Stdout, None, b"a\n", at);
        queue.close(Instant::now());
        assert_eq!(queue.next(Log::Stalled, now, &mut bytes), Next::Over);
    }
}
