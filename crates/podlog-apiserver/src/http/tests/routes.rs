//! Every route: what it is to authorizers, and what it says to those who are nobody, may not, or ask for what is not there.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use http::Method;
use podlog_api::resource::{self, Resource, Subresource};
use podlog_api::{Attributes, RequestInfo};

use super::{ADMIN, server};

const BOB: (&str, &str) = ("x-user", "bob");

/// Method and path of every pair of resource and verb, and every document.
fn routes() -> Vec<(&'static str, String)> {
    let mut routes: Vec<(&'static str, String)> = documents();
    for resource in resource::all() {
        let collection = resource.collection_path("default");
        let object = resource.object_path("default", "missing");
        routes.extend(resource.verbs.iter().map(|verb| route(verb, &collection, &object)));
        if resource.namespaced && resource.has_verb("list") {
            routes.push(("GET", resource.collection_path("")));
        }
        for subresource in resource.subresources {
            routes.extend(of_subresource(resource, subresource));
        }
    }
    let mut seen = BTreeSet::new();
    routes.retain(|route| seen.insert(route.clone()));
    routes
}

fn documents() -> Vec<(&'static str, String)> {
    let paths = [
        "/",
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/version",
        "/metrics",
        "/healthz",
        "/livez",
        "/readyz",
        "/healthz/ping",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/nowhere",
        "/api/v2",
        "/apis/nobody.example/v1/things",
    ];
    paths.into_iter().map(|path| ("GET", path.to_owned())).collect()
}

fn route(verb: &str, collection: &str, object: &str) -> (&'static str, String) {
    match verb {
        "create" => ("POST", collection.to_owned()),
        "deletecollection" => ("DELETE", collection.to_owned()),
        "list" => ("GET", collection.to_owned()),
        "watch" => ("GET", format!("{collection}?watch=true&timeoutSeconds=1")),
        "delete" => ("DELETE", object.to_owned()),
        "update" => ("PUT", object.to_owned()),
        "patch" => ("PATCH", object.to_owned()),
        _ => ("GET", object.to_owned()),
    }
}

fn of_subresource(resource: &Resource, subresource: &Subresource) -> Vec<(&'static str, String)> {
    let path = format!("{}/{}", resource.object_path("default", "missing"), subresource.name);
    let named = subresource.verbs.iter().map(|verb| match *verb {
        "create" => ("POST", path.clone()),
        verb => route(verb, &path, &path),
    });
    named.collect()
}

/// A line each: method, path, attributes, and what a master is told; checks what others are told.
async fn table() -> String {
    let app = server().await;
    let mut table = String::new();
    for (method, target) in routes() {
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let info = RequestInfo::parse(&method.parse::<Method>().unwrap(), path, query);
        let nobody = app.send(method, &target, &[], "").await;
        let health = ["/healthz", "/livez", "/readyz"].contains(&path);
        let expected = if health { "200" } else { "401 Unauthorized: Unauthorized" };
        assert_eq!(said(nobody.code, &nobody.body), expected, "{method} {target}");

        let bob = app.send(method, &target, &[BOB], "").await;
        let for_all = EVERYBODY
            .iter()
            .any(|open| path == *open || open.strip_suffix('*').is_some_and(|p| path.starts_with(p)));
        if !for_all {
            assert_eq!(said(bob.code, &bob.body), refusal(&info.attributes), "{method} {target}");
            assert_eq!(bob.header("x-content-type-options"), "nosniff");
        }
        // What a master gets from a watch is a watch, and a deletion of everything is another test's.
        let lasting = query.contains("watch") || info.attributes.verb() == "deletecollection";
        let master = match lasting {
            true => "-".to_owned(),
            false => {
                let master = app.send(method, &target, &[ADMIN], "").await;
                said(master.code, &master.body)
            }
        };
        let _ = writeln!(table, "{method} {target}\n    {}\n    {master}", attributes(&info.attributes));
    }
    table
}

/// What everybody who is known may ask for (`system:discovery`, `system:basic-user`, `system:public-info-viewer`).
const EVERYBODY: &[&str] = &[
    "/api",
    "/api/v1",
    "/api/v2",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/openapi*",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
];

/// A refusal, put together by another hand than the server's.
fn refusal(attributes: &Attributes) -> String {
    let what = match attributes {
        Attributes::NonResource { verb, path } => {
            return format!("403 Forbidden: forbidden: User \"bob\" cannot {verb} path \"{path}\"");
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name, .. } => {
            let kind = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
            let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
            let place = match namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            format!(
                "{kind}{named} is forbidden: User \"bob\" cannot {verb} resource \"{resource}{part}\" in API group \"{group}\" {place}"
            )
        }
    };
    format!("403 Forbidden: {what}")
}

fn attributes(attributes: &Attributes) -> String {
    match attributes {
        Attributes::Resource { verb, group, version, resource, subresource, namespace, name, .. } => {
            format!("{verb} {group}/{version} {resource}/{subresource} {namespace}/{name}")
        }
        Attributes::NonResource { verb, path } => format!("{verb} {path}"),
    }
}

/// Code, and reason and message of a failure.
fn said(code: u16, body: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match (code, status["kind"] == "Status") {
        (200..300, _) => code.to_string(),
        (_, true) => {
            let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
            format!("{code} {}: {}", text("reason"), text("message"))
        }
        (_, false) => format!("{code} {}", String::from_utf8_lossy(body).trim()),
    }
}

#[tokio::test]
async fn every_route_has_attributes_and_refuses_as_it_should() {
    let found = table().await;
    let expected = include_str!("routes.txt");
    if found != expected {
        let path = std::env::temp_dir().join("podlog-routes.txt");
        std::fs::write(&path, &found).unwrap();
        let line = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        panic!("{line:?}; all of it is in {}", path.display());
    }
}
