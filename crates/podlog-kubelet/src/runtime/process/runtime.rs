//! The runtime behind the seam.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_container::control::Request;
use podlog_container::{Config, Liveness, Metadata};
use podlog_driver::FileLimits;
use rustix::process::{getegid, geteuid};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{blocking, failed, not_found};
use super::record::{ContainerRecord, Events};
use super::spec::{self, Ids};
use super::status::container;
use super::store::{self, Store};
use super::streams::{StreamServer, Ticket};
use super::{control, exec, handover, lifecycle, usage};
use crate::runtime::{
    Container, ContainerConfig, ContainerEvent, ContainerId, ContainerRuntime, ContainerState,
    ContainerStats, ContainerStatus, ExecResult, Image, LogPolicy, PodSandbox, PodSandboxConfig,
    RegistryAuth, RuntimeError, RuntimeVersion, SandboxId, SandboxState, StreamUrl, Streams,
};

/// What the runtime calls itself.
pub(crate) const NAME: &str = "process";

/// How a process runtime is set up.
#[derive(Clone, Debug)]
pub struct ProcessRuntimeConfig {
    /// Directory for its state, `<data-dir>/run`. Made with mode 0700 if it is missing; used by one runtime at a time.
    pub root: PathBuf,
    /// The program that runs [`podlog-capture`](https://docs.rs/podlog-capture) and its first arguments, e.g.
    /// `/proc/self/exe capture`. `--dir <container dir>` is added.
    pub capture_command: Vec<OsString>,
    /// When logs are rotated.
    pub log_limits: FileLimits,
    /// What is kept of too much output, unless the annotations of a pod say something else.
    pub log_policy: LogPolicy,
}

/// Runs containers as process trees of this host. Container ids are `process://<64 hex digits>`.
pub struct ProcessRuntime {
    config: ProcessRuntimeConfig,
    store: Store,
    sandboxes: Mutex<HashMap<SandboxId, PodSandbox>>,
    containers: Mutex<HashMap<ContainerId, Arc<ContainerRecord>>>,
    events: Arc<Events>,
    streams: StreamServer,
    shutdown: CancellationToken,
    /// Ends the watching, not the containers, with the runtime.
    _guard: DropGuard,
}

impl ProcessRuntime {
    /// Opens the runtime and takes up everything that runs or ran under it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When its directory cannot be used.
    pub fn open(config: ProcessRuntimeConfig) -> Result<Arc<Self>, RuntimeError> {
        let store = Store::open(config.root.clone())?;
        let loaded = store.load()?;
        let shutdown = CancellationToken::new();
        let runtime = Arc::new(Self {
            config,
            store,
            sandboxes: Mutex::new(
                loaded.sandboxes.into_iter().map(|sandbox| (sandbox.id.clone(), sandbox)).collect(),
            ),
            containers: Mutex::default(),
            events: Arc::default(),
            streams: StreamServer::default(),
            _guard: shutdown.clone().drop_guard(),
            shutdown,
        });
        let alive = loaded.containers.into_iter().filter_map(|record| runtime.adopt(record)).collect();
        runtime.renew_captures(alive);
        Ok(runtime)
    }

