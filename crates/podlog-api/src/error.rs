//! The one list of failures that a client can see, and their `Status` bodies.
//!
//! Texts and codes as `k8s.io/apimachinery/pkg/api/errors`; clients tell failures apart by them.

use serde::Serialize;
use serde_json::Value;

use crate::go;
use crate::json::{self, Layout};

/// Machine-readable cause of a failure (`Status.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No reason: the failure is not one of the API's own, e.g. a node that could not be dialled.
    Unknown,
    /// 400: the request itself is wrong.
    BadRequest,
    /// 401: no or bad credentials.
    Unauthorized,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404: no such object or path.
    NotFound,
    /// 405: the path exists, but not for this method.
    MethodNotAllowed,
    /// 406: no representation that the client accepts.
    NotAcceptable,
    /// 409: an object of that name exists.
    AlreadyExists,
    /// 409: the object changed meanwhile.
    Conflict,
    /// 410: the resource version is no longer known.
    Expired,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: the body's format is not understood.
    UnsupportedMediaType,
    /// 422: the object is understood and wrong.
    Invalid,
    /// 429: ask again later.
    TooManyRequests,
    /// 500: our fault, or a hop's behind us.
    InternalError,
    /// 503: not now.
    ServiceUnavailable,
    /// 504: took too long.
    Timeout,
}

impl Reason {
    /// The word in `Status.reason`; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
        }
    }
}

/// One part of a failure (`Status.details.causes[]`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// E.g. `FieldValueInvalid`; empty where there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: String,
    /// Path of the field, e.g. `spec.containers[0].name`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub field: String,
}

impl Cause {
    /// The value of `field` breaks `rule`.
    pub(crate) fn invalid_value(field: &str, value: impl std::fmt::Display, rule: &str) -> Cause {
        Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {value}: {rule}"),
            field: field.into(),
        }
    }

    /// `field` may not be given.
    pub(crate) fn forbidden(field: &str, why: &str) -> Cause {
        Cause {
            reason: "FieldValueForbidden".into(),
            message: format!("Forbidden: {why}"),
            field: field.into(),
        }
    }
}

/// What a failure is about (`Status.details`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: String,
    /// API group of `kind`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: String,
    /// Resource or kind, as upstream fills it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: String,
    /// Uid of the object.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: String,
    /// Its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to ask again; 0 for no advice.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// A failure as the client sees it. The inner cause belongs in our own log, never here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable cause.
    pub reason: Reason,
    /// Text for people.
    pub message: String,
    /// What it is about; `None` leaves `details` out. Boxed: errors are rare and results are everywhere.
    pub details: Option<Box<Details>>,
    /// With which token a list that was cut off can go on all the same (`metadata.continue`).
    pub continue_token: Option<Box<str>>,
}

impl ApiError {
    /// A failure without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        ApiError { code, reason, message: message.into(), details: None, continue_token: None }
    }

    /// The same failure with details.
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// 400, the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 401 with upstream's one text.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403 about an object, or about no resource at all where `group` and `resource` are empty; `why` follows the colon.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let subject = qualified(group, resource);
        let message = match (subject.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (subject, "") => format!("{subject} is forbidden: {why}"),
            (subject, name) => format!("{subject} {} is forbidden: {why}", go::quote(name)),
        };
        Self::new(403, Reason::Forbidden, message).with_details(about(group, resource, name))
    }

    /// 404 for an object: `pods "web" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            404,
            Reason::NotFound,
            format!("{} {} not found", qualified(group, resource), go::quote(name)),
        )
        .with_details(about(group, resource, name))
    }

    /// 404 for a path that is not served.
    pub fn no_such_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(Details::default())
    }

    /// 405 for a path that is served, but not for this method.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(Details::default())
    }

    /// 409, an object of that name exists.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            409,
            Reason::AlreadyExists,
            format!("{} {} already exists", qualified(group, resource), go::quote(name)),
        )
        .with_details(about(group, resource, name))
    }

    /// 409; `why` follows the colon.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let subject = qualified(group, resource);
        Self::new(
            409,
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {subject} {}: {why}", go::quote(name)),
        )
        .with_details(about(group, resource, name))
    }

    /// 409 of optimistic concurrency: somebody else wrote in between.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 410, a resource version that is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 422 with one cause per wrong field; `kind` and `group` are the object's.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let parts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = go::aggregate(parts.iter().map(String::as_str)).unwrap_or_default();
        let message = format!("{} {} is invalid: {list}", qualified(group, kind), go::quote(name));
        Self::new(422, Reason::Invalid, message).with_details(Details { causes, ..about(group, kind, name) })
    }

    /// 500, our own fault; the inner cause goes to our log, `message` to the client.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let cause = Cause { message: message.to_string(), ..Cause::default() };
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
            .with_details(Details { causes: vec![cause], ..Details::default() })
    }

    /// The `Status` object of this failure, as it goes over the wire.
    pub fn to_status(&self) -> Value {
        serde_json::to_value(Status::of(self)).expect("a Status has string keys only")
    }

    /// The body of this failure: `Status` in one line, keys in upstream's order, ending in a newline.
    pub fn to_json(&self) -> Vec<u8> {
        self.to_body(Layout::Compact)
    }

    /// The body of this failure in the layout that the client asked for.
    pub fn to_body(&self, layout: Layout) -> Vec<u8> {
        json::body(&Status::of(self), layout)
    }
}

