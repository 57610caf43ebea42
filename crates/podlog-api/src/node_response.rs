//! What a client of the API server sees when a kubelet refuses to serve a log.
//!
//! As `k8s.io/apiserver/pkg/registry/generic/rest/response_checker.go` together with `NewGenericServerResponse` of
//! `k8s.io/apimachinery/pkg/api/errors`. The verb between the parentheses is empty there, which leaves a blank.

use crate::{ApiError, Details, Reason, go};

/// How much of a kubelet's answer is read; the rest is dropped.
pub const MAX_BODY_BYTES: usize = 50_000;

/// Whether a kubelet's answer is a log.
pub fn is_success(code: u16) -> bool {
    (200..=206).contains(&code)
}

/// The failure that the client of the API server sees, for a kubelet's answer that is not a success.
///
/// Only 400, 403, 406, 415 and 500 and unusual codes from 500 on carry the kubelet's words on.
pub fn to_error(pod: &str, code: u16, body: &[u8]) -> ApiError {
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_BODY_BYTES)]);
    let (reason, message) = match code {
        400 => return ApiError::bad_request(body),
        500 => return ApiError::internal(body),
        401 => (Reason::Unauthorized, "the server has asked for the client to provide credentials".into()),
        403 => (Reason::Forbidden, body.into_owned()),
        404 => (Reason::NotFound, "the server could not find the requested resource".into()),
        405 => (
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource".into(),
        ),
        406 if matches!(body.as_ref(), "" | "unknown") => (
            Reason::NotAcceptable,
            "the server was unable to respond with a content type that the client supports".into(),
        ),
        406 => (Reason::NotAcceptable, body.into_owned()),
        409 => (Reason::Conflict, "the server reported a conflict".into()),
        415 => (Reason::UnsupportedMediaType, body.into_owned()),
        422 => (Reason::Invalid, "the server rejected our request due to an error in our request".into()),
        429 => (
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later".into(),
        ),
        503 => (Reason::ServiceUnavailable, "the server is currently unable to handle the request".into()),
        504 => (Reason::Timeout, NOT_IN_TIME.into()),
        501.. => (Reason::InternalError, unexpected(&body)),
        _ => (
            Reason::Unknown,
            format!("the server responded with the status code {code} but did not return more information"),
        ),
    };
    let details = Details { name: pod.to_owned(), kind: "pods/log".into(), ..Details::default() };
    let place = if pod.is_empty() { "( pods/log)".to_owned() } else { format!("( pods/log {pod})") };
    ApiError::new(code, reason, format!("{message} {place}")).with_details(details)
}

const NOT_IN_TIME: &str = "the server was unable to return a response in the time allotted, but may still be processing the request";

fn unexpected(body: &str) -> String {
    format!("an error on the server ({}) has prevented the request from succeeding", go::quote(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn maps_every_code() {
        let place = "( pods/log web)";
        let forbidden = "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[proxy])\n";
        for (code, body, reason, message) in [
            (
                401,
                "Unauthorized",
                "Unauthorized",
                "the server has asked for the client to provide credentials",
            ),
            (403, forbidden, "Forbidden", forbidden),
            (
                404,
                "pod \"web\" does not exist",
                "NotFound",
                "the server could not find the requested resource",
            ),
            (
                405,
                "Debug endpoints are disabled.\n",
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ),
            (406, "only x", "NotAcceptable", "only x"),
            (
                406,
                "",
                "NotAcceptable",
                "the server was unable to respond with a content type that the client supports",
            ),
            (
                406,
                "unknown",
                "NotAcceptable",
                "the server was unable to respond with a content type that the client supports",
            ),
            (409, "x", "Conflict", "the server reported a conflict"),
            (415, "no such type", "UnsupportedMediaType", "no such type"),
            (422, "x", "Invalid", "the server rejected our request due to an error in our request"),
            (
                429,
                "x",
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
            ),
            (503, "x", "ServiceUnavailable", "the server is currently unable to handle the request"),
            (
                504,
                "x",
                "Timeout",
                "the server was unable to return a response in the time allotted, but may still be processing the request",
            ),
            (
                502,
                "<bad>\n",
                "InternalError",
                r#"an error on the server ("<bad>\n") has prevented the request from succeeding"#,
            ),
            (
                599,
                "",
                "InternalError",
                r#"an error on the server ("") has prevented the request from succeeding"#,
            ),
            (
                418,
                "x",
                "",
                "the server responded with the status code 418 but did not return more information",
            ),
            (
                302,
                "x",
                "",
                "the server responded with the status code 302 but did not return more information",
            ),
            (
                207,
                "x",
                "",
                "the server responded with the status code 207 but did not return more information",
            ),
        ] {
            let error = to_error("web", code, body.as_bytes());
            assert_eq!((error.code, error.reason.as_str()), (code, reason));
            assert_eq!(error.message, format!("{message} {place}"));
            let details = Details { name: "web".into(), kind: "pods/log".into(), ..Details::default() };
            assert_eq!(error.details.as_deref(), Some(&details), "{code}");
        }
    }

    #[test]
    fn bad_requests_are_passed_on_verbatim() {
        let body = "container \"a\" in pod \"web\" is waiting to start: ContainerCreating";
        assert_eq!(to_error("web", 400, body.as_bytes()), ApiError::bad_request(body));
    }

    #[test]
    fn internal_errors_are_passed_on_as_cause() {
        let error = to_error("web", 500, b"Authorization error (user=u)");
        assert_eq!(error.message, "Internal error occurred: Authorization error (user=u)");
        assert_eq!((error.code, error.reason), (500, Reason::InternalError));
        let cause = Cause { message: "Authorization error (user=u)".into(), ..Cause::default() };
        assert_eq!(error.details.as_deref(), Some(&Details { causes: vec![cause], ..Details::default() }));
    }

    #[test]
    fn long_and_binary_bodies() {
        let mut body = vec![b'x'; MAX_BODY_BYTES];
        body.extend_from_slice(b"more");
        assert_eq!(to_error("web", 400, &body).message.len(), MAX_BODY_BYTES);
        assert_eq!(to_error("web", 400, b"\xff!").message, "\u{fffd}!");
    }

    #[test]
    fn successes() {
        for (code, expected) in
            [(199, false), (200, true), (204, true), (206, true), (207, false), (301, false)]
        {
            assert_eq!(is_success(code), expected, "{code}");
        }
    }
}
