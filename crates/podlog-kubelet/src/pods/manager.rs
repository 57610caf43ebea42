//! Follows the pods that are bound to this node and keeps one worker for each.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::dead_containers::surplus;
use super::ending::Ending;
use super::labels;
use super::spec::{self, PodId};
use super::worker::{Wanted, Worker};
use crate::runtime::{ContainerEvent, ContainerId, ContainerState, SandboxId};
use crate::static_pods::{Mirrors, is_mirror, is_static};

/// How often the runtime is asked for what its events may have left out.
const RELIST: Duration = Duration::from_secs(10);

/// The pods of this node as the API has them, and as they were reported last.
#[derive(Clone)]
pub(crate) struct Pods {
    known: Arc<Mutex<HashMap<String, Known>>>,
    /// Counts up whenever a container has ended.
    endings: watch::Sender<u64>,
}

impl Default for Pods {
    fn default() -> Self {
        Pods { known: Arc::default(), endings: watch::Sender::new(0) }
    }
}

struct Known {
    id: PodId,
    /// How many were known before it.
    number: u64,
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
}

impl Pods {
    /// A pod by namespace and name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let known = self.known.lock();
        let same = known.values().filter(|known| known.id.namespace == namespace && known.id.name == name);
        // A pod may be gone while its successor of the same name is there already, or is gone as well.
        let found = same.max_by_key(|known| (!known.wanted.borrow().removed, known.number))?;
        Some(found.wanted.borrow().pod.clone())
    }

    /// All pods.
    pub(crate) fn all(&self) -> Vec<Arc<Pod>> {
        let known = self.known.lock();
        let mut pods: Vec<_> = known.values().map(|known| known.wanted.borrow().pod.clone()).collect();
        pods.sort_by(|a, b| {
            (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
        });
        pods
    }

    /// Pods that have not ended and are not being ended by the kubelet itself.
    pub(crate) fn active(&self) -> Vec<Arc<Pod>> {
        let known = self.known.lock();
        let wanted = known.values().map(|known| known.wanted.borrow());
        let active = wanted
            .filter(|wanted| !wanted.removed && wanted.ending.is_none() && !spec::is_terminal(&wanted.pod));
        active.map(|wanted| wanted.pod.clone()).collect()
    }

    /// Has a pod ended. Returns whether there is one that was not being ended already.
    pub(crate) fn end(&self, uid: &str, ending: Ending) -> bool {
        let known = self.known.lock();
        known.get(uid).is_some_and(|known| {
            known.wanted.send_if_modified(|wanted| {
                let is_news = wanted.ending.is_none();
                wanted.ending.get_or_insert(ending);
                is_news
            })
        })
    }

    /// Changes whenever some container has ended.
    pub(crate) fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }

    /// Makes a pod's worker look again.
    fn wake(&self, uid: &str) {
        if let Some(known) = self.known.lock().get(uid) {
            known.wake.notify_one();
        }
    }
}

/// Where pods come from.
pub(crate) struct PodSources {
    /// The API, with pods bound to this node; `None` where there is none.
    pub(crate) api: Option<kube::Client>,
    /// Complete lists of static pods; `None` where there are none.
    pub(crate) manifests: Option<mpsc::Receiver<Vec<Arc<Pod>>>>,
}

/// Keeps one worker for each pod.
pub(crate) struct PodManager {
    context: Arc<Context>,
    pods: Pods,
    mirrors: Mirrors,
    /// Static pods as they should be; `None` until manifests were read.
    manifests: Option<Vec<Arc<Pod>>>,
    /// Uids of the API's pods when they were listed last; `None` before.
    listed: Option<HashSet<String>>,
    workers: JoinSet<String>,
    /// Pods that were known so far.
    count: u64,
    shutdown: CancellationToken,
    /// State of each container when it was listed last.
    states: HashMap<ContainerId, ContainerState>,
    owners: HashMap<SandboxId, String>,
}

impl PodManager {
    pub(crate) fn new(
        context: Arc<Context>,
        pods: Pods,
        mirrors: Mirrors,
        shutdown: CancellationToken,
    ) -> Self {
        PodManager {
            context,
            pods,
            mirrors,
            manifests: None,
            listed: None,
            workers: JoinSet::new(),
            count: 0,
            shutdown,
            states: HashMap::new(),
            owners: HashMap::new(),
        }
    }

