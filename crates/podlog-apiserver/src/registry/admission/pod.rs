//! What every pod gets: a priority, and patience with a node that is in trouble.
//!
//! As `plugin/pkg/admission/{priority,defaulttolerationseconds}`.

use podlog_api::Object;
use serde_json::{Value, json};

const PATIENCE_SECONDS: i64 = 300;
const TROUBLES: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn complete(pod: &mut Object) {
    let mut tolerations = pod.array("/spec/tolerations").to_vec();
    for trouble in TROUBLES {
        if !tolerations.iter().any(|toleration| tolerates(toleration, trouble)) {
            tolerations.push(json!({
                "key": trouble, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE_SECONDS
            }));
        }
    }
    let spec = pod.map_mut("spec");
    spec.insert("tolerations".into(), Value::Array(tolerations));
    spec.entry("priority").or_insert(json!(0));
    spec.entry("preemptionPolicy").or_insert(json!("PreemptLowerPriority"));
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    let key_matches = text("key") == key || (text("key").is_empty() && text("operator") == "Exists");
    key_matches && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_tolerations_are_kept() {
        let rows = [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 0),
            (json!([{"operator": "Exists", "effect": "NoSchedule"}]), 2),
            (
                json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]),
                1,
            ),
        ];
        for (own, added) in rows {
            let mut pod = Object::new(json!({"spec": {"tolerations": own.clone()}}));
            complete(&mut pod);
            let own = own.as_array().unwrap();
            let after = pod.array("/spec/tolerations");
            assert_eq!(&after[..own.len()], own);
            assert_eq!(after.len() - own.len(), added, "{own:?}");
            assert_eq!(pod.integer("/spec/priority"), Some(0));
        }
    }
}
