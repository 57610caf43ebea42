//! The store: reads from the mirror, writes by transaction.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use podlog_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use podlog_proto::etcd::request_op::Request;
use podlog_proto::etcd::response_op::Response;
use podlog_proto::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{CallError, Client, ConfigError, EtcdConfig};
use super::compactor;
use super::follower::{self, Follower};
use super::leases::Leases;
use super::mirror::Mirror;
use crate::store::{
    Change, EventPage, Expected, KeyValue, Page, Range, Retention, Store, StoreError, Stored, Write,
};

/// What the keys of callers begin with; in etcd it is [`EtcdConfig::prefix`] instead.
const ROOT: &str = "/registry";
/// Objects that a look at many begins with.
const FIRST_LOOK: usize = 64;
/// For the mirror to hear of what etcd has already; then the watch is taken up anew, at another member.
const HEAR: Duration = Duration::from_secs(3);
/// For the mirror to hear of it by the new watch.
const HEAR_ANEW: Duration = Duration::from_secs(7);

/// Why a store in etcd cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Mostly a flag.
    #[error("the configuration of etcd is not usable")]
    Config(#[source] ConfigError),
    /// No member answered, or one that refuses.
    #[error("cannot read from etcd; is it running, and are the certificates right?")]
    Read(#[source] StoreError),
}

/// A [`Store`] in etcd, shared with other servers.
pub struct EtcdStore {
    shared: Arc<Shared>,
    leases: Leases,
    newest: Newest,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the store and its tasks share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) mirror: RwLock<Mirror>,
    /// The mirror's revision.
    pub(super) revision: watch::Sender<u64>,
    /// The watch stands.
    pub(super) is_following: AtomicBool,
    /// The watch is to be taken up anew: something that happened was not heard of.
    pub(super) doubt: Notify,
}

/// Keys as callers and as etcd name them.
#[derive(Clone, Debug)]
pub(super) struct Names {
    root: &'static str,
    prefix: String,
}

impl Names {
    pub(super) fn new(root: &'static str, prefix: &str) -> Self {
        // As upstream: the prefix is a path, whether or not it is written as one.
        let path = prefix.trim_matches('/');
        Names { root, prefix: if path.is_empty() { String::new() } else { format!("/{path}") } }
    }

    /// What all keys in etcd begin with.
    pub(super) fn all(&self) -> Bytes {
        Bytes::from(format!("{}/", self.prefix))
    }

    pub(super) fn in_etcd(&self, key: &str) -> Bytes {
        let path = key.strip_prefix(self.root).unwrap_or(key);
        Bytes::from(format!("{}{path}", self.prefix))
    }

    /// `None` for keys that are not ours.
    pub(super) fn of_callers(&self, key: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        path.starts_with('/').then(|| format!("{}{path}", self.root))
    }
}

impl EtcdStore {
    /// Connects, reads everything, and follows what happens from then on.
    ///
    /// # Errors
    /// When the configuration cannot be used, or no member answers within 15 seconds.
    pub async fn connect(config: &EtcdConfig, retention: Retention) -> Result<Self, ConnectError> {
        Self::connect_with(config, Names::new(ROOT, &config.prefix), retention).await
    }

