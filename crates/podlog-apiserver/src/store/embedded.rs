//! The embedded store: one redb file.
//!
//! Every version of every key is a row of `versions`, and every revision a row of `log`, as etcd lays out its backend
//! (`server/storage/mvcc`). Reads are snapshots and never wait for the writer.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot, watch};

use super::history::{self, History};
use super::shadow::Shadow;
use super::writer::{self, Order};
use super::{Event, EventPage, KeyValue, Page, Range, Store, StoreError, Stored, Write};

/// Key and revision.
type VersionId = (&'static str, u64);
/// Create revision and value; no value is a removal.
type Version = (u64, Option<&'static [u8]>);
/// What every key was at every revision that is kept.
pub(super) const VERSIONS: TableDefinition<VersionId, Version> = TableDefinition::new("versions");
/// A writer's view of [`VERSIONS`].
pub(super) type Versions<'t> = redb::Table<'t, VersionId, Version>;
/// Revision → `(key, seconds since the epoch)`.
pub(super) const LOG: TableDefinition<u64, (&str, u64)> = TableDefinition::new("log");
/// Counters by name.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const REVISION: &str = "revision";
pub(super) const COMPACTED: &str = "compacted";

/// Page cache of the file, for what leads to objects; they themselves are in the kernel's. Four times as much was seen to take
/// far more than it holds.
const CACHE_BYTES: usize = 4 << 20;
/// Writes that wait for the writer; more wait in their callers.
const QUEUE: usize = 1024;

/// How much history is kept for ranges at a revision and for watches.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events younger than this are kept. Default 5 minutes, as kube-apiserver compacts etcd.
    pub age: Duration,
    /// At most so many events are kept. Default 10,000.
    pub events: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { age: Duration::from_secs(300), events: 10_000 }
    }
}

/// Opens the database, also anew after the disk was full.
pub(super) type Opener = Box<dyn Fn(Purpose) -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Writes reach the disk.
    Durable,
    /// Reads alone; what recovery has to write stays in memory.
    ReadOnly,
}

/// A database, and what it is good for.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) purpose: Purpose,
}

/// A [`Store`] in one file, or in memory.
pub struct RedbStore {
    shared: Arc<Shared>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What readers and the writer share.
pub(super) struct Shared {
    /// `None` while it could not be opened again after a failure.
    pub(super) database: RwLock<Option<Opened>>,
    pub(super) opener: Opener,
    pub(super) name: String,
    /// The file, for asking how much room its device has.
    pub(super) path: Option<PathBuf>,
    pub(super) history: RwLock<History>,
    pub(super) compacted: AtomicU64,
    pub(super) revision: watch::Sender<u64>,
}

impl RedbStore {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// When it cannot be read or written, is in use by another process, or is damaged.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, redb::DatabaseError> {
        let file = path.to_owned();
        let opener = Box::new(move |purpose| match purpose {
            Purpose::Durable => builder().create_with_backend(FileBackend::new(open_private(&file)?)?),
            Purpose::ReadOnly => builder().create_with_backend(Shadow::open(&file)?),
        });
        Self::start(opener, path.display().to_string(), Some(path.to_owned()), retention)
    }

    /// A store that is gone when dropped: for tests.
    ///
    /// # Errors
    /// Never in practice; memory does not fail to open.
    pub fn in_memory() -> Result<Self, redb::DatabaseError> {
        let opener = Box::new(|_| builder().create_with_backend(redb::backends::InMemoryBackend::new()));
        Self::start(opener, "memory".into(), None, Retention::default())
    }

