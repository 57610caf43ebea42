//! Where tests stop a writer, as a kill would, or let the system refuse what it asks for, as a full disk does.
//!
//! [`step`] stands before each system call that changes something on disk. Outside of tests it is nothing.

/// A kill or a failure may come here.
#[cfg(not(test))]
#[inline]
pub(super) fn step() -> std::io::Result<()> {
    Ok(())
}

/// Whether it comes at the next step.
#[cfg(not(test))]
#[inline]
pub(super) fn is_next() -> bool {
    false
}

#[cfg(test)]
pub(super) use in_tests::{fail_at, is_next, kill_at, step};

#[cfg(test)]
mod in_tests {
    use std::{
        cell::Cell,
        io,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    thread_local! {
        /// Steps that this thread has left until something happens, and what.
        static LEFT: Cell<Option<(u32, Event)>> = const { Cell::new(None) };
    }

    #[derive(Clone, Copy)]
    enum Event {
        Kill,
        /// So many steps fail, one after another.
        Failures(u32),
    }

    struct Killed;

    pub(in super::super) fn step() -> io::Result<()> {
        match LEFT.take() {
            None => Ok(()),
            Some((0, Event::Kill)) => resume_unwind(Box::new(Killed)),
            Some((0, Event::Failures(count))) => {
                LEFT.set(
                    count.checked_sub(1).filter(|left| *left > 0).map(|left| (0, Event::Failures(left))),
                );
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((left, event)) => {
                LEFT.set(Some((left - 1, event)));
                Ok(())
            }
        }
    }

    pub(in super::super) fn is_next() -> bool {
        LEFT.get().is_some_and(|(left, _)| left == 0)
    }

    /// Does `work` until it comes to that step, the first being 0. Whether it was killed there, and not finished before.
    pub(in super::super) fn kill_at(step: u32, work: impl FnOnce()) -> bool {
        LEFT.set(Some((step, Event::Kill)));
        let result = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(None);
        match result {
            Ok(()) => false,
            Err(reason) if reason.is::<Killed>() => true,
            Err(failure) => resume_unwind(failure),
        }
    }

    /// Does `work`, in which that step, the first being 0, fails, and those after it, `count` in all. Whether it came to that step.
    pub(in super::super) fn fail_at(step: u32, count: u32, work: impl FnOnce()) -> bool {
        LEFT.set(Some((step, Event::Failures(count))));
        work();
        LEFT.take().is_none_or(|(left, _)| left == 0)
    }
}
