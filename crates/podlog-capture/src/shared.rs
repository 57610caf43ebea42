//! Memory that outlives the process that writes to it.
#![expect(unsafe_code, reason = "mapping memory has no safe interface")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes before [`Shared::bytes`]: numbers.
pub(crate) const HEAD: usize = 4096;
/// So many numbers.
const NUMBERS: usize = HEAD / size_of::<u64>();

/// A mapping of an unnamed file of a fixed size. One process has its bytes at a time; when that is killed, another maps the same
/// file and finds everything that was stored.
///
/// It begins with numbers, which are seen in the order in which they were stored; behind them are plain bytes.
pub(crate) struct Shared {
    start: NonNull<u8>,
    length: usize,
}

/// Makes an unnamed file for so many bytes, which are zero.
pub(crate) fn create(bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create("podlog-capture", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, (HEAD + bytes) as u64)?;
    // A file that became shorter would end whoever has mapped it.
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

// SAFETY: a mapping belongs to the process, and to none of its threads; whoever has the `Shared` unmaps it.
unsafe impl Send for Shared {}

impl Shared {
    /// Maps a file that [`create`] made for so many bytes.
    ///
    /// # Errors
    /// When there is no memory, or the file was made for another number of bytes.
    pub(crate) fn map(file: impl AsFd, bytes: usize) -> io::Result<Self> {
        let length = HEAD + bytes;
        if fstat(&file)?.st_size < i64::try_from(length).unwrap_or(i64::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the memory is of another size"));
        }
        // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe {
            mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// The number at a place.
    pub(crate) fn number(&self, index: usize) -> &AtomicU64 {
        assert!(index < NUMBERS, "there are {NUMBERS} numbers");
        // SAFETY: the mapping begins at a page with room for `NUMBERS` aligned numbers, for each of which every value is
        // valid; they are only ever used as atomics.
        unsafe { self.start.cast::<AtomicU64>().add(index).as_ref() }
    }

    /// The bytes behind the numbers.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has `length` bytes, `HEAD` of which are numbers. No other process and no other mapping has them
        // while this one lives, and here `&self` excludes writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(HEAD), self.length - HEAD) }
    }

    /// The bytes behind the numbers.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` excludes everybody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(HEAD), self.length - HEAD) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more. That it cannot be unmapped does no harm.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
