//! Sets of fields, as a tree, and their wire form `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// One step on the way to a field, in its wire form: `f:<name>` for a field, `k:<JSON object>` for the element of a list
/// with such keys, `v:<JSON>` for the element of a set, `i:<index>` for an element by its place.
pub(super) type Step = String;

/// A set of fields below some place, and whether the place itself is in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) is_member: bool,
    pub(super) children: BTreeMap<Step, FieldSet>,
}

/// Fields that nobody owns: they are the object's identity, or the server's.
const UNOWNED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

impl FieldSet {
    pub(super) fn leaf() -> FieldSet {
        FieldSet { is_member: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.children.is_empty()
    }

    /// Adds what is below a step, if there is anything.
    pub(super) fn insert(&mut self, step: Step, below: FieldSet) {
        if !below.is_empty() {
            self.children.insert(step, below);
        }
    }

    pub(super) fn union(mut self, other: &FieldSet) -> FieldSet {
        self.is_member |= other.is_member;
        for (step, theirs) in &other.children {
            let ours = self.children.remove(step).unwrap_or_default();
            self.children.insert(step.clone(), ours.union(theirs));
        }
        self
    }

    /// What is in this set and not in the other.
    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut left = FieldSet { is_member: self.is_member && !other.is_member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            let rest =
                other.children.get(step).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            left.insert(step.clone(), rest);
        }
        left
    }

    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet { is_member: self.is_member && other.is_member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                both.insert(step.clone(), ours.intersection(theirs));
            }
        }
        both
    }

    /// Leaves out what a writer of that subresource cannot own.
    pub(super) fn strip(&mut self, resource: &Resource, subresource: &str) {
        for path in UNOWNED {
            self.remove(path);
        }
        if let Some(metadata) = self.children.get_mut("f:metadata") {
            metadata.is_member = false;
        }
        match subresource {
            "" if resource.subresource("status").is_some() => self.remove(&["f:status"]),
            "status" => {
                self.remove(&["f:spec"]);
                self.remove(&["f:metadata", "f:ownerReferences"]);
                if resource.group == "apps" {
                    self.remove(&["f:metadata", "f:labels"]);
                }
            }
            _ => {}
        }
        self.children.retain(|_, below| !below.is_empty());
    }

    fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => drop(self.children.remove(*last)),
            [step, rest @ ..] => {
                if let Some(below) = self.children.get_mut(*step) {
                    below.remove(rest);
                }
            }
        }
    }

    /// The paths of all members, as messages name them: `.spec.containers[name="web"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        if self.is_member {
            paths.push(prefix.clone());
        }
        for (step, below) in &self.children {
            let length = prefix.len();
            prefix.push_str(&text_of(step));
            below.collect(prefix, paths);
            prefix.truncate(length);
        }
    }

    /// The wire form.
    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.is_member && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (step, below) in &self.children {
            map.insert(step.clone(), below.to_json());
        }
        Value::Object(map)
    }

    /// Reads the wire form; what is not in it is left out.
    pub(super) fn from_json(fields: &Value) -> FieldSet {
        let mut set = FieldSet::default();
        for (step, below) in fields.as_object().into_iter().flatten() {
            if step == "." {
                set.is_member = true;
            } else if let Some(step) = normal(step) {
                let mut below_set = FieldSet::from_json(below);
                below_set.is_member |= below.as_object().is_some_and(Map::is_empty);
                set.insert(step, below_set);
            }
        }
        set
    }
}

/// The step of a list element with these keys.
pub(super) fn key_step(keys: Map<String, Value>) -> Step {
    format!("k:{}", Value::Object(keys))
}

/// The step of an element of a set.
pub(super) fn value_step(value: &Value) -> Step {
    format!("v:{value}")
}

/// The same step however its JSON is written; `None` if it is no step.
fn normal(step: &str) -> Option<Step> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" => Some(step.to_owned()),
        "i" => rest.parse::<u64>().ok().map(|index| format!("i:{index}")),
        "k" => serde_json::from_str(rest).ok().map(key_step),
        "v" => serde_json::from_str(rest).ok().map(|value: Value| value_step(&value)),
        _ => None,
    }
}

fn text_of(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}
