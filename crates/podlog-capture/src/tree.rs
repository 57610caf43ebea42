//! Killing what is left of a process tree.

use std::collections::HashSet;

use podlog_container::ProcessStat;

/// Kills every descendant of `root`. Descendants that are started meanwhile are there at the next call.
pub(crate) fn kill_descendants(root: i32) {
    let Ok(processes) = ProcessStat::all() else { return };
    for process in descendants(&processes, root) {
        // What may not be killed, like a set-user-id program, is counted by whoever waits for it.
        let _ = process.kill();
    }
}

/// Everything below `root`, whatever the order of `processes`.
fn descendants(processes: &[ProcessStat], root: i32) -> Vec<ProcessStat> {
    let mut found: Vec<ProcessStat> = Vec::new();
    let mut parents = HashSet::from([root]);
    loop {
        let is_new =
            |process: &&ProcessStat| parents.contains(&process.parent) && !parents.contains(&process.pid);
        let generation: Vec<_> = processes.iter().filter(is_new).copied().collect();
        if generation.is_empty() {
            return found;
        }
        parents.extend(generation.iter().map(|process| process.pid));
        found.extend(generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_generations() {
        let process = |(pid, parent)| ProcessStat { pid, parent, session: 1, start_ticks: 0 };
        let processes = [(9, 7), (1, 0), (7, 5), (5, 1), (6, 1), (8, 6), (2, 2)].map(process);
        for (root, expected) in
            [(5, vec![7, 9]), (6, vec![8]), (9, vec![]), (2, vec![]), (1, vec![5, 6, 7, 8, 9])]
        {
            let mut pids: Vec<_> = descendants(&processes, root).iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            assert_eq!(pids, expected, "below {root}");
        }
    }
}
