//! The entries of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::field_set::FieldSet;
use super::{Conflict, Writer};
use crate::Object;
use crate::resource::Resource;

/// More entries of updates than this are merged (`DefaultMaxUpdateManagers`),
const MAX_UPDATERS: usize = 10;
/// into one of this name.
const ANCIENT: &str = "ancient-changes";

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// By an apply patch.
    Apply,
    /// By anything else.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    time: String,
    subresource: String,
    set: FieldSet,
}

impl Entry {
    pub(super) fn new(resource: &Resource, writer: &Writer, operation: Operation) -> Entry {
        Entry {
            manager: writer.manager.clone(),
            operation,
            api_version: resource.api_version(),
            time: writer.time.clone(),
            subresource: writer.subresource.clone(),
            set: FieldSet::default(),
        }
    }

    /// Whether it is the same manager's. An applier is the same whatever version it speaks.
    fn is_of(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn from_json(entry: &Value) -> Option<Entry> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match &*text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Entry {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            set: FieldSet::from_json(entry.get("fieldsV1").unwrap_or(&Value::Null)),
        })
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        let fields = [
            ("manager", &*self.manager),
            ("operation", self.operation.as_str()),
            ("apiVersion", &self.api_version),
            ("time", &self.time),
            ("subresource", &self.subresource),
            ("fieldsType", "FieldsV1"),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            map.insert(name.into(), json!(value));
        }
        map.insert("fieldsV1".into(), self.set.to_json());
        Value::Object(map)
    }

    /// As messages name it.
    fn name(&self) -> String {
        let mut name = crate::go::quote(&self.manager);
        if !self.subresource.is_empty() {
            name += &format!(" with subresource {}", crate::go::quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            name += &format!(" using {}", self.api_version);
        }
        name
    }
}

/// All owners of an object's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers(Vec<Entry>);

impl Managers {
    /// As an object names them.
    pub(super) fn of(object: &Object) -> Managers {
        Managers(object.array("/metadata/managedFields").iter().filter_map(Entry::from_json).collect())
    }

    /// As the new state names them, or, when it does not, the old one. A list of one empty entry clears them.
    pub(super) fn of_update(new: &Object, old: Option<&Object>) -> Managers {
        let given = new.array("/metadata/managedFields");
        let clears = matches!(given, [Value::Object(entry)] if entry.is_empty());
        match old {
            Some(old) if given.is_empty() => Managers::of(old),
            _ if clears => Managers::default(),
            _ => Managers::of(new),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of one manager.
    pub(super) fn set_of(&self, entry: &Entry) -> FieldSet {
        self.0.iter().find(|other| other.is_of(entry)).map(|other| other.set.clone()).unwrap_or_default()
    }

    /// Everybody's fields.
    pub(super) fn union(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::default(), |all, entry| all.union(&entry.set))
    }

    /// Changes what one manager owns. Its time is that of its last change.
    pub(super) fn change(&mut self, mut entry: Entry, change: impl FnOnce(&FieldSet) -> FieldSet) {
        let at = self.0.iter().position(|other| other.is_of(&entry));
        let old = at.map(|at| self.0.remove(at));
        let before = old.as_ref().map(|old| old.set.clone()).unwrap_or_default();
        entry.set = change(&before);
        if let Some(old) = old.filter(|old| old.set == entry.set) {
            entry.time = old.time;
        }
        if !entry.set.is_empty() || entry.operation == Operation::Apply {
            self.0.push(entry);
        }
    }

    /// Takes fields away from everybody else.
    pub(super) fn disown_all_but(&mut self, entry: &Entry, fields: &FieldSet) {
        for other in self.0.iter_mut().filter(|other| !other.is_of(entry)) {
            other.set = other.set.difference(fields);
        }
        self.0.retain(|other| other.is_of(entry) || !other.set.is_empty());
    }

    /// Which of these fields somebody else owns, by owner.
    pub(super) fn conflicts(&self, entry: &Entry, fields: &FieldSet) -> Vec<Conflict> {
        let mut others: Vec<&Entry> = self.0.iter().filter(|other| !other.is_of(entry)).collect();
        others.sort_by_key(|other| other.name());
        let of = |other: &Entry| {
            let owner = other.name();
            let paths = other.set.intersection(fields).paths();
            paths.into_iter().map(move |path| Conflict { owner: owner.clone(), path }).collect::<Vec<_>>()
        };
        others.into_iter().flat_map(of).collect()
    }

    /// Merges the oldest entries of updates while there are too many.
    pub(super) fn limit_updaters(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.0.len()).filter(|at| self.0[*at].operation == Operation::Update).collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by(|one, other| self.0[*one].time.cmp(&self.0[*other].time));
        let merged: Vec<usize> = updaters[..=updaters.len() - MAX_UPDATERS].to_vec();
        let mut ancient = self.0[merged[merged.len() - 1]].clone();
        ancient.manager = ANCIENT.to_owned();
        ancient.subresource = String::new();
        ancient.set = merged.iter().fold(FieldSet::default(), |all, at| all.union(&self.0[*at].set));
        let mut at = 0;
        self.0.retain(|_| {
            at += 1;
            !merged.contains(&(at - 1))
        });
        self.0.push(ancient);
    }

    /// Writes them into an object, in upstream's order.
    pub(super) fn write(mut self, object: &mut Object) {
        self.0.sort_by(|one, other| {
            let key = |entry: &Entry| {
                let Entry { manager, operation, api_version, time, subresource, .. } = entry.clone();
                (operation, time, manager, api_version, subresource)
            };
            key(one).cmp(&key(other))
        });
        let entries: Vec<Value> = self.0.iter().map(Entry::to_json).collect();
        if entries.is_empty() {
            object.metadata_mut().remove("managedFields");
        } else {
            object.metadata_mut().insert("managedFields".into(), Value::Array(entries));
        }
    }
}
