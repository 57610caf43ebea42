//! One rule of a role: verbs times resources, or verbs times paths.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Attributes, Object, go};

/// What a role allows: its verbs on its resources, and its verbs on its paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs; `*` is every verb.
    pub verbs: Vec<String>,
    /// API groups of the resources; `*` is every group, empty text the core group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources: `*` is everything, `pods/log` a subresource, `*/log` that subresource of any resource.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of the objects; none means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths: exact, with a trailing `*`, or `*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// The rules of a Role or ClusterRole. A rule of another shape than validation lets through allows nothing.
    pub fn all_of(role: &Object) -> Vec<PolicyRule> {
        role.array("/rules").iter().map(PolicyRule::from_value).collect()
    }

    /// The rules of who may do everything: on every resource, and on every path.
    pub fn everything() -> [PolicyRule; 2] {
        let all = || vec!["*".to_owned()];
        [
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ]
    }

    /// Whether the request is within this rule.
    pub fn allows(&self, attributes: &Attributes) -> bool {
        match attributes {
            Attributes::Resource { verb, group, resource, subresource, name, .. } => {
                has(&self.verbs, verb)
                    && has(&self.api_groups, group)
                    && self.has_resource(resource, subresource)
                    && (self.resource_names.is_empty() || self.resource_names.contains(name))
            }
            Attributes::NonResource { verb, path } => has(&self.verbs, verb) && self.has_path(path),
        }
    }

    fn from_value(value: &Value) -> PolicyRule {
        PolicyRule::deserialize(value).unwrap_or_default()
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|allowed| match allowed.split_once('/') {
            None => allowed == "*" || (allowed == resource && subresource.is_empty()),
            Some((of, allowed)) => {
                !subresource.is_empty() && allowed == subresource && (of == resource || of == "*")
            }
        })
    }

    fn has_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|allowed| path_covers(allowed, path))
    }
}

/// The form that error texts show: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", go::quote_all(values.iter().map(String::as_str))))
        .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// Whether a rule's path, which may end in `*`, includes another.
pub(super) fn path_covers(allowed: &str, path: &str) -> bool {
    allowed == path || (allowed.ends_with('*') && path.starts_with(allowed.trim_end_matches('*')))
}

/// Whether a list of verbs or groups names this one or all.
pub(super) fn has(allowed: &[String], wanted: &str) -> bool {
    allowed.iter().any(|one| one == "*" || one == wanted)
}
