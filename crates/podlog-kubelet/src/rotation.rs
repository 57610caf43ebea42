//! Rotation of the logs that a container runtime writes (`pkg/kubelet/logs/container_log_manager.go`), at the limit rather
//! than every ten seconds.
//!
//! One task a container, from before its start, all on a thread of their own ([`thread`]). It looks at the file's size when the log changes, the sooner again the less room
//! is left, and learns how fast the file grows and how long the runtime takes to go on in another one ([`Pace`]): it renames the
//! file and tells the runtime so early that the file is full when the runtime leaves it. Nothing is lost at any point: until
//! then the runtime writes to the old file, which is neither compressed nor deleted before.

mod pace;
mod thread;
mod writer;

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use podlog_container::ProcessIdentity;
use podlog_driver::{FileLimits, LogChanges, LogRetention, LogRotator, LogWatcher};
use podlog_line::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use pace::{Next, Pace};

use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// How often running containers are listed when nothing happens.
const RELIST: Duration = Duration::from_secs(10);
/// Pause after something did not work.
const RETRY: Duration = Duration::from_secs(1);
/// After this time a runtime that means to make the file has made it.
const BEGINNING: Duration = Duration::from_secs(10);
/// How often a file is looked at that cannot be watched, or is not there yet.
const UNWATCHED: Duration = Duration::from_millis(5);

/// The process that writes the logs, while there is one.
type Writer = watch::Receiver<Option<ProcessIdentity>>;

/// Keeps the logs of a runtime's containers within their limits.
pub(crate) struct LogRotation {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) limits: FileLimits,
    pub(crate) watcher: Option<LogWatcher>,
}

impl LogRotation {
    /// Works until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        thread::run(move || self.keep_all(shutdown)).await;
    }

    async fn keep_all(self, shutdown: CancellationToken) {
        let mut events = self.runtime.events();
        let mut relist = interval(RELIST);
        let Some(writer) = shutdown.run_until_cancelled(self.writer()).await else { return };
        let mut tasks: HashMap<ContainerId, Task> = HashMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = relist.tick() => self.sync(&mut tasks, &writer).await,
                Some(event) = events.recv() => match event.state {
                    ContainerState::Exited => drop(tasks.remove(&event.id)),
                    // Before it starts: a fast one fills its first file within milliseconds.
                    ContainerState::Created | ContainerState::Running => self.watch(&mut tasks, event.id, &writer),
                    ContainerState::Unknown => {}
                },
            }
        }
    }

    async fn sync(&self, tasks: &mut HashMap<ContainerId, Task>, writer: &Option<Writer>) {
        let Ok(containers) = self.runtime.list_containers(None).await else { return };
        let writes = |state| matches!(state, ContainerState::Created | ContainerState::Running);
        let alive = containers.into_iter().filter(|container| writes(container.state));
        let alive: Vec<ContainerId> = alive.map(|container| container.id).collect();
        tasks.retain(|id, _| alive.contains(id));
        for id in alive {
            self.watch(tasks, id, writer);
        }
    }

    fn watch(&self, tasks: &mut HashMap<ContainerId, Task>, id: ContainerId, writer: &Option<Writer>) {
        if tasks.get(&id).is_some_and(|task| !task.0.is_finished()) {
            return;
        }
        let keeper = Keeper { runtime: self.runtime.clone(), id: id.clone(), limits: self.limits };
        tasks.insert(id, Task(tokio::spawn(keeper.run(self.watcher.clone(), writer.clone()))));
    }

    /// The process that writes the logs, if one does.
    async fn writer(&self) -> Option<Writer> {
        loop {
            match self.runtime.log_writer().await {
                Ok(writer) => return writer,
                Err(error) => tracing::debug!(%error, "cannot ask the runtime who writes logs"),
            }
            sleep(RETRY).await;
        }
    }
}

/// Ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps one log.
struct Keeper {
    runtime: Arc<dyn ContainerRuntime>,
    id: ContainerId,
    limits: FileLimits,
}

impl Keeper {
    async fn run(self, watcher: Option<LogWatcher>, writer: Option<Writer>) {
        let Some(path) = self.path().await else { return };
        let changes = || watcher.as_ref().map(|watcher| watcher.watch(&path));
        match writer {
            None => self.keep(&path, changes()).await,
            Some(writer) => tokio::select! {
                () = self.keep(&path, changes()) => {}
                () = writer::watch(&path, writer, changes()) => {}
            },
        }
    }

    /// Rotates until the container has ended.
    async fn keep(&self, path: &Path, changes: Option<LogChanges>) {
        let opened = {
            let (path, limits) = (path.to_owned(), self.limits);
            tokio::task::spawn_blocking(move || LogRotator::open(path, limits)).await
        };
        let Ok(Ok(mut rotator)) = opened else {
            tracing::warn!(container = self.id.0, path = %path.display(), "cannot rotate the log of a container");
            return;
        };
        if rotator.may_be_unfinished() && self.tell_runtime(&mut rotator).await == Told::No {
            return;
        }
        let (retention, rotated) = (rotator.retention(), Notify::new());
        tokio::select! {
            () = self.rotate_when_full(path, changes, rotator, &rotated) => {}
            () = retain(&retention, &rotated) => {}
        }
    }

