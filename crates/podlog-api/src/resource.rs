//! One row per kind: the table that drives routes, discovery, OpenAPI, printing, selectors and validation.

/// A kind that the API serves.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version, e.g. `v1`.
    pub version: &'static str,
    /// Kind, e.g. `Pod`.
    pub kind: &'static str,
    /// Plural name in paths, e.g. `pods`.
    pub plural: &'static str,
    /// Singular name, e.g. `pod`.
    pub singular: &'static str,
    /// Names that kubectl accepts too, e.g. `po`.
    pub short_names: &'static [&'static str],
    /// Categories, e.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs offered on the resource; empty for reviews that can only be created (`create` alone).
    pub verbs: &'static [&'static str],
    /// Subresources, e.g. `log` and `status` of pods.
    pub subresources: &'static [Subresource],
    /// Name of the kind's schema, e.g. `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
}

/// A subresource of a [`Resource`].
#[derive(Debug)]
pub struct Subresource {
    /// Last part of the path, e.g. `log`.
    pub name: &'static str,
    /// Kind that is read and written there, e.g. `Scale`; its own group and version in `group_version`.
    pub kind: &'static str,
    /// `(group, version)` of that kind where it is not the parent's, e.g. `("autoscaling", "v1")`.
    pub group_version: Option<(&'static str, &'static str)>,
    /// Verbs offered.
    pub verbs: &'static [&'static str],
}

impl Resource {
    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, or `deployments.apps`: how error texts name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}
