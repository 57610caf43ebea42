//! Following the logs of many pods as they come and go: `podlog up --follow`.
//!
//! Lines carry their times over the wire (and not to the terminal): after a restart or a broken connection a log is taken up
//! where it stopped, without a line twice.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use podlog_api::selector::LabelSelector;
use podlog_api::{Object, PodLogOptions};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::logs::{self, ByTime};
use crate::manifest::Manifest;
use crate::output::{Gone, LineWriter, Output, SharedOutput, prefix};
use crate::{ClientError, Colour, Connection};

/// Pause before a log that broke off is asked for again.
const RETRY: Duration = Duration::from_secs(1);

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
            resume: ByTime::default(),
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

/// Follows one container through all its instances.
struct Follower {
    connection: Connection,
    namespace: String,
    pod: String,
    container: String,
    lines: LineWriter,
    resume: ByTime,
    note: Arc<dyn Fn(&str) + Send + Sync>,
}

/// How a log ended.
enum End {
    Clean,
    Failed(ClientError),
}

impl Follower {
    async fn run(mut self, mut progress: watch::Receiver<Progress>) -> Result<(), Gone> {
        let mut said = String::new();
        let mut restarts = progress.borrow_and_update().restarts;
        if restarts > 0 {
            self.copy(Instance::Previous).await?;
        }
        loop {
            let end = self.copy(Instance::Current).await?;
            let gone = match end {
                End::Clean => self.next_instance(&mut progress, restarts).await,
                End::Failed(error) => {
                    let text = error.message();
                    if text != said && progress.has_changed().is_ok() {
                        (self.note)(&format!("{}/{}: {text}", self.pod, self.container));
                    }
                    said = text;
                    tokio::time::sleep(RETRY).await;
                    progress.has_changed().is_err()
                }
            };
            if gone {
                // A line that was cut off does not go on.
                return self.lines.finish().await;
            }
            let now = progress.borrow_and_update().restarts;
            if now != restarts {
                restarts = now;
                // Lines of an instance that came and went between two looks.
                self.copy(Instance::Previous).await?;
            }
        }
    }

    /// Waits for the container's next instance; whether there will be none.
    async fn next_instance(&self, progress: &mut watch::Receiver<Progress>, restarts: i32) -> bool {
        loop {
            let known = *progress.borrow_and_update();
            if known.restarts != restarts {
                return false;
            }
            if !known.ended && known.has_log {
                // The log ended and the container has not, as far as we know: look again soon.
                let changed = tokio::time::timeout(RETRY, progress.changed()).await;
                return matches!(changed, Ok(Err(_)));
            }
            if progress.changed().await.is_err() {
                return true;
            }
        }
    }

    async fn copy(&mut self, instance: Instance) -> Result<End, Gone> {
        let options = PodLogOptions {
            container: self.container.clone(),
            follow: instance == Instance::Current,
            previous: instance == Instance::Previous,
            timestamps: true,
            since_time: self.resume.since(),
            ..PodLogOptions::default()
        };
        self.resume.begin();
        let mut body = match logs::open(&self.connection, &self.namespace, &self.pod, &options).await {
            Ok(body) => body,
            Err(error) => return Ok(End::Failed(error)),
        };
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => {
                    let text = self.resume.filter(&chunk);
                    self.lines.write(&text).await?;
                }
                Err(error) => {
                    // The rest of a line that has begun comes later.
                    self.resume.interrupted();
                    return Ok(End::Failed(error));
                }
            }
        }
        self.lines.finish().await?;
        Ok(End::Clean)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instance {
    Current,
    Previous,
}
