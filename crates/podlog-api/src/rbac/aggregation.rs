//! ClusterRoles that are the sum of others (`pkg/controller/clusterroleaggregation`).

use serde_json::Value;

use crate::selector::LabelSelector;
use crate::{ApiError, Object};

/// The rules that an aggregated ClusterRole should have: those of the roles that its selectors match, by name and
/// without repetitions. `None` when the role does not aggregate.
///
/// # Errors
/// 400 when a selector is not valid.
pub fn aggregated_rules<'a>(
    role: &Object,
    cluster_roles: impl IntoIterator<Item = &'a Object>,
) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(Value::Array(selectors)) = role.at("/aggregationRule/clusterRoleSelectors") else {
        return Ok(None);
    };
    let mut others: Vec<&Object> =
        cluster_roles.into_iter().filter(|other| other.name() != role.name()).collect();
    others.sort_by_key(|other| other.name());
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let selector = LabelSelector::from_value(selector)?;
        for other in others.iter().filter(|other| selector.matches_object(other)) {
            for rule in other.array("/rules") {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok(Some(rules))
}
