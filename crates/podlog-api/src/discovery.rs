//! What the API serves, told in the three formats that clients ask for.

use serde_json::{Map, Value, json};

use crate::resource::{self, Resource, Subresource};

/// The formats of `/api` and `/apis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Everything in one document, `apidiscovery.k8s.io/v2`.
    AggregatedV2,
    /// The same for clients before 1.30, `apidiscovery.k8s.io/v2beta1`.
    AggregatedV2Beta1,
    /// Names of groups and versions only; clients then ask for each of them.
    Legacy,
}

impl Format {
    /// The first format in an `Accept` header that we have; [`Format::Legacy`] when there is none.
    pub fn negotiate(accept: &str) -> Self {
        accept.split(',').find_map(Self::of_media_range).unwrap_or(Format::Legacy)
    }

    fn of_media_range(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameter = |name: &str| {
            range.split(';').skip(1).find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        match (media_type, parameter("g"), parameter("as"), parameter("v")) {
            ("application/json", Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), version) => {
                match version {
                    Some("v2") => Some(Format::AggregatedV2),
                    Some("v2beta1") => Some(Format::AggregatedV2Beta1),
                    _ => None,
                }
            }
            ("application/json" | "application/*" | "*/*", None, None, None) => Some(Format::Legacy),
            _ => None,
        }
    }

    /// The `Content-Type` of a document in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::AggregatedV2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Format::AggregatedV2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
            Format::Legacy => "application/json",
        }
    }

    fn aggregated_version(self) -> &'static str {
        match self {
            Format::AggregatedV2Beta1 => "apidiscovery.k8s.io/v2beta1",
            Format::AggregatedV2 | Format::Legacy => "apidiscovery.k8s.io/v2",
        }
    }
}

/// `GET /api`. `server_address` is `host:port` where clients reach this server.
pub fn api(format: Format, server_address: &str) -> Value {
    match format {
        Format::Legacy => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs":
                [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
        }),
        aggregated => aggregated_list(aggregated, |group| group.is_empty()),
    }
}

/// `GET /apis`.
pub fn apis(format: Format) -> Value {
    match format {
        Format::Legacy => {
            let groups: Vec<Value> = groups().into_iter().filter(|g| !g.is_empty()).map(api_group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        aggregated => aggregated_list(aggregated, |group| !group.is_empty()),
    }
}

/// `GET /apis/<group>`; `None` for a group that is not served.
pub fn group(group: &str) -> Option<Value> {
    let known = !group.is_empty() && groups().contains(&group);
    known.then(|| {
        let mut document = api_group(group);
        document["kind"] = json!("APIGroup");
        document["apiVersion"] = json!("v1");
        document
    })
}

/// `GET /api/<version>` (with an empty group) and `GET /apis/<group>/<version>`; `None` for one that is not served.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let rows: Vec<Value> = of_group_version(group, version).flat_map(resource_entries).collect();
    if rows.is_empty() {
        return None;
    }
    let mut document = json!({
        "kind": "APIResourceList",
        "groupVersion": resource::join_api_version(group, version),
        "resources": rows,
    });
    if !group.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    Some(document)
}

/// Every path that answers with a discovery document, for `GET /`.
pub fn paths() -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, version) in resource::group_versions() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{version}"));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The `ETag` of a document, quotes included: equal documents have equal tags, in every process of one build.
pub fn etag(document: &[u8]) -> String {
    let mut hash = Fnv::default();
    hash.add(document);
    format!("\"{}\"", hash.hex())
}

/// FNV-1a, 64 bits: tells versions of our own documents apart, nothing more.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn hex(&self) -> String {
        format!("{:016X}", self.0)
    }
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = resource::group_versions().into_iter().map(|(group, _)| group).collect();
    groups.dedup();
    groups
}

fn versions(group: &str) -> Vec<&'static str> {
    resource::group_versions().into_iter().filter(|(g, _)| *g == group).map(|(_, version)| version).collect()
}

fn of_group_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    resource::all().iter().filter(move |r| r.group == group && r.version == version)
}

fn api_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions[0].clone();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

