//! Looks, gives back, evicts: one pod at a time.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use podlog_serving::metrics::{Counters, Registry};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::limits;
use super::message;
use super::observe::Places;
use super::pressure::{Gauge, Look, Observations, is_crossed};
use super::rank::{Candidate, Resource, rank};
use super::reclaim::{self, Step};
use crate::config::{EvictionThreshold, Signal};
use crate::events::Level;
use crate::images::ImageCollector;
use crate::pods::{Context, EVICTED, Ending, PodId, Pods, grace_period, is_critical};
use crate::runtime::Images;
use crate::usage::{self, Disks, Parts, PodUsage};

/// How often the machine is looked at. Upstream does so every 10 s; disks fill in less.
const LOOK: Duration = Duration::from_secs(1);
/// How often pods' limits of local storage are looked at, and how long after a vain attempt the next one is made.
const ROUND: Duration = Duration::from_secs(10);
/// How often images are looked after when nothing presses.
const IMAGES: Duration = Duration::from_secs(300);
/// How long an evicted pod may take to be gone before the next one has to go.
const CLEANUP: Duration = Duration::from_secs(30);
const CLEANUP_LOOK: Duration = Duration::from_millis(200);
/// What a pod gets to end when there is no time to lose.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What came of an attempt to make room.
enum Outcome {
    /// This pod has to go.
    Evicted(Arc<Pod>),
    /// Enough was given back.
    GaveBack,
    /// There was nothing to be had.
    Nothing,
}

/// Keeps the node usable.
pub(crate) struct EvictionManager {
    context: Arc<Context>,
    pods: Pods,
    gauge: Gauge,
    places: Places,
    images: ImageCollector,
    evictions: Counters,
    /// When something is done next about thresholds, limits, and images.
    react: Instant,
    limits: Instant,
    collect: Instant,
}

impl EvictionManager {
    pub(crate) fn new(context: Arc<Context>, pods: Pods, metrics: &Registry) -> Self {
        let now = Instant::now();
        EvictionManager {
            gauge: Gauge::new(&context.config.eviction),
            places: Places { nodefs: context.layout.root().to_owned(), imagefs: None },
            images: ImageCollector::new(context.runtime.clone(), context.config.image_gc),
            evictions: metrics.counters(
                "kubelet_evictions",
                "Cumulative number of pod evictions by eviction signal",
                &["eviction_signal"],
            ),
            react: now,
            limits: now,
            collect: now,
            context,
            pods,
        }
    }

    /// Looks for the first time, so that what presses is known before any pod starts.
    pub(crate) async fn prepare(&mut self) {
        self.look().await;
    }

