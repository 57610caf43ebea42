//! Keeps ClusterRoles that are the sum of others up to date: as `pkg/controller/clusterroleaggregation`.

use jiff::Timestamp;
use podlog_api::{ApiError, Object, rbac::aggregated_rules, resource::Resource};
use serde_json::Value;

use super::{
    action::Action,
    kinds,
    objects::Objects,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;

/// The controller of aggregated ClusterRoles.
pub(crate) struct RoleAggregation;

impl Controller for RoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::cluster_roles()]
    }

    fn keys(&self, _: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        // Any role can be part of any sum, so all sums are looked at, once for many changes.
        Ok(vec![Key::named("", "all")])
    }

    fn reconcile(&self, _: &Key, objects: &dyn Objects, _: Timestamp) -> Result<Vec<Action>, ApiError> {
        Ok(sum_up(&objects.list(kinds::cluster_roles(), None)?))
    }
}

fn sum_up(roles: &[Object]) -> Vec<Action> {
    let sum = |role: &Object| {
        // A selector that is not valid sums up nothing new; validation keeps it out.
        let rules = aggregated_rules(role, roles).ok().flatten()?;
        let mut right = role.clone();
        right.0["rules"] = Value::Array(rules);
        Action::update(kinds::cluster_roles(), Part::Main, role, right)
    };
    roles.iter().filter_map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sums_follow_their_parts() {
        let role = |name: &str, label: &str, rules: Value, selects: Option<&str>| {
            let mut role = json!({"kind": "ClusterRole", "metadata": {"name": name, "labels": {"for": label}}, "rules": rules});
            if let Some(label) = selects {
                role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"for": label}}]});
            }
            Object::new(role)
        };
        let read = json!([{"verbs": ["get"], "resources": ["pods"], "apiGroups": [""]}]);
        let part = role("part", "view", read.clone(), None);
        let rows = [
            (vec![part.clone(), role("view", "", json!([]), Some("view"))], 1),
            (vec![part.clone(), role("view", "", read.clone(), Some("view"))], 0),
            (vec![role("view", "", read, Some("view"))], 1),
            (vec![part], 0),
        ];
        for (roles, expected) in rows {
            assert_eq!(sum_up(&roles).len(), expected, "{roles:?}");
        }
    }
}