fn resource_entries(resource: &'static Resource) -> Vec<Value> {
    let mut row = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    insert_names(&mut row, resource);
    let subresources = resource.subresources.iter().map(|sub| {
        let mut row = json!({
            "name": format!("{}/{}", resource.plural, sub.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if let Some((group, version)) = sub.group_version {
            row["group"] = json!(group);
            row["version"] = json!(version);
        }
        row
    });
    std::iter::once(row).chain(subresources).collect()
}

fn insert_names(row: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        row["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        row["categories"] = json!(resource.categories);
    }
}

fn aggregated_list(format: Format, wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> =
        groups().into_iter().filter(|group| wanted(group)).map(aggregated_group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format.aggregated_version(),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &'static str) -> Value {
    let mut metadata = Map::new();
    metadata.insert("creationTimestamp".into(), Value::Null);
    if !group.is_empty() {
        metadata.insert("name".into(), json!(group));
    }
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = of_group_version(group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut row = json!({
        "resource": resource.plural,
        "responseKind": response_kind((resource.group, resource.version), resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    insert_names(&mut row, resource);
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> =
            resource.subresources.iter().map(|sub| aggregated_subresource(resource, sub)).collect();
        row["subresources"] = Value::Array(subresources);
    }
    row
}

fn aggregated_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let group_version = sub.group_version.unwrap_or((resource.group, resource.version));
    json!({
        "subresource": sub.name,
        "responseKind": response_kind(group_version, sub.kind),
        "verbs": sub.verbs,
    })
}

fn response_kind((group, version): (&str, &str), kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let v2beta1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let rows = [
            (format!("{v2},{v2beta1},application/json"), Format::AggregatedV2),
            (format!("{v2beta1},application/json"), Format::AggregatedV2Beta1),
            (v2.replace("v=v2", "v=v9") + ",application/json", Format::Legacy),
            ("application/json, */*".into(), Format::Legacy),
            (format!("application/json, {v2}"), Format::Legacy),
            (String::new(), Format::Legacy),
        ];
        for (accept, expected) in rows {
            assert_eq!(Format::negotiate(&accept), expected, "{accept}");
        }
    }

    #[test]
    fn aggregated_documents_hold_every_resource() {
        let count = |document: &Value| -> usize {
            let items = document["items"].as_array().expect("items");
            let versions = items.iter().flat_map(|item| item["versions"].as_array().expect("versions"));
            versions.map(|version| version["resources"].as_array().expect("resources").len()).sum()
        };
        let (core, others) = (api(Format::AggregatedV2, ""), apis(Format::AggregatedV2));
        assert_eq!(count(&core) + count(&others), resource::all().len());
        assert_eq!(core["items"][0]["metadata"], json!({"creationTimestamp": null}));
        assert_eq!(others["items"][0]["metadata"]["name"], "apps");
        let pods = &core["items"][0]["versions"][0]["resources"][4];
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        let log = json!({"subresource": "log", "responseKind": pods["responseKind"], "verbs": ["get"]});
        assert!(pods["subresources"].as_array().expect("subresources").contains(&log));
    }

    #[test]
    fn legacy_documents() {
        let apps = resources("apps", "v1").expect("apps/v1");
        assert_eq!(apps["groupVersion"], "apps/v1");
        let scale = json!({"name": "deployments/scale", "singularName": "", "namespaced": true, "kind": "Scale",
            "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]});
        assert!(apps["resources"].as_array().expect("rows").contains(&scale));
        assert_eq!(
            group("apps"),
            Some(json!({"kind": "APIGroup", "apiVersion": "v1", "name": "apps",
                "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"}}))
        );
        assert_eq!(api(Format::Legacy, "127.0.0.1:6443")["versions"], json!(["v1"]));
        assert_eq!(apis(Format::Legacy)["groups"].as_array().map(Vec::len), Some(10));
        assert_eq!((group(""), group("nope"), resources("apps", "v2")), (None, None, None));
        assert!(paths().contains(&"/apis/apps/v1".to_owned()));
    }

    #[test]
    fn etags_differ_with_the_document() {
        assert_eq!(etag(b"a"), etag(b"a"));
        assert_ne!(etag(b"a"), etag(b"b"));
        assert_eq!(etag(b"").len(), 18);
    }
}
