//! Logs of pods that are gone, within a budget.
//!
//! They stay in the directory they were written to, with a [`record`] of whose they are. What goes first is what was
//! deleted first; a pod that printed nothing leaves nothing.

mod contents;
mod record;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use podlog_api::Object;
use podlog_api::deleted_pods::Wanted;
use podlog_serving::metrics::{Counters, Registry};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfiguration;
use crate::layout::Layout;
use crate::pods::PodId;
use contents::Contents;
use record::Record;

/// How often it is looked whether logs have become too old.
const SWEEP: Duration = Duration::from_secs(60);
/// Pods whose logs are kept, however small these are: each costs files and memory.
const MAX_PODS: usize = 10_000;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of all logs of deleted pods together; zero keeps none.
    pub(crate) max_bytes: u64,
    /// Time since a pod was deleted; zero keeps none.
    pub(crate) max_age: Duration,
    /// Pods.
    pub(crate) max_pods: usize,
}

impl Budget {
    pub(crate) fn of(config: &KubeletConfiguration) -> Self {
        Budget {
            max_bytes: config.deleted_pod_log_max_bytes,
            max_age: config.deleted_pod_log_max_age,
            max_pods: MAX_PODS,
        }
    }

    fn is_nothing(&self) -> bool {
        self.max_bytes == 0 || self.max_age.is_zero() || self.max_pods == 0
    }
}

/// The logs of deleted pods of this node. Clones share them. Everything here works on files: not for async threads.
#[derive(Clone)]
pub(crate) struct RetainedLogs {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Layout,
    budget: Budget,
    index: Mutex<Index>,
    removed: OnceLock<Counters>,
}

/// By time of deletion, then in the order in which they were told. The time is that since the machine was started
/// ([`since_boot`]): nobody sets that clock.
type Key = (SignedDuration, u64);

#[derive(Default)]
struct Index {
    pods: BTreeMap<Key, Kept>,
    bytes: u64,
    /// Pods that were told of.
    count: u64,
}

#[derive(Clone)]
struct Kept {
    id: PodId,
    bytes: u64,
    deleted_at: Timestamp,
}

/// Why logs are given up, as the metric says it.
#[derive(Clone, Copy)]
enum Reason {
    Age,
    Size,
    Pressure,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Age => "age",
            Reason::Size => "size",
            Reason::Pressure => "pressure",
        }
    }
}

impl RetainedLogs {
    /// Finds what was kept before, and gives up what is too much or too old by now.
    pub(crate) fn open(layout: Layout, budget: Budget) -> Self {
        layout.finish_removals();
        let mut found: Vec<Kept> =
            layout.logged_pods().into_iter().filter_map(|id| kept(&layout, id)).collect();
        found.sort_by_key(|kept| kept.deleted_at);
        let (mut index, now, since_boot) = (Index::default(), Timestamp::now(), since_boot());
        for kept in found {
            // A clock that was ahead says that it is to be deleted in future.
            let age = now.duration_since(kept.deleted_at).max(SignedDuration::ZERO);
            index.insert(since_boot - age, kept);
        }
        let shared = Shared { layout, budget, index: Mutex::new(index), removed: OnceLock::new() };
        let logs = RetainedLogs { shared: Arc::new(shared) };
        logs.sweep(since_boot);
        logs
    }

    /// Shows what is kept, and what was given up, among the metrics.
    pub(crate) fn register(&self, registry: &Registry) {
        let (pods, bytes) = (self.clone(), self.clone());
        registry.gauge_of(
            "podlog_kubelet_deleted_pod_logs",
            "Number of deleted pods whose logs are kept",
            move || pods.shared.index.lock().pods.len() as f64,
        );
        registry.gauge_of(
            "podlog_kubelet_deleted_pod_log_bytes",
            "Bytes of logs of deleted pods that are kept",
            move || bytes.shared.index.lock().bytes as f64,
        );
        let removed = registry.counters(
            "podlog_kubelet_deleted_pod_logs_removed_total",
            "Number of deleted pods whose logs were given up, by why",
            &["reason"],
        );
        // Whoever asks twice gets the same counters.
        let _ = self.shared.removed.set(removed);
    }

