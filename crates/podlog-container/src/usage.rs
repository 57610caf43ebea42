//! What processes use, as `/proc` has it.

use std::{fs, io};

use crate::ProcessStat;

/// What `/proc/<pid>/stat` says about a process's use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Which process, and whose child.
    pub process: ProcessStat,
    /// Processor time of its own, in clock ticks.
    pub cpu_ticks: u64,
    /// Processor time of children that it has waited for, in clock ticks.
    pub reaped_cpu_ticks: u64,
    /// Its threads.
    pub threads: u64,
    /// Memory that it holds (RSS), in pages.
    pub resident_pages: u64,
}

impl ProcessUsage {
    /// Every process that can be seen.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn all() -> io::Result<Vec<Self>> {
        let entries = fs::read_dir("/proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(Self::read).collect())
    }

    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let process = ProcessStat::parse(pid, stat)?;
        let fields: Vec<&str> = ProcessStat::fields(stat)?.collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(ProcessUsage {
            process,
            cpu_ticks: number(11)? + number(12)?,
            reaped_cpu_ticks: number(13)? + number(14)?,
            threads: number(17)?,
            resident_pages: number(21)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_behind_any_name() {
        let stat = "7 (a) b (c) S 1 6 5 0 -1 4194560 1 0 0 0 10 20 3 4 20 0 2 0 4711 1000 30 0";
        let process = ProcessStat { pid: 7, parent: 1, session: 5, start_ticks: 4711 };
        let expected =
            ProcessUsage { process, cpu_ticks: 30, reaped_cpu_ticks: 7, threads: 2, resident_pages: 30 };
        assert_eq!(ProcessUsage::parse(7, stat.as_bytes()), Some(expected));
        assert_eq!(ProcessUsage::parse(7, b"7 (a) S 1 6 5"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let all = ProcessUsage::all().expect("processes");
        let own = std::process::id().cast_signed();
        let own = all.iter().find(|usage| usage.process.pid == own).expect("this process");
        assert!(own.resident_pages > 0 && own.threads > 0, "{own:?}");
    }
}