    pub(super) fn start(
        opener: Opener,
        name: String,
        path: Option<PathBuf>,
        retention: Retention,
    ) -> Result<Self, redb::DatabaseError> {
        let database = opener(Purpose::Durable)?;
        let (revision, compacted) = prepare(&database).map_err(into_database_error)?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(Opened { database, purpose: Purpose::Durable })),
            opener,
            name,
            path,
            history: RwLock::default(),
            compacted: AtomicU64::new(compacted),
            revision: watch::Sender::new(revision),
        });
        let (orders, queue) = mpsc::channel(QUEUE);
        let for_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(&for_writer, queue, retention))
            .map_err(redb::StorageError::Io)?;
        Ok(RedbStore { shared, orders: Mutex::new(Some(orders)), writer: Mutex::new(Some(writer)) })
    }

    /// Accepts no more writes; answers with what finishes those that were accepted and closes the file.
    fn closing(&self) -> impl FnOnce() + Send + 'static {
        self.orders.lock().take();
        let (writer, shared) = (self.writer.lock().take(), self.shared.clone());
        move || {
            if writer.is_some_and(|writer| writer.join().is_err()) {
                tracing::error!("the store's writer panicked");
            }
            shared.database.write().take();
        }
    }

    async fn order<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let orders = self.orders.lock().clone().ok_or(StoreError::Closed)?;
        orders.send(make(answer)).await.map_err(|_| StoreError::Closed)?;
        // The writer ends when nobody holds on to its queue any more.
        drop(orders);
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.closing()();
    }
}

