//! What is left of a process tree.

use std::collections::HashSet;
use std::fs;

use podlog_container::ProcessStat;

/// The processes of a container, as its monitor sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The monitor, below which they are.
    pub(crate) root: i32,
    /// The session of the first process, when it was started by another monitor: what it has started is not below this
    /// one.
    pub(crate) session: Option<i32>,
    /// The copier, which is none of them.
    pub(crate) copier: Option<i32>,
}

impl Tree {
    /// Kills every process. Processes that are started meanwhile are there at the next call.
    pub(crate) fn kill(&self) {
        let Ok(processes) = ProcessStat::all() else { return };
        for process in self.members(&processes) {
            // What may not be killed, like a set-user-id program, is counted by whoever waits for it.
            let _ = process.kill();
        }
    }

    /// Whether there is no process, dead ones included that nobody has waited for.
    pub(crate) fn is_empty(&self) -> bool {
        match self.children() {
            Some(children) if self.session.is_none() => {
                children.iter().all(|child| Some(*child) == self.copier)
            }
            _ => ProcessStat::all().is_ok_and(|processes| self.members(&processes).is_empty()),
        }
    }

    /// The root's own children, which is cheaper than looking at all processes. Not every kernel tells.
    fn children(&self) -> Option<Vec<i32>> {
        let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.root)).ok()?;
        text.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect()
    }

    /// Everything that belongs to the container, whatever the order of `processes`.
    fn members(&self, processes: &[ProcessStat]) -> Vec<ProcessStat> {
        let is_member = |process: &&ProcessStat| Some(process.pid) != self.copier && process.pid != self.root;
        let others: Vec<_> = processes.iter().filter(is_member).copied().collect();
        let mut found: Vec<_> =
            others.iter().filter(|process| Some(process.session) == self.session).copied().collect();
        let mut parents: HashSet<i32> = found.iter().map(|process| process.pid).chain([self.root]).collect();
        loop {
            let is_new =
                |process: &&ProcessStat| parents.contains(&process.parent) && !parents.contains(&process.pid);
            let generation: Vec<_> = others.iter().filter(is_new).copied().collect();
            if generation.is_empty() {
                return found;
            }
            parents.extend(generation.iter().map(|process| process.pid));
            found.extend(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_generations() {
        let process = |(pid, parent, session)| ProcessStat { pid, parent, session, start_ticks: 0 };
        let processes =
            [(9, 7, 7), (1, 0, 1), (7, 5, 7), (5, 1, 1), (6, 1, 1), (8, 6, 1), (2, 2, 2)].map(process);
        for (root, session, copier, expected) in [
            (5, None, None, vec![7, 9]),
            (5, None, Some(7), vec![]),
            (6, None, None, vec![8]),
            (6, Some(7), Some(8), vec![7, 9]),
            (9, None, None, vec![]),
            (2, None, None, vec![]),
            (1, None, None, vec![5, 6, 7, 8, 9]),
        ] {
            let tree = Tree { root, session, copier };
            let mut pids: Vec<_> = tree.members(&processes).iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            assert_eq!(pids, expected, "{tree:?}");
        }
    }

    #[test]
    fn own_children_are_seen() {
        let root = std::process::id().cast_signed();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
        let pid = child.id().cast_signed();
        let tree = |session| Tree { root, session, copier: None };
        assert!(tree(None).members(&ProcessStat::all().expect("processes")).iter().any(|it| it.pid == pid));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!tree(None).members(&ProcessStat::all().expect("processes")).iter().any(|it| it.pid == pid));
    }
}
