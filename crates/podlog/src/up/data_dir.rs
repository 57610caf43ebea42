//! The data directory: where it is, who holds it, and what lies where in it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::lock::Lock;

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
        let lock = Lock::take(&self.lock_file()).map_err(unusable)?;
        lock.map_err(|pid| DataDirError::Held { path: self.root.clone(), pid })
    }

    /// The pid of the `podlog up` that holds the directory, if one does.
    pub(crate) fn holder(&self) -> Result<Option<u32>, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: self.lock_file(), source };
        let holder = Lock::holder(&self.lock_file()).map_err(unusable)?;
        Ok(holder.and_then(|pid| pid.parse().ok()))
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
