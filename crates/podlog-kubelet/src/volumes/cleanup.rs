//! Removes what a pod leaves on the node.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};

use super::VolumeError;

/// Removes a pod's directory: volumes (what is mounted in them is unmounted first) and termination messages.
pub(crate) fn remove_pod_directory(directory: &Path) -> Result<(), VolumeError> {
    let memory = directory.join("volumes").join("kubernetes.io~empty-dir");
    for entry in fs::read_dir(&memory).into_iter().flatten().flatten() {
        // Fails for what is not mounted, which is the usual case.
        let _ = unmount(&entry.path(), UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::io("cannot remove", directory)(error))
        }
        _ => Ok(()),
    }
}
