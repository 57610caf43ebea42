//! What containers use: the sum over their processes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use podlog_container::ProcessUsage;

use super::error::failed;
use super::record::ContainerRecord;
use crate::runtime::{ContainerId, ContainerState, ContainerStats, RuntimeError};

/// The kernel counts processor time for programs in hundredths of a second, on every machine that Rust runs on.
const TICK_NANOS: u64 = 10_000_000;
/// Of a page, in `/proc/self/auxv`; and the size that it has nearly everywhere.
const AT_PAGESZ: u64 = 6;
const USUAL_PAGE_BYTES: u64 = 4096;

/// Of every one that runs.
///
/// # Errors
/// When there is no `/proc`.
pub(super) fn stats(records: &[Arc<ContainerRecord>]) -> Result<Vec<ContainerStats>, RuntimeError> {
    let roots: Vec<(ContainerId, i32)> = records.iter().filter_map(|record| running(record)).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let all = ProcessUsage::all().map_err(failed("cannot read /proc"))?;
    let by_pid: HashMap<i32, &ProcessUsage> = all.iter().map(|usage| (usage.process.pid, usage)).collect();
    let at = Timestamp::now();
    Ok(roots
        .into_iter()
        .filter_map(|(id, main)| {
            let monitor = by_pid.get(&by_pid.get(&main)?.process.parent)?;
            Some(sum(id, at, monitor, &all))
        })
        .collect())
}

/// A container's first process, if it runs.
fn running(record: &ContainerRecord) -> Option<(ContainerId, i32)> {
    let findings = record.findings().ok()?;
    let runs = findings.container_state() == ContainerState::Running;
    findings.state.filter(|_| runs).map(|state| (record.id(), state.process.pid))
}

/// The processes below a container's monitor are the container's, but for the monitor's own, which are of its session. What has
/// ended has been waited for by one of them, or by the monitor.
fn sum(id: ContainerId, at: Timestamp, monitor: &ProcessUsage, all: &[ProcessUsage]) -> ContainerStats {
    let (mut ticks, mut threads, mut pages) = (monitor.reaped_cpu_ticks, 0, 0);
    for usage in members(monitor, all) {
        ticks += usage.cpu_ticks + usage.reaped_cpu_ticks;
        threads += usage.threads;
        pages += usage.resident_pages;
    }
    let memory = Some(pages * page_bytes());
    ContainerStats {
        id,
        at,
        cpu_nanos: Some(ticks * TICK_NANOS),
        working_set_bytes: memory,
        memory_bytes: memory,
        rss_bytes: memory,
        processes: Some(threads),
        writable_layer: None,
    }
}

/// Size of a page in bytes.
fn page_bytes() -> u64 {
    let pairs = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
    let found = pairs.chunks_exact(16).find(|pair| word(&pair[..8]) == Some(AT_PAGESZ));
    found.and_then(|pair| word(&pair[8..])).unwrap_or(USUAL_PAGE_BYTES)
}

fn members<'a>(monitor: &ProcessUsage, all: &'a [ProcessUsage]) -> Vec<&'a ProcessUsage> {
    let mut children: HashMap<i32, Vec<&ProcessUsage>> = HashMap::new();
    for usage in all.iter().filter(|usage| usage.process.session != monitor.process.session) {
        children.entry(usage.process.parent).or_default().push(usage);
    }
    let (mut found, mut seen, mut next) = (Vec::new(), HashSet::new(), vec![monitor.process.pid]);
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            // Processes were read one after the other: a number may have been used twice.
            if seen.insert(child.process.pid) {
                found.push(*child);
                next.push(child.process.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use podlog_container::ProcessStat;

    use super::*;

    #[test]
    fn pages_have_a_size() {
        assert!(page_bytes().is_power_of_two() && page_bytes() >= USUAL_PAGE_BYTES);
    }

    #[test]
    fn a_container_is_what_is_below_its_monitor() {
        let usage = |pid, parent, session, ticks| ProcessUsage {
            process: ProcessStat { pid, parent, session, start_ticks: 0 },
            cpu_ticks: ticks,
            reaped_cpu_ticks: 1,
            threads: 2,
            resident_pages: 3,
        };
        // Monitor 10 with its copier 11; 12 is the program, 13 its child, 14 an orphan; 20 is somebody else.
        let all = [
            usage(10, 1, 10, 1000),
            usage(11, 10, 10, 1000),
            usage(12, 10, 12, 10),
            usage(13, 12, 12, 20),
            usage(14, 10, 14, 30),
            usage(20, 1, 20, 1000),
        ];
        let stats = sum(ContainerId("c".into()), Timestamp::UNIX_EPOCH, &all[0], &all);
        assert_eq!((stats.cpu_nanos, stats.processes), (Some(64 * TICK_NANOS), Some(6)));
        assert_eq!(stats.working_set_bytes, Some(9 * page_bytes()));
    }
}
