//! Reading and writing a container's directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, renameat_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Config, Exit, State};

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const EXIT: &str = "exit.json";
const LOCK: &str = "capture.lock";
const CONTROL: &str = "control.sock";

/// A file of a container's directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    /// `read`, `write`, `remove`, `parse`, `lock` or `open`.
    pub action: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl FileError {
    fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.to_owned(), source: source.into() }
    }
}

/// Why a container's directory cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A capture was started for it before.
    #[error("a capture has been started for this container before ({0} exists)")]
    Taken(PathBuf),
    /// The lock file cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the lock says about the capture of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// None was ever started.
    NeverStarted,
    /// It lives.
    Alive,
    /// It has ended, with or without `exit.json`.
    Ended,
}

/// The right to be the capture of a container, held for as long as a process of it has the open file.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// The same right for another owner: it ends with the last of them.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn try_clone(&self) -> io::Result<Claim> {
        self.0.try_clone().map(Claim)
    }
}

impl From<OwnedFd> for Claim {
    fn from(lock_file: OwnedFd) -> Self {
        Self(lock_file.into())
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The directory of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    /// The container whose files are in `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// When it is missing or not a configuration.
    pub fn config(&self) -> Result<Config, FileError> {
        let path = self.0.join(CONFIG);
        read_json(&path)?.ok_or_else(|| FileError::new("read", &path, io::ErrorKind::NotFound))
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<(), FileError> {
        self.write(CONFIG, config)
    }

    /// Reads `state.json`; `None` before the program is about to run.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn state(&self) -> Result<Option<State>, FileError> {
        read_json(&self.0.join(STATE))
    }

    /// Writes `state.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_state(&self, state: &State) -> Result<(), FileError> {
        self.write(STATE, state)
    }

    /// Removes `state.json`: the program could not be started after all.
    pub fn remove_state(&self) {
        // What cannot be removed is belied by `exit.json`.
        let _ = fs::remove_file(self.0.join(STATE));
    }

    /// Reads `exit.json`; `None` while the container has not ended. An unreadable file, as a crash of the machine can
    /// leave it, counts as none.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn exit(&self) -> Result<Option<Exit>, FileError> {
        match read_json(&self.0.join(EXIT)) {
            Err(error) if error.action == "parse" => Ok(None),
            other => other,
        }
    }

    /// Writes `exit.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_exit(&self, exit: &Exit) -> Result<(), FileError> {
        self.write(EXIT, exit)
    }

    /// Makes this process the capture of the container. The lock file appears locked: nobody ever sees it free before
    /// its capture has ended.
    ///
    /// # Errors
    /// [`ClaimError::Taken`] when there was a capture before, alive or not.
    pub fn claim(&self) -> Result<Claim, ClaimError> {
        let path = self.0.join(LOCK);
        let fresh = self.0.join(format!("{LOCK}.{}", std::process::id()));
        let file = create(&fresh)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| FileError::new("lock", &fresh, error))?;
        let cwd = rustix::fs::CWD;
        match renameat_with(cwd, &fresh, cwd, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Claim(file)),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(match error {
                    rustix::io::Errno::EXIST => ClaimError::Taken(path),
                    other => FileError::new("write", &path, other).into(),
                })
            }
        }
    }

    /// Whether the container's capture lives. Ask this before [`exit`](Self::exit): when it has ended, what `exit.json`
    /// says is final.
    ///
    /// # Errors
    /// When the lock file is there and cannot be opened.
    pub fn liveness(&self) -> Result<Liveness, FileError> {
        let path = self.0.join(LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Liveness::NeverStarted),
            Err(error) => return Err(FileError::new("open", &path, error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Liveness::Ended),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Liveness::Alive),
            Err(error) => Err(FileError::new("lock", &path, error)),
        }
    }

    /// Listens on `control.sock`.
    ///
    /// # Errors
    /// When the socket cannot be made, or exists.
    pub fn bind_control(&self) -> Result<UnixListener, FileError> {
        let path = self.0.join(CONTROL);
        let error = |source: io::Error| FileError::new("open", &path, source);
        let dir = self.open_dir().map_err(error)?;
        let listener = UnixListener::bind(short_path(&dir)).map_err(error)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(error)?;
        Ok(listener)
    }

    /// Listens on `control.sock` in the place of a capture process that has ended without removing it.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn rebind_control(&self) -> Result<UnixListener, FileError> {
        let path = self.0.join(CONTROL);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::new("remove", &path, error))
            }
            _ => self.bind_control(),
        }
    }

    /// Connects to `control.sock`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect_control(&self) -> Result<UnixStream, FileError> {
        let connect = || UnixStream::connect(short_path(&self.open_dir()?));
        connect().map_err(|source| FileError::new("open", &self.0.join(CONTROL), source))
    }

    fn open_dir(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.0, flags, Mode::empty())?)
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FileError> {
        write_atomically(&self.0.join(name), value)
    }
}

/// A path to the control socket below the 108 bytes that a socket address can hold, however deep the directory is.
fn short_path(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd()))
}

fn create(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| FileError::new("write", path, error))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new("read", path, error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| FileError::new("parse", path, error))
}

/// Writes a JSON file of mode 0600 that readers see whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_atomically<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| FileError::new("write", path, error))?;
    let fresh = path.with_extension("json.new");
    create(&fresh)?.write_all(&text).map_err(|error| FileError::new("write", &fresh, error))?;
    fs::rename(&fresh, path).map_err(|error| FileError::new("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, ContainerDir) {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = ContainerDir::new(temp.path());
        (temp, dir)
    }

    #[test]
    fn lock_tells_the_life_of_a_capture() {
        let (_temp, dir) = dir();
        assert_eq!(dir.liveness().expect("liveness"), Liveness::NeverStarted);
        let claim = dir.claim().expect("first claim");
        assert_eq!(dir.liveness().expect("liveness"), Liveness::Alive);
        assert!(matches!(dir.claim(), Err(ClaimError::Taken(_))));
        drop(claim);
        assert_eq!(dir.liveness().expect("liveness"), Liveness::Ended);
        assert!(matches!(dir.claim(), Err(ClaimError::Taken(_))), "a container is started once");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "no leftovers");
    }

    #[test]
    fn files_come_back_and_are_private() {
        let (temp, dir) = dir();
        let exit = Exit::signaled(9, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(dir.exit().expect("no exit yet"), None);
        dir.write_exit(&exit).expect("write");
        assert_eq!(dir.exit().expect("exit"), Some(exit));
        let mode = fs::metadata(temp.path().join(EXIT)).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(temp.path().join(EXIT), "").expect("truncate");
        assert_eq!(dir.exit().expect("a torn file is no exit"), None);
    }

    #[test]
    fn control_socket_works_in_deep_directories() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let deep = temp.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&deep).expect("deep directory");
        let dir = ContainerDir::new(deep);
        assert!(dir.connect_control().is_err());
        let _listener = dir.bind_control().expect("bind");
        dir.connect_control().expect("connect");
    }
}
