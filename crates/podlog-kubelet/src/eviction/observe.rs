//! Looks at the machine.

use std::path::{Path, PathBuf};

use super::pressure::{Observation, Observations};
use crate::config::Signal;
use crate::node::capacity::{self, Room};

/// What is looked at.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// On the file system of the kubelet.
    pub(super) nodefs: PathBuf,
    /// On that of images; `None` where there are none.
    pub(super) imagefs: Option<PathBuf>,
}

impl Places {
    /// Whether images are on a file system of their own.
    pub(super) fn is_imagefs_dedicated(&self) -> bool {
        let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
        self.imagefs.as_deref().is_some_and(|images| device(images) != device(&self.nodefs))
    }

    /// Whether what is at `path` lies on the file system that a signal is about.
    pub(super) fn is_about(&self, signal: Signal, path: &Path) -> bool {
        let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
        let place = match signal {
            Signal::NodefsAvailable | Signal::NodefsInodesFree => Some(self.nodefs.as_path()),
            Signal::ImagefsAvailable | Signal::ImagefsInodesFree => self.imagefs.as_deref(),
            Signal::MemoryAvailable | Signal::PidAvailable => None,
        };
        place.is_some_and(|place| device(place) == device(path))
    }

    /// What is left of everything. Takes a few system calls.
    pub(super) fn look(&self) -> Observations {
        let mut seen = Observations::new();
        if let Some((left, all)) = capacity::memory() {
            seen.insert(Signal::MemoryAvailable, Observation { left, all });
        }
        if let Some((used, all)) = capacity::processes() {
            seen.insert(Signal::PidAvailable, Observation { left: all.saturating_sub(used), all });
        }
        if let Some(room) = capacity::room(&self.nodefs) {
            insert(&mut seen, room, Signal::NodefsAvailable, Signal::NodefsInodesFree);
        }
        if let Some(room) = self.imagefs.as_deref().and_then(capacity::room) {
            insert(&mut seen, room, Signal::ImagefsAvailable, Signal::ImagefsInodesFree);
        }
        seen
    }
}

/// A file system that has no inodes to count has enough of them.
fn insert(seen: &mut Observations, room: Room, space: Signal, inodes: Signal) {
    seen.insert(space, Observation { left: room.free_bytes, all: room.bytes });
    if room.inodes > 0 {
        seen.insert(inodes, Observation { left: room.free_inodes, all: room.inodes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_looked_at() {
        let places = Places { nodefs: "/".into(), imagefs: None };
        assert!(!places.is_imagefs_dedicated());
        let seen = places.look();
        for signal in [Signal::MemoryAvailable, Signal::NodefsAvailable, Signal::PidAvailable] {
            assert!(
                seen.get(&signal).is_some_and(|seen| seen.left <= seen.all && seen.left > 0),
                "{signal:?}"
            );
        }
        assert_eq!(seen.get(&Signal::ImagefsAvailable), None);
        let apart = Places { nodefs: "/".into(), imagefs: Some("/proc".into()) };
        assert!(apart.is_imagefs_dedicated());
        for (signal, path, expected) in [
            (Signal::NodefsAvailable, "/", true),
            (Signal::NodefsInodesFree, "/proc", false),
            (Signal::ImagefsAvailable, "/proc/self", true),
            (Signal::MemoryAvailable, "/", false),
        ] {
            assert_eq!(apart.is_about(signal, Path::new(path)), expected, "{signal:?} {path}");
        }
    }
}
