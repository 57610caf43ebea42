//! What decides who somebody is and what they may do.

use std::collections::HashSet;

use http::Request;
use podlog_api::rbac::Policy;
use podlog_api::{Attributes, Decision, Object, Selectors, UserInfo};
use podlog_serving::bearer_token;
use podlog_serving::pki::{SigningRequest, certificate_end};

use crate::parsers::way;

pub(crate) fn bearer(input: &[u8]) -> u64 {
    let Ok(request) = Request::builder().header("authorization", input).body(()) else {
        return way("none", 0);
    };
    let (parts, ()) = request.into_parts();
    let Some(token) = bearer_token(&parts) else { return way("no token", input.len()) };
    assert!(!token.is_empty() && !token.contains(' '), "{token:?}");
    assert!(input.windows(token.len()).any(|window| window == token.as_bytes()), "a token out of nothing");
    way("token", token.len())
}

pub(crate) fn certificate(input: &[u8]) -> u64 {
    match certificate_end(input) {
        Ok(end) => way("certificate", usize::from(end > std::time::UNIX_EPOCH)),
        Err(error) => way("error", error.to_string().len()),
    }
}

pub(crate) fn certificate_request(input: &[u8]) -> u64 {
    let _ = SigningRequest::parse(input);
    match SigningRequest::from_der(input) {
        Ok(asked) => way("request", format!("{asked:?}").len()),
        Err(error) => way("error", error.to_string().len()),
    }
}

/// Roles and bindings in JSON, one object a line; of several with one name, as no store holds them, the first counts.
pub(crate) fn roles(input: &[u8]) -> u64 {
    let lines = input.split(|byte| *byte == b'\n');
    let objects = lines.filter_map(|line| serde_json::from_slice(line).ok()).map(Object::new);
    let mut names = HashSet::new();
    let mut is_new = |object: &Object| {
        let namespace = if object.kind().starts_with("Cluster") { "" } else { object.namespace() };
        names.insert([object.kind(), namespace, object.name()].map(str::to_owned))
    };
    let objects: Vec<Object> = objects.filter(|object| is_new(object)).collect();
    let (policy, reversed) = (Policy::new(&objects), Policy::new(objects.iter().rev()));
    let somebody = |name: &str, group: &str| UserInfo {
        username: name.to_owned(),
        groups: vec![group.to_owned()],
        ..UserInfo::default()
    };
    let (ann, master) = (somebody("ann", "devs"), somebody("root", UserInfo::MASTERS));
    let mut allowed = 0;
    for attributes in questions() {
        let is_allowed =
            |policy: &Policy, user| matches!(policy.authorize(user, &attributes), Decision::Allow(_));
        assert!(is_allowed(&policy, &master));
        assert!(!is_allowed(&Policy::new([]), &ann), "nobody allows");
        let found = is_allowed(&policy, &ann);
        assert_eq!(found, is_allowed(&reversed, &ann), "the order of objects says nothing");
        allowed = 2 * allowed + usize::from(found);
    }
    let rules = policy.rules_for(&ann, "prod").rules.len();
    way(&format!("roles {allowed}"), rules)
}

fn questions() -> [Attributes; 3] {
    let log = |verb: &str, namespace: &str| Attributes::Resource {
        verb: verb.to_owned(),
        group: String::new(),
        version: "v1".into(),
        resource: "pods".into(),
        subresource: "log".into(),
        namespace: namespace.to_owned(),
        name: "web".into(),
        selectors: Selectors::default(),
    };
    let path = Attributes::NonResource { verb: "get".into(), path: "/x/y".into() };
    [log("get", "prod"), log("delete", ""), path]
}
