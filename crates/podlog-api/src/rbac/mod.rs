//! Role-based access control: who may do what, decided from Roles, ClusterRoles and their bindings.
//!
//! Decisions and texts as `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac` have them.
//!
//! ```
//! use podlog_api::rbac::Policy;
//! use podlog_api::{Attributes, Decision, Object, UserInfo};
//! use serde_json::json;
//!
//! let role = Object::new(json!({
//!     "kind": "Role", "metadata": {"name": "log-reader", "namespace": "prod"},
//!     "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}],
//! }));
//! let binding = Object::new(json!({
//!     "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "prod"},
//!     "roleRef": {"kind": "Role", "name": "log-reader"}, "subjects": [{"kind": "User", "name": "jane"}],
//! }));
//! let policy = Policy::new([&role, &binding]);
//! let jane = UserInfo { username: "jane".into(), ..UserInfo::default() };
//! let log = Attributes::Resource {
//!     verb: "get".into(), group: "".into(), version: "v1".into(), resource: "pods".into(), subresource: "log".into(),
//!     namespace: "prod".into(), name: "web".into(), selectors: Default::default(),
//! };
//! let reason = r#"RBAC: allowed by RoleBinding "b/prod" of Role "log-reader" to User "jane""#;
//! assert_eq!(policy.authorize(&jane, &log), Decision::Allow(reason.into()));
//! ```

mod aggregation;
mod escalation;
mod forbidden;
mod policy;
mod rule;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_naive;

pub use aggregation::aggregated_rules;
pub use escalation::{check_grant, right_to_grant};
pub use forbidden::forbidden;
pub use policy::{Policy, RulesFor};
pub use rule::PolicyRule;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