    pub(super) async fn connect_with(
        config: &EtcdConfig,
        names: Names,
        retention: Retention,
    ) -> Result<Self, ConnectError> {
        let client = Client::new(config).map_err(ConnectError::Config)?;
        let read = |error: CallError| ConnectError::Read(error.into());
        let snapshot = follower::snapshot(&client, &names, retention.events).await.map_err(read)?;
        let version = client.status().await.map_err(read)?.version;
        tracing::info!(version, revision = snapshot.revision(), "reading from etcd");
        let shared = Arc::new(Shared {
            client,
            names,
            revision: watch::Sender::new(snapshot.revision()),
            mirror: RwLock::new(snapshot),
            is_following: AtomicBool::new(false),
            doubt: Notify::new(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let follower = Follower::new(shared.clone(), retention);
        let (for_follower, for_compactor) = (stop.clone(), stop.clone());
        tasks.spawn(async move { for_follower.run_until_cancelled_owned(follower.run()).await });
        let compactor = compactor::run(shared.clone(), retention.age);
        tasks.spawn(async move { for_compactor.run_until_cancelled_owned(compactor).await });
        tasks.close();
        let newest = Newest::default();
        let store = EtcdStore { shared, leases: Leases::default(), newest, stop, tasks };
        store.catch_up().await.map_err(ConnectError::Read)?;
        Ok(store)
    }

    /// Waits until the mirror has what happened at `revision`.
    async fn hear(&self, revision: u64) -> Result<(), StoreError> {
        let mut revisions = self.shared.revision.subscribe();
        for patience in [HEAR, HEAR_ANEW] {
            let heard = revisions.wait_for(|known| *known >= revision);
            match tokio::time::timeout(patience, heard).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err(StoreError::Closed),
                Err(_) => self.shared.doubt.notify_one(),
            }
        }
        Err(StoreError::Unavailable(format!("no word from etcd of what happened at revision {revision}")))
    }

    /// What the write came to, and the revision at which that was so.
    async fn swap(&self, write: &Write) -> Result<(Result<u64, StoreError>, u64), StoreError> {
        let lease = match (&write.change, write.ttl) {
            (Change::Put(_), Some(ttl)) => self.leases.for_key(&self.shared.client, ttl).await?,
            _ => 0,
        };
        let request = transaction(&self.shared.names, write, lease);
        let answer = match self.shared.client.txn(request).await {
            Err(CallError::Full) => return self.written_though_full(write).await,
            other => other?,
        };
        let at = revision_of(answer.message.header.as_ref());
        if answer.message.succeeded {
            return Ok((Ok(at), at));
        }
        let found = current(&write.key, answer.message);
        // Where an attempt before may have succeeded unheard, its effect is ours.
        let outcome = match (&write.change, &found) {
            (Change::Put(value), Some(found)) if answer.is_repeated && found.value == *value => {
                Ok(found.mod_revision)
            }
            (Change::Delete, None) if answer.is_repeated => Ok(at),
            _ if write.expected.holds(found.as_ref()) => Err(StoreError::Overtaken),
            _ => Err(StoreError::Conflict(found)),
        };
        Ok((outcome, at))
    }

    /// What became of a write that etcd complains about because it is full: the one that fills it is carried out nevertheless.
    async fn written_though_full(&self, write: &Write) -> Result<(Result<u64, StoreError>, u64), StoreError> {
        let Change::Put(value) = &write.change else { return Err(CallError::Full.into()) };
        let before = match write.expected {
            Expected::Absent => 0,
            Expected::ModRevision(revision) => revision,
        };
        let key = self.shared.names.in_etcd(&write.key);
        let found = self.shared.client.range(RangeRequest { key, ..RangeRequest::default() }).await?;
        let is_ours =
            |kv: &&podlog_proto::etcd::KeyValue| kv.value == *value && unsigned(kv.mod_revision) > before;
        match found.kvs.first().filter(is_ours) {
            Some(kv) => Ok((Ok(unsigned(kv.mod_revision)), unsigned(kv.mod_revision))),
            None => Err(CallError::Full.into()),
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.shared.mirror.read().find(key))
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        self.shared.mirror.read().range(range)
    }

    fn scan(
        &self,
        range: &Range,
        look: &mut dyn FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        // Values are shared with the mirror, which is not kept from going on while they are looked at. Who has seen enough soon
        // costs little, and who wants to see all soon has them.
        let mut range = range.clone();
        let mut some = FIRST_LOOK;
        loop {
            let (found, revision) = {
                let mirror = self.shared.mirror.read();
                let found: Vec<KeyValue> = mirror.items(&range)?.take(some).collect();
                (found, range.at.unwrap_or(mirror.revision()))
            };
            let is_seen = found.iter().map(KeyValue::stored).try_for_each(&mut *look).is_break();
            match found.into_iter().nth(some - 1) {
                Some(last) if !is_seen => (range.at, range.after) = (Some(revision), Some(last.key)),
                _ => return Ok(revision),
            }
            some *= 4;
        }
    }

    fn events(&self, prefix: &str, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.shared.mirror.read().events(prefix, after, limit)
    }

    async fn catch_up(&self) -> Result<(), StoreError> {
        let newest = self.newest.ask(&self.shared).await?;
        self.hear(newest).await
    }

    async fn write(&self, write: Write) -> Result<u64, StoreError> {
        let (outcome, at) = self.swap(&write).await?;
        // Whoever wrote shall read it back, and whoever was too late what was written instead.
        if let Err(error) = self.hear(at).await {
            tracing::warn!(key = write.key, %error, "written, but not yet to be read here");
        }
        outcome
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let current = self.revision();
        if revision > current {
            return Err(StoreError::Future { requested: revision, current });
        }
        self.shared.client.compact(signed(revision)).await?;
        self.shared.mirror.write().forget(revision);
        Ok(())
    }

    fn expires_keys(&self) -> bool {
        true
    }

    fn health(&self) -> Result<(), StoreError> {
        match self.shared.is_following.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(StoreError::Unavailable("no member of etcd answers".into())),
        }
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Asks etcd for its newest revision, once for all who ask at the same time.
#[derive(Default)]
struct Newest {
    turn: tokio::sync::Mutex<Option<Asked>>,
}

#[derive(Clone, Copy)]
struct Asked {
    /// When the question was put: the answer is good for whoever came before.
    at: tokio::time::Instant,
    revision: u64,
}

impl Newest {
    async fn ask(&self, shared: &Shared) -> Result<u64, CallError> {
        let came = tokio::time::Instant::now();
        let mut last = self.turn.lock().await;
        if let Some(asked) = last.filter(|asked| asked.at > came) {
            return Ok(asked.revision);
        }
        let at = tokio::time::Instant::now();
        let revision = newest(&shared.client, &shared.names).await?;
        *last = Some(Asked { at, revision });
        Ok(revision)
    }
}

/// The newest revision of all: a read that a majority of the members stands for.
pub(super) async fn newest(client: &Client, names: &Names) -> Result<u64, CallError> {
    // The key that upstream's health check asks for; there is none such.
    let key = names.in_etcd(&format!("{ROOT}/health"));
    let request = RangeRequest { key, count_only: true, ..RangeRequest::default() };
    Ok(revision_of(client.range(request).await?.header.as_ref()))
}

fn transaction(names: &Names, write: &Write, lease: i64) -> TxnRequest {
    let key = names.in_etcd(&write.key);
    let expected = match write.expected {
        Expected::Absent => 0,
        Expected::ModRevision(revision) => revision,
    };
    let mut compare = vec![is_at(key.clone(), expected)];
    compare.extend(write.beside.iter().map(|beside| is_at(names.in_etcd(&beside.key), beside.mod_revision)));
    let change = match &write.change {
        Change::Put(value) => {
            Request::RequestPut(PutRequest { key: key.clone(), value: value.clone(), lease })
        }
        Change::Delete => {
            Request::RequestDeleteRange(DeleteRangeRequest { key: key.clone(), ..Default::default() })
        }
    };
    let read = Request::RequestRange(RangeRequest { key, ..RangeRequest::default() });
    let operation = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest { compare, success: operation(change), failure: operation(read) }
}

fn is_at(key: Bytes, mod_revision: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(signed(mod_revision))),
    }
}

/// What a transaction found that was not as expected.
fn current(key: &str, response: TxnResponse) -> Option<KeyValue> {
    let found = response.responses.into_iter().next()?.response?;
    let Response::ResponseRange(range) = found else { return None };
    range.kvs.into_iter().next().map(|kv| key_value(key.to_owned(), &kv))
}

pub(super) fn key_value(key: String, kv: &podlog_proto::etcd::KeyValue) -> KeyValue {
    KeyValue {
        key,
        // Its own piece of memory: a slice would keep the whole message.
        value: Bytes::copy_from_slice(&kv.value),
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
    }
}

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision))
}

/// etcd's revisions are signed and never negative.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_name_here_and_one_in_etcd() {
        let rows = [
            ("/registry", "/registry/pods/default/web", "/registry/pods/default/web"),
            ("cluster-a/registry/", "/registry/minions/n", "/cluster-a/registry/minions/n"),
            ("/", "/registry/minions/n", "/minions/n"),
        ];
        for (prefix, ours, theirs) in rows {
            let names = Names::new(ROOT, prefix);
            assert_eq!(names.in_etcd(ours), theirs);
            assert_eq!(names.of_callers(theirs.as_bytes()).as_deref(), Some(ours));
        }
        let names = Names::new(ROOT, "/registry");
        for foreign in [&b"compact_rev_key"[..], b"/registry2/x", b"/registry", b"/registry/\xff"] {
            assert_eq!(names.of_callers(foreign), None, "{foreign:?}");
        }
    }
}