    /// `rotated` hears of each rotation.
    async fn rotate_when_full(
        &self,
        path: &Path,
        mut changes: Option<LogChanges>,
        rotator: LogRotator,
        rotated: &Notify,
    ) {
        let mut rotator = Left::Now(rotator);
        let mut pace = Pace::new(self.limits.max_bytes);
        let (mut was_there, begun) = (false, Instant::now());
        loop {
            let size = size(path);
            was_there |= matches!(size, Ok(Some(_)));
            match size {
                Ok(Some(size)) => match pace.look(size, Instant::now()) {
                    Next::Change => changed(changes.as_mut()).await,
                    Next::Look(pause) => sleep(pause).await,
                    Next::Rotate => {
                        let Some(ready) = rotator.ready().await else { return };
                        let waited = Instant::now();
                        let Some(left) = self.rotate(ready).await else { return };
                        rotator = left;
                        if let Left::Soon(_) = rotator {
                            pace.rotated(Instant::now());
                            rotated.notify_one();
                            tracing::debug!(container = self.id.0, size, took = ?waited.elapsed(), ?pace, "a log was rotated");
                        }
                    }
                },
                // Not by a hint: it may be full before one comes.
                Ok(None) if !was_there && begun.elapsed() < BEGINNING => sleep(UNWATCHED).await,
                Ok(None) => {
                    // Somebody has taken the file away, or its directory: the runtime makes a new one.
                    if self.has_ended().await || self.put_back(path).await == Told::No {
                        return;
                    }
                    sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::warn!(container = self.id.0, %error, "cannot look at the log of a container");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Has the runtime make the file anew; its directory, which it does not make, too.
    async fn put_back(&self, path: &Path) -> Told {
        let directory = path.parent().unwrap_or(Path::new("/"));
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory) {
            tracing::warn!(container = self.id.0, %error, "cannot make the directory of a log");
        }
        self.reopen().await
    }

    /// Where the container's log is; `None` when it has none or is gone.
    async fn path(&self) -> Option<PathBuf> {
        loop {
            match self.runtime.container_status(&self.id).await {
                Ok(status) => return Some(status.log_path).filter(|path| path.is_absolute()),
                Err(RuntimeError::NotFound { .. }) => return None,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Rotates; `None` when the container has ended.
    async fn rotate(&self, mut rotator: LogRotator) -> Option<Left> {
        if let Err(error) = rotator.rotate(now()) {
            tracing::warn!(container = self.id.0, %error, "cannot rotate the log of a container");
            sleep(RETRY).await;
            return Some(Left::Now(rotator));
        }
        if self.tell_runtime(&mut rotator).await == Told::No {
            return None;
        }
        // The new file fills meanwhile, and is looked at.
        let left = tokio::task::spawn_blocking(move || {
            rotator.wait_until_left();
            rotator
        });
        Some(Left::Soon(left))
    }

    /// Tells the runtime to go on in the new file. If the container has ended, the old file takes its place back.
    async fn tell_runtime(&self, rotator: &mut LogRotator) -> Told {
        let told = self.reopen().await;
        if told == Told::No
            && let Err(error) = rotator.undo()
        {
            tracing::warn!(container = self.id.0, %error, "cannot give a log its name back");
        }
        told
    }

    /// Asks until it is done or the container has ended. A runtime that is away may have heard, or not, and one that comes back
    /// refuses for a while, although it may have opened the new file already.
    async fn reopen(&self) -> Told {
        while let Err(error) = self.runtime.reopen_container_log(&self.id).await {
            tracing::debug!(container = self.id.0, %error, "the runtime does not open a log anew");
            if self.has_ended().await {
                return Told::No;
            }
            sleep(RETRY).await;
        }
        Told::Yes
    }

    async fn has_ended(&self) -> bool {
        match self.runtime.container_status(&self.id).await {
            Ok(status) => status.container.state == ContainerState::Exited,
            Err(error) => matches!(error, RuntimeError::NotFound { .. }),
        }
    }
}

/// Whether the runtime goes on in the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

/// A rotator, or one that still waits for the writer to leave the last file.
enum Left {
    Now(LogRotator),
    Soon(JoinHandle<LogRotator>),
}

impl Left {
    async fn ready(self) -> Option<LogRotator> {
        match self {
            Left::Now(rotator) => Some(rotator),
            Left::Soon(task) => task.await.ok(),
        }
    }
}

/// Deletes and compresses old files after rotations, for ever; beside them, since it may take its time.
async fn retain(retention: &LogRetention, rotated: &Notify) {
    loop {
        rotated.notified().await;
        let retention = retention.clone();
        // A panic there has been reported.
        let _ = tokio::task::spawn_blocking(move || retention.apply()).await;
    }
}

/// Bytes in the file; `None` when there is none.
fn size(path: &Path) -> std::io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn changed(changes: Option<&mut LogChanges>) {
    match changes {
        Some(changes) => changes.changed().await,
        None => sleep(UNWATCHED).await,
    }
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}
