//! What one program leaves to the next: descriptors, and what is known about them.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::journal;
use crate::sys;
use crate::text::failed;

/// Of what is in a parcel. Who changes that counts it up, and goes on reading what is older.
const VERSION: u32 = 2;
/// No parcel is longer, in bytes: 64 clients with a request each that has not quite come.
const MAX_BYTES: u64 = 256 << 20;

/// A descriptor in a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Handed(usize);

/// What is being packed.
#[derive(Debug, Default)]
pub(crate) struct Parcel(Vec<RawFd>);

/// A parcel that is ready to be handed over.
#[derive(Debug)]
pub(crate) struct Packed {
    content: File,
    numbers: Vec<RawFd>,
}

/// The descriptors of a parcel, each of which can be taken once.
#[derive(Debug)]
pub(crate) struct Unpacked(Vec<Option<OwnedFd>>);

/// What stands in the unnamed file.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    version: u32,
    journal: u32,
    descriptors: Vec<RawFd>,
    state: T,
}

/// What can be read of every version.
#[derive(Deserialize)]
struct Label {
    version: u32,
    journal: u32,
}

impl Parcel {
    /// Puts a descriptor in, which stays open here.
    pub(crate) fn put(&mut self, descriptor: &impl AsFd) -> Handed {
        self.0.push(descriptor.as_fd().as_raw_fd());
        Handed(self.0.len() - 1)
    }

    /// Adds what is to be known about the descriptors.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn close(self, state: &impl Serialize) -> io::Result<Packed> {
        let mut content = File::from(memfd_create("podlog-handover", MemfdFlags::CLOEXEC)?);
        let label =
            Content { version: VERSION, journal: journal::LAYOUT, descriptors: self.0.clone(), state };
        content.write_all(&serde_json::to_vec(&label)?)?;
        Ok(Packed { content, numbers: self.0 })
    }
}

impl Packed {
    /// Number of the descriptor that holds the parcel.
    pub(crate) fn number(&self) -> RawFd {
        self.content.as_raw_fd()
    }

    /// All descriptors that the next program needs, the parcel's own included.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        self.numbers.iter().copied().chain([self.number()])
    }
}

/// Opens a parcel in the program that it was handed to. Every other descriptor but the standard three is closed.
///
/// # Errors
/// Why it is not understood.
pub(crate) fn open<T: DeserializeOwned>(parcel: RawFd) -> Result<(T, Unpacked), String> {
    let mut content = File::from(sys::adopt(parcel).map_err(failed("take the parcel"))?);
    let mut text = Vec::new();
    content.rewind().map_err(failed("read the parcel"))?;
    content.take(MAX_BYTES).read_to_end(&mut text).map_err(failed("read the parcel"))?;
    let label: Label = serde_json::from_slice(&text).map_err(|error| format!("read the parcel: {error}"))?;
    check("hand-over", label.version, VERSION)?;
    check("journal", label.journal, journal::LAYOUT)?;
    let Content { descriptors, state, .. } =
        serde_json::from_slice::<Content<T>>(&text).map_err(|error| format!("read the parcel: {error}"))?;
    let mut sorted = descriptors.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != descriptors.len() || sorted.first().is_some_and(|first| *first <= 2) {
        return Err("a descriptor is in the parcel twice".to_owned());
    }
    sys::close_others(descriptors.clone());
    let taken = descriptors.into_iter().map(|number| sys::adopt(number).map(Some));
    let taken = taken.collect::<io::Result<_>>().map_err(failed("take a descriptor"))?;
    Ok((state, Unpacked(taken)))
}

fn check(what: &str, found: u32, known: u32) -> Result<(), String> {
    if found == known {
        Ok(())
    } else {
        Err(format!("version {found} of the {what} is not known here, only {known}: restart the container"))
    }
}

impl Unpacked {
    /// Takes a descriptor out.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn take(&mut self, handed: Handed) -> Result<OwnedFd, String> {
        let place = self.0.get_mut(handed.0).and_then(Option::take);
        place.ok_or_else(|| "a descriptor is missing in the parcel".to_owned())
    }

    /// The same of one that may not have been put in.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_some(&mut self, handed: Option<Handed>) -> Result<Option<OwnedFd>, String> {
        handed.map(|handed| self.take(handed)).transpose()
    }
}
