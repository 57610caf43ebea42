//! The chain of authorizers: masters, nodes, RBAC.

use async_trait::async_trait;
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::{Authorizer, AuthzError};

use super::node;
use crate::registry::Registry;

/// Decides about one request.
pub(crate) struct ClusterAuthorizer {
    pub(crate) registry: Registry,
    /// Of the request, for what nodes may list; empty where there is none.
    pub(crate) field_selector: String,
}

#[async_trait]
impl Authorizer for ClusterAuthorizer {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
        if user.is_in(UserInfo::MASTERS) {
            return Ok(Decision::Allow(String::new()));
        }
        let by_node = node::authorize(&self.registry, user, attributes, &self.field_selector);
        if let Decision::Allow(_) | Decision::Deny(_) = by_node {
            return Ok(by_node);
        }
        let by_rbac = self.registry.policy().authorize(user, attributes);
        Ok(match (by_node, by_rbac) {
            (Decision::NoOpinion(a), Decision::NoOpinion(b)) => Decision::NoOpinion(joined(a, b)),
            (_, decision) => decision,
        })
    }
}

fn joined(first: String, second: String) -> String {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        _ => format!("{first}\n{second}"),
    }
}
