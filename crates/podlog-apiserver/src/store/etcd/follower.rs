//! Keeps the mirror in step: one snapshot, then one watch, taken up where it broke off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use podlog_proto::etcd::event::EventType;
use podlog_proto::etcd::{Event, RangeRequest, WatchResponse};
use tokio::time::{Instant, interval};

use super::client::{CallError, Client};
use super::compactor;
use super::mirror::{Happened, Mirror};
use super::storage::{Names, Shared, key_value, newest, revision_of, signed, unsigned};
use crate::store::{KeyValue, Retention};

/// Keys of one answer of a snapshot.
const PAGE: i64 = 500;
/// Between attempts to take up a watch that broke.
const PAUSE: Duration = Duration::from_millis(100);
/// How often history is looked through for what is too old.
const TIDY: Duration = Duration::from_secs(10);

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the connection broke: {0}")]
    Broken(#[from] tonic::Status),
    #[error("etcd ended the watch: {0}")]
    Ended(String),
    #[error("the watch is silent")]
    Silent,
}

/// The one task that writes the mirror.
pub(super) struct Follower {
    shared: Arc<Shared>,
    retention: Retention,
    /// What the revision was, and when.
    marks: VecDeque<(Instant, u64)>,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, retention: Retention) -> Self {
        Follower { shared, retention, marks: VecDeque::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let lost = self.follow().await;
            self.shared.is_following.store(false, Ordering::Release);
            match lost {
                Lost::Call(CallError::Compacted) => self.start_anew().await,
                lost => {
                    tracing::warn!(reason = %lost, "lost sight of etcd, taking up the watch again");
                    self.shared.client.leave_current();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows from where the mirror stands until something is lost.
    async fn follow(&mut self) -> Lost {
        let start = self.shared.mirror.read().revision() + 1;
        let mut watch = match self.shared.client.watch(signed(start)).await {
            Ok(watch) => watch,
            Err(error) => return error.into(),
        };
        let mut tidy = interval(TIDY);
        loop {
            tokio::select! {
                message = watch.message() => match message {
                    Ok(Some(response)) => if let Err(lost) = self.hear(response) {
                        return lost;
                    },
                    Ok(None) => return Lost::Ended("its stream is over".into()),
                    Err(status) => return status.into(),
                },
                () = self.shared.doubt.notified() => return Lost::Silent,
                _ = tidy.tick() => self.tidy(),
            }
        }
    }

    fn hear(&self, response: WatchResponse) -> Result<(), Lost> {
        if response.compact_revision > 0 {
            return Err(CallError::Compacted.into());
        }
        if response.canceled {
            return Err(Lost::Ended(response.cancel_reason));
        }
        self.shared.is_following.store(true, Ordering::Release);
        let mut mirror = self.shared.mirror.write();
        if response.events.is_empty() {
            if !response.created {
                mirror.advance(revision_of(response.header.as_ref()));
            }
        } else {
            apply(&mut mirror, &self.shared.names, response.events);
        }
        let revision = mirror.revision();
        drop(mirror);
        self.publish(revision);
        Ok(())
    }

    fn publish(&self, revision: u64) {
        self.shared.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }

    /// What happened since is no longer to be had: everything is read again, and whoever watches has to do so too.
    async fn start_anew(&mut self) {
        tracing::warn!("etcd has forgotten what happened since the watch broke, reading everything again");
        match snapshot(&self.shared.client, &self.shared.names, 0).await {
            Ok(snapshot) => {
                let revision = snapshot.revision();
                *self.shared.mirror.write() = snapshot;
                self.marks.clear();
                self.publish(revision);
            }
            Err(error) => tracing::warn!(%error, "cannot read everything again"),
        }
    }

    /// Forgets history that is too old or too much.
    fn tidy(&mut self) {
        let now = Instant::now();
        let mut mirror = self.shared.mirror.write();
        self.marks.push_back((now, mirror.revision()));
        while let Some((_, revision)) = self.marks.pop_front_if(|(at, _)| now - *at > self.retention.age) {
            mirror.forget(revision);
        }
        mirror.keep_events(usize::try_from(self.retention.events).unwrap_or(usize::MAX));
    }
}

/// Events come in order; those of one revision belong together.
fn apply(mirror: &mut Mirror, names: &Names, events: Vec<Event>) {
    let mut rest = events.into_iter().peekable();
    while let Some(revision) = rest.peek().map(revision_of_event) {
        let mut happened = Vec::new();
        while let Some(event) = rest.next_if(|event| revision_of_event(event) == revision) {
            happened.extend(ours(names, &event));
        }
        mirror.apply(revision, happened);
    }
}

fn revision_of_event(event: &Event) -> u64 {
    event.kv.as_ref().map_or(0, |kv| unsigned(kv.mod_revision))
}

fn ours(names: &Names, event: &Event) -> Option<Happened> {
    let kv = event.kv.as_ref()?;
    let key = names.of_callers(&kv.key)?;
    let value = (event.r#type() == EventType::Put).then(|| Bytes::copy_from_slice(&kv.value));
    Some(Happened { key, value })
}

/// Everything, as of a revision at most `history` ago: what happened since will come by the watch, so that clients of a
/// server that was away can go on where they were.
pub(super) async fn snapshot(client: &Client, names: &Names, history: u64) -> Result<Mirror, CallError> {
    let newest = newest(client, names).await?;
    let mut candidates = vec![newest.saturating_sub(history).max(1)];
    if history > 0 {
        candidates.extend(compactor::last_compacted(client).await?.filter(|&compacted| compacted < newest));
    }
    candidates.sort_unstable();
    candidates.push(newest);
    for revision in candidates {
        match everything(client, names, revision).await {
            Ok(objects) => return Ok(Mirror::new(objects, revision)),
            Err(CallError::Compacted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CallError::Compacted)
}

async fn everything(client: &Client, names: &Names, revision: u64) -> Result<Vec<KeyValue>, CallError> {
    let mut key = names.all();
    let range_end = behind(&key);
    let mut objects = Vec::new();
    loop {
        let request = RangeRequest {
            key,
            range_end: range_end.clone(),
            limit: PAGE,
            revision: signed(revision),
            ..RangeRequest::default()
        };
        let page = client.range(request).await?;
        let named = page.kvs.iter().filter_map(|kv| Some((names.of_callers(&kv.key)?, kv)));
        objects.extend(named.map(|(key, kv)| key_value(key, kv)));
        match page.kvs.last() {
            Some(last) if page.more => key = next(&last.key),
            _ => return Ok(objects),
        }
    }
}

/// The first key after all that begin with `prefix`, which ends in a slash.
fn behind(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Bytes::from(end)
}

/// The first key after `key`.
fn next(key: &[u8]) -> Bytes {
    Bytes::from([key, b"\0"].concat())
}
