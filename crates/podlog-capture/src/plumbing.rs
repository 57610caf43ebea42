//! What both processes of a capture have: the ends of the program's pipes, and where a chunk is on its way to the log.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use podlog_container::{BackPressure, Log};
use podlog_driver::{FileLimits, SinkOptions, WhenFull};
use podlog_line::Stream;
use serde::{Deserialize, Serialize};

use crate::handover::{Handed, Parcel, Unpacked};
use crate::journal::{self, Journal};
use crate::outlet::{Kind, Outlet, OutletState};
use crate::policy::{Overflow, RateLimit};
use crate::stdio::Ours;
use crate::text::failed;

/// Everything a copier works with. The monitor keeps it open, so that the next copier finds what the last one left.
pub(crate) struct Plumbing {
    /// The program's streams; a terminal is one, stdout.
    outlets: Vec<Outlet>,
    /// Held so that the program sees no end: the other end of its stdin, or its terminal.
    held: Mutex<Option<OwnedFd>>,
    /// The journal's memory.
    pub(crate) memory: OwnedFd,
    /// Where the output goes.
    pub(crate) log: Log,
}

/// A [`Plumbing`] in a parcel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pipes {
    stdout: OutletState,
    stderr: Option<OutletState>,
    held: Option<Handed>,
    memory: Handed,
}

impl Plumbing {
    /// Lays the pipes from a program to its log.
    pub(crate) fn new(ours: Ours, log: Log) -> io::Result<Self> {
        let memory = journal::create(sink_options(&log).max_content())?;
        let Ours { stdout, stderr, held } = ours;
        let kind = if stderr.is_some() { Kind::Pipe } else { Kind::Terminal };
        let outputs = Stream::ALL.into_iter().zip(std::iter::once(stdout).chain(stderr));
        let outlets = outputs.map(|(stream, output)| Outlet::new(stream, kind, output));
        let outlets = outlets.collect::<io::Result<_>>()?;
        Ok(Self { outlets, held: Mutex::new(held), memory, log })
    }

    /// What the program reads from, for somebody who writes: the other end of its stdin, or of its terminal. `None` when it
    /// reads nothing, or nothing more.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn inlet(&self) -> io::Result<Option<OwnedFd>> {
        match self.terminal() {
            Some(terminal) => terminal.clone_terminal().map(Some),
            None => self.held().as_ref().map(OwnedFd::try_clone).transpose(),
        }
    }

    /// Lets stdin end, and, with a terminal, the program's output when its last process does.
    pub(crate) fn let_go(&self) {
        self.held().take();
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for another owner, who holds what this one held.
    pub(crate) fn hand_over(&self) -> io::Result<Self> {
        Ok(Self {
            outlets: self.outlets.iter().map(Outlet::try_clone).collect::<io::Result<_>>()?,
            memory: self.memory.try_clone()?,
            log: self.log.clone(),
            held: Mutex::new(self.held().take()),
        })
    }

    /// Puts all of it into a parcel but for what the container's configuration says.
    pub(crate) fn pack(&self, parcel: &mut Parcel) -> Pipes {
        Pipes {
            stdout: self.outlets[0].pack(parcel),
            stderr: self.outlets.get(1).map(|outlet| outlet.pack(parcel)),
            held: self.held().as_ref().map(|descriptor| parcel.put(descriptor)),
            memory: parcel.put(&self.memory),
        }
    }

    /// Takes it out again.
    ///
    /// # Errors
    /// When something is missing, or the journal is of another size than this program makes it.
    pub(crate) fn unpack(pipes: Pipes, parcel: &mut Unpacked, log: Log) -> Result<Self, String> {
        let kind = if pipes.stderr.is_some() { Kind::Pipe } else { Kind::Terminal };
        let states = Stream::ALL.into_iter().zip(std::iter::once(pipes.stdout).chain(pipes.stderr));
        let outlets = states.map(|(stream, state)| Outlet::unpack(stream, kind, state, parcel));
        let plumbing = Self {
            outlets: outlets.collect::<Result<_, _>>()?,
            held: Mutex::new(parcel.take_some(pipes.held)?),
            memory: parcel.take(pipes.memory)?,
            log,
        };
        Journal::open(&plumbing.memory, sink_options(&plumbing.log).max_content())
            .map_err(failed("open the journal"))?;
        Ok(plumbing)
    }

    /// Numbers of all descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let outlets = self.outlets.iter().flat_map(Outlet::descriptors);
        outlets.chain([self.memory.as_raw_fd()]).chain(self.held().as_ref().map(AsRawFd::as_raw_fd)).collect()
    }

    /// The program's streams.
    pub(crate) fn outlets(&self) -> &[Outlet] {
        &self.outlets
    }

    /// Where a stream comes out; nowhere if it is the second of a terminal.
    pub(crate) fn outlet(&self, stream: Stream) -> Option<&Outlet> {
        self.outlets.get(stream.index())
    }

    /// The terminal, if the program has one.
    pub(crate) fn terminal(&self) -> Option<&Outlet> {
        self.outlets.iter().find(|outlet| outlet.kind == Kind::Terminal)
    }

    /// Bytes of a stream that are in its work pipe.
    pub(crate) fn in_work(&self, stream: Stream) -> usize {
        self.outlet(stream).map_or(0, Outlet::in_work)
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
}

/// How a log is written. The sink drops nothing: what is dropped, and when, is the policy's.
pub(crate) fn sink_options(log: &Log) -> SinkOptions {
    SinkOptions {
        limits: FileLimits { max_bytes: log.max_bytes, max_files: log.max_files },
        max_record_bytes: usize::try_from(log.max_record_bytes).unwrap_or(usize::MAX),
        when_full: WhenFull::Wait,
    }
}
