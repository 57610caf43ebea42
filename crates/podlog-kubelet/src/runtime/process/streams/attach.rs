//! What a container prints from now on, as its log says it: line by line.

use std::sync::Arc;

use podlog_driver::{LogChanges, LogReader, LogSource, LogWatcher, ReadState};
use podlog_line::{Selection, Streams as Wanted};

use super::channels::Outflow;
use super::remote::{Outcome, Remote};
use crate::runtime::Streams;
use crate::runtime::process::record::ContainerRecord;

/// Why it cannot be spoken to. What it prints is no secret to those who may attach, so that alone works.
const NO_STDIN: &str =
    "error attaching to container: processes have no standard input here: attach without stdin";

/// Sends what the container prints until it has ended, or the client has gone.
pub(super) async fn serve(
    record: &Arc<ContainerRecord>,
    wanted: Streams,
    watcher: Option<LogWatcher>,
    remote: Remote,
) {
    if wanted.stdin {
        return remote.end(&Outcome::Failed(NO_STDIN.to_owned())).await;
    }
    let followed = {
        let Remote { stdout, stderr, connection, .. } = &remote;
        let follow = async |wanted, to: &Option<Outflow>| match to {
            Some(to) => follow(record, watcher.as_ref(), wanted, to).await,
            None => Ok(()),
        };
        let both = async { tokio::try_join!(follow(Wanted::Stdout, stdout), follow(Wanted::Stderr, stderr)) };
        tokio::select! {
            followed = both => followed,
            () = connection.gone() => return,
        }
    };
    let outcome = match followed {
        Ok(_) => Outcome::Over,
        Err(why) => Outcome::Failed(format!("error attaching to container: {why}")),
    };
    remote.end(&outcome).await;
}

async fn follow(
    record: &Arc<ContainerRecord>,
    watcher: Option<&LogWatcher>,
    streams: Wanted,
    to: &Outflow,
) -> Result<(), String> {
    let mut changes = watcher.map(|watcher| watcher.watch(&record.log_path));
    let path = record.log_path.clone();
    let selection = Selection { tail: Some(0), follow: true, streams, ..Selection::default() };
    let mut reader = apart(move || LogSource::open(path)?.read(&selection)).await?;
    let mut has_ended = false;
    loop {
        reader = catch_up(reader, to).await?;
        if has_ended {
            let mut rest = Vec::new();
            reader.finish(&mut rest).map_err(|error| error.to_string())?;
            return to.send(rest.into()).await.map_err(|_| "the client has gone".to_owned());
        }
        tokio::select! {
            () = changed(&mut changes) => {}
            () = record.wait_ended() => has_ended = true,
        }
    }
}

async fn changed(changes: &mut Option<LogChanges>) {
    match changes {
        Some(changes) => changes.changed().await,
        None => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
    }
}

/// Sends all that there is now.
async fn catch_up(mut reader: LogReader, to: &Outflow) -> Result<LogReader, String> {
    loop {
        let chunk;
        let state;
        (reader, chunk, state) = apart(move || {
            let mut chunk = Vec::new();
            let state = reader.read_chunk(&mut chunk)?;
            Ok((reader, chunk, state))
        })
        .await?;
        if !chunk.is_empty() {
            to.send(chunk.into()).await.map_err(|_| "the client has gone".to_owned())?;
        }
        if state != ReadState::More {
            return Ok(reader);
        }
    }
}

/// Files are read beside the async threads.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, podlog_driver::ReadError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
