//! Requests that Go's HTTP server does not let through to a handler, whoever sends them (`net/http/server.go`).

use http::header::{CONNECTION, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};
use podlog_api::query::unescape_path;

use super::answer::{self, Answer};

/// The answer to a request that is none.
pub(super) fn answer(parts: &Parts) -> Option<Answer> {
    let (code, text) = what_is_wrong(parts)?;
    let mut answer = answer::text(code, text);
    if parts.version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Some(answer)
}

fn what_is_wrong(parts: &Parts) -> Option<(StatusCode, &'static str)> {
    let bad = |text| Some((StatusCode::BAD_REQUEST, text));
    if unescape_path(parts.uri.path()).is_none() {
        return bad("400 Bad Request");
    }
    match parts.headers.get_all(HOST).iter().count() {
        0 if parts.version == Version::HTTP_11 && parts.method != Method::CONNECT => {
            return bad("400 Bad Request: missing required Host header");
        }
        2.. => return bad("400 Bad Request: too many Host headers"),
        _ => {}
    }
    let expected = parts.headers.get(EXPECT).filter(|expected| !expected.is_empty())?;
    let known = expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    (!known).then_some((StatusCode::EXPECTATION_FAILED, ""))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_go_lets_through_is_let_through() {
        const H: (&str, &str) = ("host", "x");
        type Row =
            (Version, &'static str, &'static [(&'static str, &'static str)], Option<(u16, &'static str)>);
        let rows: &[Row] = &[
            (Version::HTTP_11, "/healthz", &[H], None),
            (Version::HTTP_11, "/a%2Fb%25", &[H], None),
            (Version::HTTP_11, "/a%2", &[H], Some((400, "400 Bad Request"))),
            (Version::HTTP_2, "/%zz", &[], Some((400, "400 Bad Request"))),
            (Version::HTTP_11, "/a?x=%zz", &[H], None),
            (Version::HTTP_11, "/", &[], Some((400, "400 Bad Request: missing required Host header"))),
            (Version::HTTP_10, "/", &[], None),
            (Version::HTTP_2, "/", &[], None),
            (Version::HTTP_11, "/", &[H, H], Some((400, "400 Bad Request: too many Host headers"))),
            (Version::HTTP_11, "/", &[H, ("expect", "100-Continue")], None),
            (Version::HTTP_11, "/", &[H, ("expect", "")], None),
            (Version::HTTP_11, "/", &[H, ("expect", "200-ok")], Some((417, ""))),
        ];
        for (version, uri, headers, expected) in rows {
            let mut request = Request::builder().version(*version).uri(*uri);
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            let said = what_is_wrong(&parts).map(|(code, text)| (code.as_u16(), text));
            assert_eq!(said, *expected, "{version:?} {uri} {headers:?}");
        }
    }
}
