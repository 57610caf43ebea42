//! Writing and reading cost no allocation and no system call a line.
//!
//! One test in a program of its own: allocations and system calls are those of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
use podlog_line::{Selection, Stream, Streams, Timestamp};

const LINES: usize = 100_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator that counts has to be an allocator")]
// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Allocations, and reads and writes, that `work` makes.
fn cost(work: impl FnOnce()) -> (u64, u64) {
    let before = (ALLOCATIONS.load(Ordering::Relaxed), system_calls());
    work();
    (ALLOCATIONS.load(Ordering::Relaxed) - before.0, system_calls() - before.1)
}

/// The reads and writes of this process, as Linux counts them.
fn system_calls() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux");
    let field = |line: &str| {
        line.split_once("sysc").and_then(|(_, rest)| rest.split_once(": ")?.1.parse::<u64>().ok())
    };
    io.lines().filter_map(field).sum()
}

#[test]
fn no_allocation_and_no_system_call_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.log");
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 5 };
    let mut sink = CriFileSink::open(&path, limits).expect("a sink");
    let chunk = "a line as applications write them, neither short nor long\n".repeat(1000);
    let mut write = |count: usize| {
        for number in 0..count {
            let at = Timestamp::from_seconds(1_767_225_600, number as u32 * 1_000_003);
            sink.write(Stream::ALL[number % 2], chunk.as_bytes(), at).expect("room");
        }
    };
    write(2);
    let (allocations, calls) = cost(|| write(LINES / 1000));
    assert!(allocations < 20, "{allocations} allocations");
    assert!(calls < 2 * (LINES / 1000) as u64, "{calls} system calls");

    for (timestamps, streams, tail) in [
        (false, Streams::Both, None),
        (true, Streams::Both, None),
        (false, Streams::Stderr, Some(LINES as u64 / 4)),
    ] {
        let selection = Selection { timestamps, streams, tail, ..Selection::default() };
        let mut reader = LogSource::open(&path).and_then(|source| source.read(&selection)).expect("a log");
        let mut out = Vec::with_capacity(1024 * 1024);
        let mut lines = 0;
        let (allocations, calls) = cost(|| {
            while reader.read_chunk(&mut out).expect("a log") == ReadState::More {
                lines += out.iter().filter(|byte| **byte == b'\n').count();
                out.clear();
            }
        });
        assert!(lines > LINES / 5);
        assert!(allocations < 20, "{allocations} allocations");
        assert!(calls < 200, "{calls} system calls");
    }

    // The end of a log is found without reading the rest of it.
    let last = Timestamp::from_seconds(1_767_225_600, (LINES as u32 / 1000 - 1) * 1_000_003);
    for (tail, since) in [(Some(10), None), (None, Some(last))] {
        let selection = Selection { tail, since, ..Selection::default() };
        let mut out = Vec::with_capacity(1024 * 1024);
        let before = bytes_read();
        let mut reader = LogSource::open(&path).and_then(|source| source.read(&selection)).expect("a log");
        while reader.read_chunk(&mut out).expect("a log") == ReadState::More {}
        let bytes = bytes_read() - before;
        let lines = out.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, if tail.is_some() { 10 } else { 1000 });
        let is_ordered = has_attributes(&path);
        assert!(bytes < 1024 * 1024 || (since.is_some() && !is_ordered), "{bytes} bytes for {selection:?}");
    }
}

/// Bytes that this process has read, as Linux counts them.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("Linux");
    let field = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    field.expect("a count").parse().expect("a number")
}

/// Whether the file system keeps what the writer tells of its files.
fn has_attributes(path: &std::path::Path) -> bool {
    rustix::fs::getxattr(path, "user.podlog.generation", &mut [0_u8; 64][..]).is_ok()
}
