//! The strategic merge patch that leads from one object to another.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::{
    Problem,
    order::{Identity, Places},
    strategic::{DELETE_FROM_LIST, DIRECTIVE, RETAIN_KEYS, SET_ORDER, identity},
    strategy::{Lists, Position, Strategy},
};

type Json = Map<String, Value>;

/// Which differences go into the patch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    additions: bool,
    deletions: bool,
    retain_keys: bool,
}

impl Options {
    /// What is new or changed.
    pub(super) fn additions() -> Self {
        Options { additions: true, deletions: false, retain_keys: false }
    }

    /// What is gone.
    pub(super) fn deletions() -> Self {
        Options { additions: false, deletions: true, retain_keys: false }
    }
}

pub(super) fn maps(
    original: &Json,
    modified: &Json,
    position: &Position,
    options: Options,
) -> Result<Json, Problem> {
    let mut patch = Json::new();
    for (key, new) in modified {
        match original.get(key) {
            Some(old) => field(&mut patch, key, old, new, position, options)?,
            None if options.additions => {
                patch.insert(key.clone(), new.clone());
            }
            None => {}
        }
    }
    let gone = original.keys().filter(|key| !modified.contains_key(*key));
    if options.deletions {
        patch.extend(gone.clone().map(|key| (key.clone(), Value::Null)));
    }
    let kept: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
    let fewer = original.iter().any(|(key, value)| !value.is_null() && !modified.contains_key(key));
    if options.retain_keys && !kept.is_empty() && (!patch.is_empty() || fewer) {
        patch.insert(RETAIN_KEYS.into(), json!(kept));
    }
    Ok(patch)
}

fn field(
    patch: &mut Json,
    key: &str,
    old: &Value,
    new: &Value,
    position: &Position,
    options: Options,
) -> Result<(), Problem> {
    let (inner, strategy) = position.field(key);
    let options = Options { retain_keys: strategy.retain_keys, ..options };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let difference = maps(old, new, &inner, options)?;
            if !difference.is_empty() {
                patch.insert(key.into(), Value::Object(difference));
            }
        }
        (Value::Array(old), Value::Array(new)) if strategy.lists != Lists::Replace => {
            merging_lists(patch, key, old, new, &inner, strategy, options)?;
        }
        _ if options.additions && old != new => {
            patch.insert(key.into(), new.clone());
        }
        _ => {}
    }
    Ok(())
}

fn merging_lists(
    patch: &mut Json,
    key: &str,
    old: &[Value],
    new: &[Value],
    elements: &Position,
    strategy: Strategy,
    options: Options,
) -> Result<(), Problem> {
    if old.is_empty() {
        if !new.is_empty() && options.additions {
            patch.insert(key.into(), json!(new));
        }
        return Ok(());
    }
    match identity(strategy) {
        Identity::Key(merge_key) => keyed_lists(patch, key, old, new, (merge_key, elements), options),
        Identity::Value => {
            value_lists(patch, key, old, new, options);
            Ok(())
        }
    }
}

fn keyed_lists(
    patch: &mut Json,
    key: &str,
    old: &[Value],
    new: &[Value],
    (merge_key, elements): (&'static str, &Position),
    options: Options,
) -> Result<(), Problem> {
    let identity = Identity::Key(merge_key);
    let places = Places::of(new, identity);
    let mut changes = Vec::new();
    // Keys can repeat (one port, two protocols): the nth is compared with the nth.
    let mut before: HashMap<&Value, VecDeque<&Value>> = HashMap::new();
    for element in old {
        if let Some(found) = element.get(merge_key) {
            before.entry(found).or_default().push_back(element);
        }
    }
    for element in new {
        let wanted = identity.of(element)?;
        match before.get_mut(wanted).and_then(VecDeque::pop_front) {
            Some(before) => {
                changes.extend(element_change(before, element, wanted, (merge_key, elements), options)?)
            }
            None if options.additions => changes.push(element.clone()),
            None => {}
        }
    }
    places.sort(&mut changes);
    if options.deletions {
        for element in old {
            let wanted = identity.of(element)?;
            if !places.contains(element) {
                changes.push(json!({merge_key: wanted, DIRECTIVE: "delete"}));
            }
        }
    }
    let same_order =
        old.len() == new.len() && old.iter().zip(new).all(|(a, b)| a.get(merge_key) == b.get(merge_key));
    if !changes.is_empty() || (options.additions && !same_order) {
        let order: Vec<Value> = new.iter().map(|element| json!({merge_key: element[merge_key]})).collect();
        if !order.is_empty() {
            patch.insert(format!("{SET_ORDER}/{key}"), order.into());
        }
    }
    if !changes.is_empty() {
        patch.insert(key.into(), changes.into());
    }
    Ok(())
}

fn element_change(
    before: &Value,
    after: &Value,
    wanted: &Value,
    (merge_key, elements): (&str, &Position),
    options: Options,
) -> Result<Option<Value>, Problem> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return Ok(None) };
    let mut change = maps(before, after, elements, options)?;
    if change.is_empty() {
        return Ok(None);
    }
    change.insert(merge_key.into(), wanted.clone());
    Ok(Some(Value::Object(change)))
}

fn value_lists(patch: &mut Json, key: &str, old: &[Value], new: &[Value], options: Options) {
    let missing_in = |list: &[Value], other: &[Value]| -> Vec<Value> {
        let other = Places::of(other, Identity::Value);
        list.iter().filter(|value| !other.contains(value)).cloned().collect()
    };
    let added = if options.additions { missing_in(new, old) } else { Vec::new() };
    let deleted = if options.deletions { missing_in(old, new) } else { Vec::new() };
    if !new.is_empty() && (!deleted.is_empty() || (options.additions && old != new)) {
        patch.insert(format!("{SET_ORDER}/{key}"), json!(new));
    }
    if !added.is_empty() {
        patch.insert(key.into(), added.into());
    }
    if !deleted.is_empty() {
        patch.insert(format!("{DELETE_FROM_LIST}/{key}"), deleted.into());
    }
}
