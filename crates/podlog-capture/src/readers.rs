//! The copier's threads: one for each of the program's pipes, which waits for output without polling, and the main thread, which
//! keeps the line to the monitor and does what waits for its time.
//!
//! A thread moves a chunk to the work pipe of its stream ([`Outlet::take`]), and then, when it is its turn, all the way to the log.
//! So a line takes no detour over another thread. What all of them have is behind one lock, [`Common`]:
//!
//! - Before a stream's next chunk is taken, the one before is in the log, or in a buffer, also one that a predecessor has left: so the
//!   work pipe is empty, or has the rest of the chunk that is noted, but never that and a part of the next.
//! - While the log cannot be written, nobody takes anything on; what is in a work pipe then waits there.
//! - When it is over ([`Common::close`]), a thread that has just filled its work pipe leaves it so: the next copier, or the last
//!   words, begin with that.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use podlog_line::Stream;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::thread::gettid;

use crate::copier::Output;
use crate::memory::Memory;
use crate::outlet::{Kind, Outlet};
use crate::pace::Pace;
use crate::plumbing::Plumbing;
use crate::sys;

/// What a copier's threads need, in bytes; of that they touch a part.
pub(crate) const STACK: usize = 256 * 1024;
/// How long to wait first for a thread that was interrupted, which may just have been about to wait for output.
const FIRST_PATIENCE: Duration = Duration::from_micros(50);
/// The longest wait for it until it is interrupted again.
const MAX_PATIENCE: Duration = Duration::from_millis(10);

/// What the threads of a copier have in common.
pub(crate) struct Common<O> {
    state: Mutex<State<O>>,
    /// The log can be written again, or it is over.
    changed: Condvar,
    is_over: AtomicBool,
    /// Wakes the main thread.
    wake: OwnedFd,
    /// Thread ids of the streams' threads.
    ids: [AtomicI32; 2],
}

/// What one thread has at a time.
pub(crate) struct State<O> {
    pub(crate) output: O,
    pub(crate) memory: Memory,
    /// When the main thread will look; `None`: when it is woken.
    pub(crate) planned: Option<Instant>,
}

impl<O: Output> State<O> {
    /// When something is to be done.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.output.due(), self.memory.due()].into_iter().flatten().min()
    }
}

impl<O: Output> Common<O> {
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn new(output: O) -> io::Result<Self> {
        let state = State { output, memory: Memory::new(Instant::now()), planned: Some(Instant::now()) };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ids: Default::default(),
        })
    }

    /// Waits until no other thread is at work.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when the main thread is to look what is [due](State::due).
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The main thread has heard it.
    pub(crate) fn is_awake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// The log can be written again.
    pub(crate) fn resume(&self) {
        self.changed.notify_all();
    }

    /// No thread begins anything more.
    pub(crate) fn close(&self, state: MutexGuard<'_, State<O>>) {
        // Nobody is between looking and waiting now.
        self.is_over.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        drop(state);
    }

    /// What was written to, when there are no other threads any more.
    pub(crate) fn into_output(self) -> O {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).output
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits until output can be taken on; `None`: it is over.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State<O>>) -> Option<MutexGuard<'a, State<O>>> {
        let waits = |state: &mut State<O>| !state.output.can_take() && !self.is_over();
        let state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        (!self.is_over()).then_some(state)
    }

    /// Takes on what is in a work pipe, and waits until that is done. Returns for how long the next look is better put off.
    fn take(&self, outlet: &Outlet, length: usize, pace: &mut Pace) -> Result<Option<Duration>, Over> {
        let mut state = self.wait(self.lock()).ok_or(Over)?;
        state.output.take(outlet, length)?;
        let now = Instant::now();
        state.memory.touch(now);
        let due = state.due();
        if let Some(due) = due
            && state.planned.is_none_or(|planned| due < planned)
        {
            state.planned = Some(due);
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        drop(self.wait(state).ok_or(Over)?);
        Ok(pace.rest(length as u64, now))
    }

    fn ended(&self, stream: Stream) {
        if let Some(mut state) = self.wait(self.lock()) {
            state.output.ended(stream);
        }
    }

    /// Reads a stream to its end, or until it is over.
    fn read(&self, outlet: &Outlet) {
        let _abort = AbortOnPanic;
        self.ids[outlet.stream.index()].store(gettid().as_raw_nonzero().get(), Ordering::SeqCst);
        sys::allow_interruption();
        let mut pace = Pace::new(Instant::now(), outlet.pipe_bytes());
        // Where a predecessor's chunk waits for room, the work pipe stays empty.
        let Some(state) = self.wait(self.lock()) else { return };
        drop(state);
        let mut length = outlet.in_work();
        while !self.is_over() {
            if length == 0 {
                match outlet.take() {
                    Ok(0) => return self.ended(outlet.stream),
                    Ok(taken) => length = taken,
                    Err(Errno::INTR) => continue,
                    Err(_) => return,
                }
            }
            match self.take(outlet, length, &mut pace) {
                Ok(Some(rest)) => thread::sleep(rest),
                Ok(None) => {}
                Err(Over) => return,
            }
            length = 0;
        }
    }
}

/// There is nothing more to do for a thread.
struct Over;

impl From<Errno> for Over {
    fn from(_: Errno) -> Self {
        Self
    }
}

