//! Places to mount at. What does not exist must not be made on the host: it is made on a shadow.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::shadow::{self, Kind};
use super::{Access, make_readonly};
use crate::text::{failed, reason};

/// Most symbolic links followed towards one mount point; what the kernel follows, too.
const MAX_LINKS: usize = 40;

/// The mount points of a view.
pub(super) struct MountPoints {
    staging: PathBuf,
    /// Directories that are covered by a shadow, with the shadow's device number.
    shadows: Vec<(PathBuf, u64)>,
    /// Where mounts are.
    mounts: Vec<(PathBuf, Access)>,
}

/// How far a path exists.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Deepest part that exists, without symbolic links.
    base: PathBuf,
    /// Names below it that do not.
    missing: Vec<PathBuf>,
}

impl MountPoints {
    /// None yet. `staging` is any directory; it serves as the place of a new root.
    pub(super) fn new(staging: &Path) -> Self {
        Self { staging: staging.to_owned(), shadows: Vec::new(), mounts: Vec::new() }
    }

    /// Notes a mount.
    pub(super) fn mounted(&mut self, target: PathBuf, access: Access) {
        self.mounts.push((target, access));
    }

    /// Makes sure that `target` exists, and returns it without symbolic links.
    pub(super) fn make(&mut self, target: &Path, kind: Kind) -> Result<PathBuf, String> {
        let found = find(target)?;
        if found.missing.is_empty() {
            return kind.check(&found.base).map(|()| found.base);
        }
        Kind::Directory.check(&found.base)?;
        if self.is_ours(&found.base) && create(&found, kind).is_ok() {
            return Ok(found.path());
        }
        self.shadow(&found.base)?;
        create(&found, kind)?;
        Ok(found.path())
    }

    /// Whether something may be made in `dir`: on a shadow, and on the pod's own writable volumes, where other runtimes
    /// make mount points as well.
    fn is_ours(&self, dir: &Path) -> bool {
        let device = fs::metadata(dir).map(|metadata| metadata.dev());
        if device.is_ok_and(|device| self.shadows.iter().any(|(_, shadow)| *shadow == device)) {
            return true;
        }
        let around = self.mounts.iter().filter(|(target, _)| dir.starts_with(target));
        let nearest = around.max_by_key(|(target, _)| target.components().count());
        matches!(nearest, Some((_, Access::ReadWrite)))
    }

    fn shadow(&mut self, dir: &Path) -> Result<(), String> {
        let step = format!("cannot shadow {}", dir.display());
        let made =
            if dir == Path::new("/") { shadow::replace_root(&self.staging) } else { shadow::cover(dir) };
        made.map_err(|error| format!("{step}: {error}"))?;
        let device = fs::metadata(dir).map_err(failed(&step))?.dev();
        self.shadows.push((dir.to_owned(), device));
        Ok(())
    }

    /// Makes the shadows themselves read-only.
    pub(super) fn freeze_shadows(&self) -> Result<(), String> {
        self.shadows.iter().try_for_each(|(dir, _)| {
            make_readonly(dir).map_err(failed(format!("make {} read-only", dir.display())))
        })
    }
}

impl Found {
    fn path(&self) -> PathBuf {
        self.missing.iter().fold(self.base.clone(), |path, name| path.join(name))
    }
}

fn create(found: &Found, kind: Kind) -> Result<(), String> {
    let path = found.path();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(format!("mkdir {}", parent.display())))?;
    }
    kind.create(&path)
}

/// Walks down `target` as far as it goes. A symbolic link to nowhere leads on to where it points.
fn find(target: &Path) -> Result<Found, String> {
    let mut path = lexical(target);
    for _ in 0..MAX_LINKS {
        let (existing, missing) = split_existing(&path)?;
        let Ok(link) = fs::read_link(&existing) else {
            let base = fs::canonicalize(&existing).map_err(failed(existing.display()))?;
            return Ok(Found { base, missing });
        };
        match fs::canonicalize(&existing) {
            Ok(base) => return Ok(Found { base, missing }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = fs::canonicalize(existing.parent().unwrap_or(Path::new("/"))).map_err(reason)?;
                path = lexical(&missing.iter().fold(parent.join(link), |path, name| path.join(name)));
            }
            Err(error) => return Err(format!("{}: {}", existing.display(), reason(error))),
        }
    }
    Err(format!("{}: too many levels of symbolic links", target.display()))
}

/// The longest part of `path` that has a directory entry, and the names after it.
fn split_existing(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), String> {
    let mut missing = Vec::new();
    for existing in path.ancestors() {
        match fs::symlink_metadata(existing) {
            Ok(_) => {
                missing.reverse();
                return Ok((existing.to_owned(), missing));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing.extend(existing.file_name().map(PathBuf::from));
            }
            Err(error) => return Err(format!("{}: {}", existing.display(), reason(error))),
        }
    }
    Err(format!("{} is not absolute", path.display()))
}

/// The absolute path without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::from("/"), |mut clean, component| {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn finds_how_far_a_path_exists() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = fs::canonicalize(temp.path()).expect("canonical");
        fs::create_dir_all(dir.join("a/b")).expect("mkdir");
        fs::write(dir.join("a/file"), "").expect("write");
        symlink("a", dir.join("link")).expect("link");
        symlink(dir.join("nowhere/else"), dir.join("dangling")).expect("link");
        symlink("loop", dir.join("loop")).expect("link");
        for (path, base, missing) in [
            ("a/b", "a/b", ""),
            ("a/file", "a/file", ""),
            ("a/b/c/d", "a/b", "c/d"),
            ("link/b/c", "a/b", "c"),
            ("link", "a", ""),
            ("a/../a/./x", "a", "x"),
            ("dangling", "", "nowhere/else"),
            ("dangling/x", "", "nowhere/else/x"),
        ] {
            let found = find(&dir.join(path)).expect(path);
            assert_eq!(found.base, if base.is_empty() { dir.clone() } else { dir.join(base) }, "{path}");
            assert_eq!(found.missing.iter().collect::<PathBuf>(), PathBuf::from(missing), "{path}");
        }
        assert_eq!(find(Path::new("/../..")).expect("root").base, Path::new("/"));
        assert!(find(&dir.join("loop")).is_err());
        assert!(find(&dir.join("a/file/x")).is_err(), "a file has nothing below it");
    }
}
