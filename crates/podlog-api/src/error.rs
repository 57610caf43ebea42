//! The one list of failures that a client can see, and their `Status` bodies.
//!
//! Texts and codes as `k8s.io/apimachinery/pkg/api/errors`; clients tell failures apart by them.

use serde_json::{Map, Value, json};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// E.g. `FieldValueInvalid`; empty where there is none.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// Path of the field, e.g. `spec.containers[0].name`.
    pub field: String,
}

/// What a failure is about (`Status.details`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group of `kind`.
    pub group: String,
    /// Resource or kind, as upstream fills it.
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// Its parts.
    pub causes: Vec<Cause>,
    /// When to ask again; 0 for no advice.
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
}

impl ApiError {
    /// A failure without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        ApiError { code, reason, message: message.into(), details: None }
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

    /// 403 about an object; `why` follows the colon.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let subject = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{subject} is forbidden: {why}")
        } else {
            format!("{subject} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, Reason::Forbidden, message).with_details(about(group, resource, name))
    }

    /// 404 for an object: `pods "web" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource)))
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
            format!("{} \"{name}\" already exists", qualified(group, resource)),
        )
        .with_details(about(group, resource, name))
    }

    /// 409; `why` follows the colon.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let subject = qualified(group, resource);
        Self::new(
            409,
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {subject} \"{name}\": {why}"),
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
        let mut parts: Vec<String> = Vec::new();
        for cause in &causes {
            let part = format!("{}: {}", cause.field, cause.message);
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let list = if let [one] = parts.as_slice() { one.clone() } else { format!("[{}]", parts.join(", ")) };
        Self::new(422, Reason::Invalid, format!("{} \"{name}\" is invalid: {list}", qualified(group, kind)))
            .with_details(Details { causes, ..about(group, kind, name) })
    }

    /// 500, our own fault; the inner cause goes to our log, `message` to the client.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let cause = Cause { message: message.to_string(), ..Cause::default() };
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
            .with_details(Details { causes: vec![cause], ..Details::default() })
    }

    /// The `Status` object of this failure, as it goes over the wire.
    pub fn to_status(&self) -> Value {
        let mut status = Map::new();
        status.insert("kind".into(), json!("Status"));
        status.insert("apiVersion".into(), json!("v1"));
        status.insert("metadata".into(), json!({}));
        status.insert("status".into(), json!("Failure"));
        insert_text(&mut status, "message", &self.message);
        insert_text(&mut status, "reason", self.reason.as_str());
        if let Some(details) = &self.details {
            status.insert("details".into(), details.to_value());
        }
        status.insert("code".into(), json!(self.code));
        Value::Object(status)
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "name", &self.name);
        insert_text(&mut map, "group", &self.group);
        insert_text(&mut map, "kind", &self.kind);
        insert_text(&mut map, "uid", &self.uid);
        if !self.causes.is_empty() {
            map.insert("causes".into(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        Value::Object(map)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "reason", &self.reason);
        insert_text(&mut map, "message", &self.message);
        insert_text(&mut map, "field", &self.field);
        Value::Object(map)
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn about(group: &str, kind: &str, name: &str) -> Details {
    Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() }
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.into(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
