//! What a container prints from now on, as its log says it, line by line, and what it is told.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use podlog_driver::{LogChanges, LogReader, LogSource, LogWatcher, ReadState};
use podlog_line::{Selection, Streams as Wanted};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::channels::{Connection, Outflow};
use super::inlet::{Inlet, Then};
use super::remote::{Input, Outcome, Remote};
use crate::runtime::Streams;
use crate::runtime::process::record::ContainerRecord;

/// For a container to take what a client said before it went.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Sends what the container prints until it has ended, or the client has gone; passes on what the client says.
pub(super) async fn serve(
    record: &Arc<ContainerRecord>,
    wanted: Streams,
    watcher: Option<LogWatcher>,
    mut remote: Remote,
) {
    let attached = {
        let Remote { input, stdout, stderr, connection, .. } = &mut remote;
        let hear = |streams, to| Hearer::open(record, watcher.as_ref(), streams, to);
        let hearers = tokio::try_join!(hear(Wanted::Stdout, stdout), hear(Wanted::Stderr, stderr));
        match hearers {
            // Only now, so that an answer to what it says is heard.
            Ok((stdout, stderr)) => attach(record, wanted, [stdout, stderr], input, connection).await,
            Err(why) => Some(Err(why)),
        }
    };
    match attached {
        Some(Ok(())) => remote.end(&Outcome::Over).await,
        Some(Err(why)) => {
            remote.end(&Outcome::Failed(format!("error attaching to container: {why}"))).await;
        }
        None => {}
    }
}

/// `None` when the client has gone.
async fn attach(
    record: &Arc<ContainerRecord>,
    wanted: Streams,
    [stdout, stderr]: [Option<Hearer<'_>>; 2],
    input: &mut Input,
    connection: &Connection,
) -> Option<Result<(), String>> {
    let over = CancellationToken::new();
    let hear = |hearer| hear(hearer, record, &over);
    let hearing = async { tokio::try_join!(hear(stdout), hear(stderr)).map(drop) };
    let mut speaking = pin!(speak(record, wanted, input, &over).fuse());
    let failed = async {
        match speaking.as_mut().await {
            Ok(()) => pending().await,
            Err(why) => why,
        }
    };
    let heard = tokio::select! {
        heard = hearing => Some(heard),
        why = failed => Some(Err(why)),
        () = connection.gone() => None,
    };
    if heard.is_none() && !speaking.is_terminated() {
        // Whether it was said or not, nobody is there to be told.
        let _ = timeout(LAST_WORDS, speaking).await;
    }
    heard
}

/// Passes on what a client says. When it has said all, that may be the end of its streams.
async fn speak(
    record: &Arc<ContainerRecord>,
    wanted: Streams,
    input: &mut Input,
    over: &CancellationToken,
) -> Result<(), String> {
    if wanted.stdin || wanted.tty {
        let inlet = Inlet::open(record).await.map_err(|error| error.to_string())?;
        if inlet.feed(input).await == Then::Goes {
            over.cancel();
        }
    }
    Ok(())
}

/// Waits until the container has ended, or all is `over`; has a hearer hear all until then.
async fn hear(
    hearer: Option<Hearer<'_>>,
    record: &ContainerRecord,
    over: &CancellationToken,
) -> Result<(), String> {
    let ended = async {
        tokio::select! {
            () = record.wait_ended() => {}
            () = over.cancelled() => {}
        }
    };
    if let Some(hearer) = hearer {
        return hearer.run(ended).await;
    }
    ended.await;
    Ok(())
}

/// Where one of the streams comes from, and goes to.
struct Hearer<'a> {
    reader: LogReader,
    changes: Option<LogChanges>,
    to: &'a Outflow,
}

impl<'a> Hearer<'a> {
    /// Of what is printed from now on, if there is somebody to send it to.
    async fn open(
        record: &ContainerRecord,
        watcher: Option<&LogWatcher>,
        streams: Wanted,
        to: &'a Option<Outflow>,
    ) -> Result<Option<Self>, String> {
        let Some(to) = to else { return Ok(None) };
        let changes = watcher.map(|watcher| watcher.watch(&record.log_path));
        let path = record.log_path.clone();
        let selection = Selection { tail: Some(0), follow: true, streams, ..Selection::default() };
        let reader = apart(move || LogSource::open(path)?.read(&selection)).await?;
        Ok(Some(Hearer { reader, changes, to }))
    }

    /// Sends all that is printed before the end, and what is there then.
    async fn run(self, ended: impl Future<Output = ()>) -> Result<(), String> {
        let Hearer { mut reader, mut changes, to } = self;
        let (mut ended, mut has_ended) = (pin!(ended), false);
        loop {
            reader = catch_up(reader, to).await?;
            if has_ended {
                let mut rest = Vec::new();
                reader.finish(&mut rest).map_err(|error| error.to_string())?;
                return to.send(rest.into()).await.map_err(|_| "the client has gone".to_owned());
            }
            tokio::select! {
                () = changed(&mut changes) => {}
                () = &mut ended => has_ended = true,
            }
        }
    }
}

async fn changed(changes: &mut Option<LogChanges>) {
    match changes {
        Some(changes) => changes.changed().await,
        None => tokio::time::sleep(Duration::from_secs(1)).await,
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
