//! The one loop of all controllers: what changed → which keys → decide → do, again later when it failed.
//!
//! Each kind is watched once for all controllers. A controller works on one key at a time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podlog_api::{ApiError, Object, Reason, resource::Resource};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    action::Action,
    executor::Executor,
    objects::Objects,
    queue::WorkQueue,
    turns::{Slice, Turns},
};
use crate::registry::{Place, Registry, WatchEvent, codec};

/// Bytes of stored text that are read at once: a slice of the look at all objects with which every watch begins.
const BATCH_BYTES: usize = 64 << 10;

/// What a controller looks at in one go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Plural of the kind, for controllers of several kinds; else empty.
    pub(crate) kind: Option<&'static str>,
    /// Namespace; empty for cluster-scoped objects.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object.
    pub(crate) fn of(object: &Object) -> Self {
        Key::named(object.namespace(), object.name())
    }

    /// The key of that name.
    pub(crate) fn named(namespace: &str, name: &str) -> Self {
        Key { kind: None, namespace: namespace.into(), name: name.into() }
    }
}

/// The key of the object's managing owner, if that is of the kind.
pub(crate) fn owner_key(object: &Object, kind: &str) -> Option<Key> {
    let owner = super::objects::controller_of(object).filter(|owner| owner["kind"] == kind)?;
    Some(Key::named(object.namespace(), owner["name"].as_str()?))
}

/// A change of a watched object.
pub(crate) struct Change<'a> {
    /// Its kind.
    pub(crate) resource: &'static Resource,
    /// As it is now, or was last.
    pub(crate) object: &'a Object,
    /// As it was before, if it was there and that is known.
    pub(crate) previous: Option<&'a Object>,
    /// Whether it is gone.
    pub(crate) is_deletion: bool,
}

