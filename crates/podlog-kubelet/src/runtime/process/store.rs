//! Sandboxes and containers on disk.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use podlog_container::{Config, ContainerDir, Liveness, write_atomically};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::failed;
use super::record::ContainerRecord;
use crate::runtime::{PodSandbox, PodSandboxConfig, RuntimeError, SandboxId, SandboxState};

const SANDBOX: &str = "sandbox.json";

/// `sandbox.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxFile {
    config: PodSandboxConfig,
    state: SandboxState,
    created_at: Timestamp,
}

/// The runtime's directory.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// What the directory holds.
pub(super) struct Loaded {
    pub(super) sandboxes: Vec<PodSandbox>,
    pub(super) containers: Vec<Arc<ContainerRecord>>,
}

impl Store {
    /// The store in `root`, which is made (0700) if it is missing.
    pub(super) fn open(root: PathBuf) -> Result<Self, RuntimeError> {
        let root = std::path::absolute(&root).map_err(failed(format!("cannot use {}", root.display())))?;
        make_private(&root)?;
        Ok(Self { root })
    }

    /// Reads everything. What a crash left half made is removed: nothing in it was ever started.
    pub(super) fn load(&self) -> Result<Loaded, RuntimeError> {
        let mut loaded = Loaded { sandboxes: Vec::new(), containers: Vec::new() };
        for dir in directories(&self.root)? {
            let Some(sandbox) = load_sandbox(&dir)? else {
                discard(&dir);
                continue;
            };
            for container in directories(&dir)? {
                match load_container(&container) {
                    Some(record) => loaded.containers.push(record),
                    None => discard(&container),
                }
            }
            loaded.sandboxes.push(sandbox);
        }
        Ok(loaded)
    }

    pub(super) fn create_sandbox(&self, config: &PodSandboxConfig) -> Result<PodSandbox, RuntimeError> {
        let id = SandboxId(new_id());
        let sandbox = PodSandbox {
            id: id.clone(),
            config: config.clone(),
            state: SandboxState::Ready,
            created_at: Timestamp::now(),
        };
        make_private(&self.sandbox_dir(&id))?;
        self.write_sandbox(&sandbox)?;
        Ok(sandbox)
    }

    pub(super) fn write_sandbox(&self, sandbox: &PodSandbox) -> Result<(), RuntimeError> {
        let PodSandbox { id, config, state, created_at } = sandbox.clone();
        let path = self.sandbox_dir(&id).join(SANDBOX);
        write_atomically(&path, &SandboxFile { config, state, created_at })
            .map_err(failed("cannot save sandbox"))
    }

    /// A container's directory, with its configuration in it.
    pub(super) fn create_container(&self, config: &Config) -> Result<Arc<ContainerRecord>, RuntimeError> {
        let sandbox = SandboxId(config.metadata.sandbox.clone());
        let path = self.sandbox_dir(&sandbox).join(&config.metadata.id);
        make_private(&path)?;
        let dir = ContainerDir::new(path);
        dir.write_config(config).map_err(failed("cannot save container"))?;
        Ok(ContainerRecord::new(dir, config.metadata.clone(), config.process.log.path.clone()))
    }

    pub(super) fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        remove(&self.sandbox_dir(id))
    }

    fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.root.join(&id.0)
    }
}

/// 64 hexadecimal digits, as ids of containerd are.
pub(super) fn new_id() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Removes a directory and all that is in it, if it is there.
pub(super) fn remove(dir: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed(format!("cannot remove {}", dir.display()))),
    }
}

fn make_private(dir: &Path) -> Result<(), RuntimeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(failed(format!("cannot create {}", dir.display())))
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let entries = fs::read_dir(dir).map_err(failed(format!("cannot list {}", dir.display())))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// `None` when nothing can be made of it: a crash of the machine came before it was written.
///
/// # Errors
/// When it cannot be read although containers run in the directory.
fn load_sandbox(dir: &Path) -> Result<Option<PodSandbox>, RuntimeError> {
    let path = dir.join(SANDBOX);
    let read = || Ok::<SandboxFile, io::Error>(serde_json::from_slice(&fs::read(&path)?)?);
    match read() {
        Ok(SandboxFile { config, state, created_at }) => {
            Ok(Some(PodSandbox { id: SandboxId(name(dir)), config, state, created_at }))
        }
        Err(_) if !directories(dir)?.iter().any(|container| is_alive(container)) => Ok(None),
        Err(error) => Err(failed(format!("cannot read {}", path.display()))(error)),
    }
}

fn load_container(path: &Path) -> Option<Arc<ContainerRecord>> {
    let dir = ContainerDir::new(path);
    let config = dir.config().ok()?;
    Some(ContainerRecord::new(dir, config.metadata, config.process.log.path))
}

/// Never takes the directory of a capture that lives.
fn discard(dir: &Path) {
    if is_alive(dir) || remove(dir).is_err() {
        tracing::warn!(dir = %dir.display(), "cannot use a directory of the process runtime");
    }
}

fn is_alive(container: &Path) -> bool {
    ContainerDir::new(container).liveness().is_ok_and(|liveness| liveness == Liveness::Alive)
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
