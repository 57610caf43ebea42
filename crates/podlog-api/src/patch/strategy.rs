//! Which lists merge, and by what: the `x-kubernetes-patch-*` facts of Kubernetes' OpenAPI document.

use std::sync::Arc;

use crate::schema::{FieldType, Schemas};

/// What a strategic merge patch does to a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lists {
    /// It replaces the list: the default.
    #[default]
    Replace,
    /// It merges the elements that have the same value in this field.
    ByKey(&'static str),
    /// It adds the values that are missing.
    Union,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strategy {
    /// If it is a list.
    pub(crate) lists: Lists,
    /// Whether a patch names all keys that remain: the fields exclude each other, as the kinds of volume do.
    pub(crate) retain_keys: bool,
}

/// The strategy of a field of a definition (e.g. `io.k8s.api.core.v1.PodSpec`, `containers`), where it is not the default.
pub(crate) fn merge_key(definition: &str, field: &str) -> Option<Strategy> {
    let short = definition.strip_prefix("io.k8s.api.").unwrap_or(definition);
    let (_, _, lists, retain_keys) = FACTS.iter().find(|(d, f, _, _)| *d == short && *f == field)?;
    Some(Strategy { lists: *lists, retain_keys: *retain_keys })
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const NAME: Lists = Lists::ByKey("name");
const TYPE: Lists = Lists::ByKey("type");

/// Definition (without `io.k8s.api.`), field, what happens to lists, whether keys are retained.
const FACTS: &[(&str, &str, Lists, bool)] = &[
    (META, "ownerReferences", Lists::ByKey("uid"), false),
    (META, "finalizers", Lists::Union, false),
    ("core.v1.PodSpec", "containers", NAME, false),
    ("core.v1.PodSpec", "initContainers", NAME, false),
    ("core.v1.PodSpec", "ephemeralContainers", NAME, false),
    ("core.v1.PodSpec", "volumes", NAME, true),
    ("core.v1.PodSpec", "imagePullSecrets", NAME, false),
    ("core.v1.PodSpec", "hostAliases", Lists::ByKey("ip"), false),
    ("core.v1.PodSpec", "topologySpreadConstraints", Lists::ByKey("topologyKey"), false),
    ("core.v1.PodSpec", "resourceClaims", NAME, true),
    ("core.v1.PodSpec", "schedulingGates", NAME, false),
    ("core.v1.Container", "env", NAME, false),
    ("core.v1.Container", "ports", Lists::ByKey("containerPort"), false),
    ("core.v1.Container", "volumeMounts", Lists::ByKey("mountPath"), false),
    ("core.v1.Container", "volumeDevices", Lists::ByKey("devicePath"), false),
    ("core.v1.EphemeralContainer", "env", NAME, false),
    ("core.v1.EphemeralContainer", "ports", Lists::ByKey("containerPort"), false),
    ("core.v1.EphemeralContainer", "volumeMounts", Lists::ByKey("mountPath"), false),
    ("core.v1.EphemeralContainer", "volumeDevices", Lists::ByKey("devicePath"), false),
    ("core.v1.ContainerStatus", "volumeMounts", Lists::ByKey("mountPath"), false),
    ("core.v1.PodStatus", "conditions", TYPE, false),
    ("core.v1.PodStatus", "podIPs", Lists::ByKey("ip"), false),
    ("core.v1.PodStatus", "hostIPs", Lists::ByKey("ip"), false),
    ("core.v1.PodStatus", "resourceClaimStatuses", NAME, true),
    ("core.v1.NodeSpec", "podCIDRs", Lists::Union, false),
    ("core.v1.NodeStatus", "addresses", TYPE, false),
    ("core.v1.NodeStatus", "conditions", TYPE, false),
    ("core.v1.NamespaceStatus", "conditions", TYPE, false),
    ("core.v1.ServiceAccount", "secrets", NAME, false),
    ("core.v1.ServiceSpec", "ports", Lists::ByKey("port"), false),
    ("core.v1.ServiceStatus", "conditions", TYPE, false),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", TYPE, false),
    ("core.v1.ReplicationControllerStatus", "conditions", TYPE, false),
    ("apps.v1.DeploymentSpec", "strategy", Lists::Replace, true),
    ("apps.v1.DeploymentStatus", "conditions", TYPE, false),
    ("apps.v1.ReplicaSetStatus", "conditions", TYPE, false),
    ("apps.v1.StatefulSetStatus", "conditions", TYPE, false),
    ("apps.v1.DaemonSetStatus", "conditions", TYPE, false),
    ("batch.v1.JobStatus", "conditions", TYPE, false),
];

/// A place in an object's schema; below free-form maps and unknown fields it knows nothing, and nothing merges by key.
#[derive(Clone, Debug)]
pub(super) struct Position(FieldType);

impl Position {
    pub(super) fn root(schema: &str) -> Self {
        Position(FieldType::Ref(Arc::from(schema)))
    }

    /// The place of a field, or of the elements if it is a list, and its strategy.
    pub(super) fn field(&self, name: &str) -> (Position, Strategy) {
        let (inner, strategy) = match &self.0 {
            FieldType::Ref(definition) => {
                let inner = Schemas::shared().definition(definition).and_then(|found| found.field(name));
                (inner, merge_key(definition, name).unwrap_or_default())
            }
            FieldType::Map(inner) => (Some(&**inner), Strategy::default()),
            _ => (None, Strategy::default()),
        };
        let inner = match inner {
            Some(FieldType::Array(element)) => (**element).clone(),
            Some(other) => other.clone(),
            None => FieldType::Any,
        };
        (Position(inner), strategy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_name_fields_that_exist() {
        let schemas = Schemas::shared();
        for (definition, field, lists, _) in FACTS {
            let prefix = if *definition == META { "" } else { "io.k8s.api." };
            let name = format!("{prefix}{definition}");
            // Kinds that are not served yet have no schema.
            let Some(found) = schemas.definition(&name) else { continue };
            let kind = found.field(field).unwrap_or_else(|| panic!("{name}.{field}"));
            let is_list = matches!(kind, FieldType::Array(_));
            assert_eq!(is_list, *lists != Lists::Replace, "{name}.{field}");
            assert!(merge_key(&name, field).is_some());
        }
        assert_eq!(merge_key("io.k8s.api.core.v1.PodSpec", "tolerations"), None);
    }

    #[test]
    fn positions_follow_the_schema() {
        let (spec, _) = Position::root("io.k8s.api.apps.v1.Deployment").field("spec");
        let (template, _) = spec.field("template");
        let (container, strategy) = template.field("spec").0.field("containers");
        assert_eq!(strategy.lists, NAME);
        assert_eq!(container.field("ports").1.lists, Lists::ByKey("containerPort"));
        let (unknown, strategy) = container.field("nothing");
        assert_eq!((strategy, unknown.field("deeper").1), (Strategy::default(), Strategy::default()));
    }
}
