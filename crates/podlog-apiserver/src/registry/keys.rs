//! Where an object lies in the store: `/registry/<plural>[.<group>]/[<namespace>/]<name>`.

use podlog_api::resource::Resource;

/// Prefix of all objects of a kind, or of those in one namespace.
pub(super) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let kind = storage_name(resource);
    match namespace {
        Some(namespace) if resource.namespaced => format!("/registry/{kind}/{namespace}/"),
        _ => format!("/registry/{kind}/"),
    }
}

/// Key of one object. Names were validated as DNS names before they got here, so they hold no slash.
pub(super) fn object(resource: &Resource, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(resource, Some(namespace)))
}

/// Events are one kind under two groups.
fn storage_name(resource: &Resource) -> String {
    if resource.kind == "Event" { "events".into() } else { resource.qualified() }
}
