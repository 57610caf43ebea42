//! Memory that was needed for a while, for many pods or a long list, given back once there is little to do.
//!
//! glibc keeps what is freed unless it lies at the end of a heap, and makes eight heaps for each processor, each with
//! holes of its own.
#![expect(unsafe_code, reason = "the allocator has no safe interface")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Between looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// Who used less processor time since the last look has little to do, and does not mind the milliseconds that this takes.
const QUIET: Duration = Duration::from_millis(500);
/// Growth since memory was given back for the last time that is worth it.
const GROWTH: u64 = 4 << 20;

/// Gives memory back in the background, as long as the process lives. To be called before there are other threads.
pub(crate) fn keep_small() {
    limit_heaps();
    let watch = std::thread::Builder::new().name("memory".into()).stack_size(64 << 10);
    if let Err(error) = watch.spawn(watch_over) {
        tracing::debug!(%error, "memory that is free is kept");
    }
}

fn watch_over() {
    let (mut smallest, mut before) = (resident(), processor_time());
    loop {
        std::thread::sleep(INTERVAL);
        let (now, used) = (resident(), processor_time());
        if is_worth_it(now.saturating_sub(smallest), used - before) {
            give_back();
            smallest = resident();
            tracing::debug!(before = now, after = smallest, "gave memory back");
        }
        (smallest, before) = (smallest.min(resident()), processor_time());
    }
}

fn is_worth_it(growth: u64, used: Duration) -> bool {
    growth >= GROWTH && used < QUIET
}

/// Bytes of memory of this process; 0 where nobody knows.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// All that is free, page by page.
#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it takes the allocator's own locks, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// One heap for each processor: more threads than that do not work at the same time. Failure leaves it as it was.
#[cfg(target_env = "gnu")]
fn limit_heaps() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: it sets a number of the allocator's.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::try_from(processors).unwrap_or(libc::c_int::MAX))
    };
}

/// Other allocators than glibc's have their own ways.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(not(target_env = "gnu"))]
fn limit_heaps() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_there_is_some_and_nothing_else_to_do() {
        for (growth, millis, expected) in
            [(GROWTH, 0, true), (GROWTH - 1, 0, false), (GROWTH, 499, true), (1 << 40, 500, false)]
        {
            assert_eq!(is_worth_it(growth, Duration::from_millis(millis)), expected, "{growth} {millis}");
        }
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn holes_between_what_is_in_use_are_given_back() {
        const COUNT: usize = 64 << 10;
        let before = resident();
        let mut blocks: Vec<Option<Vec<u8>>> = (0..COUNT).map(|_| Some(vec![1; 1000])).collect();
        let full = resident();
        assert!(full - before > 50 << 20, "{before} {full}");
        for (number, block) in blocks.iter_mut().enumerate() {
            if number % 64 != 0 {
                *block = None;
            }
        }
        let holes = resident();
        give_back();
        let after = resident();
        assert!(holes > full - (16 << 20) && after < full - (40 << 20), "{before} {full} {holes} {after}");
        assert!(blocks.iter().flatten().all(|block| block.iter().all(|byte| *byte == 1)));
        assert!(processor_time() > Duration::ZERO);
    }
}
