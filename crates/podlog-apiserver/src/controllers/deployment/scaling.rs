//! A change of the deployment's size, outside of a rollout or in the middle of one.

use std::cmp::Reverse;

use super::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, is_recreate, rolling::max_surge};
use crate::controllers::objects::*;

/// Whether the size changed since the sets with pods were last told.
pub(super) fn is_scaling(rollout: &Rollout) -> bool {
    let wanted = replicas(&rollout.deployment).to_string();
    let mut active = rollout.sets.iter().filter(|set| replicas(set) > 0);
    active.any(|set| set.annotation(DESIRED_REPLICAS).is_some_and(|known| known != wanted))
}

/// Brings the sets to the new size: the only active one, or all of them in proportion.
pub(super) fn scale(rollout: &mut Rollout) {
    let wanted = replicas(&rollout.deployment);
    if let Some(index) = only_active_or_latest(rollout) {
        if replicas(&rollout.sets[index]) != wanted {
            rollout.scale_set(index, wanted);
        }
        return;
    }
    if is_saturated(rollout) {
        for index in rollout.old_indexes() {
            rollout.scale_set(index, 0);
        }
    } else if !is_recreate(&rollout.deployment) {
        scale_in_proportion(rollout);
    }
}

fn only_active_or_latest(rollout: &Rollout) -> Option<usize> {
    let active: Vec<usize> =
        (0..rollout.sets.len()).filter(|index| replicas(&rollout.sets[*index]) > 0).collect();
    match active.as_slice() {
        // Sets are in the order of their creation.
        [] => rollout.newest.or_else(|| rollout.sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    }
}

/// Whether the newest set has all pods already.
fn is_saturated(rollout: &Rollout) -> bool {
    let wanted = replicas(&rollout.deployment);
    rollout.newest.map(|index| &rollout.sets[index]).is_some_and(|set| {
        let told = set.annotation(DESIRED_REPLICAS).and_then(|text| text.parse::<i64>().ok());
        replicas(set) == wanted && told == Some(wanted) && status_count(set, "availableReplicas") == wanted
    })
}

fn scale_in_proportion(rollout: &mut Rollout) {
    let wanted = replicas(&rollout.deployment);
    let limit = if wanted > 0 { wanted + max_surge(&rollout.deployment) } else { 0 };
    let change = limit - rollout.wanted_total();
    let mut active: Vec<usize> =
        (0..rollout.sets.len()).filter(|index| replicas(&rollout.sets[*index]) > 0).collect();
    active.sort_by_key(|index| {
        // Largest first; between equals, the newer grow and the older shrink.
        let age = i64::try_from(*index).unwrap_or(0);
        (Reverse(replicas(&rollout.sets[*index])), if change > 0 { -age } else { age })
    });
    let mut sizes: Vec<i64> = active.iter().map(|index| replicas(&rollout.sets[*index])).collect();
    let mut changed = 0;
    if change != 0 {
        for (place, index) in active.iter().enumerate() {
            let share = share(rollout, *index, limit, change, changed);
            sizes[place] += share;
            changed += share;
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + change - changed).max(0);
        }
    }
    for (index, size) in active.into_iter().zip(sizes) {
        rollout.scale_set(index, size);
    }
}

/// How much of the change falls to one set, by its part of the size that the deployment had.
fn share(rollout: &Rollout, index: usize, limit: i64, change: i64, changed: i64) -> i64 {
    let left = change - changed;
    if left == 0 {
        return 0;
    }
    let set = &rollout.sets[index];
    let size = replicas(set);
    let fraction = if replicas(&rollout.deployment) == 0 {
        -size
    } else {
        let before = set.annotation(MAX_REPLICAS).and_then(|text| text.parse::<i64>().ok());
        let before =
            before.filter(|n| *n > 0).unwrap_or_else(|| status_count(&rollout.deployment, "replicas").max(1));
        round_divide(size * limit, before) - size
    };
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn round_divide(number: i64, by: i64) -> i64 {
    (2 * number + by).div_euclid(2 * by)
}
