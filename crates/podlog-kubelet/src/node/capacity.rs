//! What this machine has: CPUs, memory, space, pods.

use std::collections::BTreeMap;
use std::path::Path;

/// Resources by name, as quantities.
pub(crate) fn capacity(max_pods: u32) -> BTreeMap<String, String> {
    let mut resources = BTreeMap::from([
        ("cpu".to_owned(), cpus().to_string()),
        ("memory".to_owned(), format!("{}Ki", memory_kib())),
        ("pods".to_owned(), max_pods.to_string()),
        ("hugepages-1Gi".to_owned(), "0".to_owned()),
        ("hugepages-2Mi".to_owned(), "0".to_owned()),
    ]);
    if let Some(kib) = root_space_kib() {
        resources.insert("ephemeral-storage".into(), format!("{kib}Ki"));
    }
    resources
}

/// What pods may use of it: everything, since nothing is reserved.
pub(crate) fn allocatable(max_pods: u32) -> BTreeMap<String, String> {
    capacity(max_pods)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemTotal:")
}

/// Memory that is free or can be made so, and all there is, in bytes.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&text, "MemAvailable:") * 1024, field(&text, "MemTotal:") * 1024))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn root_space_kib() -> Option<u64> {
    let stat = rustix::fs::statvfs("/").ok()?;
    Some(stat.f_blocks * stat.f_frsize / 1024)
}

/// A file system, and what is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
}

/// The file system of a path. One that has no inodes to count has enough of them.
pub(crate) fn room(path: &Path) -> Option<Room> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Room {
        bytes: stat.f_blocks * stat.f_frsize,
        free_bytes: stat.f_bavail * stat.f_frsize,
        inodes: stat.f_files,
        free_inodes: stat.f_favail,
    })
}

/// Processes now, and how many there may be.
pub(crate) fn processes() -> Option<(u64, u64)> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let now = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let limit = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
    };
    Some((now, limit("pid_max").into_iter().chain(limit("threads-max")).min()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let capacity = capacity(110);
        assert_eq!(capacity["pods"], "110");
        assert!(capacity["cpu"].parse::<u32>().unwrap() >= 1);
        for name in ["memory", "ephemeral-storage"] {
            assert_ne!(capacity[name], "0Ki", "{name}");
        }
    }

    #[test]
    fn fields_of_proc_files() {
        assert_eq!(field("MemTotal:       24 kB\nMemFree: 1 kB\n", "MemTotal:"), 24);
        assert_eq!(field("", "MemTotal:"), 0);
    }
}
