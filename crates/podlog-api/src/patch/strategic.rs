//! Applying a strategic merge patch to an object, or to another patch.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    Problem, go_text,
    order::{Identity, arrange},
    strategy::{Lists, Position, Strategy},
};

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
pub(super) const SET_ORDER: &str = "$setElementOrder";

/// What the patch is merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// An object: directives are carried out, null deletes.
    Apply,
    /// Another patch: directives and nulls are kept for later.
    Combine,
}

type Json = Map<String, Value>;

pub(super) fn merge_map(
    mut original: Json,
    mut patch: Json,
    position: &Position,
    mode: Mode,
) -> Result<Json, Problem> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Json::new()),
            _ => Err(unknown_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch, mode)?;
    merge_ordered_lists(&mut original, &mut patch, position, mode)?;
    for (key, value) in patch {
        if let Some(field) = parallel_list(&key, DELETE_FROM_LIST)? {
            if mode == Mode::Combine {
                original.insert(key, value);
            } else {
                delete_from_list(&mut original, field, &value)?;
            }
            continue;
        }
        merge_field(&mut original, key, value, position, mode)?;
    }
    Ok(original)
}

fn merge_field(
    original: &mut Json,
    key: String,
    patch: Value,
    position: &Position,
    mode: Mode,
) -> Result<(), Problem> {
    if patch.is_null() {
        original.remove(&key);
        if mode == Mode::Combine {
            original.insert(key, Value::Null);
        }
        return Ok(());
    }
    let merged = match (original.remove(&key), patch) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            Some(Value::Object(merge_map(old, new, &position.field(&key).0, mode)?))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let (elements, strategy) = position.field(&key);
            Some(Value::Array(merge_list(old, new, &elements, strategy, mode)?))
        }
        (_, new) => fresh(new, mode),
    };
    original.extend(merged.map(|value| (key, value)));
    Ok(())
}

/// A value of the patch where there was none: in an object, without what only makes sense against an old value.
fn fresh(mut value: Value, mode: Mode) -> Option<Value> {
    if mode == Mode::Combine {
        return Some(value);
    }
    super::drop_nulls(&mut value);
    without_directives(value)
}

fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.filter(|(key, _)| !is_directive(key)).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

fn is_directive(key: &str) -> bool {
    let name = key.split('/').next().unwrap_or_default();
    matches!(name, RETAIN_KEYS | DELETE_FROM_LIST | SET_ORDER)
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    elements: &Position,
    strategy: Strategy,
    mode: Mode,
) -> Result<Vec<Value>, Problem> {
    if strategy.lists == Lists::Replace || (original.is_empty() && patch.is_empty()) {
        return Ok(patch);
    }
    let merged = merge_elements(original, patch, elements, strategy, mode)?;
    arrange(merged.elements, &merged.patch, &merged.before, identity(strategy))
}

/// Merged elements in no order yet, and the lists that order them.
struct MergedList {
    elements: Vec<Value>,
    before: Vec<Value>,
    patch: Vec<Value>,
}

fn merge_elements(
    original: Vec<Value>,
    patch: Vec<Value>,
    elements: &Position,
    strategy: Strategy,
    mode: Mode,
) -> Result<MergedList, Problem> {
    let Some(key) = list_key(&original, &patch, strategy)? else {
        let mut known: HashSet<&Value> = original.iter().collect();
        let added = patch.iter().filter(|value| known.insert(value)).cloned();
        let elements = original.iter().cloned().chain(added.collect::<Vec<_>>()).collect();
        return Ok(MergedList { elements, before: original, patch });
    };
    let (original, patch) = carry_out_element_directives(original, patch, key, mode)?;
    let identity = Identity::Key(key);
    let mut merged = original.clone();
    let mut places: HashMap<&Value, usize> = HashMap::with_capacity(original.len() + patch.len());
    for (place, element) in original.iter().enumerate() {
        if let Some(found) = element.get(key) {
            places.entry(found).or_insert(place);
        }
    }
    for element in &patch {
        match places.entry(identity.of(element)?) {
            Entry::Occupied(place) => {
                let slot = &mut merged[*place.get()];
                if let (Value::Object(old), Value::Object(new)) = (&mut *slot, element) {
                    *slot = Value::Object(merge_map(std::mem::take(old), new.clone(), elements, mode)?);
                }
            }
            Entry::Vacant(place) => {
                if let Some(element) = fresh(element.clone(), mode) {
                    place.insert(merged.len());
                    merged.push(element);
                }
            }
        }
    }
    Ok(MergedList { elements: merged, before: original, patch })
}

/// Carries out `$patch: delete` and `$patch: replace` elements; what is left of both lists.
fn carry_out_element_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &'static str,
    mode: Mode,
) -> Result<(Vec<Value>, Vec<Value>), Problem> {
    let mut plain = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for element in patch {
        match element.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
            None => plain.push(element),
            Some("delete") => {
                deleted.insert(Identity::Key(key).of(&element)?.clone());
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Problem::Failed("merging lists cannot yet be specified in the patch".into()));
            }
            Some(_) => {
                let map = element.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(&element[DIRECTIVE], map));
            }
        }
    }
    original.retain(|old| old.get(key).is_none_or(|found| !deleted.contains(found)));
    if !replace {
        return Ok((original, plain));
    }
    let kept = plain.into_iter().filter_map(|element| fresh(element, mode)).collect();
    Ok((kept, Vec::new()))
}

