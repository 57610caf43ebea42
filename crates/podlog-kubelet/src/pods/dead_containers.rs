//! Which ended containers are too many on a node (`evictContainers` of `pkg/kubelet/kuberuntime/kuberuntime_gc.go`).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::labels;
use crate::runtime::{Container, ContainerId, ContainerState};

/// Ended containers that are too many, as they were found last. Their pods' workers remove them.
#[derive(Clone, Default)]
pub(crate) struct Surplus(Arc<Mutex<HashSet<ContainerId>>>);

impl Surplus {
    /// Takes over what was found.
    pub(super) fn set(&self, surplus: HashSet<ContainerId>) {
        *self.0.lock() = surplus;
    }

    /// What is there now.
    pub(super) fn now(&self) -> HashSet<ContainerId> {
        self.0.lock().clone()
    }
}

/// Those that have to go so that no more than `total` are left: at first from containers of which there are more than their share, then the
/// oldest. The newest instance of a container is never among them.
pub(super) fn surplus(containers: &[Container], total: usize) -> HashSet<ContainerId> {
    let mut dead = dead_by_container(containers);
    let count = |dead: &HashMap<_, Vec<&Container>>| dead.values().map(Vec::len).sum::<usize>();
    let mut gone = HashSet::new();
    if count(&dead) > total {
        let share = (total / dead.len()).max(1);
        for instances in dead.values_mut() {
            let beyond = instances.split_off(share.min(instances.len()));
            gone.extend(beyond.into_iter().map(|container| container.id.clone()));
        }
    }
    let mut left: Vec<&Container> = dead.into_values().flatten().collect();
    left.sort_by_key(|container| Reverse(container.created_at));
    gone.extend(left.into_iter().skip(total).map(|container| container.id.clone()));
    gone
}

/// Ended instances but for the newest one of each container, newest first.
fn dead_by_container(containers: &[Container]) -> HashMap<(&str, &str), Vec<&Container>> {
    let mut instances: HashMap<(&str, &str), Vec<&Container>> = HashMap::new();
    for container in containers {
        let pod = container.labels.get(labels::POD_UID).map_or("", String::as_str);
        instances.entry((pod, &container.name)).or_default().push(container);
    }
    for instances in instances.values_mut() {
        instances.sort_by_key(|container| Reverse((container.attempt, container.created_at)));
        instances.remove(0);
        instances.retain(|container| container.state == ContainerState::Exited);
    }
    instances.retain(|_, instances| !instances.is_empty());
    instances
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::{ended, running};

    #[test]
    fn the_oldest_beyond_their_share_go_first() {
        // Container `a` has run three times before, `b` once.
        let mut containers: Vec<Container> = (0..3).map(|attempt| ended("a", attempt, 1).container).collect();
        containers
            .extend([running("a", 3), ended("b", 0, 0), ended("b", 5, 0)].map(|status| status.container));
        for (total, expected) in [
            (4, &[][..]),
            (3, &["a-0", "a-1"]),
            (2, &["a-0", "a-1"]),
            (1, &["a-0", "a-1", "b-0"]),
            (0, &["a-0", "a-1", "a-2", "b-0"]),
        ] {
            let mut found: Vec<String> = surplus(&containers, total).into_iter().map(|id| id.0).collect();
            found.sort();
            assert_eq!(found, expected, "{total}");
        }
        assert!(surplus(&[], 0).is_empty());
    }
}
