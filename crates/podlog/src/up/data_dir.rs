//! The data directory: where it is, who holds it, and what lies where in it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A data directory's paths. See `ARCHITECTURE.md`, "On disk".
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// No place is known; caused by an environment without a home.
    #[error(
        "no place for the data directory: neither XDG_STATE_HOME nor HOME is set; name one with --data-dir"
    )]
    NoPlace,
    /// It cannot be made or written; caused by the user or the disk.
    #[error("cannot use data directory {path}: name a writable one with --data-dir")]
    Unusable {
        /// What could not be made or opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else works on it.
    #[error(
        "data directory {path} is in use by `podlog up` with pid {pid}: stop it with `podlog down --data-dir {path}`, or name another one with --data-dir"
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as written in the lock file.
        pid: String,
    },
}

impl DataDir {
    /// The given directory, or the default: `/var/lib/podlog` for root, else `$XDG_STATE_HOME/podlog`, else
    /// `~/.local/state/podlog`. Made absolute, not created.
    pub(crate) fn resolve(given: Option<PathBuf>) -> Result<Self, DataDirError> {
        let root = match given {
            Some(path) => path,
            None => default_root(rustix::process::getuid().is_root(), |name| {
                std::env::var_os(name).map(PathBuf::from)
            })
            .ok_or(DataDirError::NoPlace)?,
        };
        let absolute = std::path::absolute(&root);
        absolute.map(|root| DataDir { root }).map_err(|source| DataDirError::Unusable { path: root, source })
    }

    /// Creates what is missing, with modes that keep secrets from others.
    pub(crate) fn create(&self) -> Result<(), DataDirError> {
        let private = [self.root.clone(), self.pki(), self.kubelet(), self.run()];
        for path in private {
            make_dir(&path, 0o700)?;
        }
        // The mode is ours to keep even where the directory was made by somebody else.
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.root, mode)
            .map_err(|source| DataDirError::Unusable { path: self.root.clone(), source })
    }

    /// Takes the directory for this process; it is given back when the [`Lock`] is dropped or the process ends.
    pub(crate) fn lock(&self) -> Result<Lock, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: self.lock_file(), source };
        let mut file = open_lock(&self.lock_file()).map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::Held { path: self.root.clone(), pid: read_pid(&mut file) });
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        write_pid(&mut file, std::process::id()).map_err(unusable)?;
        Ok(Lock { _file: file })
    }

    /// The pid of the `podlog up` that holds the directory, if one does.
    pub(crate) fn holder(&self) -> Result<Option<u32>, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: self.lock_file(), source };
        let mut file = match File::open(self.lock_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unusable(source)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(read_pid(&mut file).parse().ok()),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn container_links(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.root.join("pods")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("up.lock")
    }
}

/// Holds a [`DataDir`] for this process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

fn default_root(is_root: bool, env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if is_root {
        return Some("/var/lib/podlog".into());
    }
    // Relative values are invalid by the XDG base directory specification.
    let state = env("XDG_STATE_HOME").filter(|path| path.is_absolute());
    Some(state.or_else(|| Some(env("HOME")?.join(".local/state")))?.join("podlog"))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), DataDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| DataDirError::Unusable { path: path.to_owned(), source })
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    // An unreadable pid is no reason to fail: the lock itself is the truth.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(20).read_to_string(&mut text));
    text.trim().to_owned()
}

fn write_pid(file: &mut File, pid: u32) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_place() {
        let check = |is_root, vars: &[(&str, &str)], expected: Option<&str>| {
            let env =
                |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            assert_eq!(default_root(is_root, env), expected.map(PathBuf::from), "{vars:?}");
        };
        check(true, &[("HOME", "/root")], Some("/var/lib/podlog"));
        check(false, &[("XDG_STATE_HOME", "/s"), ("HOME", "/h")], Some("/s/podlog"));
        check(false, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], Some("/h/.local/state/podlog"));
        check(false, &[("HOME", "/h")], Some("/h/.local/state/podlog"));
        check(false, &[], None);
    }

    #[test]
    fn a_second_holder_is_told_the_pid_of_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::resolve(Some(temp.path().join("data"))).unwrap();
        dir.create().unwrap();
        assert_eq!(dir.holder().unwrap(), None);
        let lock = dir.lock().unwrap();
        assert_eq!(dir.holder().unwrap(), Some(std::process::id()));
        let refused = dir.lock().unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(lock);
        dir.lock().unwrap();
    }

    #[test]
    fn the_directory_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::resolve(Some(temp.path().to_owned())).unwrap();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir.create().unwrap();
        for path in [dir.root().to_owned(), dir.pki()] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
