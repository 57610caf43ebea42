//! Mirror pods: what the API shows of static pods. They are made again when they are deleted or show something old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::manifest::{HASH, MIRROR, annotation};
use crate::objects::api_message;
use crate::pods::{PodId, StatusWriter};

/// Pause after something failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Namespace and name.
type Name = (String, String);

/// What there should be and what there is, between the pod manager and [`MirrorPods`].
#[derive(Clone, Default)]
pub(crate) struct Mirrors(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// `None` until manifests were read: nobody knows yet which mirrors are too many.
    wanted: Option<HashMap<Name, Arc<Pod>>>,
    /// The API was listed: what is not in `present` does not exist.
    is_listed: bool,
    present: HashMap<Name, Mirror>,
}

#[derive(Clone)]
struct Mirror {
    uid: String,
    /// Of the manifest that it shows.
    hash: String,
    is_deleting: bool,
}

/// What to do about one name.
enum Step {
    Create(Arc<Pod>),
    Delete(Name, String),
}

impl Mirrors {
    /// The static pods that there are.
    pub(crate) fn want(&self, pods: &[Arc<Pod>]) {
        let wanted = pods.iter().map(|pod| (name(pod), pod.clone())).collect();
        self.0.state.lock().wanted = Some(wanted);
        self.0.changed.notify_one();
    }

    /// A mirror as the API has it.
    pub(crate) fn seen(&self, mirror: &Pod) {
        let found = Mirror {
            uid: PodId::of(mirror).uid,
            hash: annotation(mirror, MIRROR).unwrap_or_default().to_owned(),
            is_deleting: mirror.metadata.deletion_timestamp.is_some(),
        };
        self.0.state.lock().present.insert(name(mirror), found);
        self.0.changed.notify_one();
    }

    /// A mirror that the API no longer has.
    pub(crate) fn gone(&self, mirror: &Pod) {
        let mut state = self.0.state.lock();
        let uid = PodId::of(mirror).uid;
        if state.present.get(&name(mirror)).is_some_and(|present| present.uid == uid) {
            state.present.remove(&name(mirror));
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// All mirrors that the API has.
    pub(crate) fn listed(&self, mirrors: &[Arc<Pod>]) {
        {
            let mut state = self.0.state.lock();
            state.present.clear();
            state.is_listed = true;
        }
        for mirror in mirrors {
            self.seen(mirror);
        }
        self.0.changed.notify_one();
    }

    /// What is to be done, and which mirror shows which pod: pairs of their uids.
    fn next(&self) -> (Vec<Step>, Vec<(String, String)>) {
        let state = self.0.state.lock();
        let (mut steps, mut shown) = (Vec::new(), Vec::new());
        let Some(wanted) = state.wanted.as_ref().filter(|_| state.is_listed) else { return (steps, shown) };
        for (name, mirror) in &state.present {
            let is_right = wanted.get(name).is_some_and(|pod| PodId::of(pod).uid == mirror.hash);
            if is_right && !mirror.is_deleting {
                shown.push((mirror.hash.clone(), mirror.uid.clone()));
            } else {
                steps.push(Step::Delete(name.clone(), mirror.uid.clone()));
            }
        }
        let missing = wanted.iter().filter(|(name, _)| !state.present.contains_key(*name));
        steps.extend(missing.map(|(_, pod)| Step::Create(pod.clone())));
        (steps, shown)
    }
}

fn name(pod: &Pod) -> Name {
    let PodId { namespace, name, .. } = PodId::of(pod);
    (namespace, name)
}

/// Brings the API's mirrors in line.
pub(crate) struct MirrorPods {
    pub(crate) mirrors: Mirrors,
    pub(crate) statuses: StatusWriter,
    pub(crate) node: String,
    pub(crate) client: kube::Client,
}

impl MirrorPods {
    /// Works until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let work = async {
            loop {
                let (steps, shown) = self.mirrors.next();
                for (pod, mirror) in shown {
                    self.statuses.show(&pod, &mirror);
                }
                let mut has_failed = false;
                for step in steps {
                    if let Err(error) = self.act(&step).await {
                        tracing::warn!(error = api_message(&error), "cannot mirror a static pod yet");
                        has_failed = true;
                    }
                }
                if has_failed {
                    sleep(PAUSE).await;
                } else {
                    self.mirrors.0.changed.notified().await;
                }
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    async fn act(&self, step: &Step) -> Result<(), kube::Error> {
        match step {
            Step::Create(pod) => self.create(pod).await,
            Step::Delete((namespace, name), uid) => {
                let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let now = DeleteParams::default().grace_period(0).preconditions(same);
                match self.api(namespace).delete(name, &now).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn create(&self, pod: &Pod) -> Result<(), kube::Error> {
        let node = Api::<Node>::all(self.client.clone()).get(&self.node).await?;
        let mirror = mirror_of(pod, &self.node, node.metadata.uid.unwrap_or_default());
        let (namespace, _) = name(pod);
        match self.api(&namespace).create(&PostParams::default(), &mirror).await {
            // The watch will tell of it, too, but a status may be waiting.
            Ok(made) => {
                self.mirrors.seen(&made);
                Ok(())
            }
            // There is one already: the watch will tell which.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The mirror of a static pod.
fn mirror_of(pod: &Pod, node: &str, node_uid: String) -> Pod {
    let mut mirror = pod.clone();
    let metadata = &mut mirror.metadata;
    metadata.uid = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: node_uid,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}
