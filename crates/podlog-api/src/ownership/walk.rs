//! From values to sets of fields: which fields a value has, and in which two values differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Step};
use super::position::{List, Position, Shape};

/// Structures that Go's types always have, so that having one is nobody's doing.
const ALWAYS_THERE: &[&str] = &["metadata", "spec", "status", "template", "strategy", "updateStrategy"];

/// Why a value does not fit its kind: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    path: String,
    problem: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl Unfit {
    fn new(problem: impl Into<String>) -> Unfit {
        Unfit { path: String::new(), problem: problem.into() }
    }

    fn below(mut self, step: &str) -> Unfit {
        self.path.insert_str(0, step);
        self
    }
}

/// All fields of a value that somebody applies.
///
/// # Errors
/// For a field that the kind does not have, and for list elements without their keys or with the same keys.
pub(super) fn fields_of(value: &Value, position: &Position) -> Result<FieldSet, Unfit> {
    match (position.shape(), value) {
        (shape @ (Shape::Struct | Shape::Map), Value::Object(map)) if !map.is_empty() => {
            let mut set = FieldSet::default();
            for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let step = format!(".{name}");
                let below = position
                    .field(name)
                    .ok_or_else(|| Unfit::new("field not declared in schema").below(&step))?;
                let mut fields = fields_of(value, &below).map_err(|unfit| unfit.below(&step))?;
                fields.is_member |= shape == Shape::Map || is_empty(value);
                set.insert(format!("f:{name}"), fields);
            }
            Ok(set)
        }
        (Shape::List(list), Value::Array(elements)) => {
            let mut set = FieldSet::default();
            for (index, element) in elements.iter().enumerate() {
                let step = list.step(element).ok_or_else(|| without_key(list, element, index))?;
                let mut fields = fields_of(element, &position.element()).map_err(|unfit| {
                    unfit.below(
                        &FieldSet {
                            children: BTreeMap::from([(step.clone(), FieldSet::leaf())]),
                            ..FieldSet::default()
                        }
                        .paths()
                        .concat(),
                    )
                })?;
                fields.is_member = true;
                if set.children.contains_key(&step) {
                    let mut twice = FieldSet::default();
                    twice.insert(step, FieldSet::leaf());
                    return Err(Unfit::new(format!("duplicate entries for key {}", twice.paths().concat())));
                }
                set.insert(step, fields);
            }
            Ok(set)
        }
        (Shape::Struct, Value::Object(_)) => Ok(FieldSet::default()),
        _ => Ok(FieldSet::leaf()),
    }
}

fn without_key(list: List, element: &Value, index: usize) -> Unfit {
    let List::ByKeys(names) = list else { return Unfit::new("element without a key") };
    let missing = names.iter().find(|name| element.get(**name).is_none()).unwrap_or(&"");
    Unfit::new(format!(
        "element {index}: associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
    ))
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// In what two values differ.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Changes {
    fn insert(&mut self, step: &Step, below: Changes) {
        self.added.insert(step.clone(), below.added);
        self.modified.insert(step.clone(), below.modified);
        self.removed.insert(step.clone(), below.removed);
    }

    /// The place itself has come or gone.
    fn mark(mut self, old: Option<&Value>, new: Option<&Value>) -> Changes {
        match (old, new) {
            (None, Some(_)) => self.added.is_member = true,
            (Some(_), None) => self.removed.is_member = true,
            _ => {}
        }
        self
    }
}

/// In what `new` differs from `old`. Nothing is an error here: what does not fit its kind is one thing.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>, position: &Position) -> Changes {
    if old == new {
        return Changes::default();
    }
    match position.shape() {
        Shape::Struct | Shape::Map => match (as_map(old), as_map(new)) {
            (Some(before), Some(after)) if !(before.is_empty() && after.is_empty()) => {
                compare_maps(&before, &after, position).mark(old, new)
            }
            _ => whole(old, new),
        },
        Shape::List(list) => match (by_step(old, list), by_step(new, list)) {
            (Some(before), Some(after)) if !(before.is_empty() && after.is_empty()) => {
                compare_elements(&before, &after, position).mark(old, new)
            }
            _ => whole(old, new),
        },
        Shape::Leaf => whole(old, new),
    }
}

fn compare_maps(old: &BTreeMap<&str, &Value>, new: &BTreeMap<&str, &Value>, position: &Position) -> Changes {
    let empty = Value::Object(Map::new());
    let mut changes = Changes::default();
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (mut before, mut after) = (old.get(name).copied(), new.get(name).copied());
        let step = format!("f:{name}");
        let below = position.field(name);
        if position.shape() == Shape::Struct && ALWAYS_THERE.contains(name) {
            for side in [&mut before, &mut after] {
                side.get_or_insert(&empty);
            }
        }
        let below = match below {
            Some(below) => compare(before, after, &below),
            None => whole(before, after),
        };
        changes.insert(&step, below);
    }
    changes
}

fn compare_elements(
    old: &BTreeMap<Step, &Value>,
    new: &BTreeMap<Step, &Value>,
    position: &Position,
) -> Changes {
    let element = position.element();
    let mut changes = Changes::default();
    for step in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let below = compare(old.get(step).copied(), new.get(step).copied(), &element);
        changes.insert(step, below);
    }
    changes
}

/// The place as one thing.
fn whole(old: Option<&Value>, new: Option<&Value>) -> Changes {
    let mut changes = Changes::default().mark(old, new);
    changes.modified.is_member = old.is_some() && new.is_some() && old != new;
    changes
}

/// Nothing counts as an empty map; `None` is no map at all.
fn as_map(value: Option<&Value>) -> Option<BTreeMap<&str, &Value>> {
    match value {
        None => Some(BTreeMap::new()),
        Some(Value::Object(map)) => Some(map.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Some(_) => None,
    }
}

/// The elements of a list by what tells them apart; `None` when that does not.
pub(super) fn by_step(value: Option<&Value>, list: List) -> Option<BTreeMap<Step, &Value>> {
    match value {
        None => Some(BTreeMap::new()),
        Some(Value::Array(elements)) => {
            let found: Option<BTreeMap<Step, &Value>> =
                elements.iter().map(|element| Some((list.step(element)?, element))).collect();
            found.filter(|found| found.len() == elements.len())
        }
        Some(_) => None,
    }
}