/// `Status` with its fields in the order of `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_token: Option<&'a str>,
}

impl<'a> Status<'a> {
    fn of(error: &'a ApiError) -> Self {
        Status {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata { continue_token: error.continue_token.as_deref() },
            status: "Failure",
            message: &error.message,
            reason: error.reason.as_str(),
            details: error.details.as_deref(),
            code: error.code,
        }
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn about(group: &str, kind: &str, name: &str) -> Details {
    Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() }
}

fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn invalid_joins_distinct_causes() {
        let cause = |field: &str, message: &str| Cause {
            reason: "FieldValueInvalid".into(),
            message: message.into(),
            field: field.into(),
        };
        let one = ApiError::invalid("", "PodLogOptions", "web", vec![cause("tailLines", "bad")]);
        assert_eq!(one.message, r#"PodLogOptions "web" is invalid: tailLines: bad"#);
        let two =
            ApiError::invalid("", "Pod", "web", vec![cause("a", "x"), cause("b", "y"), cause("a", "x")]);
        assert_eq!(two.message, r#"Pod "web" is invalid: [a: x, b: y]"#);
    }

    #[test]
    fn empty_parts_are_left_out_of_the_status() {
        let status = ApiError::new(500, Reason::Unknown, "dial tcp").to_status();
        assert_eq!(
            status,
            json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"dial tcp","code":500})
        );
    }

    #[test]
    fn a_list_can_go_on_after_its_failure() {
        let mut error = ApiError::expired("too old");
        error.continue_token = Some("abc".into());
        assert_eq!(error.to_status()["metadata"], json!({"continue": "abc"}));
    }

    #[test]
    fn bodies_have_upstreams_key_order() {
        let details = Details {
            name: "web".into(),
            group: "apps".into(),
            kind: "deployments".into(),
            uid: "u-1".into(),
            causes: vec![Cause { reason: "R".into(), message: "a<b".into(), field: "f".into() }],
            retry_after_seconds: 3,
        };
        let error = ApiError::new(429, Reason::TooManyRequests, "no & no").with_details(details);
        assert_eq!(
            String::from_utf8(error.to_json()).expect("UTF-8"),
            concat!(
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no \u0026 no","#,
                r#""reason":"TooManyRequests","details":{"name":"web","group":"apps","kind":"deployments","uid":"u-1","#,
                r#""causes":[{"reason":"R","message":"a\u003cb","field":"f"}],"retryAfterSeconds":3},"code":429}"#,
                "\n"
            )
        );
    }

    #[test]
    fn indented_bodies_do_not_end_in_a_newline() {
        let body = ApiError::no_such_path().to_body(Layout::Indented);
        let expected = r#"{
  "kind": "Status",
  "apiVersion": "v1",
  "metadata": {},
  "status": "Failure",
  "message": "the server could not find the requested resource",
  "reason": "NotFound",
  "details": {},
  "code": 404
}"#;
        assert_eq!(String::from_utf8(body).expect("UTF-8"), expected);
    }

    #[test]
    fn names_are_quoted_as_go_does() {
        for (error, expected) in [
            (ApiError::not_found("", "pods", "a\"b"), r#"pods "a\"b" not found"#),
            (ApiError::already_exists("apps", "deployments", "d"), r#"deployments.apps "d" already exists"#),
            (ApiError::forbidden("", "pods", "", "no"), "pods is forbidden: no"),
            (ApiError::forbidden("", "pods", "p", "no"), r#"pods "p" is forbidden: no"#),
            (ApiError::forbidden("", "", "", "no"), "forbidden: no"),
            (
                ApiError::modified("apps", "deployments", "d"),
                concat!(
                    r#"Operation cannot be fulfilled on deployments.apps "d": the object has been modified; "#,
                    "please apply your changes to the latest version and try again"
                ),
            ),
        ] {
            assert_eq!(error.message, expected);
        }
    }
}
