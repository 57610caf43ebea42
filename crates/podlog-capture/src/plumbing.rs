//! What both processes of a capture have: the ends of the program's pipes, and where a chunk is on its way to the log.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use podlog_container::{BackPressure, Log};
use podlog_driver::{FileLimits, SinkOptions, WhenFull};
use podlog_line::Stream;
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use serde::{Deserialize, Serialize};

use crate::handover::{Handed, Parcel, Unpacked};
use crate::journal::{self, CHUNK, Journal};
use crate::policy::{Overflow, RateLimit};
use crate::stdio::Ours;
use crate::text::failed;

/// What the work pipe is to hold, in bytes: a chunk, with room for pages that are not full.
const WORK_PIPE_SIZE: usize = 2 * CHUNK;

/// The size of a pipe of which nobody knows it, in bytes.
const SMALL_PIPE: u64 = 64 * 1024;

/// Everything a copier works with. The monitor keeps it open, so that the next copier finds what the last one left.
pub(crate) struct Plumbing {
    /// What the program writes to stdout, or to its terminal.
    stdout: OwnedFd,
    /// What it writes to stderr; `None` with a terminal.
    stderr: Option<OwnedFd>,
    /// Held so that the program sees no end.
    held: Mutex<Option<OwnedFd>>,
    /// Where a chunk is between the program's pipe and the buffer. Reading does not block.
    work: (OwnedFd, OwnedFd),
    /// The journal's memory.
    pub(crate) memory: OwnedFd,
    /// Where the output goes.
    pub(crate) log: Log,
}

/// A [`Plumbing`] in a parcel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pipes {
    stdout: Handed,
    stderr: Option<Handed>,
    held: Option<Handed>,
    work: (Handed, Handed),
    memory: Handed,
}

impl Plumbing {
    /// Lays the pipes from a program to its log.
    pub(crate) fn new(ours: Ours, log: Log) -> io::Result<Self> {
        let work = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // With a smaller one chunks are smaller.
        let _ = fcntl_setpipe_size(&work.1, WORK_PIPE_SIZE);
        let memory = journal::create(sink_options(&log).max_content())?;
        let Ours { stdout, stderr, held } = ours;
        Ok(Self { stdout, stderr, held: Mutex::new(held), work, memory, log })
    }

    /// Lets the program's output end when its last process does.
    pub(crate) fn let_go(&self) {
        self.held().take();
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for another owner, who holds what this one held.
    pub(crate) fn hand_over(&self) -> io::Result<Self> {
        Ok(Self {
            stdout: self.stdout.try_clone()?,
            stderr: self.stderr.as_ref().map(OwnedFd::try_clone).transpose()?,
            work: (self.work.0.try_clone()?, self.work.1.try_clone()?),
            memory: self.memory.try_clone()?,
            log: self.log.clone(),
            held: Mutex::new(self.held().take()),
        })
    }

    /// Puts all of it into a parcel but for what the container's configuration says.
    pub(crate) fn pack(&self, parcel: &mut Parcel) -> Pipes {
        Pipes {
            stdout: parcel.put(&self.stdout),
            stderr: self.stderr.as_ref().map(|descriptor| parcel.put(descriptor)),
            held: self.held().as_ref().map(|descriptor| parcel.put(descriptor)),
            work: (parcel.put(&self.work.0), parcel.put(&self.work.1)),
            memory: parcel.put(&self.memory),
        }
    }

    /// Takes it out again.
    ///
    /// # Errors
    /// When something is missing, or the journal is of another size than this program makes it.
    pub(crate) fn unpack(pipes: Pipes, parcel: &mut Unpacked, log: Log) -> Result<Self, String> {
        let plumbing = Self {
            stdout: parcel.take(pipes.stdout)?,
            stderr: parcel.take_some(pipes.stderr)?,
            held: Mutex::new(parcel.take_some(pipes.held)?),
            work: (parcel.take(pipes.work.0)?, parcel.take(pipes.work.1)?),
            memory: parcel.take(pipes.memory)?,
            log,
        };
        Journal::open(&plumbing.memory, sink_options(&plumbing.log).max_content())
            .map_err(failed("open the journal"))?;
        Ok(plumbing)
    }

    /// Numbers of all descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let some = [&self.stdout, &self.work.0, &self.work.1, &self.memory];
        some.into_iter().chain(&self.stderr).chain(&*self.held()).map(AsRawFd::as_raw_fd).collect()
    }