    /// Gives up what has become too old, again and again, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut sweeps = interval(SWEEP);
        while shutdown.run_until_cancelled(sweeps.tick()).await.is_some() {
            let logs = self.clone();
            let swept = tokio::task::spawn_blocking(move || logs.sweep(since_boot())).await;
            if let Err(error) = swept {
                tracing::error!(%error, "giving up logs of deleted pods failed");
            }
        }
    }

    /// Writes down whose the logs of a pod are that is about to print something. One that was deleted before (a static pod
    /// that has come back) takes its logs back.
    pub(crate) fn begin(&self, pod: &Pod) {
        let id = PodId::of(pod);
        self.shared.index.lock().take(&id);
        let directory = self.shared.layout.pod_logs(&id);
        if let Err(error) = Record::of(pod, Timestamp::now()).write(&directory) {
            tracing::warn!(pod = %id, %error, "cannot write down whose a log is");
        }
    }

    /// Keeps the logs of a pod that is gone, as far as the budget goes.
    pub(crate) fn keep(&self, id: &PodId) {
        let (deleted_at, now) = (Timestamp::now(), since_boot());
        let directory = self.shared.layout.pod_logs(id);
        let bytes = Contents::read(&directory).bytes();
        if bytes == 0 || self.shared.budget.is_nothing() {
            return self.shared.layout.remove_logs(id);
        }
        let record = Record::read(&directory).unwrap_or_else(|| Record::unknown(id));
        // A full disk may be what the pod has ended of. The next kubelet finds a pod that nobody wants, and tries again.
        if let Err(error) = record.deleted(deleted_at).write(&directory) {
            tracing::warn!(pod = %id, %error, "cannot write down that a pod is deleted whose logs are kept");
        }
        self.shared.index.lock().insert(now, Kept { id: id.clone(), bytes, deleted_at });
        self.sweep(now);
    }

    /// The deleted pods whose logs are here.
    pub(crate) fn uids(&self) -> HashSet<String> {
        self.shared.index.lock().pods.values().map(|kept| kept.id.uid.clone()).collect()
    }

    /// A deleted pod: the one of this uid, or the one that was deleted last.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<PodId> {
        let index = self.shared.index.lock();
        let newest_first = index.pods.values().rev().map(|kept| &kept.id);
        let mut same = newest_first.filter(|id| id.namespace == namespace && id.name == name);
        same.find(|id| uid.is_none_or(|uid| id.uid == uid)).cloned()
    }

    /// What is there of deleted pods, in the words of [`podlog_api::deleted_pods`], last deleted first.
    pub(crate) fn list(&self, wanted: &Wanted) -> Vec<Object> {
        let kept: Vec<Kept> = {
            let index = self.shared.index.lock();
            let newest_first = index.pods.values().rev();
            newest_first.filter(|kept| wanted.is(&kept.id.namespace, &kept.id.name)).cloned().collect()
        };
        kept.iter().map(|kept| self.describe(kept)).collect()
    }

    fn describe(&self, Kept { id, deleted_at, .. }: &Kept) -> Object {
        let directory = self.shared.layout.pod_logs(id);
        let record = Record::read(&directory).unwrap_or_else(|| Record::unknown(id));
        record.deleted(*deleted_at).describe(id, &Contents::read(&directory))
    }

    /// Deletes logs of deleted pods, the oldest first, until so many bytes are free or none are left. Returns how many bytes
    /// were freed.
    pub(crate) fn give_up(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < bytes {
            let Some(kept) = self.shared.index.lock().take_oldest() else { break };
            freed += kept.bytes;
            self.remove(&kept, Reason::Pressure);
        }
        freed
    }

    /// Gives up what is older than allowed, or more.
    fn sweep(&self, now: SignedDuration) {
        while let Some((kept, reason)) = self.next_to_go(now) {
            self.remove(&kept, reason);
        }
    }

    fn next_to_go(&self, now: SignedDuration) -> Option<(Kept, Reason)> {
        let budget = &self.shared.budget;
        let mut index = self.shared.index.lock();
        let (deleted_at, _) = index.pods.keys().next()?;
        let age = SignedDuration::try_from(budget.max_age).unwrap_or(SignedDuration::MAX);
        let reason = if now - *deleted_at >= age {
            Reason::Age
        } else if index.bytes > budget.max_bytes || index.pods.len() > budget.max_pods {
            Reason::Size
        } else {
            return None;
        };
        Some((index.take_oldest()?, reason))
    }

    fn remove(&self, kept: &Kept, reason: Reason) {
        tracing::debug!(pod = %kept.id, reason = reason.name(), "the logs of a deleted pod are given up");
        self.shared.layout.remove_logs(&kept.id);
        if let Some(removed) = self.shared.removed.get() {
            removed.with(&[reason.name()]).increment();
        }
    }
}

/// The logs of a pod that was deleted before, if they are.
fn kept(layout: &Layout, id: PodId) -> Option<Kept> {
    let directory = layout.pod_logs(&id);
    let deleted_at = Record::read(&directory)?.deleted_at?;
    Some(Kept { bytes: Contents::read(&directory).bytes(), id, deleted_at })
}

/// How long the machine has been running, time asleep included.
fn since_boot() -> SignedDuration {
    let time = clock_gettime(ClockId::Boottime);
    SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or_default())
}

impl Index {
    /// `at` is the time since boot.
    fn insert(&mut self, at: SignedDuration, kept: Kept) {
        self.take(&kept.id);
        self.bytes += kept.bytes;
        self.count += 1;
        self.pods.insert((at, self.count), kept);
    }

    fn take(&mut self, id: &PodId) -> Option<Kept> {
        let (key, _) = self.pods.iter().find(|(_, kept)| kept.id.uid == id.uid)?;
        self.take_at(&key.clone())
    }

    fn take_oldest(&mut self) -> Option<Kept> {
        let key = *self.pods.keys().next()?;
        self.take_at(&key)
    }

    fn take_at(&mut self, key: &Key) -> Option<Kept> {
        let kept = self.pods.remove(key)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

#[cfg(test)]
mod tests;
