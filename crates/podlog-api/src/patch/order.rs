//! The order of merged lists: what the patch orders comes as it says, the rest keeps its place between.

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

    /// Where in `list` the element of this identity is.
    pub(super) fn position(self, list: &[Value], wanted: &Value) -> Option<usize> {
        list.iter().position(|element| match self {
            Identity::Value => element == wanted,
            Identity::Key(key) => element.get(key) == Some(wanted),
        })
    }

    fn position_of(self, list: &[Value], element: &Value) -> Option<usize> {
        self.position(list, self.of(element).ok()?)
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
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| identity.position_of(wanted, element).is_some());
    sort_like(&mut named, wanted, identity);
    sort_like(&mut others, before, identity);
    Ok(interleave(others, named, before, identity))
}

/// Sorts by the places in `order`, elements that are not in it last.
pub(super) fn sort_like(list: &mut [Value], order: &[Value], identity: Identity) {
    list.sort_by_key(|element| identity.position_of(order, element).unwrap_or(usize::MAX));
}

fn interleave(others: Vec<Value>, named: Vec<Value>, before: &[Value], identity: Identity) -> Vec<Value> {
    let mut arranged = Vec::with_capacity(others.len() + named.len());
    let (mut others, mut named) = (others.into_iter().peekable(), named.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return arranged,
            (other, None) => other.is_some(),
            (None, Some(_)) => false,
            (Some(other), Some(name)) => {
                let places = identity.position_of(before, other).zip(identity.position_of(before, name));
                places.is_some_and(|(other, name)| other < name)
            }
        };
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
}
