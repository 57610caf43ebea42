//! The rolling update: new pods as far as the surge allows, old pods down as far as availability allows.

use podlog_api::Object;
use serde_json::Value;

use super::{Rollout, is_recreate};
use crate::controllers::objects::*;

/// Brings the newest set nearer to its size; says whether there was something to do.
pub(super) fn scale_newest(rollout: &mut Rollout) -> bool {
    let Some(index) = rollout.newest else { return false };
    let (wanted, present) = (replicas(&rollout.deployment), replicas(&rollout.sets[index]));
    let size = if present >= wanted {
        wanted
    } else {
        newest_size(&rollout.deployment, rollout.wanted_total(), present)
    };
    rollout.scale_set(index, size)
}

/// Takes pods off the old sets, broken ones first; says whether there was something to do.
pub(super) fn scale_old(rollout: &mut Rollout) -> bool {
    let old: Vec<usize> = rollout.old_indexes();
    if old.iter().map(|index| replicas(&rollout.sets[*index])).sum::<i64>() == 0 {
        return false;
    }
    let min_available = replicas(&rollout.deployment) - max_unavailable(&rollout.deployment);
    let newest_unavailable = rollout.newest.map_or(0, |index| {
        replicas(&rollout.sets[index]) - status_count(&rollout.sets[index], "availableReplicas")
    });
    let allowed = rollout.wanted_total() - min_available - newest_unavailable;
    if allowed <= 0 {
        return false;
    }
    let cleaned = drop_unhealthy(rollout, &old, allowed);
    // As upstream: counted by what is available, so that both steps together keep the minimum.
    let available = rollout.status_total("availableReplicas");
    let dropped = drop_available(rollout, &old, available - min_available);
    cleaned + dropped > 0
}

fn drop_unhealthy(rollout: &mut Rollout, old: &[usize], allowed: i64) -> i64 {
    let mut dropped = 0;
    for index in old {
        let size = replicas(&rollout.sets[*index]);
        let unhealthy = size - status_count(&rollout.sets[*index], "availableReplicas");
        let drop = unhealthy.min(allowed - dropped).max(0);
        if drop > 0 {
            rollout.scale_set(*index, size - drop);
            dropped += drop;
        }
    }
    dropped
}

fn drop_available(rollout: &mut Rollout, old: &[usize], allowed: i64) -> i64 {
    let mut dropped = 0;
    for index in old {
        let size = replicas(&rollout.sets[*index]);
        let drop = size.min(allowed - dropped).max(0);
        if drop > 0 {
            rollout.scale_set(*index, size - drop);
            dropped += drop;
        }
    }
    dropped
}

/// The size that the newest set (of `present` pods) may have now, if all sets together are to have `total`.
pub(super) fn newest_size(deployment: &Object, total: i64, present: i64) -> i64 {
    let wanted = replicas(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - total;
    present + room.min(wanted - present).max(0)
}

/// Pods that may exist beyond the wanted number.
pub(super) fn max_surge(deployment: &Object) -> i64 {
    fenceposts(deployment).0
}

/// Pods that may be missing from the wanted number.
pub(super) fn max_unavailable(deployment: &Object) -> i64 {
    fenceposts(deployment).1.min(replicas(deployment))
}

/// Surge rounds up, unavailability down; if both come to nothing, one pod may be missing, else nothing would ever move.
fn fenceposts(deployment: &Object) -> (i64, i64) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let rolling = &deployment.0["spec"]["strategy"]["rollingUpdate"];
    let wanted = replicas(deployment);
    let surge = amount(&rolling["maxSurge"], wanted, Rounding::Up);
    let unavailable = amount(&rolling["maxUnavailable"], wanted, Rounding::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[derive(Clone, Copy)]
enum Rounding {
    Up,
    Down,
}

/// A number, or a percentage of `total`; 25% where it is not set.
fn amount(value: &Value, total: i64, rounding: Rounding) -> i64 {
    if let Some(number) = value.as_i64() {
        return number;
    }
    let percent =
        value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok());
    let hundredths = percent.unwrap_or(25).saturating_mul(total);
    match rounding {
        Rounding::Up => hundredths.saturating_add(99) / 100,
        Rounding::Down => hundredths / 100,
    }
}
