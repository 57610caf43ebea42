//! Room on nodes: what pods ask for, against what a node has.

use std::collections::BTreeMap;

use podlog_api::{Object, quantity::Quantity};
use serde_json::Value;

use super::{claims::OnNode, filters::Obstacle};

/// Amounts by resource, in billionths.
pub(super) type Amounts = BTreeMap<String, i128>;

/// What the node lacks for the pod, if anything.
pub(super) fn missing(pod: &Object, node: &Object, on_node: &OnNode) -> Option<Obstacle> {
    let allocatable = allocatable(node);
    let all_of = |resource: &str| allocatable.get(resource).copied().unwrap_or(0);
    let mut reasons = Vec::new();
    let room = all_of("pods") / 1_000_000_000;
    if allocatable.contains_key("pods") && i128::try_from(on_node.count()).unwrap_or(i128::MAX) >= room {
        reasons.push("Too many pods".to_owned());
    }
    let mut is_of_the_node = false;
    for (resource, amount) in requests(pod) {
        let all = all_of(&resource);
        if amount > 0 && amount > all - on_node.requested(&resource) {
            reasons.push(format!("Insufficient {resource}"));
            is_of_the_node |= amount > all;
        }
    }
    (!reasons.is_empty()).then_some(Obstacle { reasons, is_of_the_node })
}

/// How much of the node's processors and memory is asked for, the fuller of both.
pub(super) fn load_percent(node: &Object, on_node: &OnNode) -> i64 {
    let allocatable = allocatable(node);
    let percent = |resource: &str| {
        let all = allocatable.get(resource).copied().filter(|all| *all > 0)?;
        i64::try_from(on_node.requested(resource) * 100 / all).ok()
    };
    percent("cpu").max(percent("memory")).unwrap_or(0)
}

fn allocatable(node: &Object) -> Amounts {
    let found = node.at("/status/allocatable").or_else(|| node.at("/status/capacity"));
    amounts(found.unwrap_or(&Value::Null))
}

/// What a pod asks for: its containers together, or more if an init container needs more while it runs; sidecars always
/// count. As `k8s.io/component-helpers/resource`.
pub(super) fn requests(pod: &Object) -> Amounts {
    let mut running = Amounts::new();
    for container in pod.array("/spec/containers") {
        add(&mut running, &amounts(&container["resources"]["requests"]));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in pod.array("/spec/initContainers") {
        let mut own = amounts(&container["resources"]["requests"]);
        if container["restartPolicy"] == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, sidecars.clone());
        } else {
            add(&mut own, &sidecars);
            raise(&mut starting, own);
        }
    }
    raise(&mut running, starting);
    for (resource, amount) in amounts(pod.at("/spec/resources/requests").unwrap_or(&Value::Null)) {
        running.insert(resource, amount);
    }
    add(&mut running, &amounts(pod.at("/spec/overhead").unwrap_or(&Value::Null)));
    running
}

fn amounts(list: &Value) -> Amounts {
    let pairs = list.as_object().into_iter().flatten();
    pairs
        .filter_map(|(resource, amount)| Some((resource.clone(), Quantity::from_json(amount)?.nanos())))
        .collect()
}

pub(super) fn add(to: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *to.entry(resource.clone()).or_default() += amount;
    }
}

/// What was added before.
pub(super) fn subtract(from: &mut Amounts, less: &Amounts) {
    for (resource, amount) in less {
        if let Some(known) = from.get_mut(resource) {
            *known -= amount;
        }
    }
}

fn raise(to: &mut Amounts, at_least: Amounts) {
    for (resource, amount) in at_least {
        let known = to.entry(resource).or_default();
        *known = amount.max(*known);
    }
}
