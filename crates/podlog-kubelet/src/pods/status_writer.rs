//! Brings statuses to the API: only what changed, again and again until it is there, and the final deletion after the
//! last status.
//!
//! Follows `pkg/kubelet/status/status_manager.go`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::conditions::is_ours;
use super::spec::PodId;
use crate::objects::api_message;

/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Statuses that are written at the same time.
const AT_A_TIME: usize = 10;

/// The statuses of all pods, and which of them the API has not seen.
#[derive(Clone, Default)]
pub(crate) struct StatusWriter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pods: Mutex<Pods>,
    changed: Notify,
}

#[derive(Default)]
struct Pods {
    entries: HashMap<PodId, Entry>,
    dirty: HashSet<PodId>,
    /// Uids of static pods, and of the mirrors that show them.
    mirrors: HashMap<String, Option<String>>,
}

struct Entry {
    status: Value,
    written: Option<Value>,
    end: End,
}

/// A status, whether the API has not seen it, and what follows.
type Pending = (Value, bool, End);

/// Whether the pod's object goes once its last status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It stays.
    Stays,
    /// Nothing of the pod runs any more and its deletion was asked for.
    Delete,
}

impl StatusWriter {
    /// Notes what the API has, so that the same is not written again.
    pub(crate) fn known(&self, id: &PodId, status: &PodStatus) {
        let Ok(status) = serde_json::to_value(status) else { return };
        let entry = Entry { status: status.clone(), written: Some(status), end: End::Stays };
        self.0.pods.lock().entries.entry(id.clone()).or_insert(entry);
    }

    /// Notes that the API has the pod under another uid, if at all: that of its mirror.
    pub(crate) fn mirrored(&self, id: &PodId) {
        self.0.pods.lock().mirrors.entry(id.uid.clone()).or_default();
    }

    /// Writes the status of a static pod to this mirror from now on.
    pub(crate) fn show(&self, uid: &str, mirror: &str) {
        let mut pods = self.0.pods.lock();
        if pods.mirrors.get(uid).is_none_or(|shown| shown.as_deref() == Some(mirror)) {
            return;
        }
        pods.mirrors.insert(uid.to_owned(), Some(mirror.to_owned()));
        let Some((id, entry)) = pods.entries.iter_mut().find(|(id, _)| id.uid == uid) else { return };
        entry.written = None;
        let id = id.clone();
        pods.dirty.insert(id);
        drop(pods);
        self.0.changed.notify_one();
    }

    /// Hands in a status.
    pub(crate) fn set(&self, id: &PodId, status: &PodStatus, end: End) {
        let Ok(status) = serde_json::to_value(status) else { return };
        let mut pods = self.0.pods.lock();
        let entry =
            pods.entries.entry(id.clone()).or_insert(Entry { status: Value::Null, written: None, end });
        let is_news = entry.status != status || entry.end != end;
        entry.status = status;
        entry.end = end;
        if is_news {
            pods.dirty.insert(id.clone());
            drop(pods);
            self.0.changed.notify_one();
        }
    }

    /// The status that was handed in last.
    pub(crate) fn get(&self, id: &PodId) -> Option<PodStatus> {
        let status = self.0.pods.lock().entries.get(id)?.status.clone();
        serde_json::from_value(status).ok()
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, id: &PodId) {
        let mut pods = self.0.pods.lock();
        pods.entries.remove(id);
        pods.dirty.remove(id);
        pods.mirrors.remove(&id.uid);
    }

    fn take_dirty(&self) -> Vec<PodId> {
        self.0.pods.lock().dirty.drain().collect()
    }

    /// What is to be written, and under which uid; `None` while the API has no such pod.
    fn pending(&self, id: &PodId) -> Option<(Pending, PodId)> {
        let pods = self.0.pods.lock();
        let entry = pods.entries.get(id)?;
        let uid = pods.mirrors.get(&id.uid).cloned().unwrap_or_else(|| Some(id.uid.clone()))?;
        let is_news = entry.written.as_ref() != Some(&entry.status);
        Some(((entry.status.clone(), is_news, entry.end), PodId { uid, ..id.clone() }))
    }

    fn written(&self, id: &PodId, status: Value) {
        if let Some(entry) = self.0.pods.lock().entries.get_mut(id) {
            entry.written = Some(status);
        }
    }

    fn retry(&self, ids: Vec<PodId>) {
        self.0.pods.lock().dirty.extend(ids);
    }

    /// Writes until `shutdown`, then once more what is left.
    pub(crate) async fn run(self, client: kube::Client, shutdown: CancellationToken) {
        loop {
            let failed = self.flush(&client).await;
            if shutdown.is_cancelled() {
                return;
            }
            let wait = async {
                if failed.is_empty() {
                    self.0.changed.notified().await;
                } else {
                    sleep(PAUSE).await;
                }
            };
            shutdown.run_until_cancelled(wait).await;
            self.retry(failed);
        }
    }

