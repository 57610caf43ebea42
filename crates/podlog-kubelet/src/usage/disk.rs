//! How much room a directory takes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::runtime::Space;

/// Bytes of `st_blocks`.
const BLOCK: u64 = 512;

/// Room that everything below `root` takes on the file system that `root` is on, links to the same file counted once. What
/// disappears meanwhile, or cannot be looked at, takes none.
pub(super) fn used(root: &Path) -> Space {
    let Ok(top) = fs::symlink_metadata(root) else { return Space::default() };
    let mut space = Space { bytes: top.blocks() * BLOCK, inodes: 1 };
    let (mut linked, mut next): (HashSet<u64>, Vec<PathBuf>) = (HashSet::new(), vec![root.to_owned()]);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of the link itself, not of what it points to.
            let Ok(metadata) = entry.metadata() else { continue };
            let is_elsewhere = metadata.dev() != top.dev();
            if is_elsewhere || (metadata.nlink() > 1 && !metadata.is_dir() && !linked.insert(metadata.ino()))
            {
                continue;
            }
            space = space + Space { bytes: metadata.blocks() * BLOCK, inodes: 1 };
            if metadata.is_dir() {
                next.push(entry.path());
            }
        }
    }
    space
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_file_counts_once_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(folder.path().join("outside"), vec![1; 1 << 20]).unwrap();
        fs::write(root.join("a/b/file"), vec![1; 64 << 10]).unwrap();
        let before = used(&root);
        assert!((64 << 10..1 << 20).contains(&before.bytes), "{before:?}");
        assert_eq!(before.inodes, 4);
        fs::hard_link(root.join("a/b/file"), root.join("again")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink(".", root.join("a/loop")).unwrap();
        let after = used(&root);
        assert_eq!(after.inodes, 6);
        assert!(after.bytes < before.bytes + (16 << 10), "{after:?}");
        assert_eq!(used(&root.join("nothing")), Space::default());
    }
}
