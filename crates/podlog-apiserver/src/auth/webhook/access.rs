//! `SubjectAccessReview`: somebody else decides.

use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use podlog_api::selector::SelectorRequirement;
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::{Authorizer, AuthzError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Remote, WebhookConfigError};
use crate::auth::cache::Cache;

/// Questions longer than this are asked each time (`maxControlledAttrCacheSize`): whoever asks decides how long they are.
const MAX_CACHED_BYTES: usize = 10_000;

/// Asks whether users may do things.
pub(crate) struct AccessWebhook {
    remote: Remote,
    allowed_ttl: Duration,
    refused_ttl: Duration,
    known: Cache<Decision>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl AccessWebhook {
    /// Asks where the file says; answers are believed for so long.
    pub(crate) fn load(
        config: &Path,
        allowed_ttl: Duration,
        refused_ttl: Duration,
    ) -> Result<Self, WebhookConfigError> {
        Ok(AccessWebhook { remote: Remote::load(config)?, allowed_ttl, refused_ttl, known: Cache::new() })
    }

    async fn ask(&self, spec: &Value) -> Result<Decision, AuthzError> {
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let mut answer = self.remote.review(&review).await.map_err(AuthzError)?;
        let status = answer.get_mut("status").map(Value::take).unwrap_or_default();
        let status: Status = serde_json::from_value(status)
            .map_err(|_| AuthzError("the webhook's answer is not a SubjectAccessReview".into()))?;
        Ok(decision(status))
    }
}

/// A webhook that both allows and denies has denied.
fn decision(status: Status) -> Decision {
    match (status.allowed, status.denied) {
        (_, true) => Decision::Deny(status.reason),
        (true, false) => Decision::Allow(status.reason),
        (false, false) => Decision::NoOpinion(status.reason),
    }
}

#[async_trait]
impl Authorizer for AccessWebhook {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
        let spec = spec(user, attributes);
        let question = spec.to_string();
        if let Some(known) = self.known.get(question.as_bytes(), Instant::now()) {
            return Ok(known);
        }
        let decision = self.ask(&spec).await?;
        let ttl = if matches!(decision, Decision::Allow(_)) { self.allowed_ttl } else { self.refused_ttl };
        if question.len() <= MAX_CACHED_BYTES {
            self.known.keep(question.as_bytes(), decision.clone(), ttl, Instant::now());
        }
        Ok(decision)
    }
}

/// The `spec` of the review; empty fields are left out.
fn spec(user: &UserInfo, attributes: &Attributes) -> Value {
    let mut spec =
        json!({"user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra});
    match attributes {
        Attributes::Resource { verb, group, version, resource, subresource, namespace, name, selectors } => {
            spec["resourceAttributes"] = json!({"verb": verb, "group": group, "version": version,
                "resource": resource, "subresource": subresource, "namespace": namespace, "name": name,
                "fieldSelector": {"requirements": requirements(&selectors.fields)},
                "labelSelector": {"requirements": requirements(&selectors.labels)}});
        }
        Attributes::NonResource { verb, path } => {
            spec["nonResourceAttributes"] = json!({"verb": verb, "path": path});
        }
    }
    drop_empty(&mut spec);
    spec
}

fn requirements(list: &[SelectorRequirement]) -> Value {
    let one = |SelectorRequirement { key, operator, values }: &SelectorRequirement| {
        let mut requirement = json!({"key": key, "operator": operator.as_str()});
        // Empty values that are listed stay.
        if !values.is_empty() {
            requirement["values"] = json!(values);
        }
        requirement
    };
    list.iter().map(one).collect()
}

/// Leaves the elements of lists as they are.
fn drop_empty(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.values_mut().for_each(drop_empty);
    map.retain(|_, value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use podlog_api::Selectors;

    use super::*;

    #[test]
    fn questions_say_what_is_known() {
        let user = UserInfo { username: "ann".into(), groups: vec!["devs".into()], ..UserInfo::default() };
        let log = Attributes::Resource {
            verb: "get".into(),
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: "log".into(),
            namespace: "prod".into(),
            name: "web".into(),
            selectors: Selectors::default(),
        };
        assert_eq!(
            spec(&user, &log),
            json!({"user": "ann", "groups": ["devs"], "resourceAttributes": {"verb": "get", "version": "v1",
                "resource": "pods", "subresource": "log", "namespace": "prod", "name": "web"}})
        );
        let list = Attributes::Resource {
            verb: "list".into(),
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            selectors: Selectors::of_query("spec.nodeName=n1", "a notin (x,),b"),
        };
        assert_eq!(
            spec(&user, &list)["resourceAttributes"],
            json!({"verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "NotIn", "values": ["", "x"]}, {"key": "b", "operator": "Exists"}]}})
        );
        let path = Attributes::NonResource { verb: "get".into(), path: "/x".into() };
        assert_eq!(spec(&user, &path)["nonResourceAttributes"], json!({"verb": "get", "path": "/x"}));
    }

    #[test]
    fn a_denial_is_not_the_same_as_no_opinion() {
        let rows = [
            (json!({"allowed": true, "reason": "r"}), "Allow(\"r\")"),
            (json!({"denied": true}), "Deny(\"\")"),
            (json!({}), "NoOpinion(\"\")"),
            (json!({"allowed": true, "denied": true, "reason": "r"}), "Deny(\"r\")"),
        ];
        for (status, expected) in rows {
            assert_eq!(format!("{:?}", decision(serde_json::from_value(status).unwrap())), expected);
        }
    }
}
