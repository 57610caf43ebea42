//! The one thread that writes: it gathers what has queued up into one transaction, makes it durable with one fsync, and
//! only then acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{Database, ReadableTable};
use tokio::sync::{mpsc, oneshot};

use super::embedded::{
    COMPACTED, LOG, META, Opened, Purpose, REVISION, Retention, Shared, VERSIONS, Versions, newest, prepare,
};
use super::{Change, Event, KeyValue, StoreError, Unchanged, Write};

/// What callers ask of the writer.
pub(super) enum Order {
    Write(Write, oneshot::Sender<Result<u64, StoreError>>),
    Compact(u64, oneshot::Sender<Result<(), StoreError>>),
}

/// Writes of one transaction.
const BATCH: usize = 256;
/// Log entries that one compaction removes: more would hold up writers for too long.
const COMPACTION: usize = 1000;
/// Compaction is worth a transaction from this many stale entries on.
const STALE: u64 = 100;
/// Below this much room on the device writes are refused before they could damage anything.
const MIN_FREE_BYTES: u64 = 4 << 20;

/// Serves orders until all senders are gone.
pub(super) fn run(shared: &Shared, mut orders: mpsc::Receiver<Order>, retention: Retention) {
    while let Some(first) = orders.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(order) = orders.try_recv()
        {
            batch.push(order);
        }
        serve(shared, batch);
        if let Err(e) = compact_stale(shared, retention) {
            tracing::warn!(error = %e, "cannot compact the store");
        }
    }
}

