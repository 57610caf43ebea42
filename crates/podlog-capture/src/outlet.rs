//! Where one of the program's streams comes out, and the pipe behind it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use podlog_line::Stream;
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use serde::{Deserialize, Serialize};

use crate::handover::{Handed, Parcel, Unpacked};
use crate::journal::CHUNK;

/// What a work pipe is to hold, in bytes: a chunk, with room for pages that are not full.
const WORK_PIPE_SIZE: usize = 2 * CHUNK;
/// The size of a pipe of which nobody knows it, in bytes.
const SMALL_PIPE: u64 = 64 * 1024;

/// One of the program's streams, with a *work pipe* of its own: where a chunk is between the program's pipe and the buffer.
///
/// The program's pipe must never be polled while the program runs: once that has been done, each write to that pipe wakes
/// whoever might wait, even where nobody does, for as long as the pipe lives (`poll_usage` in the kernel's `fs/pipe.c`). That
/// costs a program that writes line by line a sixth of its speed.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// Which stream.
    pub(crate) stream: Stream,
    /// What the program writes to.
    pub(crate) kind: Kind,
    /// What the program writes, or its terminal.
    output: OwnedFd,
    /// Reading does not wait, writing would: it is empty before a chunk is taken.
    work: (OwnedFd, OwnedFd),
}

/// What a program writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pipe,
    /// It cannot be spliced: its work pipe is of no use. Reading does not wait.
    Terminal,
}

/// An [`Outlet`] in a parcel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct OutletState {
    output: Handed,
    work: (Handed, Handed),
}

impl Outlet {
    /// Puts a work pipe behind an output.
    pub(crate) fn new(stream: Stream, kind: Kind, output: OwnedFd) -> io::Result<Self> {
        let work = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&work.0, true)?;
        // With a smaller one chunks are smaller.
        let _ = fcntl_setpipe_size(&work.1, WORK_PIPE_SIZE);
        Ok(Self { stream, kind, output, work })
    }

    /// The same for another owner.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let work = (self.work.0.try_clone()?, self.work.1.try_clone()?);
        Ok(Self { stream: self.stream, kind: self.kind, output: self.output.try_clone()?, work })
    }

    /// Puts it into a parcel.
    pub(crate) fn pack(&self, parcel: &mut Parcel) -> OutletState {
        OutletState {
            output: parcel.put(&self.output),
            work: (parcel.put(&self.work.0), parcel.put(&self.work.1)),
        }
    }

    /// Takes it out again.
    ///
    /// # Errors
    /// When a descriptor is missing.
    pub(crate) fn unpack(
        stream: Stream,
        kind: Kind,
        state: OutletState,
        parcel: &mut Unpacked,
    ) -> Result<Self, String> {
        let work = (parcel.take(state.work.0)?, parcel.take(state.work.1)?);
        Ok(Self { stream, kind, output: parcel.take(state.output)?, work })
    }

    /// The terminal for another owner.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn clone_terminal(&self) -> io::Result<OwnedFd> {
        self.output.try_clone()
    }

    /// Numbers of all descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        [&self.output, &self.work.0, &self.work.1].into_iter().map(AsRawFd::as_raw_fd)
    }

    /// Moves what the program's pipe has to the work pipe, a chunk at most; waits until there is something. 0: it has ended.
    ///
    /// # Errors
    /// When a signal has come, and nothing was moved.
    pub(crate) fn take(&self) -> Result<usize, Errno> {
        splice(&self.output, None, &self.work.1, None, CHUNK, SpliceFlags::MOVE)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// When there is nothing.
    pub(crate) fn take_now(&self) -> Result<usize, Errno> {
        splice(&self.output, None, &self.work.1, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
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

    /// Bytes that wait in both pipes. A terminal does not tell all.
    pub(crate) fn unread(&self) -> u64 {
        ioctl_fionread(&self.output).unwrap_or(0) + self.in_work() as u64
    }

    /// What the program's pipe holds, in bytes; a terminal's is taken for that of a small one.
    pub(crate) fn pipe_bytes(&self) -> u64 {
        fcntl_getpipe_size(&self.output).map_or(SMALL_PIPE, |size| size as u64)
    }
}

/// The program's end of it. Only a terminal may be polled, or what nobody writes to any more.
impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_are_in_one_place() {
        let (reader, mut program) = io::pipe().expect("a pipe");
        let outlet = Outlet::new(Stream::Stdout, Kind::Pipe, reader.into()).expect("a pipe");
        let mut buffer = vec![0; CHUNK];
        for text in [&b"a"[..], b"some words", &[b'x'; 5000]] {
            assert_eq!(outlet.take_now(), Err(Errno::AGAIN));
            program.write_all(text).expect("room");
            let waiting = || ioctl_fionread(&outlet).expect("a pipe");
            assert_eq!(
                (waiting(), outlet.in_work(), outlet.unread()),
                (text.len() as u64, 0, text.len() as u64)
            );
            assert_eq!(outlet.take(), Ok(text.len()));
            assert_eq!((waiting(), outlet.in_work(), outlet.unread()), (0, text.len(), text.len() as u64));
            outlet.fetch(&mut buffer[..text.len()]).expect("bytes");
            assert_eq!((&buffer[..text.len()], outlet.in_work()), (text, 0));
            assert_eq!(outlet.fetch(&mut buffer[..1]), Err(Errno::AGAIN));
        }
        drop(program);
        assert_eq!((outlet.take(), outlet.take_now()), (Ok(0), Ok(0)));
    }
}
