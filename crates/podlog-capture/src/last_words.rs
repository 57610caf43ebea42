//! What a program has printed and nobody has read when its last process has ended.

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::copier::Output;
use crate::drain::{RETRY, timespec};
use crate::journal::CHUNK;
use crate::outlet::{Kind, Outlet};

/// One of the program's streams, after its end.
struct Source<'a> {
    outlet: &'a Outlet,
    /// What may still be read of it, in bytes.
    allowance: u64,
}

/// Reads what the program has written, all of it, and a chunk more of what somebody else writes, for whom it waits `words` in
/// all; for room on a full disk it waits until `last_room`. Returns how many bytes are left.
///
/// No other thread may read.
pub(crate) fn read(
    outlets: &[Outlet],
    output: &mut impl Output,
    mut words: Duration,
    last_room: Instant,
) -> u64 {
    let source = |outlet| Source { outlet, allowance: Outlet::unread(outlet) + CHUNK as u64 };
    let mut sources: Vec<_> = outlets.iter().map(source).collect();
    while !output.can_take() || sources.iter().any(Source::is_allowed) {
        let begun = Instant::now();
        if !output.can_take() {
            if begun >= last_room {
                break;
            }
            thread::sleep(RETRY);
            output.flush();
            continue;
        }
        let Some(index) = ready(&sources, words) else { break };
        words = words.saturating_sub(begun.elapsed());
        if sources[index].read(output) == Progress::Ended {
            output.ended(sources.remove(index).outlet.stream);
        }
    }
    sources.iter().map(|source| source.outlet.unread()).sum()
}

/// The place of one that has something to say, or has ended.
fn ready(sources: &[Source<'_>], timeout: Duration) -> Option<usize> {
    let allowed = || sources.iter().enumerate().filter(|(_, source)| source.is_allowed());
    if let Some((index, _)) = allowed().find(|(_, source)| source.outlet.in_work() > 0) {
        return Some(index);
    }
    let mut polled: Vec<_> = allowed().map(|(_, source)| PollFd::new(source.outlet, PollFlags::IN)).collect();
    let _ = poll(&mut polled, Some(&timespec(timeout)));
    let place = polled.iter().position(|polled| !polled.revents().is_empty())?;
    allowed().nth(place).map(|(index, _)| index)
}

impl Source<'_> {
    fn is_allowed(&self) -> bool {
        self.allowance > 0
    }

    fn read(&mut self, output: &mut impl Output) -> Progress {
        let read = match self.outlet.kind {
            Kind::Pipe => self.read_pipe(output),
            Kind::Terminal => output.read_terminal(self.outlet),
        };
        match read {
            Ok(0) => Progress::Ended,
            Ok(length) => {
                self.allowance = self.allowance.saturating_sub(length as u64);
                Progress::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Open,
            // A terminal says so when its last user is gone.
            Err(_) => Progress::Ended,
        }
    }

    /// What a thread has left in the work pipe comes first.
    fn read_pipe(&self, output: &mut impl Output) -> Result<usize, Errno> {
        let length = match self.outlet.in_work() {
            0 => self.outlet.take_now()?,
            left => left,
        };
        if length > 0 {
            output.take(self.outlet, length)?;
        }
        Ok(length)
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    /// There may be more.
    Open,
    Ended,
}
