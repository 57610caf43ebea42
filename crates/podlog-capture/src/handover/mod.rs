//! Going on as another program: how a new build takes over a container from an older one while it runs.
//!
//! A process keeps its id, its children and its open descriptors when it becomes another program. So the monitor does that, and
//! then its copier: neither is ever missing, and whichever dies on the way is replaced by the other one, as always.
//!
//! 1. The runtime sends the new program to the monitor ([`Request::HandOver`](podlog_container::control::Request::HandOver)).
//! 2. The monitor packs all it knows into a [`Parcel`], and has the new program look into it, as a child of its own. If that
//!    does not understand it, or says nothing in time, everything stays as it is.
//! 3. The monitor becomes the new program, which unpacks. If it fails even so, the old copier becomes the monitor.
//! 4. The new monitor tells the copier to become the same program, which that does as soon as it has nothing in its hands
//!    but what is in the journal.
//!
//! What is packed has a version, and so has the journal: a program takes only what it knows.

mod parcel;
mod program;

pub(crate) use parcel::{Handed, Packed, Parcel, Unpacked, open};
pub(crate) use program::{UNDERSTOOD, become_program, has_arrived, try_program};

/// What a program is started for in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Say whether the monitor's parcel is understood, and touch nothing.
    Trial,
    /// Be the monitor.
    TakeOver,
    /// Be the copier.
    CopyOn,
}

impl Errand {
    const ALL: [Self; 3] = [Self::Trial, Self::TakeOver, Self::CopyOn];

    /// The flag before the number of the parcel's descriptor.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Trial => "--trial",
            Self::TakeOver => "--take-over",
            Self::CopyOn => "--copy-on",
        }
    }

    /// The errand of a flag.
    pub(crate) fn of_flag(flag: &std::ffi::OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|errand| flag == errand.flag())
    }
}
