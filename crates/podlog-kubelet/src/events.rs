//! Events about pods and the node. The same event again raises the count of the first one.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::objects::api_message;
use crate::pods::{PodId, Role, find_container};

/// Events that may wait for the API server; further ones are dropped, which our log says.
const QUEUE: usize = 1000;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;
/// How often and after which pause a failed write is tried again (`client-go/tools/record`).
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_secs(10);
const COMPONENT: &str = "kubelet";

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    Normal,
    Warning,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Normal => "Normal",
            Level::Warning => "Warning",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) about: ObjectReference,
    pub(crate) level: Level,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) at: Timestamp,
}

/// Where events are handed in; never waits.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<Record>);

impl Events {
    /// A recorder and the queue behind it, for [`write_events`] or a test.
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Events(sender), receiver)
    }

    /// About a pod.
    pub(crate) fn pod(&self, pod: &Pod, level: Level, reason: &'static str, message: impl Into<String>) {
        self.send(pod_reference(pod), level, reason, message.into());
    }

    /// About a pod, with more for programs.
    pub(crate) fn annotated(
        &self,
        pod: &Pod,
        level: Level,
        reason: &'static str,
        message: String,
        annotations: BTreeMap<String, String>,
    ) {
        let about = pod_reference(pod);
        self.record(Record { about, level, reason, message, annotations, at: Timestamp::now() });
    }

    /// About a container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        level: Level,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut about = pod_reference(pod);
        let list = match find_container(pod, container) {
            Some((_, Role::Init | Role::Sidecar)) => "initContainers",
            Some((_, Role::Ephemeral)) => "ephemeralContainers",
            _ => "containers",
        };
        about.field_path = Some(format!("spec.{list}{{{container}}}"));
        self.send(about, level, reason, message.into());
    }

    /// About the node; by name, as upstream does it.
    pub(crate) fn node(&self, name: &str, level: Level, reason: &'static str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.into()),
            uid: Some(name.into()),
            ..ObjectReference::default()
        };
        self.send(about, level, reason, message.into());
    }

    fn send(&self, about: ObjectReference, level: Level, reason: &'static str, message: String) {
        let annotations = BTreeMap::new();
        self.record(Record { about, level, reason, message, annotations, at: Timestamp::now() });
    }

    fn record(&self, record: Record) {
        if let Err(error) = self.0.try_send(record) {
            let record = error.into_inner();
            tracing::warn!(
                reason = record.reason,
                message = record.message,
                "event dropped, the queue is full"
            );
        }
    }
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    let id = PodId::of(pod);
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(id.namespace),
        name: Some(id.name),
        uid: Some(id.uid),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// Writes events to the API until `shutdown`.
pub(crate) async fn write_events(
    client: kube::Client,
    node: String,
    mut queue: mpsc::Receiver<Record>,
    shutdown: CancellationToken,
) {
    let mut writer = Writer { client, node, seen: HashMap::new() };
    while let Some(Some(record)) = shutdown.run_until_cancelled(queue.recv()).await {
        if shutdown.run_until_cancelled(writer.write(record)).await.is_none() {
            return;
        }
    }
}

/// What makes two events the same.
type Key = (ObjectReferenceKey, Level, &'static str, String);
type ObjectReferenceKey = (Option<String>, Option<String>, Option<String>, Option<String>);

struct Seen {
    name: String,
    count: i32,
}

struct Writer {
    client: kube::Client,
    node: String,
    seen: HashMap<Key, Seen>,
}

impl Writer {
    async fn write(&mut self, record: Record) {
        for attempt in 1..=ATTEMPTS {
            match self.once(&record).await {
                Ok(()) => return,
                // The server has decided; asking again changes nothing.
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    tracing::warn!(reason = record.reason, error = status.message, "event refused");
                    return;
                }
                Err(error) if attempt == ATTEMPTS => {
                    tracing::warn!(reason = record.reason, error = api_message(&error), "event given up");
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn once(&mut self, record: &Record) -> Result<(), kube::Error> {
        let namespace = record.about.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let key = key(record);
        if let Some(seen) = self.seen.get_mut(&key) {
            let patch = json!({ "count": seen.count + 1, "lastTimestamp": Time(record.at) });
            match api.patch(&seen.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    seen.count += 1;
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 404 => drop(self.seen.remove(&key)),
                Err(error) => return Err(error),
            }
        }
        let event = self.event(record, namespace);
        api.create(&PostParams::default(), &event).await?;
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(key, Seen { name: event.metadata.name.unwrap_or_default(), count: 1 });
        Ok(())
    }

    fn event(&self, record: &Record, namespace: &str) -> Event {
        let about = record.about.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{:x}", record.at.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                annotations: (!record.annotations.is_empty()).then(|| record.annotations.clone()),
                ..ObjectMeta::default()
            },
            involved_object: record.about.clone(),
            type_: Some(record.level.as_str().into()),
            reason: Some(record.reason.into()),
            message: Some(record.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(self.node.clone()) }),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

fn key(record: &Record) -> Key {
    let about = &record.about;
    let object = (about.namespace.clone(), about.name.clone(), about.uid.clone(), about.field_path.clone());
    (object, record.level, record.reason, record.message.clone())
}
