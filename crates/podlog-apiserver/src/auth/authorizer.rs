//! The chain of authorizers (`--authorization-mode`): masters first, then one after the other until somebody decides.

use std::sync::Arc;

use async_trait::async_trait;
use podlog_api::rbac::{PolicyRule, RulesFor};
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::{Authorizer, AuthzError};

use super::node;
use crate::registry::Registry;
use crate::registry::admission::node_restriction::node_of;

/// One member of the chain.
pub(crate) enum Member {
    /// What nodes may do with what is theirs.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Somebody else, asked over the network.
    Webhook(Arc<dyn Authorizer>),
    /// Allows everything.
    AlwaysAllow,
    /// Has no opinion on anything, so that nobody but masters may.
    AlwaysDeny,
}

/// Decides about requests.
pub(crate) struct ClusterAuthorizer {
    registry: Registry,
    members: Vec<Member>,
    proofs: node::Proofs,
}

impl ClusterAuthorizer {
    /// Asks `members` in their order.
    pub(crate) fn new(registry: Registry, members: Vec<Member>) -> Self {
        ClusterAuthorizer { registry, members, proofs: node::Proofs::default() }
    }

    /// What the user may do in a namespace, as far as those who decide can say.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> RulesFor {
        let mut found = RulesFor::default();
        for member in &self.members {
            match member {
                Member::Rbac => {
                    let held = self.registry.policy().rules_for(user, namespace);
                    found.rules.extend(held.rules);
                    found.errors.extend(held.errors);
                }
                Member::AlwaysAllow => found.rules.extend(PolicyRule::everything()),
                Member::Node if node_of(user).is_some() => found.cannot_say("node"),
                Member::Webhook(_) => found.cannot_say("webhook"),
                Member::Node | Member::AlwaysDeny => {}
            }
        }
        found
    }

    async fn ask(
        &self,
        member: &Member,
        user: &UserInfo,
        attributes: &Attributes,
    ) -> Result<Decision, AuthzError> {
        match member {
            Member::Node => Ok(node::authorize(&self.registry, &self.proofs, user, attributes)),
            Member::Rbac => Ok(self.registry.policy().authorize(user, attributes)),
            Member::Webhook(webhook) => webhook.authorize(user, attributes).await,
            Member::AlwaysAllow => Ok(Decision::Allow(String::new())),
            Member::AlwaysDeny => Ok(Decision::NoOpinion("Everything is forbidden.".into())),
        }
    }
}

#[async_trait]
impl Authorizer for ClusterAuthorizer {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
        if user.is_in(UserInfo::MASTERS) {
            return Ok(Decision::Allow(String::new()));
        }
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for member in &self.members {
            match self.ask(member, user, attributes).await {
                Ok(Decision::NoOpinion(reason)) => reasons.push(reason),
                Ok(decided) => return Ok(decided),
                Err(error) => errors.push(error.0),
            }
        }
        if !errors.is_empty() {
            return Err(AuthzError(errors.join(", ")));
        }
        reasons.retain(|reason| !reason.is_empty());
        Ok(Decision::NoOpinion(reasons.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::RedbStore;

    /// Says what it was told to say; an error without.
    struct Fixed(Option<Decision>);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Result<Decision, AuthzError> {
            self.0.clone().ok_or_else(|| AuthzError("the webhook is down".into()))
        }
    }

    #[tokio::test]
    async fn the_first_that_decides_is_heard() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        let fixed = |decision| Member::Webhook(Arc::new(Fixed(decision)));
        let says = |reason: &str| fixed(Some(Decision::NoOpinion(reason.into())));
        let allows = || fixed(Some(Decision::Allow("yes".into())));
        let denies = || fixed(Some(Decision::Deny("no".into())));
        let (bob, master) = ("", UserInfo::MASTERS);
        let rows: Vec<(Vec<Member>, &str, &str)> = vec![
            (vec![], bob, "Ok(NoOpinion(\"\"))"),
            (vec![], master, "Ok(Allow(\"\"))"),
            (vec![denies()], master, "Ok(Allow(\"\"))"),
            (vec![says("a"), says(""), says("b")], bob, "Ok(NoOpinion(\"a\\nb\"))"),
            (vec![says("a"), allows(), denies()], bob, "Ok(Allow(\"yes\"))"),
            (vec![denies(), allows()], bob, "Ok(Deny(\"no\"))"),
            (vec![fixed(None), allows()], bob, "Ok(Allow(\"yes\"))"),
            (vec![fixed(None), says("a")], bob, "Err(AuthzError(\"the webhook is down\"))"),
            (vec![Member::Node, Member::Rbac], bob, "Ok(NoOpinion(\"\"))"),
            (vec![Member::AlwaysDeny], bob, "Ok(NoOpinion(\"Everything is forbidden.\"))"),
            (vec![Member::Rbac, Member::AlwaysAllow], bob, "Ok(Allow(\"\"))"),
        ];
        let attributes = Attributes::NonResource { verb: "get".into(), path: "/x".into() };
        for (members, group, expected) in rows {
            let user = UserInfo { groups: vec![group.into()], ..UserInfo::default() };
            let chain = ClusterAuthorizer::new(registry.clone(), members);
            assert_eq!(format!("{:?}", chain.authorize(&user, &attributes).await), expected);
        }
    }
    #[tokio::test]
    async fn rules_are_listed_as_far_as_they_are_known() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        let webhook = || Member::Webhook(Arc::new(Fixed(None)));
        let somebody = UserInfo { username: "bob".into(), ..UserInfo::default() };
        let kubelet = UserInfo {
            username: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..UserInfo::default()
        };
        let cannot = |who: &str| format!("{who} authorizer does not support user rule resolution");
        let rows = [
            (vec![Member::Node, Member::Rbac], &somebody, 0, json!(false), json!(null)),
            (vec![Member::Node, Member::Rbac], &kubelet, 0, json!(true), json!(cannot("node"))),
            (vec![Member::Rbac, webhook()], &somebody, 0, json!(true), json!(cannot("webhook"))),
            (
                vec![Member::Node, webhook()],
                &kubelet,
                0,
                json!(true),
                json!(format!("[{}, {}]", cannot("node"), cannot("webhook"))),
            ),
            (vec![Member::AlwaysAllow], &somebody, 1, json!(false), json!(null)),
            (vec![Member::AlwaysDeny], &somebody, 0, json!(false), json!(null)),
        ];
        for (members, user, rules, incomplete, error) in rows {
            let status =
                ClusterAuthorizer::new(registry.clone(), members).rules_for(user, "default").to_status();
            let count = |part: &str| status[part].as_array().map(Vec::len);
            assert_eq!((count("resourceRules"), count("nonResourceRules")), (Some(rules), Some(rules)));
            assert_eq!((&status["incomplete"], &status["evaluationError"]), (&incomplete, &error));
        }
    }
}
