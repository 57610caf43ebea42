//! Memory that buffers take which are hardly written.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use podlog_serving::SparseBuffers;

#[global_allocator]
static MEMORY: SparseBuffers = SparseBuffers;

const COUNT: usize = 2_000;

/// KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// Bytes of small things that come with each buffer, and fill the gaps between buffers.
const SMALL: usize = 7 * 500;

/// What hardly written blocks of this size and small ones take, in memory that others have written all over.
fn hardly_written(size: usize) -> usize {
    let before = resident();
    let garbage: Vec<Vec<u8>> = (0..COUNT).map(|_| vec![1; size]).collect();
    assert!(resident() - before > COUNT * size / 1024 / 2, "the garbage takes memory");
    // What comes behind it keeps the system from taking back what it leaves.
    let behind = vec![1; 1 << 10];
    drop(garbage);
    let buffers: Vec<(Vec<u8>, [Vec<u8>; 7])> = (0..COUNT)
        .map(|_| {
            let mut buffer = SparseBuffers::for_connection(|| Vec::with_capacity(size));
            buffer.push(1);
            (buffer, [0; 7].map(|_| vec![1; SMALL / 7]))
        })
        .collect();
    assert!(buffers.iter().all(|(buffer, _)| *buffer == [1]) && behind.len() == 1 << 10);
    resident().saturating_sub(before)
}

#[test]
fn pages_that_were_never_written_take_no_memory() {
    for size in [8 << 10, 16 << 10] {
        let each = hardly_written(size) as f64 / COUNT as f64;
        assert!(each < 9.5, "{each} KiB for {SMALL} bytes, and a buffer of {size} of which one was written");
    }
}

#[test]
fn blocks_of_all_kinds_keep_what_is_in_them() {
    for size in [4096, 8192, 10_000, 16384, 20_000] {
        let mut block = SparseBuffers::for_connection(|| Vec::with_capacity(size));
        block.extend((0..size).map(|index| index as u8));
        block.reserve_exact(3 * size);
        block.truncate(8192);
        block.shrink_to_fit();
        assert!(block.iter().enumerate().all(|(index, byte)| *byte == index as u8));
        assert!(vec![0u8; size].iter().all(|byte| *byte == 0));
    }
}
