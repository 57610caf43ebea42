//! What a URL asks for, as `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` understands it.

use http::Method;

use crate::query::{Query, unescape_path};
use crate::selector::{Selectors, split_term, split_terms, unescape};
use crate::{Attributes, go};

/// A request to an API server, taken apart. Route by this, not by the path, so that what is authorized is what is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// What authorizers see.
    pub attributes: Attributes,
    /// Parts of the path from the resource on: resource, name, subresource, and what lies behind it.
    /// Empty for requests that are not for a resource.
    pub parts: Vec<String>,
    /// Whether the path is a resource's; then `attributes` is [`Attributes::Resource`].
    pub is_resource: bool,
}

impl RequestInfo {
    /// Takes a request apart; `path` and `query` as on the wire.
    pub fn parse(method: &Method, path: &str, query: &str) -> RequestInfo {
        let path = unescape_path(path).unwrap_or_else(|| path.to_owned());
        let Some(target) = Target::of(&path) else { return RequestInfo::non_resource(method, path) };
        let query = Query::parse(query);
        let mut verb = target.special_verb.unwrap_or_else(|| verb_of(method));
        let mut name = target.name().to_owned();
        if name.is_empty() && verb == "get" {
            (verb, name) = list_or_watch(&query);
        }
        if name.is_empty() && verb == "delete" {
            verb = "deletecollection";
        }
        let selects = target.special_verb.is_none() && matches!(verb, "list" | "watch" | "deletecollection");
        let selector = |parameter| query.first(parameter).filter(|_| selects).unwrap_or_default();
        RequestInfo {
            attributes: Attributes::Resource {
                verb: verb.to_owned(),
                group: target.group.to_owned(),
                version: target.version.to_owned(),
                resource: target.part(0).to_owned(),
                subresource: if verb == "proxy" { String::new() } else { target.part(2).to_owned() },
                namespace: target.namespace.to_owned(),
                name,
                selectors: Selectors::of_query(selector("fieldSelector"), selector("labelSelector")),
            },
            parts: target.parts.iter().map(|part| (*part).to_owned()).collect(),
            is_resource: true,
        }
    }

    /// Whether the request may last: no deadline, no limit on how many at once
    /// (`k8s.io/apiserver/pkg/server/filters/longrunning.go`).
    pub fn is_long_running(&self) -> bool {
        let Attributes::Resource { verb, subresource, .. } = &self.attributes else { return false };
        matches!(verb.as_str(), "watch" | "proxy")
            || matches!(subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    fn non_resource(method: &Method, path: String) -> RequestInfo {
        RequestInfo {
            attributes: Attributes::NonResource { verb: method.as_str().to_ascii_lowercase(), path },
            parts: Vec::new(),
            is_resource: false,
        }
    }
}

/// What a resource's path names.
struct Target<'a> {
    group: &'a str,
    version: &'a str,
    /// `watch` or `proxy` in front of the resource, a form that only old clients use.
    special_verb: Option<&'static str>,
    namespace: &'a str,
    parts: Vec<&'a str>,
}

impl<'a> Target<'a> {
    fn of(path: &'a str) -> Option<Target<'a>> {
        let path = path.trim_matches('/');
        let mut parts = path.split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut parts: Vec<&str> = parts.collect();
        let special_verb = match parts.as_slice() {
            [] => return None,
            ["watch", _, ..] => Some("watch"),
            ["proxy", _, ..] => Some("proxy"),
            _ => None,
        };
        if special_verb.is_some() {
            parts.remove(0);
        }
        let namespace = take_namespace(&mut parts);
        Some(Target { group, version, special_verb, namespace, parts })
    }

    fn name(&self) -> &'a str {
        self.part(1)
    }

    fn part(&self, index: usize) -> &'a str {
        self.parts.get(index).copied().unwrap_or_default()
    }
}

/// `namespaces/{namespace}` in front of a resource is dropped; a namespace itself and its subresources stay.
fn take_namespace<'a>(parts: &mut Vec<&'a str>) -> &'a str {
    let namespace = match parts.as_slice() {
        ["namespaces", namespace, ..] => *namespace,
        _ => return "",
    };
    if parts.get(2).is_some_and(|third| !matches!(*third, "status" | "finalize")) {
        parts.drain(..2);
    }
    namespace
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The verb of a `get` without a name, and the name that its field selector pins down.
fn list_or_watch(query: &Query) -> (&'static str, String) {
    let verb = if query.flag("watch") { "watch" } else { "list" };
    let readable = ["limit", "timeoutSeconds"]
        .into_iter()
        .all(|parameter| query.first(parameter).is_none_or(|value| go::parse_int(value).is_ok()));
    let name = query.first("fieldSelector").filter(|_| readable).and_then(selected_name);
    (verb, name.unwrap_or_default())
}

