//! The order of merged lists: what the patch orders comes as it says, the rest keeps its place between.

use std::collections::HashMap;

use serde_json::Value;

use super::Problem;

/// What identifies an element: a field of it, or all of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity {
    Key(&'static str),
    Value,
}

impl Identity {
    /// The identity of an element; upstream's failure where it has none.
    pub(super) fn of(self, element: &Value) -> Result<&Value, Problem> {
        match self {
            Identity::Value => Ok(element),
            Identity::Key(key) => match element {
                Value::Object(map) => map.get(key).ok_or_else(|| Problem::no_merge_key(element, key)),
                _ => Err(Problem::Failed(format!("value for key {key} is not a map"))),
            },
        }
    }

    /// As [`Identity::of`]; `None` where it has none.
    fn find(self, element: &Value) -> Option<&Value> {
        match self {
            Identity::Value => Some(element),
            Identity::Key(key) => element.get(key),
        }
    }
}

/// Where in a list the elements are, by identity. The first of several with the same one counts.
pub(super) struct Places<'l> {
    identity: Identity,
    places: HashMap<&'l Value, usize>,
}

impl<'l> Places<'l> {
    pub(super) fn of(list: &'l [Value], identity: Identity) -> Self {
        let mut places = HashMap::with_capacity(list.len());
        for (place, element) in list.iter().enumerate() {
            if let Some(found) = identity.find(element) {
                places.entry(found).or_insert(place);
            }
        }
        Places { identity, places }
    }

    /// The place of the element that has the same identity as `element`.
    pub(super) fn get(&self, element: &Value) -> Option<usize> {
        self.places.get(self.identity.find(element)?).copied()
    }

    pub(super) fn contains(&self, element: &Value) -> bool {
        self.get(element).is_some()
    }

    /// Sorts by these places, elements that have none last.
    pub(super) fn sort(&self, list: &mut [Value]) {
        list.sort_by_cached_key(|element| self.get(element).unwrap_or(usize::MAX));
    }
}

/// Orders `merged`: elements that `wanted` names in its order, the others as in `before`, each before the first element that
/// follows it there.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    identity: Identity,
) -> Result<Vec<Value>, Problem> {
    for element in &merged {
        identity.of(element)?;
    }
    let (wanted, before) = (Places::of(wanted, identity), Places::of(before, identity));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| wanted.contains(element));
    wanted.sort(&mut named);
    before.sort(&mut others);
    Ok(interleave(others, named, &before))
}

fn interleave(others: Vec<Value>, named: Vec<Value>, before: &Places<'_>) -> Vec<Value> {
    let mut arranged = Vec::with_capacity(others.len() + named.len());
    let (mut others, mut named) = (others.into_iter().peekable(), named.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return arranged,
            (other, None) => other.is_some(),
            (None, Some(_)) => false,
            (Some(other), Some(name)) => {
                let places = before.get(other).zip(before.get(name));
                places.is_some_and(|(other, name)| other < name)
            }
        };
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
}
