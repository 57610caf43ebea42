//! Watches of single objects: who uses one hears at once that it has changed.
//!
//! Object by object, as `WatchChangeDetectionStrategy` of `pkg/kubelet/util/manager` does it: a node may read no others. Of an object
//! only its metadata come, and nothing is kept of them but the version: what changed is read by whoever needs it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Resource;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Kind, ObjectName, api_text};

/// Objects watched at a time, a connection each. Further ones are looked at every now and then, as all are.
const MOST: usize = 256;

/// Counts up with the changes of an object.
pub(crate) type Changes = watch::Receiver<u64>;

/// All watches of a kubelet. One ends with the last who is interested in it.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<ObjectName, Arc<watch::Sender<u64>>>>>);

impl Watches {
    /// Changes of an object from now on; `None` when too many are watched.
    pub(super) fn of(&self, client: &kube::Client, object: &ObjectName) -> Option<Changes> {
        let mut watched = self.0.lock();
        watched.retain(|_, sender| !sender.is_closed());
        if let Some(sender) = watched.get(object) {
            return Some(sender.subscribe());
        }
        if watched.len() >= MOST {
            return None;
        }
        let (sender, changes) = watch::channel(0);
        let sender = Arc::new(sender);
        watched.insert(object.clone(), sender.clone());
        tokio::spawn(follow(client.clone(), object.clone(), sender));
        Some(changes)
    }
}

/// Watches until nobody is interested any more.
async fn follow(client: kube::Client, object: ObjectName, changes: Arc<watch::Sender<u64>>) {
    let following = async {
        match object.kind {
            Kind::ConfigMap => tell::<ConfigMap>(client, &object, &changes).await,
            Kind::Secret => tell::<Secret>(client, &object, &changes).await,
        }
    };
    tokio::select! {
        () = changes.closed() => {}
        () = following => {}
    }
}

/// Counts up when the object has another version than before. The first counts, too: it may be newer than what was read before the watch
/// had begun.
async fn tell<K>(client: kube::Client, object: &ObjectName, changes: &watch::Sender<u64>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + 'static,
{
    let api = Api::<PartialObjectMeta<K>>::namespaced(client, &object.namespace);
    let config = Config::default().fields(&format!("metadata.name={}", object.name));
    let mut events = pin!(watcher(api, config).default_backoff());
    let (mut known, mut listed, mut is_failing) = (None, None, false);
    while let Some(event) = events.next().await {
        let version = match event {
            Ok(Event::Init) => {
                listed = None;
                continue;
            }
            Ok(Event::InitApply(found)) => {
                listed = found.metadata.resource_version;
                continue;
            }
            Ok(Event::InitDone) => listed.take(),
            Ok(Event::Apply(found)) => found.metadata.resource_version,
            Ok(Event::Delete(_)) => None,
            Err(error) => {
                if !is_failing {
                    let ObjectName { kind, namespace, name } = object;
                    let (kind, error) = (kind.word(), api_text(&error));
                    tracing::warn!(
                        kind,
                        namespace,
                        name,
                        error,
                        "cannot watch an object: it is read every now and then"
                    );
                }
                is_failing = true;
                continue;
            }
        };
        is_failing = false;
        if known.replace(version.clone()) != Some(version) {
            changes.send_modify(|count| *count += 1);
        }
    }
}
