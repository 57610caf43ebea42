//! Rotation of the logs that a container runtime writes (`pkg/kubelet/logs/container_log_manager.go`), at the limit rather
//! than every ten seconds.
//!
//! One task a running container. It looks at the file's size when the log changes, the sooner again the less room is left;
//! at the limit it renames the file and tells the runtime. Nothing is lost at any point: until the runtime goes on in the new
//! file it writes to the old one, which is neither compressed nor deleted before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use podlog_driver::{FileLimits, LogChanges, LogRotator, LogWatcher};
use podlog_line::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::runtime::{ContainerId, ContainerRuntime, ContainerState, RuntimeError};

/// How often running containers are listed when nothing happens.
const RELIST: Duration = Duration::from_secs(10);
/// Faster than this nobody writes: a file with so much room left is not looked at for so long.
const FASTEST_BYTES_PER_MILLISECOND: u64 = 400_000;
/// Shortest and longest time between two looks at a file that grows.
const SHORTEST_LOOK: Duration = Duration::from_millis(2);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Pause after something did not work.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the logs of a runtime's containers within their limits.
pub(crate) struct LogRotation {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) limits: FileLimits,
    pub(crate) watcher: Option<LogWatcher>,
}

impl LogRotation {
    /// Works until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut events = self.runtime.events();
        let mut relist = interval(RELIST);
        let mut tasks: HashMap<ContainerId, Task> = HashMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = relist.tick() => self.sync(&mut tasks).await,
                Some(event) = events.recv() => match event.state {
                    ContainerState::Exited => drop(tasks.remove(&event.id)),
                    ContainerState::Running => self.watch(&mut tasks, event.id),
                    ContainerState::Created | ContainerState::Unknown => {}
                },
            }
        }
    }

    async fn sync(&self, tasks: &mut HashMap<ContainerId, Task>) {
        let Ok(containers) = self.runtime.list_containers(None).await else { return };
        let running = containers.into_iter().filter(|container| container.state == ContainerState::Running);
        let running: Vec<ContainerId> = running.map(|container| container.id).collect();
        tasks.retain(|id, _| running.contains(id));
        for id in running {
            self.watch(tasks, id);
        }
    }

    fn watch(&self, tasks: &mut HashMap<ContainerId, Task>, id: ContainerId) {
        if tasks.get(&id).is_some_and(|task| !task.0.is_finished()) {
            return;
        }
        let keeper = Keeper { runtime: self.runtime.clone(), id: id.clone(), limits: self.limits };
        let watcher = self.watcher.clone();
        tasks.insert(id, Task(tokio::spawn(keeper.run(watcher))));
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
    async fn run(self, watcher: Option<LogWatcher>) {
        let Some(path) = self.path().await else { return };
        let opened = {
            let (path, limits) = (path.clone(), self.limits);
            tokio::task::spawn_blocking(move || LogRotator::open(path, limits)).await
        };
        let Ok(Ok(mut rotator)) = opened else {
            tracing::warn!(container = self.id.0, path = %path.display(), "cannot rotate the log of a container");
            return;
        };
        let mut changes = watcher.map(|watcher| watcher.watch(&path));
        if rotator.may_be_unfinished() && self.tell_runtime(&mut rotator).await == Told::No {
            return;
        }
        loop {
            match rotator.size() {
                Ok(Some(size)) if size < self.limits.max_bytes => {
                    sleep(next_look(self.limits.max_bytes - size)).await;
                    changed(changes.as_mut()).await;
                }
                Ok(Some(_)) => {
                    let Some(settled) = self.rotate(rotator).await else { return };
                    rotator = settled;
                }
                Ok(None) => {
                    // Somebody has taken the file away: the runtime makes a new one.
                    if self.reopen().await.is_err() {
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

    /// Where the container's log is; `None` when it has none or is gone.
    async fn path(&self) -> Option<PathBuf> {
        loop {
            match self.runtime.container_status(&self.id).await {
                Ok(status) => return Some(status.log_path).filter(|path| path.is_absolute()),
                Err(RuntimeError::Unavailable(_)) => sleep(RETRY).await,
                Err(_) => return None,
            }
        }
    }

    /// Rotates; `None` when the container has ended.
    async fn rotate(&self, rotator: LogRotator) -> Option<LogRotator> {
        let (mut rotator, renamed) = blocking(rotator, |rotator| rotator.rotate(now())).await?;
        if let Err(error) = renamed {
            tracing::warn!(container = self.id.0, %error, "cannot rotate the log of a container");
            sleep(RETRY).await;
            return Some(rotator);
        }
        if self.tell_runtime(&mut rotator).await == Told::No {
            return None;
        }
        let (rotator, ()) = blocking(rotator, LogRotator::settle).await?;
        Some(rotator)
    }

    /// Tells the runtime until it answers. If it refuses, the old file takes its place back.
    async fn tell_runtime(&self, rotator: &mut LogRotator) -> Told {
        match self.reopen().await {
            Ok(()) => Told::Yes,
            Err(error) => {
                // Most often the container has just ended.
                tracing::debug!(container = self.id.0, %error, "the runtime does not open a log anew");
                if let Err(error) = rotator.undo() {
                    tracing::warn!(container = self.id.0, %error, "cannot give a log its name back");
                }
                Told::No
            }
        }
    }

    /// Asks until there is an answer: a runtime that is away may have heard, or not.
    async fn reopen(&self) -> Result<(), RuntimeError> {
        loop {
            match self.runtime.reopen_container_log(&self.id).await {
                Err(RuntimeError::Unavailable(_)) => sleep(RETRY).await,
                answer => return answer,
            }
        }
    }
}

/// Whether the runtime goes on in the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

async fn changed(changes: Option<&mut LogChanges>) {
    match changes {
        Some(changes) => changes.changed().await,
        None => sleep(SHORTEST_LOOK).await,
    }
}

/// When a file with so much room left can be full at the earliest.
fn next_look(left_bytes: u64) -> Duration {
    Duration::from_millis(left_bytes / FASTEST_BYTES_PER_MILLISECOND).clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

/// Works on files beside the async threads; `None` when that was cut off.
async fn blocking<T: Send + 'static>(
    mut rotator: LogRotator,
    work: impl FnOnce(&mut LogRotator) -> T + Send + 'static,
) -> Option<(LogRotator, T)> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut rotator);
        (rotator, result)
    });
    done.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuller_file_is_looked_at_sooner() {
        for (left, milliseconds) in [(u64::MAX, 1000), (10 << 20, 26), (4_000_000, 10), (100, 2), (0, 2)] {
            assert_eq!(next_look(left), Duration::from_millis(milliseconds), "{left}");
        }
    }
}
