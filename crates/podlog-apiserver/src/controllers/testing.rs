//! A small world for tests of what controllers decide: objects that actions change, without a registry.

use jiff::Timestamp;
use podlog_api::{Object, resource::Resource};
use serde_json::json;

use super::{action::Action, kinds, objects::*};

/// Objects, and the time.
pub(crate) struct World {
    pub(crate) objects: Vec<Object>,
    pub(crate) now: Timestamp,
    /// Messages of all events.
    pub(crate) told: Vec<String>,
    made: usize,
}

impl World {
    pub(crate) fn new(objects: Vec<Object>) -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut world = World { objects: Vec::new(), now, told: Vec::new(), made: 0 };
        objects.into_iter().for_each(|object| world.create(object));
        world
    }

    pub(crate) fn create(&mut self, mut object: Object) {
        self.made += 1;
        let (made, now) = (self.made, time_text(self.now));
        let metadata = object.metadata_mut();
        if let Some(prefix) = metadata.remove("generateName") {
            metadata.insert("name".into(), json!(format!("{}{made}", prefix.as_str().unwrap())));
        }
        metadata.insert("uid".into(), json!(format!("uid-{made}")));
        metadata.insert("resourceVersion".into(), json!("1"));
        metadata.entry("generation").or_insert(json!(1));
        metadata.entry("creationTimestamp").or_insert(json!(now));
        self.objects.push(object);
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> &Object {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name).expect(name)
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Object> {
        self.objects.iter().filter(|object| object.kind() == kind).cloned().collect()
    }

    pub(crate) fn change(&mut self, kind: &str, name: &str, change: impl FnOnce(&mut Object)) {
        let found = self.objects.iter_mut().find(|object| object.kind() == kind && object.name() == name);
        change(found.expect(name));
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now = plus_seconds(self.now, seconds);
    }

    /// Carries out actions; deletions are immediate. Says whether anything but waiting was to be done.
    pub(crate) fn apply(&mut self, actions: Vec<Action>) -> bool {
        let mut changed = false;
        for action in actions {
            changed |= !matches!(action, Action::Requeue(_));
            match action {
                Action::Create { object, .. } => self.create(object),
                Action::Update { object, resource, part } => self.update(resource, part, object),
                Action::Delete { object, .. } => self.objects.retain(|known| known.uid() != object.uid()),
                Action::Bind { pod, node } => {
                    self.change("Pod", pod.name(), |pod| {
                        pod.map_mut("spec").insert("nodeName".into(), json!(node));
                    });
                }
                Action::Event(event) => self.told.push(event.message),
                Action::Requeue(_) => {}
            }
        }
        changed
    }

    fn update(&mut self, resource: &Resource, part: crate::registry::Part, object: Object) {
        let name = object.name().to_owned();
        self.change(resource.kind, &name, |known| {
            if part == crate::registry::Part::Status {
                known.0["status"] = object.0["status"].clone();
            } else {
                let (generation, spec) =
                    (known.integer("/metadata/generation").unwrap_or(0), known.0["spec"].clone());
                let status = known.0.get("status").cloned();
                *known = object;
                if let Some(status) = status {
                    known.0["status"] = status;
                }
                let bump = i64::from(known.0["spec"] != spec);
                known.metadata_mut().insert("generation".into(), json!(generation + bump));
            }
        });
    }

    /// Every pod that has not ended becomes ready, as if kubelets were fast.
    pub(crate) fn run_pods(&mut self) {
        let now = time_text(self.now);
        for pod in self.objects.iter_mut().filter(|object| object.kind() == "Pod" && !is_pod_finished(object))
        {
            if !holds(pod, "Ready") {
                pod.map_mut("status").insert("phase".into(), json!("Running"));
                set_condition(pod, json!({"type": "Ready", "status": "True", "lastTransitionTime": now}));
            }
        }
    }

    /// Looks with a controller at all objects of its first kind until nothing changes any more.
    pub(crate) fn settle(&mut self, controller: &dyn super::runner::Controller, kind: &str) {
        for _ in 0..20 {
            let mut changed = false;
            for object in self.of_kind(kind) {
                let listed = Listed(self.objects.clone());
                let key = super::runner::Key::of(&object);
                let actions = controller.reconcile(&key, &listed, self.now).unwrap();
                changed |= self.apply(actions);
            }
            if !changed {
                return;
            }
        }
        panic!("{} never settles on {kind}: {:?}", controller.name(), kinds::pods());
    }
}