/// The value that `metadata.name` has to have, if it is a single one that can be part of a path.
fn selected_name(selector: &str) -> Option<String> {
    let mut name = None;
    for term in split_terms(selector).into_iter().filter(|term| !term.is_empty()) {
        let (field, equal, value) = split_term(term)?;
        let value = unescape(value).ok()?;
        if equal && field == "metadata.name" {
            name = name.or(Some(value));
        }
    }
    let name = name?;
    let is_path_segment = !matches!(name.as_str(), "." | "..") && !name.contains(['/', '%']);
    is_path_segment.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `verb group/version namespace resource/subresource name`, `-` for empty.
    fn show(info: &RequestInfo) -> String {
        let dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        match &info.attributes {
            Attributes::NonResource { verb, path } => format!("{verb} {path}"),
            Attributes::Resource { verb, group, version, resource, subresource, namespace, name, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                format!(
                    "{} {}/{version} {} {}{slash}{subresource} {}",
                    dash(verb),
                    dash(group),
                    dash(namespace),
                    dash(resource),
                    dash(name)
                )
            }
        }
    }

    #[test]
    fn takes_urls_apart() {
        for (method, url, expected) in [
            // Resources
            ("GET", "/api/v1/namespaces/prod/pods/web/log?follow=true", "get -/v1 prod pods/log web"),
            ("HEAD", "/api/v1/namespaces/prod/pods/web/log", "get -/v1 prod pods/log web"),
            ("GET", "/api/v1/namespaces/prod/pods/web", "get -/v1 prod pods web"),
            ("GET", "/api/v1/namespaces/prod/pods", "list -/v1 prod pods -"),
            ("GET", "/api/v1/namespaces/prod/pods/", "list -/v1 prod pods -"),
            ("GET", "/api/v1/pods", "list -/v1 - pods -"),
            ("GET", "/api/v1/pods?watch=true", "watch -/v1 - pods -"),
            ("GET", "/api/v1/pods?watch=1", "watch -/v1 - pods -"),
            ("GET", "/api/v1/pods?watch", "watch -/v1 - pods -"),
            ("GET", "/api/v1/pods?watch=false", "list -/v1 - pods -"),
            ("GET", "/api/v1/namespaces/prod/pods/web?watch=true", "get -/v1 prod pods web"),
            ("POST", "/api/v1/namespaces/prod/pods", "create -/v1 prod pods -"),
            (
                "POST",
                "/api/v1/namespaces/prod/serviceaccounts/ci/token",
                "create -/v1 prod serviceaccounts/token ci",
            ),
            (
                "PUT",
                "/apis/apps/v1/namespaces/prod/deployments/d/scale",
                "update apps/v1 prod deployments/scale d",
            ),
            ("PATCH", "/apis/apps/v1/namespaces/prod/deployments/d", "patch apps/v1 prod deployments d"),
            ("DELETE", "/api/v1/namespaces/prod/pods/web", "delete -/v1 prod pods web"),
            ("DELETE", "/api/v1/namespaces/prod/pods", "deletecollection -/v1 prod pods -"),
            ("OPTIONS", "/api/v1/namespaces/prod/pods", "- -/v1 prod pods -"),
            ("GET", "/api/v1/nodes/n1/proxy/logs/x", "get -/v1 - nodes/proxy n1"),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
                "create authorization.k8s.io/v1 - selfsubjectaccessreviews -"
            }),
            // Namespaces themselves
            ("GET", "/api/v1/namespaces", "list -/v1 - namespaces -"),
            ("GET", "/api/v1/namespaces/prod", "get -/v1 prod namespaces prod"),
            ("PUT", "/api/v1/namespaces/prod/status", "update -/v1 prod namespaces/status prod"),
            ("PUT", "/api/v1/namespaces/prod/finalize", "update -/v1 prod namespaces/finalize prod"),
            ("GET", "/api/v1/namespaces/status", "get -/v1 status namespaces status"),
            ("DELETE", "/api/v1/namespaces/prod", "delete -/v1 prod namespaces prod"),
            // Names from field selectors
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name%3Dweb&watch=true", {
                "watch -/v1 p pods web"
            }),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=web", "list -/v1 p pods web"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name==web", "list -/v1 p pods web"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=spec.nodeName=n,metadata.name=web", {
                "list -/v1 p pods web"
            }),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name!=web", "list -/v1 p pods -"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=a%2Fb", "list -/v1 p pods -"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=..", "list -/v1 p pods -"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=a%5C,b", "list -/v1 p pods a,b"),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=web,junk", "list -/v1 p pods -"),
            (
                "GET",
                "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=web&limit=x",
                "list -/v1 p pods -",
            ),
            ("GET", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=w&limit=x&watch=1", {
                "watch -/v1 p pods -"
            }),
            ("DELETE", "/api/v1/namespaces/p/pods?fieldSelector=metadata.name=web", {
                "deletecollection -/v1 p pods -"
            }),
            // Verbs in the path
            ("GET", "/api/v1/watch/pods", "watch -/v1 - pods -"),
            ("GET", "/api/v1/watch/namespaces/prod/pods/web", "watch -/v1 prod pods web"),
            ("GET", "/api/v1/proxy/nodes/n1/logs", "proxy -/v1 - nodes n1"),
            // Escapes count as what they stand for
            ("GET", "/api/v1/namespaces/prod/pods/web%2Flog", "get -/v1 prod pods/log web"),
            ("GET", "/api/v1/namespaces/prod/pods/we%62", "get -/v1 prod pods web"),
            // Anything else
            ("GET", "/", "get /"),
            ("GET", "/healthz", "get /healthz"),
            ("GET", "/metrics?x=1", "get /metrics"),
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis", "get /apis"),
            ("GET", "/apis/apps", "get /apis/apps"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/apis/apps/v1/", "get /apis/apps/v1/"),
            ("POST", "/openapi/v3/api/v1", "post /openapi/v3/api/v1"),
            ("DELETE", "/version/", "delete /version/"),
            ("GET", "/apix/v1/pods", "get /apix/v1/pods"),
        ] {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let info = RequestInfo::parse(&method, path, query);
            assert_eq!(show(&info), expected, "{method} {url}");
            assert_eq!(info.is_resource, matches!(info.attributes, Attributes::Resource { .. }), "{url}");
        }
    }

    #[test]
    fn keeps_what_routes_need() {
        let query = "labelSelector=app%3Dweb&fieldSelector=a%3Db";
        let selectors = |method: Method, path: &str| match RequestInfo::parse(&method, path, query).attributes
        {
            Attributes::Resource { selectors, .. } => selectors,
            Attributes::NonResource { .. } => panic!("{path} is a resource's"),
        };
        let asked = Selectors::of_query("a=b", "app=web");
        assert_eq!((asked.fields.len(), asked.labels.len()), (1, 1));
        assert_eq!(selectors(Method::GET, "/api/v1/namespaces/prod/pods"), asked);
        assert_eq!(selectors(Method::DELETE, "/api/v1/namespaces/prod/pods"), asked);
        // Only what is asked of many can be narrowed; the old form of a watch does not know how.
        for (method, path) in [
            (Method::GET, "/api/v1/namespaces/prod/pods/web"),
            (Method::POST, "/api/v1/namespaces/prod/pods"),
            (Method::GET, "/api/v1/watch/pods"),
        ] {
            assert_eq!(selectors(method, path), Selectors::default(), "{path}");
        }
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/prod/pods", "");
        assert_eq!(info.parts, ["pods"]);
        let info = RequestInfo::parse(&Method::GET, "/api/v1/nodes/n/proxy/a/b", "");
        assert_eq!(info.parts, ["nodes", "n", "proxy", "a", "b"]);
    }

    #[test]
    fn long_running_requests() {
        for (url, query, expected) in [
            ("/api/v1/namespaces/p/pods/web/log", "", true),
            ("/api/v1/namespaces/p/pods/web/exec", "", true),
            ("/api/v1/namespaces/p/pods/web/portforward", "", true),
            ("/api/v1/namespaces/p/pods", "watch=1", true),
            ("/api/v1/namespaces/p/pods", "", false),
            ("/api/v1/namespaces/p/pods/web/status", "", false),
            ("/healthz/log", "", false),
        ] {
            assert_eq!(RequestInfo::parse(&Method::GET, url, query).is_long_running(), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_url_is_fatal(path in "(/?(api|apis|v1|namespaces|watch|proxy|%2f|%|[^/]*)){0,8}", query in any::<String>()) {
            let info = RequestInfo::parse(&Method::GET, &path, &query);
            prop_assert_eq!(info.is_resource, !info.parts.is_empty());
        }
    }
}
