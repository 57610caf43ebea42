//! `podlog down`: stops `podlog up` and every pod that it left running.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use podlog_driver::FileLimits;
use podlog_kubelet::runtime::process::{ProcessRuntime, ProcessRuntimeConfig};
use podlog_kubelet::runtime::{Container, ContainerRuntime, ContainerState, LogPolicy};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::exit::Exit;
use crate::lock::Lock;
use crate::up::{DataDir, DataDirError};

/// How long `podlog up` may take to end: it finishes requests, pods are not its business.
const UP_ENDS_WITHIN: Duration = Duration::from_secs(30);
/// A pod's `terminationGracePeriodSeconds` where none is recorded: Kubernetes' default.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Stops all. `grace` takes the place of the grace period of each pod.
pub(crate) fn run(data_dir: Option<PathBuf>, grace: Option<Duration>) -> anyhow::Result<Exit> {
    let data_dir = DataDir::resolve(data_dir)?;
    if !data_dir.root().is_dir() {
        anyhow::bail!("there is no data directory {}", data_dir.root().display());
    }
    let _lock = stop_up(&data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(stop_pods(&data_dir, grace))?;
    Ok(Exit::Success)
}

/// Ends the `podlog up` that holds the data directory, and takes its place.
fn stop_up(data_dir: &DataDir) -> anyhow::Result<Lock> {
    let deadline = Instant::now() + UP_ENDS_WITHIN;
    if let Some(pid) = data_dir.holder()?.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
        match kill_process(pid, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context(format!("cannot stop `podlog up` with pid {pid:?}")),
        }
    }
    loop {
        match data_dir.lock() {
            Err(DataDirError::Held { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(DataDirError::Held { pid, .. }) => anyhow::bail!(
                "`podlog up` with pid {pid} does not end: end it with `kill -KILL {pid}`, its pods are not harmed, then try again"
            ),
            outcome => return Ok(outcome?),
        }
    }
}

async fn stop_pods(data_dir: &DataDir, grace: Option<Duration>) -> anyhow::Result<()> {
    let runtime = ProcessRuntime::open(ProcessRuntimeConfig {
        root: data_dir.run(),
        capture_command: vec![OsString::from("/proc/self/exe"), "capture".into()],
        log_limits: FileLimits::default(),
        log_policy: LogPolicy::default(),
    })?;
    let mut stopping = JoinSet::new();
    for container in runtime.list_containers(None).await? {
        if container.state == ContainerState::Running {
            let grace = grace.unwrap_or_else(|| grace_of(&container));
            stopping.spawn(stop(runtime.clone(), container, grace));
        }
    }
    while let Some(stopped) = stopping.join_next().await {
        stopped??;
    }
    for sandbox in runtime.list_pod_sandboxes(None).await? {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

async fn stop(runtime: Arc<ProcessRuntime>, container: Container, grace: Duration) -> anyhow::Result<()> {
    let stopped = runtime.stop_container(&container.id, grace).await;
    stopped.with_context(|| format!("cannot stop container {:?} ({})", container.name, container.id.0))
}

fn grace_of(container: &Container) -> Duration {
    let recorded = container.annotations.get(podlog_kubelet::GRACE_PERIOD_ANNOTATION);
    recorded.and_then(|seconds| seconds.parse().ok()).map_or(DEFAULT_GRACE, Duration::from_secs)
}
