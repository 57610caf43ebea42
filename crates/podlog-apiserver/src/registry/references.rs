//! Which other objects a pod names (`VisitPodSecretNames`, `VisitPodConfigmapNames` of `pkg/api/v1/pod/util.go`).

use podlog_api::Object;
use serde_json::Value;

/// Whether a pod mounts a config map or secret (`kind` is their plural) of a name that is `wanted`, reads its environment from
/// it, or pulls images with it.
pub(crate) fn to(pod: &Object, kind: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let keys: &[(&str, &str)] = match kind {
        "configmaps" => &[("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")],
        _ => &[
            ("secret", "secretName"),
            ("secret", "name"),
            ("secretRef", "name"),
            ("secretKeyRef", "name"),
            ("imagePullSecrets", "name"),
        ],
    };
    pod.at("/spec").is_some_and(|spec| mentions(spec, keys, &wanted))
}

fn mentions(value: &Value, keys: &[(&str, &str)], wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| {
            let named = |value: &Value| {
                let name = |field: &str| value.get(field).and_then(Value::as_str);
                keys.iter().any(|(outer, field)| outer == key && name(field).is_some_and(wanted))
            };
            let listed = inner.as_array().is_some_and(|list| list.iter().any(named));
            named(inner) || listed || mentions(inner, keys, wanted)
        }),
        Value::Array(list) => list.iter().any(|inner| mentions(inner, keys, wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_they_are() {
        let pod = Object::new(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"configMap": {"name": "files"}}, {"secret": {"secretName": "keys"}},
                {"projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "part"}}]}}],
            "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": "all"}}]}]
        }}));
        let rows = [
            ("configmaps", "files", true),
            ("configmaps", "ca", true),
            ("configmaps", "one", true),
            ("configmaps", "keys", false),
            ("secrets", "keys", true),
            ("secrets", "part", true),
            ("secrets", "all", true),
            ("secrets", "pull", true),
            ("secrets", "files", false),
        ];
        for (kind, name, expected) in rows {
            assert_eq!(to(&pod, kind, |found| found == name), expected, "{kind} {name}");
        }
    }
}
