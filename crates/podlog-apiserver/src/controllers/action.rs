//! What a controller wants done, as values: deciding is pure, doing is [`executor`](super::executor)'s.

use std::time::Duration;

use podlog_api::{ApiError, Object, resource::Resource};

use super::kinds;
use crate::registry::{Part, Propagation};

/// One step towards what a controller wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make a new object.
    Create {
        /// Its kind.
        resource: &'static Resource,
        /// The object, with name or `generateName`.
        object: Object,
        /// Tell about it in events of this object.
        told: Option<Told>,
    },
    /// Replace a part of an object, unless it has changed since it was read.
    Update {
        /// Its kind.
        resource: &'static Resource,
        /// Which part.
        part: Part,
        /// As it should be; its resource version says what it was made from.
        object: Object,
    },
    /// Delete an object, if it is still the same one.
    Delete {
        /// Its kind.
        resource: &'static Resource,
        /// As it was read: namespace, name and uid.
        object: Object,
        /// `None`: what the object says.
        grace_period_seconds: Option<i64>,
        /// `None`: what the object's finalizers say, else background.
        propagation: Option<Propagation>,
        /// Tell about it in events of this object.
        told: Option<Told>,
    },
    /// Give a pod to a node.
    Bind {
        /// The pod.
        pod: Object,
        /// The node's name.
        node: String,
    },
    /// Tell what happened.
    Event(Event),
    /// Look at the same key again after this time.
    Requeue(Duration),
}

/// Whose events tell about a creation or deletion, and by which controller.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// The object that the events are about.
    pub(crate) regarding: Object,
    /// The controller, e.g. `replicaset-controller`.
    pub(crate) component: &'static str,
}

impl Told {
    /// What is told of something that was done (`create`, `delete`) with an object of a kind (`pod`): the owner's controller has
    /// words of its own (`pkg/controller/statefulset/stateful_pod_control.go`).
    pub(crate) fn of_success(&self, verb: &str, kind: &str, name: &str) -> String {
        match self.regarding.kind() {
            "StatefulSet" => format!("{verb} Pod {name} in StatefulSet {} successful", self.regarding.name()),
            _ if verb == "create" => format!("Created {kind}: {name}"),
            _ => format!("Deleted {kind}: {name}"),
        }
    }

    /// What is told of something that did not work.
    pub(crate) fn of_failure(&self, verb: &str, name: &str, error: &ApiError) -> String {
        match self.regarding.kind() {
            "StatefulSet" => {
                format!("{verb} Pod {name} in StatefulSet {} failed error: {error}", self.regarding.name())
            }
            _ if verb == "create" => format!("Error creating: {error}"),
            _ => format!("Error deleting: {error}"),
        }
    }
}

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// The object that it is about.
    pub(crate) regarding: Object,
    /// `Normal` or `Warning`.
    pub(crate) severity: Severity,
    /// What happened, in one word.
    pub(crate) reason: &'static str,
    /// What happened, for people.
    pub(crate) message: String,
    /// Who says so.
    pub(crate) component: &'static str,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl Severity {
    /// The word in `type`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

impl Action {
    /// Makes a pod, and tells about it in its owner's events.
    pub(crate) fn create_pod(pod: Object, told: Told) -> Self {
        Action::Create { resource: kinds::pods(), object: pod, told: Some(told) }
    }

    /// Deletes a pod as it says itself, and tells about it in its owner's events.
    pub(crate) fn delete_pod(pod: &Object, told: Told) -> Self {
        let object = pod.clone();
        let (resource, told) = (kinds::pods(), Some(told));
        Action::Delete { resource, object, grace_period_seconds: None, propagation: None, told }
    }

    /// Deletes as the object itself says.
    pub(crate) fn delete(resource: &'static Resource, object: &Object) -> Self {
        let object = object.clone();
        Action::Delete { resource, object, grace_period_seconds: None, propagation: None, told: None }
    }

    /// Replaces the part, if it differs from what was read.
    pub(crate) fn update(resource: &'static Resource, part: Part, old: &Object, new: Object) -> Option<Self> {
        (*old != new).then_some(Action::Update { resource, part, object: new })
    }
}