    /// The open ends of the program's streams.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let stderr = self.stderr.as_ref().map(|descriptor| (Stream::Stderr, descriptor.as_fd()));
        std::iter::once((Stream::Stdout, self.stdout.as_fd())).chain(stderr)
    }

    /// What is dropped when the log is slower than the program; `None` when the program waits for its log.
    pub(crate) fn overflow(&self) -> Option<Overflow> {
        match self.log.back_pressure {
            BackPressure::Block => None,
            BackPressure::DropNewest => Some(Overflow::DropNewest),
            BackPressure::DropOldest => Some(Overflow::DropOldest),
        }
    }

    /// How much of its output is logged; `None` for all of it.
    pub(crate) fn limit(&self) -> Option<RateLimit> {
        let Log { lines_per_second, bytes_per_second, .. } = self.log;
        let is_limited = lines_per_second > 0 || bytes_per_second > 0;
        is_limited.then(|| RateLimit::new(lines_per_second, bytes_per_second))
    }

    /// What each of the program's pipes holds, in bytes; a terminal's is taken for that of a small one.
    pub(crate) fn pipe_bytes(&self) -> u64 {
        fcntl_getpipe_size(&self.stdout).map_or(SMALL_PIPE, |size| size as u64)
    }

    /// Whether the program has a terminal, which cannot be spliced.
    pub(crate) fn is_terminal(&self) -> bool {
        self.stderr.is_none()
    }

    /// Moves what a stream's pipe has to the work pipe, a chunk at most. 0: it has ended.
    pub(crate) fn take(&self, output: BorrowedFd<'_>) -> Result<usize, Errno> {
        splice(output, None, &self.work.1, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
    }

    /// Bytes in the work pipe.
    pub(crate) fn in_work(&self) -> usize {
        let bytes = ioctl_fionread(&self.work.0).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK)
    }

    /// Moves bytes that are in the work pipe to the buffer.
    pub(crate) fn fetch(&self, mut buffer: &mut [u8]) -> Result<(), Errno> {
        while !buffer.is_empty() {
            match rustix::io::read(&self.work.0, &mut *buffer) {
                // The other end is open here.
                Ok(0) => return Err(Errno::PIPE),
                Ok(length) => buffer = &mut buffer[length..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How a log is written. The sink drops nothing: what is dropped, and when, is the policy's.
pub(crate) fn sink_options(log: &Log) -> SinkOptions {
    SinkOptions {
        limits: FileLimits { max_bytes: log.max_bytes, max_files: log.max_files },
        max_record_bytes: usize::try_from(log.max_record_bytes).unwrap_or(usize::MAX),
        when_full: WhenFull::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_are_in_one_place() {
        let (reader, mut program) = io::pipe().expect("a pipe");
        let ours = Ours { stdout: reader.into(), stderr: None, held: None };
        let plumbing = Plumbing::new(ours, Log::default()).expect("pipes");
        let mut buffer = vec![0; CHUNK];
        for text in [&b"a"[..], b"some words", &[b'x'; 5000]] {
            program.write_all(text).expect("room");
            let (_, output) = plumbing.outputs().next().expect("stdout");
            let unread = || ioctl_fionread(output).expect("a pipe");
            assert_eq!((unread(), plumbing.in_work()), (text.len() as u64, 0));
            assert_eq!(plumbing.take(output), Ok(text.len()));
            assert_eq!((unread(), plumbing.in_work()), (0, text.len()));
            plumbing.fetch(&mut buffer[..text.len()]).expect("bytes");
            assert_eq!((&buffer[..text.len()], plumbing.in_work()), (text, 0));
        }
        drop(program);
        let (_, output) = plumbing.outputs().next().expect("stdout");
        assert_eq!(plumbing.take(output), Ok(0));
    }
}
