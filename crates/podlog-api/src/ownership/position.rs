//! What the fields of a kind are to ownership: maps and lists whose parts have owners of their own, or wholes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::field_set::{Step, key_step, value_step};
use crate::schema::{FieldType, Schemas};

/// A place in the schema of a kind.
#[derive(Clone, Debug)]
pub(super) struct Position {
    kind: FieldType,
    list: List,
    is_atomic: bool,
}

/// What a list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum List {
    /// One thing: the default.
    #[default]
    Atomic,
    /// Elements that are told apart by these fields.
    ByKeys(&'static [&'static str]),
    /// Values, each at most once.
    Set,
}

/// What a value is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One thing with one owner.
    Leaf,
    /// A structure: its fields have owners.
    Struct,
    /// A map: its entries have owners, and each entry can be owned by itself.
    Map,
    /// A list: its elements have owners.
    List(List),
}

impl Position {
    pub(super) fn root(schema: &str) -> Position {
        Position { kind: FieldType::Ref(Arc::from(schema)), list: List::Atomic, is_atomic: false }
    }

    /// The place of a field; `None` when the kind has no such field.
    pub(super) fn field(&self, name: &str) -> Option<Position> {
        match &self.kind {
            FieldType::Ref(definition) => {
                let kind = Schemas::shared().definition(definition)?.field(name)?.clone();
                let short = definition.strip_prefix("io.k8s.api.").unwrap_or(definition);
                let fact = |(d, f): (&str, &str)| d == short && f == name;
                let list = LISTS.iter().find(|(d, f, _)| fact((d, f))).map(|(_, _, list)| *list);
                let is_atomic = ATOMIC_MAPS.iter().any(|(d, f)| fact((d, f)));
                Some(Position { kind, list: list.unwrap_or_default(), is_atomic })
            }
            FieldType::Map(inner) => {
                Some(Position { kind: (**inner).clone(), list: List::Atomic, is_atomic: false })
            }
            _ => None,
        }
    }

    /// The place of the elements of a list.
    pub(super) fn element(&self) -> Position {
        let kind = match &self.kind {
            FieldType::Array(element) => (**element).clone(),
            _ => FieldType::Any,
        };
        Position { kind, list: List::Atomic, is_atomic: false }
    }

    pub(super) fn shape(&self) -> Shape {
        match &self.kind {
            _ if self.is_atomic => Shape::Leaf,
            FieldType::Ref(definition) => {
                let short = definition.strip_prefix("io.k8s.api.").unwrap_or(definition);
                if ATOMIC_STRUCTS.contains(&short) { Shape::Leaf } else { Shape::Struct }
            }
            FieldType::Map(_) => Shape::Map,
            FieldType::Array(_) if self.list != List::Atomic => Shape::List(self.list),
            _ => Shape::Leaf,
        }
    }
}

impl List {
    /// What tells an element from the others; `None` when it lacks it.
    pub(super) fn step(self, element: &Value) -> Option<Step> {
        match self {
            List::Atomic => None,
            List::Set => Some(value_step(element)),
            List::ByKeys(names) => {
                let mut keys = Map::new();
                for name in names {
                    let value = element.get(*name).cloned().or_else(|| default_of(name))?;
                    keys.insert((*name).to_owned(), value);
                }
                Some(key_step(keys))
            }
        }
    }
}