/// `$setElementOrder/list`: merges the list and puts it in the order given, live-only elements between.
fn merge_ordered_lists(
    original: &mut Json,
    patch: &mut Json,
    position: &Position,
    mode: Mode,
) -> Result<(), Problem> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(field) = parallel_list(&directive, SET_ORDER)?.map(str::to_owned) else { continue };
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(Problem::Malformed(BAD_ORDER.into()));
        };
        if mode == Mode::Combine {
            let same = original.get(&directive).is_none_or(|known| known.as_array() == Some(&order));
            if !same {
                return Err(Problem::Malformed(BAD_ORDER.into()));
            }
            original.insert(directive, Value::Array(order.clone()));
        }
        let (elements, strategy) = position.field(&field);
        let new = take_list(patch, &field)?;
        let old = take_list(original, &field)?;
        check_order(new.as_deref().unwrap_or_default(), &order, identity(strategy))?;
        let before = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(|element| fresh(element, mode)).collect(),
            (Some(old), Some(new)) if strategy.lists == Lists::Replace => {
                drop(old);
                new
            }
            (Some(old), Some(new)) => merge_elements(old, new, &elements, strategy, mode)?.elements,
        };
        original.insert(field, Value::Array(arrange(merged, &order, &before, identity(strategy))?));
    }
    Ok(())
}

const BAD_ORDER: &str = "invalid patch format of setElementOrder list";

fn take_list(map: &mut Json, field: &str) -> Result<Option<Vec<Value>>, Problem> {
    match map.remove(field) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => {
            Err(Problem::Failed(format!("expected a []interface {{}}, but received a {}", go_type(&other))))
        }
    }
}

/// The elements of the patch have to be in the order list, in its order.
fn check_order(patch: &[Value], order: &[Value], identity: Identity) -> Result<(), Problem> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for element in patch.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        let wanted = identity.of(element)?;
        loop {
            match rest.next() {
                Some(next) if identity.of(next)? == wanted => break,
                Some(_) => {}
                None => {
                    let (patch, order) = (Value::from(patch.to_vec()), Value::from(order.to_vec()));
                    return Err(Problem::Failed(format!(
                        "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                        go_text(&patch),
                        go_text(&order)
                    )));
                }
            }
        }
    }
    Ok(())
}

fn retain_keys(original: &mut Json, patch: &mut Json, mode: Mode) -> Result<(), Problem> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if mode == Mode::Combine {
        original.entry(RETAIN_KEYS).or_insert(keys);
        return Ok(());
    }
    let malformed = || Problem::Malformed("invalid patch format of retainKeys".into());
    let keys = keys.as_array().ok_or_else(malformed)?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let retained = |key: &str| keys.contains(key);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !retained(key)) {
        return Err(malformed());
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

fn delete_from_list(original: &mut Json, field: &str, values: &Value) -> Result<(), Problem> {
    let malformed = || Problem::Malformed("invalid patch format of primitive list".into());
    let values = values.as_array().ok_or_else(malformed)?;
    if let Some(Value::Array(list)) = original.get_mut(field) {
        let values: HashSet<&Value> = values.iter().collect();
        list.retain(|value| !values.contains(value));
    }
    Ok(())
}

/// The field of `$directive/field`, if the key is that directive.
fn parallel_list<'a>(key: &'a str, directive: &str) -> Result<Option<&'a str>, Problem> {
    let Some(rest) = key.strip_prefix(directive) else { return Ok(None) };
    rest.strip_prefix('/').map(Some).ok_or_else(|| {
        let text = if directive == SET_ORDER { BAD_ORDER } else { "invalid patch format of primitive list" };
        Problem::Malformed(text.into())
    })
}

/// The field by which elements are told apart; `None` for values that are their own identity.
fn list_key(
    original: &[Value],
    patch: &[Value],
    strategy: Strategy,
) -> Result<Option<&'static str>, Problem> {
    let mut kinds = original.iter().chain(patch).map(std::mem::discriminant);
    let first = kinds.next();
    if original.iter().chain(patch).any(Value::is_array) {
        return Err(Problem::Unprocessable);
    }
    if kinds.any(|kind| Some(kind) != first) {
        let lists = Value::from(vec![Value::from(original.to_vec()), Value::from(patch.to_vec())]);
        return Err(Problem::Failed(format!("list element types are not identical: {}", go_text(&lists))));
    }
    Ok(match strategy.lists {
        Lists::ByKey(key) => Some(key),
        Lists::Union | Lists::Replace => None,
    })
}

pub(super) fn identity(strategy: Strategy) -> Identity {
    match strategy.lists {
        Lists::ByKey(key) => Identity::Key(key),
        Lists::Union | Lists::Replace => Identity::Value,
    }
}

fn unknown_directive(directive: &Value, patch: Json) -> Problem {
    let mut map = patch;
    map.insert(DIRECTIVE.into(), directive.clone());
    Problem::Failed(format!("unknown patch type: {} in map: {}", go_text(directive), go_text(&map.into())))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