    /// Has the captures of these containers replaced that another build has started, one after the other.
    fn renew_captures(&self, containers: Vec<Arc<ContainerRecord>>) {
        let (command, shutdown) = (self.config.capture_command.clone(), self.shutdown.clone());
        let renew = async move {
            for record in containers {
                handover::hand_over(&record, &command).await;
            }
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(renew).await });
    }

    /// Takes up a container from an earlier life, and returns it if it is alive. One that cannot be taken up is listed all the
    /// same.
    fn adopt(&self, record: Arc<ContainerRecord>) -> Option<Arc<ContainerRecord>> {
        let is_alive = match record.findings() {
            Ok(findings) => findings.liveness == Liveness::Alive && findings.exit.is_none(),
            Err(error) => {
                tracing::error!(container = record.metadata.id, %error, "cannot take up a container");
                false
            }
        };
        if is_alive {
            self.watcher().watch(&record);
        }
        self.containers.lock().insert(record.id(), Arc::clone(&record));
        is_alive.then_some(record)
    }

    fn watcher(&self) -> Watcher {
        Watcher { events: Arc::clone(&self.events), shutdown: self.shutdown.clone() }
    }

    fn sandbox(&self, id: &SandboxId) -> Result<PodSandbox, RuntimeError> {
        self.sandboxes.lock().get(id).cloned().ok_or_else(|| not_found("sandbox", &id.0))
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<ContainerRecord>, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| not_found("container", &id.0))
    }

    fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<ContainerRecord>> {
        let containers = self.containers.lock();
        containers.values().filter(|record| record.metadata.sandbox == sandbox.0).cloned().collect()
    }

    async fn stop_containers(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let containers = self.containers_of(sandbox);
        let stopping = containers.iter().map(|record| lifecycle::stop(record, Duration::ZERO));
        futures_util::future::join_all(stopping).await.into_iter().collect()
    }

    /// A container that runs.
    async fn running(&self, id: &ContainerId) -> Result<Arc<ContainerRecord>, RuntimeError> {
        let record = self.container(id)?;
        match lifecycle::read(&record).await?.container_state() {
            ContainerState::Running => Ok(record),
            _ => Err(failed("cannot have the streams of a container")("it does not run")),
        }
    }

    /// The container is gone for callers before its files are: half of them mean something else.
    async fn remove(&self, record: &Arc<ContainerRecord>) -> Result<(), RuntimeError> {
        lifecycle::stop(record, Duration::ZERO).await?;
        self.containers.lock().remove(&record.id());
        let dir = record.dir.path().to_owned();
        blocking(move || store::remove(&dir)).await.inspect_err(|_| {
            self.containers.lock().insert(record.id(), Arc::clone(record));
        })
    }

    fn check_ready(&self, sandbox: &SandboxId) -> Result<PodSandbox, RuntimeError> {
        let sandbox = self.sandbox(sandbox)?;
        match sandbox.state {
            SandboxState::Ready => Ok(sandbox),
            SandboxState::NotReady => Err(failed("cannot run a container")("its sandbox has been stopped")),
        }
    }

    fn config_of(&self, sandbox: &PodSandbox, config: &ContainerConfig) -> Result<Config, RuntimeError> {
        let own = Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let process =
            spec::process(&sandbox.config, config, self.config.log_limits, self.config.log_policy, own)?;
        let metadata = Metadata {
            id: store::new_id(),
            sandbox: sandbox.id.0.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            created_at: Timestamp::now(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        Ok(Config { metadata, process })
    }
}

/// Follows containers.
struct Watcher {
    events: Arc<Events>,
    shutdown: CancellationToken,
}

impl Watcher {
    async fn start(&self, record: &Arc<ContainerRecord>, capture: &[OsString]) -> Result<(), RuntimeError> {
        let started = lifecycle::start(record, capture).await;
        match &started {
            Ok(()) => self.events.emit(record, ContainerState::Running),
            Err(RuntimeError::StartContainer(_)) => self.events.emit(record, ContainerState::Exited),
            Err(_) => {}
        }
        // A capture that took too long to start may still do so.
        if lifecycle::read(record)
            .await
            .is_ok_and(|findings| started.is_ok() || findings.liveness == Liveness::Alive)
        {
            self.watch(record);
        }
        started
    }

    fn watch(&self, record: &Arc<ContainerRecord>) {
        let watched = Arc::clone(record).watch_end(Arc::clone(&self.events));
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(watched).await });
    }
}

