//! What a line costs: no allocation, whatever is selected.
//!
//! One test in a program of its own: the allocations are those of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use podlog_line::{
    FileMark, LineEnd, LineMatch, PatternSyntax, Patterns, Renderer, Selection, Stream, Streams, Timestamp,
    cri,
};

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

const LINES: u32 = 10_000;

/// Lines of both streams, a few of them in parts; each second has `a_second` of them.
fn cri_log(a_second: u32) -> Vec<u8> {
    let mut log = Vec::new();
    for number in 0..LINES {
        let at = Timestamp::from_seconds(1_767_225_600 + i64::from(number / a_second), number * 7919);
        let stream = Stream::ALL[number as usize % 2];
        let end = if number % 50 < 2 { LineEnd::Partial } else { LineEnd::Full };
        let content = format!("number {} is neither a short nor a long line", number % 100);
        cri::append_record(&mut log, at.to_string().as_bytes(), stream, end, content.as_bytes());
    }
    log
}

fn json_log() -> Vec<u8> {
    (0..LINES)
        .flat_map(|number| {
            let at = Timestamp::from_seconds(1_767_225_600, number * 7919);
            format!("{{\"log\":\"a \\\"line\\\" of Docker\\n\",\"stream\":\"stdout\",\"time\":\"{at}\"}}\n")
                .into_bytes()
        })
        .collect()
}

fn matching(pattern: &str, syntax: PatternSyntax) -> Selection {
    let patterns = Patterns { include: vec![pattern.to_owned()], syntax, ..Patterns::default() };
    Selection { line_match: Some(LineMatch::new(patterns).expect("a pattern")), ..Selection::default() }
}

#[test]
fn a_line_costs_no_allocation() {
    let second = |second: i64| Some(Timestamp::from_seconds(1_767_225_600 + second, 500_000_000));
    let selections = [
        Selection::default(),
        Selection { timestamps: true, ..Selection::default() },
        Selection { streams: Streams::Stderr, ..Selection::default() },
        Selection { since: second(1), until: second(8), ..Selection::default() },
        Selection { cursors: true, timestamps: true, ..Selection::default() },
        Selection { limit_bytes: Some(u64::MAX / 2), ..Selection::default() },
        matching("number 7 ", PatternSyntax::Fixed),
        matching("number (7|8) ", PatternSyntax::Regex),
        matching("^number 7 ", PatternSyntax::Regex),
    ];
    for log in [cri_log(1000), cri_log(1), json_log()] {
        for selection in &selections {
            let mut renderer = Renderer::new(selection);
            renderer.begin_file(FileMark::default(), 0);
            let mut out = Vec::with_capacity(4 * log.len());
            // Buffers grow to their size, and expressions make their tables, once.
            renderer.render(&log, &mut out).expect("a log");
            out.clear();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            renderer.render(&log, &mut out).expect("a log");
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(renderer.stats().records, 2 * u64::from(LINES));
            assert!(allocations < 20, "{allocations} allocations: {selection:?}");
        }
    }
}