#[async_trait]
impl Store for RedbStore {
    fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.shared.read(|snapshot| {
            let versions = snapshot.open_table(VERSIONS)?;
            newest(&versions, key, u64::MAX)
        })
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let mut page = Page::default();
        page.revision = self.scan(range, &mut |found| {
            if range.limit > 0 && page.items.len() == range.limit {
                page.remaining += 1;
            } else {
                page.items.push(found.to_key_value());
            }
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    fn scan(
        &self,
        range: &Range,
        look: &mut dyn FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let (revision, newest) = self.shared.read(|snapshot| scan(snapshot, range, look))?;
        self.shared.check_kept(revision, newest)?;
        Ok(revision)
    }

    fn events(&self, prefix: &str, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        if let Some(page) = self.shared.history.read().page(prefix, after, limit) {
            self.shared.check_kept(after, page.through)?;
            return Ok(page);
        }
        let page = self.shared.read(|snapshot| read_events(snapshot, prefix, after, limit))?;
        self.shared.check_kept(after, page.through)?;
        Ok(page)
    }

    async fn write(&self, write: Write) -> Result<u64, StoreError> {
        self.order(|answer| Order::Write(write, answer)).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.order(|answer| Order::Compact(revision, answer)).await
    }

    fn health(&self) -> Result<(), StoreError> {
        self.shared.read(|_| Ok(()))
    }

    async fn close(&self) {
        // Waits for the writer's thread.
        if let Err(panic) = tokio::task::spawn_blocking(self.closing()).await {
            tracing::error!(%panic, "cannot close the store");
        }
    }
}

impl Shared {
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.read();
        let open = database.as_ref().ok_or(StoreError::Closed)?;
        let snapshot = open.database.begin_read().map_err(|e| self.failure(e.into()))?;
        read(&snapshot).map_err(|e| self.failure(e))
    }

    /// To be asked after reading, because compaction may run meanwhile.
    fn check_kept(&self, requested: u64, current: u64) -> Result<(), StoreError> {
        let oldest = self.compacted.load(Ordering::Acquire);
        if requested < oldest {
            return Err(StoreError::Compacted { requested, oldest });
        }
        if requested > current {
            return Err(StoreError::Future { requested, current });
        }
        Ok(())
    }

    pub(super) fn failure(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                StoreError::Full(self.name.clone())
            }
            other => StoreError::Failed(format!("{}: {other}", self.name)),
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Without the check a damaged page could surface as a panic long after the start.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Makes the tables of a new file; answers with the newest and the compacted revision.
pub(super) fn prepare(database: &Database) -> Result<(u64, u64), redb::Error> {
    let transaction = database.begin_write()?;
    let counters = {
        transaction.open_table(VERSIONS)?;
        transaction.open_table(LOG)?;
        let mut meta = transaction.open_table(META)?;
        let revision = meta.get(REVISION)?.map(|v| v.value());
        if revision.is_none() {
            meta.insert(REVISION, 1)?;
        }
        let compacted = meta.get(COMPACTED)?.map_or(0, |v| v.value());
        (revision.unwrap_or(1), compacted)
    };
    transaction.commit()?;
    Ok(counters)
}

fn into_database_error(error: redb::Error) -> redb::DatabaseError {
    redb::DatabaseError::Storage(match error {
        redb::Error::Io(e) => redb::StorageError::Io(e),
        other => redb::StorageError::Corrupted(other.to_string()),
    })
}

/// The newest version of `key` not after revision `at`; `None` when there is none or it is a removal.
pub(super) fn newest(
    versions: &impl ReadableTable<VersionId, Version>,
    key: &str,
    at: u64,
) -> Result<Option<KeyValue>, redb::Error> {
    // Without a lower bound, which would be looked up as well, in a page that holds little else.
    let Some(row) = versions.range(..=(key, at))?.next_back() else { return Ok(None) };
    let (id, version) = row?;
    let found = stored(id.value(), version.value()).filter(|found| found.key == key);
    Ok(found.map(|found| found.to_key_value()))
}

/// `None` for a removal.
fn stored<'a>(
    (key, mod_revision): (&'a str, u64),
    (create_revision, value): (u64, Option<&'a [u8]>),
) -> Option<Stored<'a>> {
    Some(Stored { key, value: value?, create_revision, mod_revision })
}

/// The revision at which was read, and the newest of the snapshot.
fn scan(
    snapshot: &ReadTransaction,
    range: &Range,
    look: &mut dyn FnMut(Stored<'_>) -> ControlFlow<()>,
) -> Result<(u64, u64), redb::Error> {
    let newest = snapshot.open_table(META)?.get(REVISION)?.map_or(1, |v| v.value());
    let revision = range.at.unwrap_or(newest);
    let versions = snapshot.open_table(VERSIONS)?;
    let start = match &range.after {
        Some(after) => (after.as_str(), u64::MAX),
        None => (range.prefix.as_str(), 0),
    };
    let mut show = |(id, version): Row<'_>| stored(id.value(), version.value()).map_or(GO_ON, &mut *look);
    // The newest version so far of the key that is being passed.
    let mut candidate: Option<Row<'_>> = None;
    for row in versions.range(start..)? {
        let row = row?;
        let (key, written) = row.0.value();
        if !key.starts_with(&range.prefix) {
            break;
        }
        if range.after.as_deref() == Some(key) || written > revision {
            continue;
        }
        let same = candidate.as_ref().is_some_and(|(id, _)| id.value().0 == key);
        let done = candidate.replace(row);
        if let Some(done) = done.filter(|_| !same)
            && show(done).is_break()
        {
            return Ok((revision, newest));
        }
    }
    if let Some(last) = candidate {
        let _ = show(last);
    }
    Ok((revision, newest))
}

const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

type Row<'a> = (redb::AccessGuard<'a, VersionId>, redb::AccessGuard<'a, Version>);

fn read_events(
    snapshot: &ReadTransaction,
    prefix: &str,
    after: u64,
    limit: usize,
) -> Result<EventPage, redb::Error> {
    let newest_revision = snapshot.open_table(META)?.get(REVISION)?.map_or(1, |v| v.value());
    let mut page = EventPage { events: Vec::new(), through: newest_revision };
    let mut bytes = 0;
    let (log, versions) = (snapshot.open_table(LOG)?, snapshot.open_table(VERSIONS)?);
    for row in log.range(after.saturating_add(1)..)? {
        let (revision, entry) = row?;
        let (revision, key) = (revision.value(), entry.value().0);
        if !key.starts_with(prefix) {
            continue;
        }
        let event = Event {
            revision,
            key: key.to_owned(),
            value: newest(&versions, key, revision)?.map(|kv| kv.value),
            previous: newest(&versions, key, revision - 1)?.map(|kv| kv.value),
        };
        bytes += history::size(&event);
        page.events.push(Arc::new(event));
        if history::is_full(&page, bytes, limit) {
            page.through = revision;
            break;
        }
    }
    Ok(page)
}

/// Secrets are among the objects: nobody else may read the file.
fn open_private(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}
