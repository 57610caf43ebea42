//! Which containers of a pod.

use podlog_api::{Object, go};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Where a container stands in a pod's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    Ephemeral,
    Init,
}

/// Whether the user is told which container was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    Said,
    Left,
}

/// The containers whose logs are wanted, and what to say about the choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) containers: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// All containers: init, regular, ephemeral.
pub(super) fn all(pod: &Object) -> Choice {
    let kinds = [Kind::Init, Kind::Regular, Kind::Ephemeral];
    let containers = kinds.into_iter().flat_map(|kind| names(pod, kind)).map(str::to_owned).collect();
    Choice { containers, notes: Vec::new() }
}

/// The container that was asked for, or the one that a pod names as its default, or its first.
pub(super) fn one(pod: &Object, asked: &str, notes: Notes) -> Result<Choice, String> {
    let mut choice = Choice::default();
    let chosen =
        if asked.is_empty() { default_container(pod, notes, &mut choice.notes) } else { asked.to_owned() };
    if !exists(pod, &chosen) {
        let (pod_name, all) = (pod.name(), listed(pod));
        return Err(format!("container {chosen} is not valid for pod {pod_name} out of: {all}"));
    }
    choice.containers.push(chosen);
    Ok(choice)
}

fn default_container(pod: &Object, notes: Notes, said: &mut Vec<String>) -> String {
    if let Some(name) = pod.annotation(DEFAULT_CONTAINER).filter(|name| !name.is_empty()) {
        if exists(pod, name) {
            return name.to_owned();
        }
        said.push(format!("Default container name {} not found in pod {}", go::quote(name), pod.name()));
    }
    let first = names(pod, Kind::Regular).next().unwrap_or_default().to_owned();
    let count: usize =
        [Kind::Regular, Kind::Ephemeral, Kind::Init].into_iter().map(|kind| names(pod, kind).count()).sum();
    if count > 1 && notes == Notes::Said {
        said.push(format!("Defaulted container {} out of: {}", go::quote(&first), listed(pod)));
    }
    first
}

fn exists(pod: &Object, container: &str) -> bool {
    [Kind::Regular, Kind::Ephemeral, Kind::Init]
        .into_iter()
        .any(|kind| names(pod, kind).any(|name| name == container))
}

/// As `AllContainerNames` in `k8s.io/kubectl/pkg/cmd/util/podcmd`.
fn listed(pod: &Object) -> String {
    let with = |kind, suffix: &'static str| names(pod, kind).map(move |name| format!("{name}{suffix}"));
    let all =
        with(Kind::Regular, "").chain(with(Kind::Ephemeral, " (ephem)")).chain(with(Kind::Init, " (init)"));
    all.collect::<Vec<_>>().join(", ")
}

fn names(pod: &Object, kind: Kind) -> impl Iterator<Item = &str> {
    let pointer = match kind {
        Kind::Regular => "/spec/containers",
        Kind::Ephemeral => "/spec/ephemeralContainers",
        Kind::Init => "/spec/initContainers",
    };
    pod.array(pointer).iter().filter_map(|container| container.get("name")?.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(default: &str, init: &[&str], regular: &[&str], ephemeral: &[&str]) -> Object {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        Object(json!({
            "metadata": {"name": "p", "annotations": {DEFAULT_CONTAINER: default}},
            "spec": {"initContainers": list(init), "containers": list(regular), "ephemeralContainers": list(ephemeral)},
        }))
    }

    #[test]
    fn chooses_as_kubectl() {
        let many = "Defaulted container \"a\" out of: a, b, x (ephem), i (init)";
        let rows: &[(&str, &str, &str, &[&str])] = &[
            ("", "", "a", &[many]),
            ("b", "", "b", &[]),
            ("i", "", "i", &[]),
            ("no", "", "a", &["Default container name \"no\" not found in pod p", many]),
            ("b", "x", "x", &[]),
            ("", "zzz", "container zzz is not valid for pod p out of: a, b, x (ephem), i (init)", &[]),
        ];
        for (default, asked, chosen, notes) in rows {
            let pod = pod(default, &["i"], &["a", "b"], &["x"]);
            let (said, told) = match one(&pod, asked, Notes::Said) {
                Ok(choice) => (choice.containers.concat(), choice.notes),
                Err(text) => (text, Vec::new()),
            };
            assert_eq!((said.as_str(), told), (*chosen, notes.iter().map(|&note| note.to_owned()).collect()));
        }
        assert_eq!(one(&pod("", &[], &["a"], &[]), "", Notes::Said).unwrap().notes, Vec::<String>::new());
        assert_eq!(one(&pod("", &["i"], &["a"], &[]), "", Notes::Left).unwrap().notes, Vec::<String>::new());
        assert_eq!(all(&pod("", &["i"], &["a", "b"], &["x"])).containers, ["i", "a", "b", "x"]);
    }
}
