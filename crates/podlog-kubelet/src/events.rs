//! Events about pods and the node. The same event again raises the count of the first one.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
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
/// Objects whose events are written at the same time.
const AT_A_TIME: usize = 8;
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

/// Writes events to the API until `shutdown`: those of an object in their order, those of several objects at the same time. What happens again
/// while others are being written is counted, and written once.
pub(crate) async fn write_events(
    client: kube::Client,
    node: String,
    mut queue: mpsc::Receiver<Record>,
    shutdown: CancellationToken,
) {
    let writer = Writer { client, node, seen: Mutex::default() };
    let mut waiting = Vec::new();
    while let Some(1..) = shutdown.run_until_cancelled(queue.recv_many(&mut waiting, QUEUE)).await {
        let objects = gather(waiting.drain(..)).into_values().map(|of_one| writer.write_all(of_one));
        let written = stream::iter(objects).buffer_unordered(AT_A_TIME).collect::<()>();
        if shutdown.run_until_cancelled(written).await.is_none() {
            return;
        }
    }
}

/// One event, and how often it has happened.
#[derive(Clone, Debug, PartialEq)]
struct Repeated {
    first: Record,
    last: Timestamp,
    times: i32,
}

/// What has happened, by object.
fn gather(records: impl Iterator<Item = Record>) -> BTreeMap<Option<String>, Vec<Repeated>> {
    let mut objects: BTreeMap<_, Vec<Repeated>> = BTreeMap::new();
    for record in records {
        let own = objects.entry(record.about.uid.clone()).or_default();
        match own.iter_mut().find(|known| key(&known.first) == key(&record)) {
            Some(known) => (known.last, known.times) = (record.at, known.times.saturating_add(1)),
            None => own.push(Repeated { last: record.at, times: 1, first: record }),
        }
    }
    objects
}

/// What makes two events the same.
type Key = (ObjectReferenceKey, Level, &'static str, String);
type ObjectReferenceKey = (Option<String>, Option<String>, Option<String>, Option<String>);

#[derive(Clone)]
struct Seen {
    name: String,
    count: i32,
}

struct Writer {
    client: kube::Client,
    node: String,
    seen: Mutex<HashMap<Key, Seen>>,
}

impl Writer {
    async fn write_all(&self, events: Vec<Repeated>) {
        for event in events {
            self.write(&event).await;
        }
    }

    async fn write(&self, event: &Repeated) {
        let reason = event.first.reason;
        for attempt in 1..=ATTEMPTS {
            match self.once(event).await {
                Ok(()) => return,
                // The server has decided; asking again changes nothing.
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    tracing::warn!(reason, error = status.message, "event refused");
                    return;
                }
                Err(error) if attempt == ATTEMPTS => {
                    tracing::warn!(reason, error = api_message(&error), "event given up");
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn once(&self, event: &Repeated) -> Result<(), kube::Error> {
        let record = &event.first;
        let namespace = record.about.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let key = key(record);
        let seen = self.seen.lock().get(&key).cloned();
        if let Some(Seen { name, count }) = seen {
            let count = count.saturating_add(event.times);
            let patch = json!({ "count": count, "lastTimestamp": Time(event.last) });
            match api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.remember(key, Seen { name, count });
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 404 => drop(self.seen.lock().remove(&key)),
                Err(error) => return Err(error),
            }
        }
        let made = self.event(event, namespace);
        api.create(&PostParams::default(), &made).await?;
        self.remember(key, Seen { name: made.metadata.name.unwrap_or_default(), count: event.times });
        Ok(())
    }

    fn remember(&self, key: Key, event: Seen) {
        let mut seen = self.seen.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(key, event);
    }

    fn event(&self, Repeated { first: record, last, times }: &Repeated, namespace: &str) -> Event {
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
            count: Some(*times),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(*last)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_is_counted_where_it_happened_first() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let record = |uid: &str, message: &str, second: i64| Record {
            about: ObjectReference { uid: Some(uid.into()), ..ObjectReference::default() },
            level: Level::Warning,
            reason: "Unhealthy",
            message: message.into(),
            annotations: BTreeMap::new(),
            at: at(second),
        };
        let records = [record("a", "x", 1), record("b", "x", 2), record("a", "y", 3), record("a", "x", 4)];
        let repeated = |first: Record, last: i64, times: i32| Repeated { first, last: at(last), times };
        let expected = [
            (
                Some("a".to_owned()),
                vec![repeated(records[0].clone(), 4, 2), repeated(records[2].clone(), 3, 1)],
            ),
            (Some("b".to_owned()), vec![repeated(records[1].clone(), 2, 1)]),
        ];
        assert_eq!(gather(records.into_iter()), BTreeMap::from(expected));
    }
}