/// Keys that may be left out, and what they are then.
fn default_of(key: &str) -> Option<Value> {
    (key == "protocol").then(|| Value::from("TCP"))
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const NAME: List = List::ByKeys(&["name"]);
const TYPE: List = List::ByKeys(&["type"]);
const IP: List = List::ByKeys(&["ip"]);
const PORTS: List = List::ByKeys(&["containerPort", "protocol"]);
const MOUNTS: List = List::ByKeys(&["mountPath"]);
const DEVICES: List = List::ByKeys(&["devicePath"]);

/// Definition (without `io.k8s.api.`), field, what the list is: `x-kubernetes-list-type` and `x-kubernetes-list-map-keys` of
/// Kubernetes' OpenAPI document. Lists that are not here are atomic.
const LISTS: &[(&str, &str, List)] = &[
    (META, "finalizers", List::Set),
    (META, "ownerReferences", List::ByKeys(&["uid"])),
    ("apps.v1.DaemonSetStatus", "conditions", TYPE),
    ("apps.v1.DeploymentStatus", "conditions", TYPE),
    ("apps.v1.ReplicaSetStatus", "conditions", TYPE),
    ("apps.v1.StatefulSetStatus", "conditions", TYPE),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", List::Set),
    ("batch.v1.UncountedTerminatedPods", "failed", List::Set),
    ("batch.v1.UncountedTerminatedPods", "succeeded", List::Set),
    ("certificates.v1.CertificateSigningRequestStatus", "conditions", TYPE),
    ("core.v1.Container", "env", NAME),
    ("core.v1.Container", "ports", PORTS),
    ("core.v1.Container", "volumeDevices", DEVICES),
    ("core.v1.Container", "volumeMounts", MOUNTS),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", List::Set),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", NAME),
    ("core.v1.ContainerStatus", "volumeMounts", MOUNTS),
    ("core.v1.EphemeralContainer", "env", NAME),
    ("core.v1.EphemeralContainer", "ports", PORTS),
    ("core.v1.EphemeralContainer", "volumeDevices", DEVICES),
    ("core.v1.EphemeralContainer", "volumeMounts", MOUNTS),
    ("core.v1.NamespaceStatus", "conditions", TYPE),
    ("core.v1.NodeSpec", "podCIDRs", List::Set),
    ("core.v1.NodeStatus", "addresses", TYPE),
    ("core.v1.NodeStatus", "conditions", TYPE),
    ("core.v1.PodSpec", "containers", NAME),
    ("core.v1.PodSpec", "ephemeralContainers", NAME),
    ("core.v1.PodSpec", "hostAliases", IP),
    ("core.v1.PodSpec", "imagePullSecrets", NAME),
    ("core.v1.PodSpec", "initContainers", NAME),
    ("core.v1.PodSpec", "resourceClaims", NAME),
    ("core.v1.PodSpec", "schedulingGates", NAME),
    ("core.v1.PodSpec", "topologySpreadConstraints", List::ByKeys(&["topologyKey", "whenUnsatisfiable"])),
    ("core.v1.PodSpec", "volumes", NAME),
    ("core.v1.PodStatus", "conditions", TYPE),
    ("core.v1.PodStatus", "podIPs", IP),
    ("core.v1.PodStatus", "resourceClaimStatuses", NAME),
    ("core.v1.ResourceRequirements", "claims", NAME),
    ("core.v1.ResourceStatus", "resources", List::ByKeys(&["resourceID"])),
    ("core.v1.ServiceAccount", "secrets", NAME),
    ("core.v1.ServiceSpec", "ports", List::ByKeys(&["port", "protocol"])),
    ("core.v1.ServiceStatus", "conditions", TYPE),
    ("batch.v1.JobStatus", "conditions", TYPE),
    ("discovery.v1.Endpoint", "addresses", List::Set),
];

/// Maps that are one thing (`x-kubernetes-map-type: atomic` at a field).
const ATOMIC_MAPS: &[(&str, &str)] =
    &[("core.v1.PodSpec", "nodeSelector"), ("core.v1.ServiceSpec", "selector")];

/// Structures that are one thing (`x-kubernetes-map-type: atomic` at a definition).
const ATOMIC_STRUCTS: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn full(short: &str) -> String {
        if short.starts_with("io.k8s.apimachinery") {
            short.to_owned()
        } else {
            format!("io.k8s.api.{short}")
        }
    }

    #[test]
    fn facts_name_fields_that_exist() {
        let schemas = Schemas::shared();
        let mut known = 0;
        for (definition, field, list) in LISTS {
            // Kinds that are not served yet have no schema.
            let Some(found) = schemas.definition(&full(definition)) else { continue };
            let Some(FieldType::Array(element)) = found.field(field) else { panic!("{definition}.{field}") };
            known += 1;
            if let (List::ByKeys(keys), FieldType::Ref(element)) = (list, &**element) {
                let element = schemas.definition(element).expect("an element");
                keys.iter()
                    .for_each(|key| assert!(element.field(key).is_some(), "{definition}.{field} {key}"));
            }
        }
        for (definition, field) in ATOMIC_MAPS {
            let found = schemas.definition(&full(definition)).and_then(|found| found.field(field));
            assert!(matches!(found, Some(FieldType::Map(_))), "{definition}.{field}");
        }
        let structs = ATOMIC_STRUCTS.iter().filter(|name| schemas.definition(&full(name)).is_some()).count();
        assert!(known > 35 && structs > 12, "{known} {structs}");
    }
}
