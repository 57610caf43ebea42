//! Giving up a copier that its file system does not let go, so that the end of the container becomes known.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::drain::Lost;
use crate::journal::{Journal, Note, Work};
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
        let seen = (journal(plumbing).map(|journal| journal.note()), unread(plumbing));
        if seen != self.seen {
            (self.seen, self.since) = (seen, now);
        }
        (self.since + PATIENCE <= now).then(|| unwritten(plumbing, "the log's file system does not answer"))
    }
}

/// What is lost if nobody writes any more: what is in memory, and in pipes.
pub(super) fn unwritten(plumbing: &Plumbing, why: &str) -> Lost {
    let journal = journal(plumbing);
    let in_memory = journal.as_ref().map_or(0, Journal::unwritten);
    let twice = journal.map_or(0, |journal| still_coming(plumbing, journal.note().work));
    Lost { records: 0, bytes: in_memory + unread(plumbing) - twice, why: why.to_owned() }
}

/// What of the chunk in the note has not left its work pipe.
fn still_coming(plumbing: &Plumbing, work: Work) -> u64 {
    match work {
        Work::Chunk { stream, filled, .. } | Work::Raw { stream, filled }
            if plumbing.overflow().is_none() =>
        {
            plumbing.in_work(stream).min(filled) as u64
        }
        _ => 0,
    }
}

fn journal(plumbing: &Plumbing) -> Option<Journal> {
    Journal::open(&plumbing.memory, sink_options(&plumbing.log).max_content()).ok()
}

fn unread(plumbing: &Plumbing) -> u64 {
    plumbing.outlets().iter().map(Outlet::unread).sum()
}

/// Has a copier end as soon as its file system lets it go.
pub(super) fn give_up(copier: Pid) {
    let _ = sys::kill(copier, libc::SIGKILL);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use podlog_line::Stream;

    use super::*;
    use crate::drain::tests::plumbing;

    #[test]
    fn what_nobody_writes_is_counted_wherever_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (plumbing, mut program) = plumbing(directory.path());
        assert_eq!(unwritten(&plumbing, "").bytes, 0);
        program.write_all(b"in the work pipe\n").expect("room");
        assert_eq!(plumbing.outlets()[0].take(), Ok(17));
        program.write_all(b"in its own\n").expect("room");
        assert_eq!(unwritten(&plumbing, "").bytes, 28);
        for (stream, filled, from, expected) in [(Stream::Stderr, 100, 40, 88), (Stream::Stdout, 20, 0, 31)] {
            // Of the latter chunk three bytes have left the work pipe.
            let work = Work::Chunk { stream, filled, from };
            journal(&plumbing).expect("a journal").begin(work, Default::default());
            assert_eq!(unwritten(&plumbing, "").bytes, expected, "{work:?}");
        }
    }
}
