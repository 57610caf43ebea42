//! What processes use: time, memory, input.

use std::{
    collections::HashMap,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::{
    process::{Pid, WaitId, WaitIdOptions, waitid},
    time::{ClockId, clock_gettime},
};

/// CPU time of this thread.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of the living threads of a process, to the nanosecond; of one that has ended and was not waited for, of its
/// first thread.
pub(crate) fn process_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Runs a program to its end and returns the CPU time of its first thread.
pub(crate) fn time_of(command: &mut Command) -> anyhow::Result<Duration> {
    let name = format!("{command:?}");
    let mut child = command.stdout(Stdio::null()).spawn().context(name.clone())?;
    let time = time_at_end(&child);
    anyhow::ensure!(child.wait()?.success(), "{name} failed");
    time
}

fn time_at_end(child: &Child) -> anyhow::Result<Duration> {
    let pid = Pid::from_child(child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    process_time(child.id())
}

/// The process and all that descend from it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        tree.extend(children.remove(&tree[next]).into_iter().flatten());
        next += 1;
    }
    tree
}

/// Processes with exactly this word in their command line.
pub(crate) fn processes_with_argument(word: &[u8]) -> Vec<u32> {
    let has_word = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word)
    };
    all().filter(has_word).collect()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process, while it is there.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Resident memory of a process in KiB, and its fair share of the pages that it has in common with others.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0)
    };
    Ok(Memory { resident: field("Rss:"), proportional: field("Pss:") })
}

/// The most memory that a process has had resident, in KiB.
pub(crate) fn peak(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    line.trim_end_matches("kB").trim().parse().context("VmHWM")
}

/// In KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) proportional: f64,
}

/// Bytes that this process has read by system calls so far.
pub(crate) fn bytes_read() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let count = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    count.context("no rchar")?.parse().context("rchar")
}