    /// Looks and acts until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if shutdown.run_until_cancelled(self.round()).await.is_none() {
                return;
            }
        }
    }

    async fn round(&mut self) {
        let (look, seen) = self.look().await;
        let now = Instant::now();
        if now >= self.collect {
            self.collect = now + IMAGES;
            self.collect_images(&seen).await;
        }
        if now >= self.limits {
            self.limits = now + ROUND;
            let evicted = self.enforce_limits().await;
            if !evicted.is_empty() {
                self.wait_for(&evicted).await;
                return;
            }
        }
        if !look.due.is_empty() && now >= self.react {
            match self.react(&look, &seen).await {
                Outcome::Evicted(pod) => self.wait_for(&[pod]).await,
                Outcome::GaveBack => {}
                Outcome::Nothing => self.react = Instant::now() + ROUND,
            }
        }
    }

    async fn look(&mut self) -> (Look, Observations) {
        self.find_images().await;
        let seen = self.places.look();
        let look = self.gauge.look(&seen, Instant::now());
        let (before, after) = (self.context.pressures.now(), look.pressure);
        if before != after {
            tracing::warn!(conditions = ?after.conditions(), "pressure on this node has changed");
        }
        self.context.pressures.set(after);
        (look, seen)
    }

    /// Where images are: asked until the runtime says it.
    async fn find_images(&mut self) {
        if self.places.imagefs.is_some() || self.context.runtime.images() == Images::Unused {
            return;
        }
        let asked: Result<Option<PathBuf>, _> =
            match timeout(LOOK, self.context.runtime.image_directory()).await {
                Ok(answer) => answer,
                Err(_) => return,
            };
        match asked {
            Ok(directory) => self.places.imagefs = directory,
            Err(error) => tracing::debug!(%error, "cannot ask where images are"),
        }
    }

    /// Evicts every pod that uses more local storage than it may.
    async fn enforce_limits(&self) -> Vec<Arc<Pod>> {
        if !self.context.config.local_storage_isolation {
            return Vec::new();
        }
        let limited: Vec<_> = self.pods.active().into_iter().filter(|pod| limits::has_any(pod)).collect();
        if limited.is_empty() {
            return Vec::new();
        }
        let usage = self.usage(&limited, Disks::Measured).await;
        let with_layers = !self.places.is_imagefs_dedicated();
        let mut evicted = Vec::new();
        for pod in limited {
            let used = usage.get(&PodId::of(&pod).uid);
            let Some(crossed) = used.and_then(|used| limits::crossed(&pod, used, with_layers)) else {
                continue;
            };
            let ending = Ending::evicted(crossed.message, AT_ONCE, false);
            if self.evict(&pod, ending, BTreeMap::new(), crossed.signal) {
                evicted.push(pod);
            }
        }
        evicted
    }

    async fn usage(&self, pods: &[Arc<Pod>], disks: Disks) -> HashMap<String, PodUsage> {
        usage::of_pods(&self.context, pods, disks).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot find out what pods use");
            HashMap::new()
        })
    }

    /// Does something about the most urgent threshold.
    async fn react(&mut self, look: &Look, seen: &Observations) -> Outcome {
        let Some(urgent) = look.due.first().copied() else { return Outcome::Nothing };
        let resource = Resource::of(urgent.signal);
        let message = format!("Attempting to reclaim {}", resource.name());
        self.context.events.node(&self.context.node.name, Level::Warning, "EvictionThresholdMet", message);
        if self.reclaim(urgent.signal, &look.due).await {
            tracing::info!(resource = resource.name(), "enough was given back without evicting a pod");
            return Outcome::GaveBack;
        }
        let active = self.pods.active();
        let disks = match resource {
            Resource::Memory | Resource::Pids => Disks::Skipped,
            Resource::EphemeralStorage | Resource::Inodes => Disks::Measured,
        };
        let usage = self.usage(&active, disks).await;
        let mut candidates: Vec<_> = active
            .into_iter()
            .map(|pod| Candidate { usage: usage.get(&PodId::of(&pod).uid).cloned(), pod })
            .collect();
        rank(&mut candidates, resource, self.parts(urgent.signal));
        let evicted = candidates.into_iter().find(|candidate| self.make_room(candidate, urgent, look, seen));
        evicted.map_or_else(
            || {
                tracing::warn!(resource = resource.name(), "nothing is left that could be evicted");
                Outcome::Nothing
            },
            |candidate| Outcome::Evicted(candidate.pod),
        )
    }

    fn make_room(
        &self,
        candidate: &Candidate,
        urgent: EvictionThreshold,
        look: &Look,
        seen: &Observations,
    ) -> bool {
        let (pod, resource) = (&candidate.pod, Resource::of(urgent.signal));
        let (text, annotations) = message::message(resource, pod, candidate.usage.as_ref(), &look.due, seen);
        let ending = Ending::evicted(text, self.grace(pod, urgent), true);
        self.evict(pod, ending, annotations, urgent.signal.name())
    }

    /// One second, or after a soft threshold the shorter of what the pod asks for and what it may ask for.
    fn grace(&self, pod: &Pod, threshold: EvictionThreshold) -> Duration {
        if threshold.is_hard() {
            return AT_ONCE;
        }
        let own = grace_period(pod);
        let most = u64::try_from(self.context.config.eviction.max_pod_grace_seconds);
        most.map_or(own, |most| own.min(Duration::from_secs(most))).max(AT_ONCE)
    }

    /// What of a pod counts: what lies on the file system that is short.
    fn parts(&self, signal: Signal) -> Parts {
        match (signal, self.places.is_imagefs_dedicated()) {
            (_, false) => Parts::All,
            (Signal::ImagefsAvailable | Signal::ImagefsInodesFree, true) => Parts::WritableLayers,
            (_, true) => Parts::LogsAndVolumes,
        }
    }

    /// How many bytes are missing for all to be well; as many as there are where it is inodes that are short.
    fn missing(&self, due: &[EvictionThreshold]) -> u64 {
        let seen = self.places.look();
        let missing = due.iter().filter_map(|threshold| {
            let seen = seen.get(&threshold.signal)?;
            Some(match Resource::of(threshold.signal) {
                Resource::EphemeralStorage => threshold.wanted(seen.all).saturating_sub(seen.left),
                Resource::Inodes => u64::MAX,
                Resource::Memory | Resource::Pids => 0,
            })
        });
        missing.max().unwrap_or(0)
    }

    /// Gives back what is least missed, step by step. Returns whether that was enough.
    async fn reclaim(&mut self, signal: Signal, due: &[EvictionThreshold]) -> bool {
        for step in reclaim::steps(signal, self.places.is_imagefs_dedicated()) {
            match step {
                Step::DeletedPods => {
                    let is_there = self.places.is_about(signal, self.context.layout.all_logs());
                    let missing = if is_there { self.missing(due) } else { 0 };
                    let bytes = reclaim::deleted_pods(&self.context, missing).await;
                    tracing::info!(bytes, "gave up logs of deleted pods");
                }
                Step::EndedPods => {
                    let containers = reclaim::ended_pods(&self.context, &self.pods).await;
                    tracing::info!(containers, "removed what was left of ended pods");
                }
                Step::UnusedImages => match self.images.free(u64::MAX, Instant::now()).await {
                    Ok(freed) => tracing::info!(?freed, "removed unused images"),
                    Err(error) => tracing::warn!(%error, "cannot remove unused images"),
                },
            }
            let seen = self.places.look();
            if !due.iter().any(|threshold| is_crossed(threshold, &seen, true)) {
                return true;
            }
        }
        false
    }

    /// Tells a pod to end, unless it is one that has to stay.
    fn evict(
        &self,
        pod: &Arc<Pod>,
        ending: Ending,
        annotations: BTreeMap<String, String>,
        signal: &str,
    ) -> bool {
        let id = PodId::of(pod);
        if is_critical(pod) {
            tracing::warn!(pod = %id, "a critical pod is not evicted");
            return false;
        }
        let message = ending.message.clone();
        if !self.pods.end(&id.uid, ending) {
            return false;
        }
        tracing::warn!(pod = %id, message, "evicting a pod");
        self.context.events.annotated(pod, Level::Warning, EVICTED, message, annotations);
        self.evictions.with(&[signal]).increment();
        true
    }

    /// Waits until nothing of these pods runs any more and their volumes are gone, or for a while.
    async fn wait_for(&self, pods: &[Arc<Pod>]) {
        let gone = async {
            while !pods.iter().all(|pod| self.is_gone(&PodId::of(pod))) {
                sleep(CLEANUP_LOOK).await;
            }
        };
        if timeout(CLEANUP, gone).await.is_err() {
            tracing::warn!("an evicted pod is not gone yet");
        }
    }

    fn is_gone(&self, id: &PodId) -> bool {
        let status = self.context.statuses.get(id);
        let has_ended = status.is_none_or(|status| status.phase.as_deref() == Some("Failed"));
        has_ended && !self.context.layout.pod(&id.uid).join("volumes").exists()
    }

    /// Looks after images: removes old ones, and unused ones where they take too much room.
    async fn collect_images(&mut self, seen: &Observations) {
        let now = Instant::now();
        if let Err(error) = self.images.look(now).await {
            tracing::warn!(%error, "cannot look after images");
            return;
        }
        let room = seen.get(&Signal::ImagefsAvailable);
        let Some(bytes) = room.and_then(|room| self.context.config.image_gc.surplus(room.left, room.all))
        else {
            return;
        };
        match self.images.free(bytes, now).await {
            Ok(freed) if freed.bytes >= bytes => {}
            Ok(freed) => {
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found {} \
                     bytes eligible to free.",
                    freed.bytes
                );
                let node = &self.context.node.name;
                self.context.events.node(node, Level::Warning, "FreeDiskSpaceFailed", message);
            }
            Err(error) => tracing::warn!(%error, "cannot remove unused images"),
        }
    }
}