/// The threads of the program's pipes. They end when this is dropped.
pub(crate) struct Readers<'scope, 'a, O: Output> {
    common: &'a Common<O>,
    threads: Vec<(Stream, ScopedJoinHandle<'scope, ()>)>,
}

impl<'scope, 'a: 'scope, O: Output + Send> Readers<'scope, 'a, O> {
    /// Starts one for each of them.
    ///
    /// # Errors
    /// When the system has no room for them.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        common: &'a Common<O>,
        plumbing: &'a Plumbing,
    ) -> io::Result<Self> {
        sys::prepare_interruption()?;
        let mut readers = Self { common, threads: Vec::new() };
        for outlet in plumbing.outlets().iter().filter(|outlet| outlet.kind == Kind::Pipe) {
            let builder = thread::Builder::new().name(format!("podlog-{}", outlet.stream)).stack_size(STACK);
            let thread = builder.spawn_scoped(scope, move || common.read(outlet))?;
            readers.threads.push((outlet.stream, thread));
        }
        Ok(readers)
    }
}

impl<O: Output> Drop for Readers<'_, '_, O> {
    /// A signal that comes just before a thread waits for output is lost on it: then another one follows. None comes while a
    /// thread is at work.
    fn drop(&mut self) {
        self.common.close(self.common.lock());
        let mut patience = FIRST_PATIENCE;
        for (stream, thread) in self.threads.drain(..) {
            while !thread.is_finished() {
                sys::interrupt(self.common.ids[stream.index()].load(Ordering::SeqCst));
                thread::sleep(patience);
                patience = (patience * 2).min(MAX_PATIENCE);
            }
            let _ = thread.join();
        }
    }
}

/// A copier that has failed in one of its threads is replaced as a whole.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Sleeps of some microseconds are to be no longer than that, in this thread and those that it starts.
pub(crate) fn sleep_exactly() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::drain::{Drain, tests::plumbing};

    fn words(directory: &Path) -> Vec<String> {
        let log = fs::read_to_string(directory.join("0.log")).unwrap_or_default();
        log.lines().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect()
    }

    fn wait_for(directory: &Path, expected: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while words(directory) != expected {
            assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", words(directory));
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn threads_go_on_where_others_were_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        let outlet = &plumbing.outlets()[0];
        let mut expected = Vec::new();
        for words in [["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"]] {
            writeln!(program, "{}", words[0]).expect("room");
            // As if a thread had been ended just after that.
            assert_eq!(outlet.take(), Ok(2));
            writeln!(program, "{}", words[1]).expect("room");
            let common = Common::new(Drain::open(&plumbing).expect("a log")).expect("a descriptor");
            thread::scope(|scope| {
                let _readers = Readers::start(scope, &common, &plumbing).expect("threads");
                expected.extend(&words[..2]);
                wait_for(directory.path(), &expected);
                writeln!(program, "{}", words[2]).expect("room");
                expected.extend(&words[2..]);
                wait_for(directory.path(), &expected);
            });
            writeln!(program, "nobody reads").expect("room");
            assert_eq!(outlet.unread(), 13);
            assert_eq!(outlet.take_now(), Ok(13));
            outlet.fetch(&mut [0; 13]).expect("bytes");
        }
    }

    #[test]
    fn nothing_is_taken_while_a_predecessors_chunk_waits_for_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        program.write_all(b"line\n").expect("room");
        let common = Common::new(Stalled).expect("a descriptor");
        thread::scope(|scope| {
            let _readers = Readers::start(scope, &common, &plumbing).expect("threads");
            thread::sleep(Duration::from_millis(50));
            assert_eq!(plumbing.outlets()[0].in_work(), 0);
        });
    }

    /// An output that takes nothing.
    struct Stalled;

    impl Output for Stalled {
        fn can_take(&self) -> bool {
            false
        }
        fn take(&mut self, _: &Outlet, _: usize) -> Result<(), Errno> {
            panic!("nothing may be taken")
        }
        fn ended(&mut self, _: Stream) {}
        fn read_terminal(&mut self, _: &Outlet) -> Result<usize, Errno> {
            Err(Errno::AGAIN)
        }
        fn due(&self) -> Option<Instant> {
            None
        }
        fn flush(&mut self) {}
        fn reopen(&mut self) -> Option<Result<(), String>> {
            None
        }
        fn finish(&mut self) -> crate::drain::Lost {
            crate::drain::Lost::default()
        }
        fn is_settled(&mut self) -> bool {
            false
        }
    }

    #[test]
    fn threads_end_wherever_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        let flood = thread::spawn(move || while program.write_all(b"line\n").is_ok() {});
        for round in 0..60 {
            let common = Common::new(Drain::open(&plumbing).expect("a log")).expect("a descriptor");
            thread::scope(|scope| {
                let _readers = Readers::start(scope, &common, &plumbing).expect("threads");
                thread::sleep(Duration::from_micros(round * 23));
            });
            assert!(common.into_output().can_take());
        }
        drop(plumbing);
        flood.join().expect("the pipe is closed");
        let words = words(directory.path());
        assert!(words.len() > 1000 && words.iter().all(|word| word == "line"));
    }

    #[test]
    fn the_main_thread_is_woken_for_what_is_due_before_it_looks() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        let common = Common::new(Drain::open(&plumbing).expect("a log")).expect("a descriptor");
        let woken = || {
            let mut count = [0; 8];
            rustix::io::read(common.wake(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        let plan = |planned| common.lock().planned = planned;
        thread::scope(|scope| {
            let _readers = Readers::start(scope, &common, &plumbing).expect("threads");
            let mut take = |text: &str| {
                program.write_all(text.as_bytes()).expect("room");
                let deadline = Instant::now() + Duration::from_secs(20);
                while plumbing.outlets()[0].unread() > 0 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                drop(common.lock());
            };
            plan(Some(Instant::now()));
            take("in time\n> ");
            assert_eq!(woken(), 0);
            plan(None);
            take("> ");
            assert_eq!(woken(), 1);
            take("> ");
            assert_eq!(woken(), 0, "once is enough");
            assert!(common.lock().planned > Some(Instant::now()));
        });
    }
}
