//! Following the logs of many pods as they come and go: `podlog up --follow`.
//!
//! After a restart or a broken connection a log is taken up where it stopped, without a line lost or printed twice.

mod follower;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use podlog_api::Object;
use podlog_api::selector::LabelSelector;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::follower::{Follower, Way};
use crate::logs::ByFrame;
use crate::manifest::Manifest;
use crate::output::{Gone, Output, SharedOutput, prefix};
use crate::{ClientError, Colour, Connection};

/// Which pods are followed.
#[derive(Clone, Debug, Default)]
pub struct PodSet {
    matches: Vec<PodMatch>,
}

/// Pods of one namespace.
#[derive(Clone, Debug)]
struct PodMatch {
    namespace: String,
    which: Which,
}

#[derive(Clone, Debug)]
enum Which {
    Named(String),
    Labelled(LabelSelector),
}

impl PodSet {
    /// The pods that manifests make: pods themselves, and those that workloads select. `namespace` is that of manifests
    /// that name none.
    pub fn of_manifests(manifests: &[Manifest], namespace: &str) -> Self {
        let matches = manifests.iter().filter_map(|manifest| PodMatch::of(&manifest.object, namespace));
        PodSet { matches: matches.collect() }
    }

    /// Adds the pods of a namespace with these labels.
    pub fn with_labels(mut self, namespace: impl Into<String>, labels: LabelSelector) -> Self {
        self.matches.push(PodMatch { namespace: namespace.into(), which: Which::Labelled(labels) });
        self
    }

    /// Whether no pod can ever be in it.
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    fn namespaces(&self) -> Vec<&str> {
        let mut namespaces: Vec<&str> = self.matches.iter().map(|one| one.namespace.as_str()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
    }

    fn contains(&self, pod: &Pod) -> bool {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let labels = pod.metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        self.matches.iter().any(|one| {
            Some(one.namespace.as_str()) == namespace
                && match &one.which {
                    Which::Named(wanted) => Some(wanted.as_str()) == name,
                    Which::Labelled(selector) => selector.matches(Some(&labels)),
                }
        })
    }
}

impl PodMatch {
    fn of(object: &Object, default_namespace: &str) -> Option<Self> {
        let which = match object.kind() {
            "Pod" => Which::Named(object.name().to_owned()),
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
                Which::Labelled(LabelSelector::from_value(object.at("/spec/selector")?).ok()?)
            }
            "Job" => {
                let mut labels = serde_json::Map::new();
                labels.insert("batch.kubernetes.io/job-name".into(), object.name().into());
                Which::Labelled(LabelSelector::from_labels(&Value::Object(labels)).ok()?)
            }
            _ => return None,
        };
        let namespace = if object.namespace().is_empty() { default_namespace } else { object.namespace() };
        Some(PodMatch { namespace: namespace.to_owned(), which })
    }
}

/// A container of a pod: names may come back, uids do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ContainerKey {
    uid: String,
    container: String,
}

/// What is known of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    restarts: i32,
    /// The instance has started, and may have ended.
    has_log: bool,
    ended: bool,
}

/// Follows all containers of the pods in `pods`, those that appear later and restarts included, until `cancel`. Every line
/// begins with pod and container.
///
/// # Errors
/// When `out` cannot be written. Failures of the network are tried again; `note` is told about them.
pub async fn follow_pods(
    connection: &Connection,
    pods: &PodSet,
    out: Box<dyn Write + Send>,
    colour: Colour,
    note: Arc<dyn Fn(&str) + Send + Sync>,
    cancel: CancellationToken,
) -> Result<(), ClientError> {
    let shared = SharedOutput::new(Output::new(out));
    let mut followers = Followers {
        connection: connection.clone(),
        shared: shared.clone(),
        colour,
        note,
        known: HashMap::new(),
        tasks: JoinSet::new(),
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = followers.watch(pods) => {}
    }
    followers.tasks.shutdown().await;
    drop(followers);
    shared.close().await
}

struct Followers {
    connection: Connection,
    shared: SharedOutput,
    colour: Colour,
    note: Arc<dyn Fn(&str) + Send + Sync>,
    known: HashMap<ContainerKey, watch::Sender<Progress>>,
    tasks: JoinSet<Result<(), Gone>>,
}

impl Followers {
    /// Returns when the output has gone.
    async fn watch(&mut self, pods: &PodSet) {
        let api = |namespace: &str| kube::Api::<Pod>::namespaced(self.connection.client().clone(), namespace);
        let watches = pods
            .namespaces()
            .into_iter()
            .map(|namespace| watcher(api(namespace), watcher::Config::default()).default_backoff().boxed());
        let mut events = pin!(stream::select_all(watches));
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) if pods.contains(&pod) => self.see(&pod),
                    Ok(watcher::Event::Delete(pod)) => self.forget(&pod),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "watching pods"),
                },
                Some(ended) = self.tasks.join_next() => {
                    if matches!(ended, Ok(Err(Gone))) {
                        return;
                    }
                }
            }
        }
    }

    fn see(&mut self, pod: &Pod) {
        let (Some(uid), Some(name), Some(namespace)) =
            (&pod.metadata.uid, &pod.metadata.name, &pod.metadata.namespace)
        else {
            return;
        };
        for status in container_statuses(pod) {
            let key = ContainerKey { uid: uid.clone(), container: status.name.clone() };
            let progress = progress(status);
            match self.known.get(&key) {
                Some(known) => {
                    known.send_if_modified(|known| std::mem::replace(known, progress) != progress);
                }
                None if progress.has_log => {
                    let (sender, receiver) = watch::channel(progress);
                    self.known.insert(key, sender);
                    self.start(namespace, name, &status.name, receiver);
                }
                None => {}
            }
        }
    }

    fn start(&mut self, namespace: &str, pod: &str, container: &str, progress: watch::Receiver<Progress>) {
        let follower = Follower {
            connection: self.connection.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            lines: self.shared.lines(prefix(pod, container, self.colour)),
            way: Way::Frames(ByFrame::default()),
            note: self.note.clone(),
        };
        self.tasks.spawn(follower.run(progress));
    }

    /// Dropping the sender lets the follower read to the end and stop.
    fn forget(&mut self, pod: &Pod) {
        self.known.retain(|key, _| Some(&key.uid) != pod.metadata.uid.as_ref());
    }
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let regular = status.and_then(|status| status.container_statuses.as_ref());
    let ephemeral = status.and_then(|status| status.ephemeral_container_statuses.as_ref());
    [init, regular, ephemeral].into_iter().flatten().flatten()
}

fn progress(status: &ContainerStatus) -> Progress {
    let state = status.state.as_ref();
    let running = state.is_some_and(|state| state.running.is_some());
    let ended = state.is_some_and(|state| state.terminated.is_some());
    let ended_before = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    Progress { restarts: status.restart_count, has_log: running || ended || ended_before, ended }
}