#[async_trait]
impl ContainerRuntime for ProcessRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: NAME.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    /// Images are recorded, not used: every one of them is there.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(Some(Image { reference: image.to_owned(), ..Image::default() }))
    }

    async fn pull_image(&self, image: &str, _auth: Option<&RegistryAuth>) -> Result<String, RuntimeError> {
        Ok(image.to_owned())
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let records: Vec<_> = self.containers.lock().values().cloned().collect();
        blocking(move || usage::stats(&records)).await
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let (store, config) = (self.store.clone(), config.clone());
        let sandbox = blocking(move || {
            make_log_dir(&config.log_directory)?;
            store.create_sandbox(&config)
        });
        let sandbox = sandbox.await?;
        let id = sandbox.id.clone();
        self.sandboxes.lock().insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        // First of all, no new containers.
        let stopped = PodSandbox { state: SandboxState::NotReady, ..sandbox };
        self.sandboxes.lock().insert(id.clone(), stopped.clone());
        let store = self.store.clone();
        blocking(move || store.write_sandbox(&stopped)).await?;
        self.stop_containers(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        for record in self.containers_of(id) {
            self.remove(&record).await?;
        }
        let (store, removed) = (self.store.clone(), id.clone());
        blocking(move || store.remove_sandbox(&removed)).await?;
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self, label: Option<(&str, &str)>) -> Result<Vec<PodSandbox>, RuntimeError> {
        let has_label = |sandbox: &&PodSandbox| is_labelled(&sandbox.config.labels, label);
        Ok(self.sandboxes.lock().values().filter(has_label).cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let sandbox = self.check_ready(sandbox)?;
        let config = self.config_of(&sandbox, config)?;
        let store = self.store.clone();
        let record = blocking(move || {
            make_log_dir(config.process.log.path.parent().unwrap_or(Path::new("/")))?;
            store.create_container(&config)
        });
        let record = record.await?;
        let id = record.id();
        self.containers.lock().insert(id.clone(), Arc::clone(&record));
        self.events.emit(&record, ContainerState::Created);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let record = self.container(id)?;
        self.check_ready(&SandboxId(record.metadata.sandbox.clone()))?;
        let (watcher, capture) = (self.watcher(), self.config.capture_command.clone());
        // On its own, because the caller may lose its patience: a started container must be watched.
        let started = tokio::spawn(async move { watcher.start(&record, &capture).await });
        started.await.unwrap_or_else(|error| Err(failed("cannot start container")(error)))
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        match self.container(id) {
            Ok(record) => lifecycle::stop(&record, grace).await,
            Err(_) => Ok(()),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.container(id) {
            Ok(record) => self.remove(&record).await,
            Err(_) => Ok(()),
        }
    }

    async fn list_containers(&self, label: Option<(&str, &str)>) -> Result<Vec<Container>, RuntimeError> {
        let has_label = |record: &&Arc<ContainerRecord>| is_labelled(&record.metadata.labels, label);
        let records: Vec<_> = self.containers.lock().values().filter(has_label).cloned().collect();
        let list = move || {
            let state = |record: &ContainerRecord| match record.findings() {
                Ok(findings) => findings.container_state(),
                Err(_) => ContainerState::Unknown,
            };
            Ok(records.iter().map(|record| container(&record.metadata, state(record))).collect())
        };
        blocking(list).await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let record = self.container(id)?;
        let findings = lifecycle::read(&record).await?;
        Ok(findings.status(&record.metadata, &record.log_path))
    }

    async fn container_process(&self, id: &ContainerId) -> Result<Option<i32>, RuntimeError> {
        let record = self.container(id)?;
        let read = tokio::task::spawn_blocking(move || lifecycle::running_process(&record));
        Ok(read.await.unwrap_or_default())
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let record = self.container(id)?;
        control::ask(&record.dir, &Request::Reopen)
            .await
            .map(drop)
            .map_err(failed("cannot reopen container log"))
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        exec::exec(&self.container(id)?.dir, command, timeout).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        streams: Streams,
    ) -> Result<StreamUrl, RuntimeError> {
        let (record, command) = (self.running(id).await?, command.to_vec());
        self.streams.prepare(Ticket::Exec { dir: record.dir.clone(), command, streams }, &self.shutdown).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<StreamUrl, RuntimeError> {
        let record = self.running(id).await?;
        self.streams.prepare(Ticket::Attach { record, streams }, &self.shutdown).await
    }

    async fn port_forward(&self, id: &SandboxId, ports: &[u16]) -> Result<StreamUrl, RuntimeError> {
        let sandbox = self.sandbox(id)?.id.0;
        self.streams.prepare(Ticket::Forward { sandbox, ports: ports.to_vec() }, &self.shutdown).await
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

/// Logs are read by others than podlog: the directories are open, the files (0640) are not.
/// Whether there is a label with the value that is asked for, if one is.
fn is_labelled(labels: &BTreeMap<String, String>, asked: Option<(&str, &str)>) -> bool {
    asked.is_none_or(|(key, value)| labels.get(key).is_some_and(|own| own == value))
}

fn make_log_dir(dir: &Path) -> Result<(), RuntimeError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(failed(format!("cannot create {}", dir.display())))
}
