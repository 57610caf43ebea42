//! Where tests stop a writer, as a kill would.
//!
//! [`step`] stands before each system call that changes something on disk. Outside of tests it is nothing.

/// A kill may come here.
#[cfg(not(test))]
#[inline]
pub(super) fn step() {}

/// Whether it comes at the next step.
#[cfg(not(test))]
#[inline]
pub(super) fn is_next() -> bool {
    false
}

#[cfg(test)]
pub(super) use in_tests::{is_next, kill_at, step};

#[cfg(test)]
mod in_tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    thread_local! {
        /// Steps that this thread has left to live.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    struct Killed;

    pub(in super::super) fn step() {
        match LEFT.get() {
            None => {}
            Some(0) => {
                LEFT.set(None);
                resume_unwind(Box::new(Killed));
            }
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    pub(in super::super) fn is_next() -> bool {
        LEFT.get() == Some(0)
    }

    /// Does `work` until it comes to that step, the first being 0. Whether it was killed there, and not finished before.
    pub(in super::super) fn kill_at(step: u32, work: impl FnOnce()) -> bool {
        LEFT.set(Some(step));
        let result = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(None);
        match result {
            Ok(()) => false,
            Err(reason) if reason.is::<Killed>() => true,
            Err(failure) => resume_unwind(failure),
        }
    }
}
