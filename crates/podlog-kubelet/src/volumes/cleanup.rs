//! Removes what a pod leaves on the node.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};

use super::VolumeError;

/// Removes the volumes in a pod's directory; what is mounted in them is unmounted first.
pub(crate) fn remove_volumes(directory: &Path) -> Result<(), VolumeError> {
    let volumes = directory.join("volumes");
    let memory = volumes.join("kubernetes.io~empty-dir");
    for entry in fs::read_dir(&memory).into_iter().flatten().flatten() {
        // Fails for what is not mounted, which is the usual case.
        let _ = unmount(entry.path(), UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(&volumes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::io("cannot remove", &volumes)(error))
        }
        _ => Ok(()),
    }
}
