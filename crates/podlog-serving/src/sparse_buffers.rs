//! Memory for programs that hold many connections on which nothing happens.
#![expect(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rustix::mm::{Advice, madvise};

/// What a buffer that was not written yet takes, at most.
const PAGE: usize = 4096;

thread_local! {
    static IS_WANTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, but of buffers that HTTP/2 makes for every connection (16 KiB to write, 8 KiB to read) only those
/// pages take memory that were written. An idle connection needs one of each; what the system gives for the others
/// is mostly memory that the handshake before has written.
///
/// Costs a system call for each such buffer, and a page fault for each of its pages that is used: so only what is made
/// [for connections](Self::for_connection) is meant. What nodes send comes in records of the same size, and would take twice as long.
#[derive(Debug)]
pub struct SparseBuffers;

impl SparseBuffers {
    /// Does something by which buffers are made that will hardly be written.
    pub fn for_connection<T>(make: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                IS_WANTED.set(false);
            }
        }
        let _reset = Reset;
        IS_WANTED.set(true);
        make()
    }
}

/// Sizes that BytesMut and Vec are asked for in so many words; they grow by `realloc`, which is left alone.
fn is_sparse(layout: Layout) -> bool {
    matches!(layout.size(), 0x2000 | 0x4000) && layout.align() == 1 && IS_WANTED.get()
}

// SAFETY: every block is one of the system's, which on Unix frees and resizes blocks of any alignment in the same way
// (`malloc`, `posix_memalign`); only memory of a block that nobody has yet is advised about.
unsafe impl GlobalAlloc for SparseBuffers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_sparse(layout) {
            // SAFETY: the caller's.
            return unsafe { System.alloc(layout) };
        }
        // SAFETY: the size is not zero, and a page is a power of two.
        let block = unsafe { System.alloc(Layout::from_size_align_unchecked(layout.size(), PAGE)) };
        if !block.is_null() {
            // SAFETY: all but the first page of the block, whose content nobody knows. A failure leaves it as it was.
            let _ = unsafe { madvise(block.add(PAGE).cast(), layout.size() - PAGE, Advice::LinuxDontNeed) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { System.realloc(block, layout, size) }
    }
}
