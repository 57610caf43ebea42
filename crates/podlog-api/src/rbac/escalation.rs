//! Nobody can grant what they do not have (`pkg/registry/rbac/*/policybased`).

use super::policy::RoleRef;
use super::rule::{has, path_covers};
use super::{GROUP, Policy, PolicyRule};
use crate::{ApiError, Attributes, Object, Selectors, UserInfo, go};

/// The right that lets somebody write a Role or a binding whatever they hold themselves: the verb `escalate` on the role, or
/// `bind` on the role of the binding. `None` for other kinds, and for changes that grant nothing: the garbage collector changes
/// owners and finalizers of roles that it could not write itself.
pub fn right_to_grant(new: &Object, old: Option<&Object>) -> Option<Attributes> {
    if old.is_some_and(|old| differs_for_garbage_collection_only(new, old)) {
        return None;
    }
    match new.kind() {
        // The path of a create names no object, so a right to escalate one by name does not reach it.
        kind @ ("Role" | "ClusterRole") => {
            Some(attributes("escalate", plural(kind), new.namespace(), old.map_or("", Object::name)))
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = RoleRef::of(new);
            Some(attributes("bind", plural(&role.kind), new.namespace(), &role.name))
        }
        _ => None,
    }
}

/// Whether a Role or a binding may be written by somebody without [`right_to_grant`]: they hold every rule that it grants.
///
/// # Errors
/// 403 that names the missing rules, or the aggregation rule; 404 when the role of a binding does not exist.
pub fn check_grant(
    policy: &Policy,
    user: &UserInfo,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), ApiError> {
    match new.kind() {
        "Role" | "ClusterRole" => check_role(policy, user, new, old),
        "RoleBinding" | "ClusterRoleBinding" => check_binding(policy, user, new),
        _ => Ok(()),
    }
}

fn check_role(policy: &Policy, user: &UserInfo, new: &Object, old: Option<&Object>) -> Result<(), ApiError> {
    let refuse = |why: String| ApiError::forbidden(GROUP, plural(new.kind()), new.name(), why);
    let aggregates = |role: &Object| role.at("/aggregationRule").is_some_and(|rule| !rule.is_null());
    if aggregates(new) || old.is_some_and(aggregates) {
        return confirm_no_escalation(policy, user, "", &PolicyRule::everything())
            .map_err(|_| refuse("must have cluster-admin privileges to use the aggregationRule".into()));
    }
    confirm_no_escalation(policy, user, new.namespace(), &PolicyRule::all_of(new)).map_err(refuse)
}

fn check_binding(policy: &Policy, user: &UserInfo, new: &Object) -> Result<(), ApiError> {
    let role = RoleRef::of(new);
    let Some(rules) = policy.rules_of(&role, new.namespace()) else {
        return Err(ApiError::not_found(GROUP, plural(&role.kind), &role.name));
    };
    confirm_no_escalation(policy, user, new.namespace(), &rules)
        .map_err(|why| ApiError::forbidden(GROUP, plural(new.kind()), new.name(), why))
}

/// Compares what is wanted with what the user holds in the namespace; the error is upstream's text.
fn confirm_no_escalation(
    policy: &Policy,
    user: &UserInfo,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Result<(), String> {
    let held = policy.rules_for(user, namespace);
    let missing = uncovered(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compact(missing).iter().map(PolicyRule::to_string).collect();
    lines.sort();
    lines.dedup();
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go::quote(&user.username),
        go::quote_all(user.groups.iter().map(String::as_str)),
        lines.join("\n")
    );
    if let Some(errors) = go::aggregate(held.errors.iter().map(String::as_str)) {
        text.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(text)
}

/// What of `wanted`, broken down to single verbs, resources and names, no held rule covers alone.
pub(super) fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|wanted| !held.iter().any(|held| covers(held, wanted)))
        .collect()
}

fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match rule.resource_names.as_slice() {
                    [] => parts.push(part),
                    names => parts.extend(
                        names.iter().map(|name| PolicyRule { resource_names: one(name), ..part.clone() }),
                    ),
                }
            }
        }
    }
    for path in &rule.non_resource_urls {
        parts.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: one(verb),
            non_resource_urls: one(path),
            ..PolicyRule::default()
        }));
    }
    parts
}

fn covers(held: &PolicyRule, part: &PolicyRule) -> bool {
    part.verbs.iter().all(|verb| has(&held.verbs, verb))
        && part.api_groups.iter().all(|group| has(&held.api_groups, group))
        && part.resources.iter().all(|resource| covers_resource(held, resource))
        && part
            .non_resource_urls
            .iter()
            .all(|path| held.non_resource_urls.iter().any(|h| path_covers(h, path)))
        && covers_names(held, part)
}

fn covers_resource(held: &PolicyRule, resource: &str) -> bool {
    let of_any = resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    held.resources.iter().any(|held| held == "*" || held == resource || Some(held) == of_any.as_ref())
}

/// A rule without names is about every name, and only another such rule covers it.
fn covers_names(held: &PolicyRule, part: &PolicyRule) -> bool {
    held.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| held.resource_names.contains(name)))
}

/// Joins rules about the same single resource that differ in their verbs only.
fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = compacted.iter_mut().find(|other| {
            rule.non_resource_urls.is_empty()
                && other.non_resource_urls.is_empty()
                && other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs),
            None => compacted.push(rule),
        }
    }
    compacted
}

fn differs_for_garbage_collection_only(new: &Object, old: &Object) -> bool {
    let without = |object: &Object| {
        let mut object = object.clone();
        for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            object.metadata_mut().remove(key);
        }
        object
    };
    without(new) == without(old)
}

fn attributes(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes::Resource {
        verb: verb.into(),
        group: GROUP.into(),
        version: "*".into(),
        resource: resource.into(),
        subresource: String::new(),
        namespace: namespace.into(),
        name: name.into(),
        selectors: Selectors::default(),
    }
}

fn plural(kind: &str) -> &'static str {
    match kind {
        "ClusterRole" => "clusterroles",
        "RoleBinding" => "rolebindings",
        "ClusterRoleBinding" => "clusterrolebindings",
        _ => "roles",
    }
}
