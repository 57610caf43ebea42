//! What an API server reads of others: policies, key sets, claims, headers, and what lies in etcd.

use http::Request;
use podlog_api::resource::find;
use podlog_api::{Attributes, Object, Selectors, UserInfo};
use podlog_apiserver::{OidcConfig, RequestHeaderConfig, fuzzing};
use serde_json::{Map, Value};

use crate::parsers::way;

/// A moment: 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;

pub(crate) fn audit_policy(input: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(input) else { return way("not text", 0) };
    let ann = UserInfo { username: "ann".into(), groups: vec!["devs".into()], ..UserInfo::default() };
    let asked =
        [resource("pods", "log"), resource("secrets", ""), resource("serviceaccounts", "token"), path()];
    match fuzzing::audit_policy(text, &ann, &asked) {
        Ok(levels) => {
            assert!(levels[1] <= 1 && levels[2] <= 1, "no body with a secret is noted: {levels:?}");
            way(&format!("policy {levels:?}"), 0)
        }
        Err(error) => way("error", error.len()),
    }
}

fn resource(resource: &str, subresource: &str) -> Attributes {
    Attributes::Resource {
        verb: "get".into(),
        group: String::new(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: "prod".into(),
        name: "web".into(),
        selectors: Selectors::default(),
    }
}

fn path() -> Attributes {
    Attributes::NonResource { verb: "get".into(), path: "/healthz/etcd".into() }
}

/// The secret of the token `abcdef.0123456789abcdef`, in JSON.
pub(crate) fn bootstrap_token(input: &[u8]) -> u64 {
    let Ok(stored) = serde_json::from_slice::<Value>(input) else { return way("not JSON", 0) };
    let now = jiff::Timestamp::from_second(NOW).expect("a moment of our own");
    let stored = Object::new(stored);
    let known = |secret: &str| fuzzing::bootstrap_token(&stored, "abcdef", secret, now);
    assert_eq!(known("fedcba9876543210"), None, "another secret");
    match known("0123456789abcdef") {
        Some(user) => {
            assert_eq!(user.username, "system:bootstrap:abcdef");
            assert!(user.groups.iter().all(|group| group.starts_with("system:bootstrappers")), "{user:?}");
            way("user", user.groups.len())
        }
        None => way("nobody", 0),
    }
}

/// A discovery document, claims, or a key set.
pub(crate) fn oidc(input: &[u8]) -> u64 {
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return way("not JSON", 0) };
    let keys = fuzzing::key_set(&document);
    let claims: Map<String, Value> = document.as_object().cloned().unwrap_or_default();
    let mut config = OidcConfig::new("https://i.test", "podlog");
    config.groups_claim = Some("groups".into());
    config.groups_prefix = "oidc:".into();
    if let Ok(url) = fuzzing::key_set_url(&document, &config) {
        assert!(url.starts_with("https://"), "{url}");
        return way("keys", url.len());
    }
    match fuzzing::id_token(&claims, &config, NOW) {
        Ok(user) => {
            assert!(user.username.starts_with("https://i.test#") && user.username.len() > 15, "{user:?}");
            assert!(user.groups.iter().all(|group| group.starts_with("oidc:")), "{user:?}");
            assert!(!user.is_in(UserInfo::MASTERS));
            way("user", user.groups.len())
        }
        Err(error) => way(&format!("error {keys}"), error.split(' ').count()),
    }
}

/// Headers, one a line.
pub(crate) fn request_header(input: &[u8]) -> u64 {
    let mut request = Request::builder();
    for line in input.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return way("no request", 0) };
    let list = |name: &str| vec![name.to_owned()];
    let config = RequestHeaderConfig {
        client_ca: "ca".into(),
        allowed_names: Vec::new(),
        username_headers: list("X-Remote-User"),
        uid_headers: list("X-Remote-Uid"),
        group_headers: list("X-Remote-Group"),
        extra_header_prefixes: list("X-Remote-Extra-"),
    };
    match fuzzing::request_header(&request.into_parts().0, &config) {
        Some(user) => {
            assert!(!user.username.is_empty());
            way("user", 16 * user.extra.len() + user.groups.len())
        }
        None => way("nobody", 0),
    }
}

pub(crate) fn webhook_file(input: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(input) else { return way("not text", 0) };
    match fuzzing::webhook_file(text) {
        Ok(url) => {
            assert!(url.starts_with("https://"), "{url}");
            way("url", url.len())
        }
        Err(error) => way("error", error.len()),
    }
}

/// A value in the store, in JSON or in protobuf: what is read of it is what would be written, and lists show the same.
pub(crate) fn stored(input: &[u8]) -> u64 {
    let mut ways = 0;
    for (group, plural) in
        [("", "pods"), ("", "events"), ("events.k8s.io", "events"), ("apps", "deployments")]
    {
        let kind = find(group, "v1", plural).expect("a kind of ours");
        let Ok((object, item)) = fuzzing::stored(kind, input, 7) else { continue };
        assert_eq!(object.resource_version(), "7");
        let shown: Value = serde_json::from_slice(&item).expect("an item is JSON");
        assert_alike(shown.get("metadata"), object.at("/metadata"));
        let again = fuzzing::to_stored(kind, &object);
        let (same, _) = fuzzing::stored(kind, &again, 7).expect("what is written can be read");
        assert_alike(same.at(""), object.at(""));
        ways = 2 * ways + 1;
    }
    way("stored", ways)
}

fn assert_alike(one: Option<&Value>, other: Option<&Value>) {
    let is_alike = match (one, other) {
        (Some(one), Some(other)) => alike(one, other),
        _ => one == other,
    };
    assert!(is_alike, "{one:?} instead of {other:?}");
}

/// The same but for how numbers are written: as Go, the store writes a float without a fraction as an integer.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| alike(value, other)))
        }
        _ => one == other,
    }
}