    /// Works until shutdown, then waits for the workers to let go. Containers keep running.
    pub(crate) async fn run(mut self, sources: PodSources, node: String) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let stream = match sources.api {
            Some(client) => watcher(Api::<Pod>::all(client), config).default_backoff().boxed(),
            None => {
                self.listed = Some(HashSet::new());
                futures_util::stream::pending().boxed()
            }
        };
        let mut stream = pin!(stream);
        let mut manifests = sources.manifests;
        if manifests.is_none() {
            self.want_static(Vec::new()).await;
        }
        let mut events = self.context.runtime.events();
        let mut relist = interval(RELIST);
        let mut listing: Option<Vec<Arc<Pod>>> = None;
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = stream.try_next() => match event {
                    Ok(Some(event)) => self.watched(event, &mut listing).await,
                    Ok(None) => break,
                    Err(error) => tracing::warn!(%error, "cannot watch pods, trying again"),
                },
                Some(pods) = next_list(&mut manifests) => self.want_static(pods).await,
                Some(event) = events.recv() => self.happened(&event).await,
                _ = relist.tick() => self.relist().await,
                Some(done) = self.workers.join_next() => {
                    if let Ok(uid) = done {
                        self.pods.known.lock().remove(&uid);
                    }
                    // One of the same name may have waited for it.
                    self.start_static();
                }
            }
        }
        while self.workers.join_next().await.is_some() {}
    }

    async fn watched(&mut self, event: watcher::Event<Pod>, listing: &mut Option<Vec<Arc<Pod>>>) {
        match event {
            watcher::Event::Apply(pod) if is_mirror(&pod) => self.mirrors.seen(&pod),
            watcher::Event::Delete(pod) if is_mirror(&pod) => self.mirrors.gone(&pod),
            watcher::Event::Apply(pod) => self.want(Arc::new(pod), false),
            watcher::Event::Delete(pod) => self.want(Arc::new(pod), true),
            watcher::Event::Init => *listing = Some(Vec::new()),
            watcher::Event::InitApply(pod) => listing.get_or_insert_default().push(Arc::new(pod)),
            watcher::Event::InitDone => {
                let all = listing.take().unwrap_or_default();
                self.replace(all).await;
            }
        }
    }

    /// Takes over a complete list of the API: what is not in it is gone.
    async fn replace(&mut self, pods: Vec<Arc<Pod>>) {
        let (mirrors, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_mirror(pod));
        self.mirrors.listed(&mirrors);
        let uids: HashSet<String> = pods.iter().map(|pod| PodId::of(pod).uid).collect();
        self.remove_others(&uids, |pod| !is_static(pod));
        for pod in pods {
            self.want(pod, false);
        }
        self.listed = Some(uids);
        self.clean_up().await;
    }

    /// Takes over a complete list of static pods.
    async fn want_static(&mut self, pods: Vec<Arc<Pod>>) {
        let uids: HashSet<String> = pods.iter().map(|pod| PodId::of(pod).uid).collect();
        self.remove_others(&uids, is_static);
        let is_first = self.manifests.is_none();
        self.manifests = Some(pods);
        self.start_static();
        if is_first {
            self.clean_up().await;
        }
    }

    /// Starts what there should be. A pod of the same name must have ended before.
    fn start_static(&mut self) {
        let pods = self.manifests.clone().unwrap_or_default();
        for pod in &pods {
            let id = PodId::of(pod);
            let is_in_the_way =
                |other: &Known| (&other.id.namespace, &other.id.name) == (&id.namespace, &id.name);
            let is_free = !self.pods.known.lock().values().any(is_in_the_way);
            if is_free {
                self.want(pod.clone(), false);
            }
        }
        if self.manifests.is_some() {
            self.mirrors.want(&pods);
        }
    }

    /// Ends the pods of a kind that are not among `uids`.
    fn remove_others(&mut self, uids: &HashSet<String>, is_of_kind: impl Fn(&Pod) -> bool) {
        for pod in self.pods.all() {
            if is_of_kind(&pod) && !uids.contains(pod.metadata.uid.as_deref().unwrap_or_default()) {
                self.want(pod, true);
            }
        }
    }

    fn want(&mut self, pod: Arc<Pod>, removed: bool) {
        let id = PodId::of(&pod);
        let mut known = self.pods.known.lock();
        if let Some(known) = known.get(&id.uid) {
            known.wanted.send_if_modified(|wanted| {
                let changed =
                    !Arc::ptr_eq(&wanted.pod, &pod) && wanted.pod != pod || wanted.removed != removed;
                (wanted.pod, wanted.removed) = (pod, removed);
                changed
            });
            return;
        }
        let (sender, receiver) = watch::channel(Wanted { pod, removed, ending: None });
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(self.context.clone(), receiver, wake.clone());
        let (shutdown, uid) = (self.shutdown.clone(), id.uid.clone());
        self.workers.spawn(async move {
            worker.run(shutdown).await;
            uid
        });
        known.insert(id.uid.clone(), Known { id, number: self.count, wanted: sender, wake });
        self.count += 1;
    }

    /// Ends and removes what is left of pods that were deleted while nobody was looking, once all sources have said what
    /// they want.
    async fn clean_up(&mut self) {
        let (Some(wanted), Some(manifests)) = (&self.listed, &self.manifests) else { return };
        let mut wanted = wanted.clone();
        wanted.extend(manifests.iter().map(|pod| PodId::of(pod).uid));
        let known: HashSet<String> = self.pods.known.lock().keys().cloned().collect();
        let is_orphan = |uid: &str| !wanted.contains(uid) && !known.contains(uid);
        let kept = self.context.retained.uids();
        let mut orphans: HashMap<String, PodId> = HashMap::new();
        if let Ok(sandboxes) = self.context.runtime.list_pod_sandboxes(None).await {
            let owners = sandboxes.iter().filter_map(|sandbox| labels::owner(&sandbox.config.labels));
            orphans.extend(owners.filter(|id| is_orphan(&id.uid)).map(|id| (id.uid.clone(), id)));
        }
        let logged = self.context.layout.logged_pods().into_iter();
        orphans.extend(
            logged.filter(|id| is_orphan(&id.uid) && !kept.contains(&id.uid)).map(|id| (id.uid.clone(), id)),
        );
        for uid in self.context.layout.pods().into_iter().filter(|uid| is_orphan(uid)) {
            let nameless = PodId { namespace: String::new(), name: String::new(), uid: uid.clone() };
            orphans.entry(uid).or_insert(nameless);
        }
        for id in orphans.into_values() {
            tracing::info!(pod = %id, "the pod is gone: removing what it left");
            self.want(Arc::new(bare_pod(&id)), true);
        }
    }

    /// Something happened in a sandbox.
    async fn happened(&mut self, event: &ContainerEvent) {
        let sandbox = &event.sandbox;
        if event.state == ContainerState::Exited {
            self.pods.endings.send_modify(|count| *count += 1);
        }
        if !self.owners.contains_key(sandbox) {
            self.read_owners().await;
        }
        if let Some(uid) = self.owners.get(sandbox) {
            self.pods.wake(uid);
        }
    }

    async fn read_owners(&mut self) {
        let Ok(sandboxes) = self.context.runtime.list_pod_sandboxes(None).await else { return };
        self.owners = sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.config.uid)).collect();
    }

    /// Wakes the workers of containers whose state is not what it was.
    async fn relist(&mut self) {
        let Ok(containers) = self.context.runtime.list_containers(None).await else { return };
        if let Some(total) = self.context.config.dead_containers.total {
            let surplus = surplus(&containers, total);
            self.context.surplus.set(surplus.clone());
            let owners = containers.iter().filter(|container| surplus.contains(&container.id));
            owners
                .filter_map(|container| labels::owner(&container.labels))
                .for_each(|id| self.pods.wake(&id.uid));
        }
        let mut states = HashMap::new();
        for container in containers {
            if self.states.get(&container.id) != Some(&container.state)
                && let Some(owner) = labels::owner(&container.labels)
            {
                self.pods.wake(&owner.uid);
            }
            states.insert(container.id, container.state);
        }
        self.states = states;
    }
}

