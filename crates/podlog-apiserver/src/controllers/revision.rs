//! The templates that a StatefulSet or DaemonSet has had, as ControllerRevisions: `pkg/controller/history`. People go back to one
//! of them with `kubectl rollout undo`; pods say in a label which one they were made from.

use podlog_api::Object;
use serde_json::{Value, json};

use super::{action::Action, deployment::template_hash, kinds, objects::*};
use crate::registry::Part;

/// The label of pods that names their revision: by its name for a StatefulSet, by its hash for a DaemonSet.
pub(crate) const LABEL: &str = "controller-revision-hash";
/// The label of a StatefulSet's revisions that holds their hash.
const HASH: &str = "controller.kubernetes.io/hash";
/// How many revisions that nobody needs are kept (`spec.revisionHistoryLimit`).
const DEFAULT_LIMIT: i64 = 10;

/// One template of a workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    /// Name of the ControllerRevision.
    pub(crate) name: String,
    /// Hash of the template.
    pub(crate) hash: String,
    /// The template.
    pub(crate) template: Value,
}

impl Revision {
    fn of(object: &Object) -> Self {
        let mut template = object.at("/data/spec/template").cloned().unwrap_or_default();
        if let Some(template) = template.as_object_mut() {
            template.remove("$patch");
        }
        let hash = [HASH, LABEL].iter().find_map(|label| object.label(label)).unwrap_or_default();
        Revision { name: object.name().to_owned(), hash: hash.to_owned(), template }
    }

    /// Whether a pod was made from this template. Some pods of StatefulSets have the hash in their label, not the name: those of
    /// before there were ControllerRevisions here.
    pub(crate) fn made(&self, pod: &Object) -> bool {
        pod.label(LABEL).is_some_and(|label| label == self.name || label == self.hash)
    }
}

/// Marks a new pod with the revision that it is made from.
pub(crate) fn mark(pod: &mut Object, revision: &str) {
    let labels = pod.metadata_mut().entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(LABEL.into(), json!(revision));
    }
}

/// The revisions of a workload.
pub(crate) struct History {
    /// That of the present template.
    pub(crate) newest: Revision,
    /// All but the newest, by their numbers, as they are stored.
    older: Vec<Object>,
    /// What makes the store say so.
    pub(crate) actions: Vec<Action>,
}

impl History {
    /// From the revisions that a workload owns. A template that is back keeps its revision and gets a new number.
    pub(crate) fn of(workload: &Object, owned: &[Object]) -> Self {
        let mut known: Vec<Object> = owned.iter().filter(|object| !object.is_deleting()).cloned().collect();
        known.sort_by_key(|object| (number(object), created(object), object.name().to_owned()));
        let last = known.last().map_or(0, number);
        let template = &workload.0["spec"]["template"];
        let same = known.iter().rposition(|object| Revision::of(object).template == *template);
        let (newest, action) = match same {
            Some(at) => {
                let object = known.remove(at);
                let mut renumbered = object.clone();
                if number(&object) < last {
                    renumbered.0["revision"] = json!(last + 1);
                }
                let action = Action::update(kinds::revisions(), Part::Main, &object, renumbered);
                (Revision::of(&object), action)
            }
            None => {
                let object = made(workload, &known, last + 1);
                let newest = Revision::of(&object);
                (newest, Some(Action::Create { resource: kinds::revisions(), object, told: None }))
            }
        };
        History { newest, older: known, actions: action.into_iter().collect() }
    }

    /// The revision that a status names; the newest where it names none that is known.
    pub(crate) fn named(&self, name: &str) -> Revision {
        let older = self.older.iter().map(Revision::of);
        older
            .into_iter()
            .find(|known| known.name == name || known.hash == name)
            .unwrap_or_else(|| self.newest.clone())
    }

    /// Deletes the oldest revisions that no pod is of, as long as there are more than the workload wants to keep.
    pub(crate) fn trim(&self, workload: &Object, kept: &Revision, pods: &[Object]) -> Vec<Action> {
        let limit = workload.integer("/spec/revisionHistoryLimit").unwrap_or(DEFAULT_LIMIT);
        let needed =
            |revision: &Revision| revision.name == kept.name || pods.iter().any(|pod| revision.made(pod));
        let unneeded: Vec<&Object> =
            self.older.iter().filter(|object| !needed(&Revision::of(object))).collect();
        let too_many = unneeded.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        unneeded.into_iter().take(too_many).map(|object| Action::delete(kinds::revisions(), object)).collect()
    }
}

fn number(revision: &Object) -> i64 {
    revision.integer("/revision").unwrap_or(0)
}

/// A new revision of the present template. Its data is the patch that brings the template back.
fn made(workload: &Object, known: &[Object], number: i64) -> Object {
    let template = &workload.0["spec"]["template"];
    let free = |name: &str| known.iter().all(|object| object.name() != name);
    // Two templates of one hash differ in their count of collisions.
    let hashes = (0..).map(|collisions| template_hash(template, collisions));
    let mut names = hashes.map(|hash| (format!("{}-{hash}", workload.name()), hash));
    let (name, hash) = names.find(|(name, _)| free(name)).unwrap_or_default();
    let mut data = template.clone();
    data["$patch"] = json!("replace");
    let mut labels = template["metadata"]["labels"].clone();
    labels[if workload.kind() == "DaemonSet" { LABEL } else { HASH }] = json!(hash);
    let mut object = Object::new(json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": workload.namespace(),
            "labels": labels,
            "ownerReferences": [owner_reference(workload)],
        },
        "data": {"spec": {"template": data}},
        "revision": number,
    }));
    if let Some(annotations) = workload.at("/metadata/annotations") {
        object.metadata_mut().insert("annotations".into(), annotations.clone());
    }
    object
}
