//! How much is noted of which request (`k8s.io/apiserver/pkg/audit/policy`).

use podlog_api::{Attributes, UserInfo};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// How much is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) enum Level {
    /// Nothing.
    None,
    /// Who, what, when, and how it ended.
    Metadata,
    /// That, and the body of the request.
    Request,
    /// That, and the body of the answer.
    RequestResponse,
}

/// When something is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Stage {
    /// The request is there.
    RequestReceived,
    /// The head of an answer that lasts is sent.
    ResponseStarted,
    /// The answer is complete, or has broken off.
    ResponseComplete,
    /// We failed.
    Panic,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

/// Rules, of which the first that fits counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "the policy may have metadata, which say nothing")]
    metadata: Option<IgnoredAny>,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy in YAML.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let policy: Policy = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!("{} {} is not audit.k8s.io/v1 Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules".into());
        }
        let both = |rule: &Rule| {
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            of_resources && !rule.non_resource_urls.is_empty()
        };
        match policy.rules.iter().position(both) {
            Some(i) => Err(format!(
                "rules[{i}].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
            )),
            None => Ok(policy),
        }
    }

    /// `user` is `None` for requests of nobody who is known.
    pub(crate) fn judge(&self, user: Option<&UserInfo>, attributes: &Attributes) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, attributes)) else {
            return Verdict { level: Level::None, omit_stages: Vec::new(), omit_managed_fields: false };
        };
        let level = if holds_secrets(attributes) { rule.level.min(Level::Metadata) } else { rule.level };
        Verdict {
            level,
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

/// Whether bodies of the request or its answer hold what must not lie in a log.
fn holds_secrets(attributes: &Attributes) -> bool {
    let Attributes::Resource { resource, subresource, .. } = attributes else { return false };
    matches!(
        (resource.as_str(), subresource.as_str()),
        ("secrets" | "tokenreviews", _) | ("serviceaccounts", "token")
    )
}

impl Rule {
    fn fits(&self, user: Option<&UserInfo>, attributes: &Attributes) -> bool {
        let name = user.map_or("", |user| user.username.as_str());
        let groups = user.map_or(&[][..], |user| user.groups.as_slice());
        let by_who = (self.users.is_empty() || self.users.iter().any(|user| user == name))
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|group| groups.contains(group)));
        let by_verb = self.verbs.is_empty() || self.verbs.iter().any(|verb| verb == attributes.verb());
        by_who && by_verb && self.fits_target(attributes)
    }

    fn fits_target(&self, attributes: &Attributes) -> bool {
        let of_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match attributes {
            Attributes::Resource { group, resource, subresource, namespace, name, .. } => {
                let here = self.namespaces.is_empty() || self.namespaces.contains(namespace);
                let this = self.resources.is_empty()
                    || self.resources.iter().any(|of| of.holds(group, resource, subresource, name));
                self.non_resource_urls.is_empty() && here && this
            }
            Attributes::NonResource { path, .. } => {
                let urls = &self.non_resource_urls;
                !of_resources && (urls.is_empty() || urls.iter().any(|spec| path_fits(spec, path)))
            }
        }
    }
}

impl GroupResources {
    fn holds(&self, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        if self.group != group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|known| known == name);
        let combined =
            if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        named
            && self.resources.iter().any(|spec| {
                spec == "*"
                    || *spec == combined
                    || spec.strip_prefix("*/").is_some_and(|of| !of.is_empty() && of == subresource)
                    || spec.strip_suffix("/*").is_some_and(|of| of == resource)
            })
    }
}

fn path_fits(spec: &str, path: &str) -> bool {
    spec == path || spec.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use podlog_api::Selectors;

    use super::*;

    fn of(rules: &str) -> Policy {
        Policy::parse(&format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: {rules}\n"
        ))
        .unwrap()
    }

    fn asks(verb: &str, target: &str) -> Attributes {
        if target.starts_with('/') {
            return Attributes::NonResource { verb: verb.into(), path: target.into() };
        }
        let mut parts = target.split(' ');
        let (namespace, resource) = (parts.next().unwrap(), parts.next().unwrap());
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Attributes::Resource {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.trim_matches('-').into(),
            name: parts.next().unwrap_or_default().into(),
            selectors: Selectors::default(),
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        use Level::{Metadata, None, Request, RequestResponse};
        let policy = of("
- {level: None, users: [robot], verbs: [watch]}
- {level: RequestResponse, userGroups: [devs], resources: [{group: '', resources: [pods, '*/log']}]}
- {level: Request, namespaces: [prod], resources: [{group: apps}, {group: '', resources: ['services/*'], resourceNames: [web]}]}
- {level: None, nonResourceURLs: ['/healthz*', /version]}
- {level: Request, resources: [{group: '', resources: [secrets, serviceaccounts/token]}], omitStages: [Panic], omitManagedFields: true}
- {level: Metadata, namespaces: ['']}
- {level: Request, verbs: [delete], resources: [{group: '', resources: ['*']}]}");
        let ann = UserInfo { username: "ann".into(), groups: vec!["devs".into()], ..UserInfo::default() };
        let robot = UserInfo { username: "robot".into(), ..UserInfo::default() };
        let rows = [
            (&robot, "watch", "prod pods", None),
            (&robot, "get", "prod pods", None),
            (&ann, "get", "prod pods web", RequestResponse),
            (&ann, "get", "prod pods/log web", RequestResponse),
            (&ann, "get", "prod pods/status web", None),
            (&robot, "get", "prod deployments.apps", Request),
            (&robot, "get", "test deployments.apps", None),
            (&robot, "get", "prod services web", Request),
            (&robot, "get", "prod services/status web", Request),
            (&robot, "get", "prod services other", None),
            (&robot, "get", "/healthz/ping", None),
            (&robot, "get", "/metrics", None),
            (&robot, "get", "- nodes", Metadata),
            // What holds secrets is never noted in full.
            (&robot, "get", "prod secrets", Metadata),
            (&robot, "create", "prod serviceaccounts/token x", Metadata),
            (&robot, "delete", "prod pods/eviction x", Request),
        ];
        for (user, verb, target, expected) in rows {
            assert_eq!(policy.judge(Some(user), &asks(verb, target)).level, expected, "{verb} {target}");
        }
        let secrets = policy.judge(Some(&robot), &asks("get", "prod secrets"));
        assert_eq!(secrets.omit_stages, [Stage::RequestReceived, Stage::Panic]);
        assert!(secrets.omit_managed_fields);
        assert_eq!(policy.judge(Option::None, &asks("get", "- nodes")).level, Metadata);
    }

    #[test]
    fn policies_that_say_nothing_sensible_are_refused() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let rows = [
            (format!("{head}rules: []"), "it has no rules"),
            (format!("{head}rules: [{{level: All}}]"), "All"),
            (format!("{head}rules: [{{level: None, verb: [get]}}]"), "verb"),
            (
                format!("{head}rules: [{{level: None, nonResourceURLs: [/x], namespaces: [a]}}]"),
                "rules[0].nonResourceURLs: rules cannot apply to both",
            ),
            (
                "apiVersion: audit.k8s.io/v2\nkind: Policy\nrules: [{level: None}]".into(),
                "is not audit.k8s.io/v1 Policy",
            ),
        ];
        for (text, expected) in rows {
            let error = Policy::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
