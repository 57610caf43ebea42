//! Starting and ending containers.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use podlog_container::control::Request;
use podlog_container::{Liveness, ProcessStat, REASON_START_ERROR, STARTED};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::control;
use super::error::{blocking, failed};
use super::record::ContainerRecord;
use super::status::Findings;
use crate::runtime::{ContainerState, RuntimeError};

/// How long a capture may take to start a program; mounts and a busy machine are all that takes time.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a killed container may take to end: capture itself waits 30 seconds for processes that cannot be killed.
const KILL_DEADLINE: Duration = Duration::from_secs(45);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Starts a created container; returns when its program runs.
///
/// # Errors
/// [`RuntimeError::StartContainer`] when the program cannot be started.
pub(super) async fn start(record: &Arc<ContainerRecord>, capture: &[OsString]) -> Result<(), RuntimeError> {
    let _starting = record.starting.lock().await;
    let findings = read(record).await?;
    if findings.container_state() != ContainerState::Created {
        return Err(failed("cannot start container")("it has been started before"));
    }
    match run_capture(record.dir.path(), capture).await {
        Ok(()) => Ok(()),
        Err(why) => Err(start_error(record, why).await),
    }
}

/// The process id of a container's first process, while that runs.
pub(super) fn running_process(record: &ContainerRecord) -> Option<i32> {
    let state = record.dir.state().ok()??;
    state.process.exists().then_some(state.process.pid)
}

async fn start_error(record: &Arc<ContainerRecord>, why: String) -> RuntimeError {
    let exit = match read(record).await {
        Ok(findings) => findings.exit,
        Err(error) => return error,
    };
    match exit.filter(|exit| exit.reason == REASON_START_ERROR) {
        Some(exit) => RuntimeError::StartContainer(exit.message),
        None => failed("cannot start capture")(why),
    }
}

/// Runs capture until it has started the container. It is in a session of its own soon after; while it is a child of this
/// process, it is waited for.
async fn run_capture(dir: &Path, capture: &[OsString]) -> Result<(), String> {
    let (program, arguments) = capture.split_first().ok_or("no capture command is configured")?;
    let mut command = Command::new(program);
    command.args(arguments).arg("--dir").arg(dir).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", Path::new(program).display()))?;
    let said = timeout(START_DEADLINE, last_words(&mut child)).await;
    let (out, err) =
        said.map_err(|_| format!("capture did not start the container within {START_DEADLINE:?}"))?;
    if out == STARTED {
        // Ends with the container, or is left to tokio at the runtime's end.
        tokio::spawn(async move { child.wait().await });
        return Ok(());
    }
    let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    Err(format!("{status}: {}", String::from_utf8_lossy(&err).trim()))
}

/// What capture writes before it closes stdout and stderr.
async fn last_words(child: &mut Child) -> (Vec<u8>, Vec<u8>) {
    async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until an error is all there is to know.
            let _ = stream.read_to_end(&mut text).await;
        }
        text
    }
    tokio::join!(read(child.stdout.take()), read(child.stderr.take()))
}

/// Ends a container: SIGTERM, `grace`, SIGKILL. Returns when it has ended.
///
/// # Errors
/// When even that does not end it.
pub(super) async fn stop(record: &Arc<ContainerRecord>, grace: Duration) -> Result<(), RuntimeError> {
    // A container that is being started can be stopped when it has been.
    drop(record.starting.lock().await);
    if !is_alive(record).await? {
        return Ok(());
    }
    if !grace.is_zero() {
        signal(record, SIGTERM).await;
        if timeout(grace, record.wait_ended()).await.is_ok() {
            return Ok(());
        }
    }
    kill(record).await;
    timeout(KILL_DEADLINE, record.wait_ended())
        .await
        .map_err(|_| failed("cannot stop container")("its processes do not end"))
}

async fn is_alive(record: &Arc<ContainerRecord>) -> Result<bool, RuntimeError> {
    let findings = read(record).await?;
    Ok(findings.liveness == Liveness::Alive && findings.exit.is_none())
}

async fn signal(record: &ContainerRecord, number: i32) -> bool {
    let asked = control::ask(&record.dir, &Request::Signal(number)).await;
    if let Err(error) = &asked {
        // Ordinary when it has just ended.
        tracing::debug!(container = record.metadata.id, number, %error, "signal not sent");
    }
    asked.is_ok()
}

/// Kills the first process; should capture be stuck, without it.
async fn kill(record: &ContainerRecord) {
    if signal(record, SIGKILL).await {
        return;
    }
    let state = record.dir.state().ok().flatten().filter(|state| state.process.exists());
    let process = state.and_then(|state| ProcessStat::read(state.process.pid));
    if let Some(Err(error)) = process.map(|process| process.kill()) {
        tracing::warn!(container = record.metadata.id, %error, "cannot kill a container's first process");
    }
}

/// Reads a container's files beside the async threads.
pub(super) async fn read(record: &Arc<ContainerRecord>) -> Result<Findings, RuntimeError> {
    let record = Arc::clone(record);
    blocking(move || record.findings()).await
}