    /// Writes several at the same time, each pod's once: many pods may end together. Returns those that could not be written.
    async fn flush(&self, client: &kube::Client) -> Vec<PodId> {
        let attempt = |id: PodId| async move {
            let error = self.write(client, &id).await.err()?;
            tracing::warn!(pod = %id, error = api_message(&error), "cannot write the pod's status yet");
            Some(id)
        };
        let attempts = stream::iter(self.take_dirty()).map(attempt).buffer_unordered(AT_A_TIME);
        attempts.filter_map(std::future::ready).collect().await
    }

    async fn write(&self, client: &kube::Client, id: &PodId) -> Result<(), kube::Error> {
        let Some(((status, is_news, end), shown)) = self.pending(id) else { return Ok(()) };
        let api = Api::<Pod>::namespaced(client.clone(), &id.namespace);
        if is_news {
            let patch = Patch::Strategic(patch(&shown, &status));
            match api.patch_status(&id.name, &PatchParams::default(), &patch).await {
                Ok(_) => self.written(id, status),
                // The pod is gone, or another one has its name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if end == End::Delete {
            delete(&api, &shown).await?;
        }
        Ok(())
    }
}

async fn delete(api: &Api<Pod>, id: &PodId) -> Result<(), kube::Error> {
    let same = Preconditions { uid: Some(id.uid.clone()), resource_version: None };
    let now = DeleteParams::default().grace_period(0).preconditions(same);
    match api.delete(&id.name, &now).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The status as a strategic merge patch that leaves nothing of an older one behind, and others' conditions as they are: what a
/// kubelet may set and does not is null.
fn patch(id: &PodId, status: &Value) -> Value {
    let mut status = status.clone();
    null_missing(&mut status, &["reason", "message"]);
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        let order: Vec<Value> = conditions.iter().map(|own| json!({ "type": own["type"] })).collect();
        conditions.retain(|own| is_ours(own["type"].as_str().unwrap_or_default(), own["reason"].as_str()));
        conditions.iter_mut().for_each(|condition| null_missing(condition, &["reason", "message"]));
        status["$setElementOrder/conditions"] = order.into();
    }
    for addresses in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(addresses)) = status.get_mut(addresses) {
            addresses.insert(0, json!({ "$patch": "replace" }));
        }
    }
    json!({ "metadata": { "uid": id.uid }, "status": status })
}

fn null_missing(value: &mut Value, keys: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        for key in keys {
            map.entry(*key).or_insert(Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;

    #[test]
    fn a_patch_is_about_what_is_ours() {
        let ours = json!({"type": "Ready", "status": "True"});
        let target = |reason: &str| json!({"type": "DisruptionTarget", "status": "True", "reason": reason});
        let id = PodId { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        let check = |conditions: Value, order: Value, sent: Value| {
            let patch = patch(&id, &json!({"conditions": conditions, "podIPs": [{"ip": "::1"}]}));
            let status = &patch["status"];
            assert_eq!((&status["$setElementOrder/conditions"], &status["conditions"]), (&order, &sent));
            assert_eq!(status["podIPs"], json!([{"$patch": "replace"}, {"ip": "::1"}]));
            assert_eq!((&status["reason"], &patch["metadata"]["uid"]), (&Value::Null, &json!("u")));
        };
        let sent = json!({"type": "Ready", "status": "True", "reason": null, "message": null});
        let order = |kinds: [&str; 2]| json!([{"type": kinds[0]}, {"type": kinds[1]}]);
        check(json!([{"type": "gate"}, ours]), order(["gate", "Ready"]), json!([sent]));
        let others = target("EvictionByEvictionAPI");
        check(json!([others, ours]), order(["DisruptionTarget", "Ready"]), json!([sent]));
        let own = target("TerminationByKubelet");
        let mut own_sent = own.clone();
        own_sent["message"] = Value::Null;
        check(json!([own, ours]), order(["DisruptionTarget", "Ready"]), json!([own_sent, sent]));
    }

    #[tokio::test]
    async fn many_pods_are_written_together() {
        let (open, most, all) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((open, most, all));
        let seen = counts.clone();
        let answer = move |_: Request<kube::client::Body>| {
            let counts = counts.clone();
            async move {
                let (open, most, all) = &*counts;
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(20)).await;
                open.fetch_sub(1, Ordering::SeqCst);
                let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}});
                Ok::<_, std::convert::Infallible>(Response::new(Full::from(pod.to_string())))
            }
        };
        let client = kube::Client::new(service_fn(answer), "default");
        let writer = StatusWriter::default();
        for number in 0..3 * AT_A_TIME {
            let id = PodId { namespace: "n".into(), name: format!("p-{number}"), uid: format!("u-{number}") };
            writer.set(&id, &PodStatus { phase: Some("Failed".into()), ..PodStatus::default() }, End::Stays);
        }
        assert_eq!(writer.flush(&client).await, []);
        assert_eq!(writer.take_dirty(), []);
        assert_eq!(seen.1.load(Ordering::SeqCst), AT_A_TIME);
        assert_eq!(seen.2.load(Ordering::SeqCst), 3 * AT_A_TIME);
    }
}
