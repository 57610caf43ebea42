//! Shadows: a tmpfs over a directory of the host that shows the directory's entries, so that more can be added without
//! the host ever seeing it.

use std::fs::{self, DirBuilder, File, FileType};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind_recursive, move_mount,
    open_tree, unmount,
};
use rustix::process::pivot_root;

use crate::text::{failed, reason};

/// Where the covered directory can be seen while its entries are brought over.
const COVERED: &str = ".podlog-covered";

/// What can be mounted, and mounted at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// Anything that is no directory.
    File,
}

impl Kind {
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let is_dir = fs::metadata(path).map_err(reason)?.is_dir();
        Ok(if is_dir { Self::Directory } else { Self::File })
    }

    /// # Errors
    /// When `path` is of the other kind: one cannot be mounted on the other.
    pub(super) fn check(self, path: &Path) -> Result<(), String> {
        match (self, Self::of(path)?) {
            (Self::Directory, Self::File) => Err(format!("{} is not a directory", path.display())),
            (Self::File, Self::Directory) => Err(format!("{} is a directory", path.display())),
            _ => Ok(()),
        }
    }

    pub(super) fn create(self, path: &Path) -> Result<(), String> {
        let created = match self {
            Self::Directory => DirBuilder::new().mode(0o755).create(path),
            Self::File => File::create_new(path).map(drop),
        };
        created.map_err(failed(format!("create {}", path.display())))
    }
}

/// Covers `dir` with a shadow.
pub(super) fn cover(dir: &Path) -> Result<(), String> {
    let original = clone_tree(dir)?;
    let like = fs::metadata(dir).map_err(reason)?;
    mount_tmpfs(dir)?;
    let covered = dir.join(COVERED);
    fs::create_dir(&covered).map_err(reason)?;
    attach(&original, &covered)?;
    populate(&covered, dir)?;
    unmount(&covered, UnmountFlags::DETACH).map_err(failed("detach"))?;
    fs::remove_dir(&covered).map_err(reason)?;
    take_after(dir, &like)
}

/// Makes a shadow of `/` the root directory. `staging` is where it is put together.
pub(super) fn replace_root(staging: &Path) -> Result<(), String> {
    let original = clone_tree(Path::new("/"))?;
    mount_tmpfs(staging)?;
    let covered = staging.join(COVERED);
    fs::create_dir(&covered).map_err(reason)?;
    attach(&original, &covered)?;
    populate(&covered, staging)?;
    rustix::process::chdir(staging).map_err(reason)?;
    // The old root is put on top of the new one, and taken away from there.
    pivot_root(".", ".").map_err(failed("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("detach the old root"))?;
    rustix::process::chdir("/").map_err(reason)?;
    let covered = Path::new("/").join(COVERED);
    unmount(&covered, UnmountFlags::DETACH).map_err(failed("detach"))?;
    fs::remove_dir(&covered).map_err(reason)
}

fn clone_tree(dir: &Path) -> Result<rustix::fd::OwnedFd, String> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, dir, flags).map_err(failed("open_tree"))
}

fn attach(tree: &rustix::fd::OwnedFd, at: &Path) -> Result<(), String> {
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("move_mount"))
}

fn mount_tmpfs(at: &Path) -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", at, "tmpfs", flags, c"mode=0755").map_err(failed("mount tmpfs"))
}

/// Shows the entries of one directory in another.
fn populate(from: &Path, to: &Path) -> Result<(), String> {
    for entry in fs::read_dir(from).map_err(reason)? {
        let entry = entry.map_err(reason)?;
        let target = to.join(entry.file_name());
        let show = || show(&entry.path(), &target, entry.file_type()?);
        show().or_else(|error| tolerate(error, &target))?;
    }
    Ok(())
}

fn show(source: &Path, target: &Path, kind: FileType) -> io::Result<()> {
    if kind.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    if kind.is_dir() {
        fs::create_dir(target)?;
    } else {
        File::create_new(target)?;
    }
    Ok(mount_bind_recursive(source, target)?)
}

/// Entries that are gone meanwhile, that this user may not reach, or that must not be shown twice (unbindable mounts) are
/// left out; all else is an error.
fn tolerate(error: io::Error, target: &Path) -> Result<(), String> {
    let tolerable = [Errno::NOENT, Errno::ACCESS, Errno::INVAL].map(Errno::raw_os_error);
    if !error.raw_os_error().is_some_and(|errno| tolerable.contains(&errno)) {
        return Err(format!("{}: {}", target.display(), reason(error)));
    }
    let _ = fs::remove_file(target).or_else(|_| fs::remove_dir(target));
    Ok(())
}

/// Mode and owner of the covered directory. In a user namespace its owner may be unknown; then it is ours.
fn take_after(dir: &Path, like: &fs::Metadata) -> Result<(), String> {
    let _ = chown(dir, Some(like.uid()), Some(like.gid()));
    fs::set_permissions(dir, fs::Permissions::from_mode(like.mode() & 0o7777)).map_err(failed("chmod"))
}
