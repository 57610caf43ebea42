//! Giving up a copier that its file system does not let go, so that the end of the container becomes known.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::drain::Lost;
use crate::journal::{Journal, Note};
use crate::outlet::Outlet;
use crate::plumbing::{Plumbing, sink_options};
use crate::sys;

/// How long a copier may do nothing at all with the last words; it waits for room on a full disk for 10 s itself.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often to look.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches that the last words of a container get nearer to its log. All that is looked at is in memory and in pipes.
#[derive(Clone, Debug)]
pub(super) struct Vigil {
    /// What was seen last: the copier's note, and bytes that it has not read.
    seen: (Option<Note>, u64),
    /// When that had changed.
    since: Instant,
    /// When to look again.
    pub(super) due: Instant,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        Self { seen: (None, 0), since: now, due: now }
    }

    /// Looks when it is due. What is lost, if there is no hope any more.
    pub(super) fn look(&mut self, plumbing: &Plumbing, now: Instant) -> Option<Lost> {
        if now < self.due {
            return None;
        }
        self.due = now + INTERVAL;
        let journal = Journal::open(&plumbing.memory, sink_options(&plumbing.log).max_content()).ok();
        let unread = plumbing.outlets().iter().map(Outlet::unread).sum();
        let seen = (journal.as_ref().map(Journal::note), unread);
        if seen != self.seen {
            (self.seen, self.since) = (seen, now);
        }
        let unwritten = journal.map_or(0, |journal| journal.unwritten());
        let why = "the log's file system does not answer".to_owned();
        (self.since + PATIENCE <= now).then(|| Lost { records: 0, bytes: unwritten + unread, why })
    }
}

/// Has a copier end as soon as its file system lets it go.
pub(super) fn give_up(copier: Pid) {
    let _ = sys::kill(copier, libc::SIGKILL);
}
