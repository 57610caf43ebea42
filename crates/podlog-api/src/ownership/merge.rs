//! Putting an applied configuration into an object, and taking out what its applier does not name any more.

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::position::{List, Position, Shape};
use super::walk::by_step;

/// `live` with everything that `config` says. Null in `config` says nothing.
pub(super) fn merge(live: &Value, config: &Value, position: &Position) -> Value {
    match (position.shape(), live, config) {
        (Shape::Struct | Shape::Map, Value::Object(live), Value::Object(config)) => {
            let mut merged = live.clone();
            for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
                let value = match (live.get(name), position.field(name)) {
                    (Some(old), Some(below)) => merge(old, value, &below),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(list), Value::Array(_), Value::Array(elements)) => {
            merge_lists(live, elements, list, position).unwrap_or_else(|| config.clone())
        }
        _ => config.clone(),
    }
}

/// Elements of `config` in their order; those that only `live` has stay where they are between them. `None` when the elements
/// cannot be told apart.
fn merge_lists(live: &Value, config: &[Value], list: List, position: &Position) -> Option<Value> {
    let element = position.element();
    let ours = by_step(Some(live), list)?;
    let mut merged = Vec::new();
    let mut wanted = Vec::new();
    for value in config {
        wanted.push((list.step(value)?, value));
    }
    let mut wanted = wanted.into_iter().peekable();
    let is_wanted = |step: &str| config.iter().any(|value| list.step(value).as_deref() == Some(step));
    for old in live.as_array()? {
        let step = list.step(old)?;
        if !is_wanted(&step) {
            merged.push(old.clone());
            continue;
        }
        // Up to and including this one, unless it has come already.
        if wanted.clone().any(|(next, _)| next == step) {
            for (next, value) in wanted.by_ref() {
                merged.push(ours.get(&next).map_or_else(|| value.clone(), |old| merge(old, value, &element)));
                if next == step {
                    break;
                }
            }
        }
    }
    merged.extend(wanted.map(|(_, value)| value.clone()));
    Some(Value::Array(merged))
}

/// Takes out of `value` what is in `before` and has no owner in `owned`, nor has anything below it.
pub(super) fn prune(value: &mut Value, before: &FieldSet, owned: &FieldSet, position: &Position) {
    for (step, below) in &before.children {
        let owners = owned.children.get(step);
        let Some(owners) = owners else {
            remove(value, step, position);
            continue;
        };
        if let Some((child, position)) = child(value, step, position) {
            prune(child, below, owners, &position);
        }
    }
}

fn remove(value: &mut Value, step: &str, position: &Position) {
    match (position.shape(), value) {
        (Shape::Struct | Shape::Map, Value::Object(map)) => {
            if let Some(name) = step.strip_prefix("f:") {
                map.remove(name);
            }
        }
        (Shape::List(list), Value::Array(elements)) => {
            elements.retain(|element| list.step(element).as_deref() != Some(step));
        }
        _ => {}
    }
}

fn child<'a>(value: &'a mut Value, step: &str, position: &Position) -> Option<(&'a mut Value, Position)> {
    match (position.shape(), value) {
        (Shape::Struct | Shape::Map, Value::Object(map)) => field(map, step, position),
        (Shape::List(list), Value::Array(elements)) => {
            let found = elements.iter_mut().find(|element| list.step(element).as_deref() == Some(step))?;
            Some((found, position.element()))
        }
        _ => None,
    }
}

fn field<'a>(
    map: &'a mut Map<String, Value>,
    step: &str,
    position: &Position,
) -> Option<(&'a mut Value, Position)> {
    let name = step.strip_prefix("f:")?;
    Some((map.get_mut(name)?, position.field(name)?))
}