async fn next_list(manifests: &mut Option<mpsc::Receiver<Vec<Arc<Pod>>>>) -> Option<Vec<Arc<Pod>>> {
    match manifests {
        Some(manifests) => manifests.recv().await,
        None => std::future::pending().await,
    }
}

/// A pod of which only the identity is known.
fn bare_pod(id: &PodId) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = Some(id.name.clone());
    pod.metadata.namespace = Some(id.namespace.clone());
    pod.metadata.uid = Some(id.uid.clone());
    pod.metadata.deletion_grace_period_seconds = Some(30);
    pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_last_who_has_it() {
        let pods = Pods::default();
        let find = || pods.find("default", "web").and_then(|pod| pod.metadata.uid.clone());
        let remove = |uid: &str| {
            let known = pods.known.lock();
            known[uid].wanted.send_modify(|wanted| wanted.removed = true);
        };
        assert_eq!(find(), None);
        // In a map, whose order is not theirs.
        let uids: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
        for (number, uid) in (0..).zip(&uids) {
            let id = PodId { namespace: "default".into(), name: "web".into(), uid: uid.clone() };
            let wanted = Wanted { pod: Arc::new(bare_pod(&id)), removed: false, ending: None };
            let wanted = watch::Sender::new(wanted);
            pods.known.lock().insert(uid.clone(), Known { id, number, wanted, wake: Arc::default() });
            assert_eq!(find().as_ref(), Some(uid), "it is not gone");
            remove(uid);
            assert_eq!(find().as_ref(), Some(uid), "all are gone");
        }
    }
}