/// Something that brings objects from what they are to what they should be. It decides, and does nothing itself.
pub(crate) trait Controller: Send + Sync + 'static {
    /// Its name, for our log.
    fn name(&self) -> &'static str;

    /// The kinds whose changes matter to it.
    fn watches(&self) -> Vec<&'static Resource>;

    /// All objects of a kind are about to be reported: it is the start, or changes may have been missed.
    fn begin(&self, _resource: &'static Resource) {}

    /// The keys to look at after a change. Every object that exists at the start is reported once.
    ///
    /// # Errors
    /// When the store failed; everything is then reported again.
    fn keys(&self, change: &Change<'_>, objects: &dyn Objects) -> Result<Vec<Key>, ApiError>;

    /// What to do about a key at time `now`. Called again when it did not work out, and after changes.
    ///
    /// # Errors
    /// When the store failed.
    fn reconcile(&self, key: &Key, objects: &dyn Objects, now: Timestamp) -> Result<Vec<Action>, ApiError>;
}

/// A controller and its queue.
struct Worker {
    controller: Box<dyn Controller>,
    queue: WorkQueue,
}

/// Starts all controllers; they end when `shutdown` does.
pub(crate) fn spawn(
    registry: &Registry,
    controllers: Vec<Box<dyn Controller>>,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let workers: Vec<Arc<Worker>> = controllers
        .into_iter()
        .map(|controller| Arc::new(Worker { controller, queue: WorkQueue::default() }))
        .collect();
    let executor = Arc::new(Executor::new(registry.clone()));
    let turns = Turns::among(std::thread::available_parallelism().map_or(1, usize::from));
    let mut tasks = JoinSet::new();
    for resource in podlog_api::resource::all() {
        let interested: Vec<Arc<Worker>> =
            workers.iter().filter(|worker| watches(worker, resource)).cloned().collect();
        if !interested.is_empty() {
            let (registry, turns, shutdown) = (registry.clone(), turns.clone(), shutdown.clone());
            tasks.spawn(async move {
                let follower = Follower { registry, resource, workers: interested.into(), turns };
                shutdown.run_until_cancelled(follower.follow()).await;
            });
        }
    }
    for worker in workers {
        let (executor, turns, shutdown) = (executor.clone(), turns.clone(), shutdown.clone());
        tasks.spawn(async move {
            shutdown.run_until_cancelled(work(worker, executor, turns)).await;
        });
    }
    tasks
}

fn watches(worker: &Worker, resource: &'static Resource) -> bool {
    worker.controller.watches().into_iter().any(|watched| std::ptr::eq(watched, resource))
}

/// Tells controllers what changes of one kind.
struct Follower {
    registry: Registry,
    resource: &'static Resource,
    workers: Arc<[Arc<Worker>]>,
    turns: Turns,
}

impl Follower {
    /// Lists and watches, for ever; lists again when the watch fell behind.
    async fn follow(self) {
        let resource = self.resource;
        loop {
            if let Err(error) = self.follow_once().await {
                if error.reason != Reason::Expired {
                    tracing::warn!(resource = resource.plural, %error, "watch ended, listing again");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn follow_once(&self) -> Result<(), ApiError> {
        let (registry, resource) = (&self.registry, self.resource);
        self.workers.iter().for_each(|worker| worker.controller.begin(resource));
        let mut watch = registry.watch(resource, self.report_all().await?);
        loop {
            let event = watch.next().await?;
            let (object, previous, is_deletion) = match &event {
                WatchEvent::Added(object) => (object, None, false),
                WatchEvent::Modified { object, previous } => (object, Some(&**previous), false),
                WatchEvent::Deleted(object) => (object, None, true),
            };
            dispatch(registry, &self.workers, &Change { resource, object, previous, is_deletion })?;
        }
    }

    /// Reports everything that is there, and says at which revision it was so. Meanwhile others may write.
    async fn report_all(&self) -> Result<u64, ApiError> {
        let mut from = Place::default();
        loop {
            let (registry, resource, workers) = (self.registry.clone(), self.resource, self.workers.clone());
            let report = move |_| {
                let (batch, revision) = registry.batch(resource, None, &mut from, BATCH_BYTES)?;
                for stored in &batch {
                    let object = codec::decode(resource, &stored.value, stored.mod_revision)?;
                    let change = Change { resource, object: &object, previous: None, is_deletion: false };
                    dispatch(&registry, &workers, &change)?;
                }
                let next = if batch.is_empty() { Reported::All(revision) } else { Reported::UpTo(from) };
                Ok::<_, ApiError>(next)
            };
            match self.turns.slice(report).await?? {
                Reported::UpTo(place) => from = place,
                Reported::All(revision) => return Ok(revision),
            }
        }
    }
}

/// How much of all that there is has been reported.
enum Reported {
    UpTo(Place),
    /// Everything, as of this revision.
    All(u64),
}

fn dispatch(registry: &Registry, workers: &[Arc<Worker>], change: &Change<'_>) -> Result<(), ApiError> {
    for worker in workers {
        for key in worker.controller.keys(change, registry)? {
            worker.queue.add(key);
        }
    }
    Ok(())
}

async fn work(worker: Arc<Worker>, executor: Arc<Executor>, turns: Turns) {
    loop {
        let key = worker.queue.next().await;
        let (looker, registry) = (worker.clone(), executor.registry().clone());
        let looked = turns.slice(move |slice| look(&looker, &registry, key, slice)).await;
        let Ok((key, decided)) = looked.inspect_err(|panic| tracing::error!(%panic, "a controller panicked"))
        else {
            continue;
        };
        let done = match decided {
            Ok(actions) => executor.run(actions).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(again) => {
                worker.queue.forget_failures(&key);
                if let Some(delay) = again {
                    worker.queue.add_after(key, delay);
                }
            }
            Err(error) => {
                // Conflicts are others being faster: daily business.
                if error.reason != Reason::Conflict {
                    tracing::warn!(controller = worker.controller.name(), ?key, %error, "will try again");
                }
                worker.queue.add_failed(key);
            }
        }
    }
}

/// Looks at a key, and at the next ones that are due for as long as there is nothing to do: most looks come to nothing, above
/// all the first at every object that exists. Answers with the last key and what is to be done about it.
fn look(
    worker: &Worker,
    registry: &Registry,
    mut key: Key,
    slice: Slice,
) -> (Key, Result<Vec<Action>, ApiError>) {
    loop {
        let decided = worker.controller.reconcile(&key, registry, Timestamp::now());
        let nothing_to_do = decided.as_ref().is_ok_and(Vec::is_empty);
        if !nothing_to_do || slice.is_over() {
            return (key, decided);
        }
        worker.queue.forget_failures(&key);
        match worker.queue.next_due() {
            Some(next) => key = next,
            None => return (key, decided),
        }
    }
}
