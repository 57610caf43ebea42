//! Roles and bindings (`pkg/apis/rbac/validation/validation.go`).

use serde_json::Value;

use super::field::{Errors, at, child, index, list, text};
use crate::Object;
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether an object's rules hold in its namespace or everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespace,
    Cluster,
}

pub(super) fn role(role: &Object, scope: Scope, errors: &mut Errors) {
    for (i, rule) in role.array("/rules").iter().enumerate() {
        self::rule(rule, &index("rules", i), scope, errors);
    }
}

fn rule(rule: &Value, path: &str, scope: Scope, errors: &mut Errors) {
    if list(rule, "verbs").is_empty() {
        errors.required(child(path, "verbs"), "verbs must contain at least one value");
    }
    let urls = &rule["nonResourceURLs"];
    if !list(rule, "nonResourceURLs").is_empty() {
        let field = child(path, "nonResourceURLs");
        if scope == Scope::Namespace {
            errors.invalid(&field, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !list(rule, field).is_empty()) {
            errors.invalid(
                &field,
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if list(rule, "apiGroups").is_empty() {
        errors.required(child(path, "apiGroups"), "resource rules must supply at least one api group");
    }
    if list(rule, "resources").is_empty() {
        errors.required(child(path, "resources"), "resource rules must supply at least one resource");
    }
}

pub(super) fn binding(binding: &Object, scope: Scope, errors: &mut Errors) {
    let role = at(binding, "/roleRef");
    if text(role, "apiGroup") != GROUP {
        errors.unsupported("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if scope == Scope::Namespace { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "kind")) {
        errors.unsupported("roleRef.kind", text(role, "kind"), kinds);
    }
    match text(role, "name") {
        "" => errors.required("roleRef.name", ""),
        name => errors.invalid_all("roleRef.name", name, names::path_segment(name)),
    }
    for (i, subject) in binding.array("/subjects").iter().enumerate() {
        self::subject(subject, &index("subjects", i), scope, errors);
    }
}

fn subject(subject: &Value, path: &str, scope: Scope, errors: &mut Errors) {
    let name = text(subject, "name");
    if name.is_empty() {
        errors.required(child(path, "name"), "");
    }
    let group = text(subject, "apiGroup");
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_all(&child(path, "name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.unsupported(child(path, "apiGroup"), group, &[""]);
            }
            if scope == Scope::Cluster && text(subject, "namespace").is_empty() {
                errors.required(child(path, "namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                let detail = format!("{} name cannot be empty", kind.to_lowercase());
                errors.invalid(child(path, "name"), name, &detail);
            }
            if group != GROUP {
                errors.unsupported(child(path, "apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.unsupported(child(path, "kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

pub(super) fn binding_update(new: &Object, old: &Object, errors: &mut Errors) {
    if at(new, "/roleRef") != at(old, "/roleRef") {
        errors.invalid("roleRef", at(new, "/roleRef"), "cannot change roleRef");
    }
}