fn serve(shared: &Shared, batch: Vec<Order>) {
    let mut writes = Vec::with_capacity(batch.len());
    for order in batch {
        match order {
            Order::Write(write, answer) => writes.push((write, answer)),
            Order::Compact(revision, answer) => {
                // An error means that nobody waits any more.
                let _ = answer.send(compact_all(shared, revision));
            }
        }
    }
    if writes.is_empty() {
        return;
    }
    let (writes, answers): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
    match commit(shared, &writes) {
        Ok(results) => {
            for (answer, result) in answers.into_iter().zip(results) {
                let _ = answer.send(result);
            }
        }
        Err(error) => {
            tracing::error!(%error, "cannot write to the store");
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// One transaction; publishes its events. The outer error means that none of the writes happened.
fn commit(shared: &Shared, writes: &[Write]) -> Result<Vec<Result<u64, StoreError>>, StoreError> {
    check_room(shared, writes)?;
    let mut events = Vec::with_capacity(writes.len());
    let (results, revision) = transaction(shared, |transaction| {
        let mut meta = transaction.open_table(META)?;
        // Not what was published: the file may have been opened anew, with more in it than was acknowledged.
        let mut revision = meta.get(REVISION)?.map_or(1, |v| v.value());
        let mut versions = transaction.open_table(VERSIONS)?;
        let mut log = transaction.open_table(LOG)?;
        let now = seconds_since_epoch();
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let current = newest(&versions, &write.key, u64::MAX)?;
            if !write.expected.holds(current.as_ref()) {
                results.push(Err(StoreError::Conflict(current)));
                continue;
            }
            if let Some(Unchanged { key, mod_revision }) = &write.beside
                && newest(&versions, key, u64::MAX)?.is_none_or(|kv| kv.mod_revision != *mod_revision)
            {
                results.push(Err(StoreError::Overtaken));
                continue;
            }
            revision += 1;
            store(&mut versions, write, current.as_ref(), revision)?;
            log.insert(revision, (write.key.as_str(), now))?;
            events.push(event(write, current, revision));
            results.push(Ok(revision));
        }
        meta.insert(REVISION, revision)?;
        Ok((results, revision))
    })?;
    shared.history.write().extend(events);
    shared.revision.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
    Ok(results)
}

fn store(
    versions: &mut Versions<'_>,
    write: &Write,
    current: Option<&KeyValue>,
    revision: u64,
) -> Result<(), redb::Error> {
    let value: Option<&[u8]> = match &write.change {
        Change::Put(value) => Some(value),
        Change::Delete => None,
    };
    let created = current.map_or(revision, |kv| kv.create_revision);
    versions.insert((write.key.as_str(), revision), (created, value))?;
    Ok(())
}

fn event(write: &Write, current: Option<KeyValue>, revision: u64) -> Arc<Event> {
    let value: Option<Bytes> = match &write.change {
        Change::Put(value) => Some(value.clone()),
        Change::Delete => None,
    };
    Arc::new(Event { revision, key: write.key.clone(), value, previous: current.map(|kv| kv.value) })
}

/// Runs `work` in one durable transaction. After a failure the file is opened anew, because redb refuses to go on.
fn transaction<T>(
    shared: &Shared,
    work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, StoreError> {
    if !is_durable(shared) {
        reopen(shared);
    }
    let done = match shared.database.read().as_ref() {
        Some(Opened { database, purpose: Purpose::Durable }) => {
            durable(database, work).map_err(|e| shared.failure(e))
        }
        // It has just been tried, in vain; the reason is in the log.
        Some(Opened { purpose: Purpose::ReadOnly, .. }) => Err(StoreError::Full(shared.name.clone())),
        None => Err(StoreError::Closed),
    };
    if done.is_err() {
        reopen(shared);
    }
    done
}

fn is_durable(shared: &Shared) -> bool {
    shared.database.read().as_ref().is_some_and(|opened| opened.purpose == Purpose::Durable)
}

fn durable<T>(
    database: &Database,
    work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let transaction = database.begin_write()?;
    let result = work(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Opens the file anew; for reads alone when it cannot be written.
fn reopen(shared: &Shared) {
    let mut slot = shared.database.write();
    // First gone, then back: the file is locked by whoever has it open.
    slot.take();
    let opened = open(shared, Purpose::Durable).or_else(|error| {
        tracing::error!(store = shared.name, %error, "cannot write the store; it can only be read");
        open(shared, Purpose::ReadOnly)
    });
    match opened {
        Ok((opened, revision)) => {
            // What failed may still have reached the file: its revisions must not be given out twice.
            shared.history.write().clear();
            shared.revision.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
            *slot = Some(opened);
        }
        Err(error) => tracing::error!(store = shared.name, %error, "cannot open the store again"),
    }
}

fn open(shared: &Shared, purpose: Purpose) -> Result<(Opened, u64), redb::Error> {
    let database = (shared.opener)(purpose)?;
    let (revision, _) = prepare(&database)?;
    Ok((Opened { database, purpose }, revision))
}

fn check_room(shared: &Shared, writes: &[Write]) -> Result<(), StoreError> {
    let Some(path) = &shared.path else { return Ok(()) };
    let size: usize =
        writes.iter().map(|w| if let Change::Put(value) = &w.change { value.len() } else { 0 }).sum();
    match rustix::fs::statvfs(path) {
        Ok(stat) if stat.f_bavail * stat.f_frsize < MIN_FREE_BYTES + 4 * size as u64 => {
            Err(StoreError::Full(shared.name.clone()))
        }
        _ => Ok(()),
    }
}

fn compact_stale(shared: &Shared, retention: Retention) -> Result<(), StoreError> {
    let compacted = shared.compacted.load(Ordering::Acquire);
    let newest = *shared.revision.borrow();
    if newest.saturating_sub(compacted) < STALE {
        return Ok(());
    }
    let by_count = newest.saturating_sub(retention.events);
    let by_age =
        newest_before(shared, seconds_since_epoch().saturating_sub(retention.age.as_secs()), compacted)?;
    let target = by_count.max(by_age);
    if target.saturating_sub(compacted) < STALE {
        return Ok(());
    }
    compact_some(shared, target).map(|_| ())
}

/// The newest revision before that time, as far as [`COMPACTION`] entries tell.
fn newest_before(shared: &Shared, seconds: u64, compacted: u64) -> Result<u64, StoreError> {
    use redb::ReadableDatabase;
    let database = shared.database.read();
    let open = database.as_ref().ok_or(StoreError::Closed)?;
    let find = || -> Result<u64, redb::Error> {
        let log = open.database.begin_read()?.open_table(LOG)?;
        let mut found = compacted;
        for row in log.range(compacted + 1..)?.take(COMPACTION) {
            let (revision, entry) = row?;
            if entry.value().1 >= seconds {
                break;
            }
            found = revision.value();
        }
        Ok(found)
    };
    find().map_err(|e| shared.failure(e))
}

fn compact_all(shared: &Shared, target: u64) -> Result<(), StoreError> {
    let current = *shared.revision.borrow();
    if target > current {
        return Err(StoreError::Future { requested: target, current });
    }
    while compact_some(shared, target)? < target {}
    Ok(())
}

/// Compacts up to `target`, or as far as [`COMPACTION`] entries go; answers how far.
fn compact_some(shared: &Shared, target: u64) -> Result<u64, StoreError> {
    let compacted = shared.compacted.load(Ordering::Acquire);
    if target <= compacted {
        return Ok(compacted);
    }
    // Published first: a reader that misses rows then also sees why.
    let reached = target.min(compacted + COMPACTION as u64);
    shared.compacted.store(reached, Ordering::Release);
    transaction(shared, |transaction| {
        let mut log = transaction.open_table(LOG)?;
        let mut versions = transaction.open_table(VERSIONS)?;
        let mut keys = std::collections::BTreeSet::new();
        for row in log.range(..=reached)? {
            keys.insert(row?.1.value().0.to_owned());
        }
        for key in &keys {
            forget_old_versions(&mut versions, key, reached)?;
        }
        log.retain_in(..=reached, |_, _| false)?;
        transaction.open_table(META)?.insert(COMPACTED, reached)?;
        Ok(())
    })?;
    Ok(reached)
}

/// Keeps the version that was current at `revision` unless it is a removal.
fn forget_old_versions(versions: &mut Versions<'_>, key: &str, revision: u64) -> Result<(), redb::Error> {
    let mut old = Vec::new();
    for row in versions.range((key, 0)..=(key, revision))? {
        let (id, version) = row?;
        old.push((id.value().1, version.value().1.is_some()));
    }
    if old.last().is_some_and(|(_, live)| *live) {
        old.pop();
    }
    for (revision, _) in old {
        versions.remove((key, revision))?;
    }
    Ok(())
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
