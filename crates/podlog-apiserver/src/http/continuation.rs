//! Where a list goes on: the `continue` parameter.
//!
//! The form is that of `k8s.io/apiserver/pkg/storage/continue.go`, so that it survives a change of server.

use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine};
use podlog_api::{ApiError, go};
use serde::{Deserialize, Serialize};

/// As forgiving as Go about bits that mean nothing.
const READER: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
/// Instead of a revision: whatever is newest.
const NEWEST: i64 = -1;

/// What the token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Continuation {
    v: String,
    /// The revision of the first page; negative for the newest.
    rv: i64,
    /// The first key that is not served yet, relative to the list.
    start: String,
}

impl Continuation {
    const VERSION: &str = "meta.k8s.io/v1";

    /// After the object with this key.
    pub(crate) fn after(revision: u64, key: &str) -> Self {
        let rv = i64::try_from(revision).unwrap_or(NEWEST);
        Continuation { v: Self::VERSION.into(), rv, start: format!("{key}\0") }
    }

    /// Reads a token; the error is upstream's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("continue key is not valid: {why}");
        let bytes = READER.decode(text).map_err(|error| refuse(&base64_error(text, &error)))?;
        let token: Continuation =
            serde_json::from_slice(&bytes).map_err(|error| refuse(&go::json_error(&bytes, &error)))?;
        if token.v != Self::VERSION {
            let why = format!("server does not recognize this encoded version {}", token.v);
            return Err(refuse(&why));
        }
        if token.rv == 0 {
            return Err(refuse("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(refuse("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let is_clean = |part: &str| !matches!(part, "" | "." | "..");
        if !token.start.strip_prefix('/').unwrap_or(&token.start).split('/').all(is_clean) {
            return Err(refuse(&token.start));
        }
        Ok(token)
    }

    /// The revision to go on with; `None` for the newest.
    pub(crate) fn revision(&self) -> Option<u64> {
        u64::try_from(self.rv).ok()
    }

    /// The key after which to go on.
    pub(crate) fn key(&self) -> &str {
        self.start.trim_start_matches('/').trim_end_matches('\0')
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// 410, because the revision is forgotten; with a token that goes on with the newest.
    pub(crate) fn expired(self) -> ApiError {
        let mut error = ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
             results. Continuing with the provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        error.continue_token = Some(Continuation { rv: NEWEST, ..self }.encode().into());
        error
    }
}

/// In Go's words.
fn base64_error(text: &str, error: &DecodeError) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => *at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_bad_ones_are_refused() {
        let token = Continuation::after(7, "default/web");
        let parsed = Continuation::parse(&token.encode()).unwrap();
        assert_eq!((parsed.revision(), parsed.key()), (Some(7), "default/web"));
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (bad, expected) in [
            (String::new(), "unexpected end of JSON input"),
            ("%%%".into(), "illegal base64 data at input byte 0"),
            ("zzzzz".into(), "illegal base64 data at input byte 5"),
            ("zz".into(), "invalid character '\u{cf}' looking for beginning of value"),
            (encoded("{}"), "server does not recognize this encoded version "),
            (encoded(r#"{"v":"x","rv":1,"start":"a"}"#), "server does not recognize this encoded version x"),
            (
                encoded(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (encoded(r#"{"v":"meta.k8s.io/v1","rv":1}"#), "encoded start key empty (version meta.k8s.io/v1)"),
            (encoded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../x"}"#), "../x"),
            (encoded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a//b"}"#), "a//b"),
        ] {
            assert_eq!(Continuation::parse(&bad), Err(format!("continue key is not valid: {expected}")));
        }
    }

    #[test]
    fn what_is_forgotten_goes_on_with_the_newest() {
        let error = Continuation::after(7, "default/web").expired();
        assert_eq!((error.code, error.reason), (410, podlog_api::Reason::Expired));
        let next = Continuation::parse(&error.continue_token.unwrap()).unwrap();
        assert_eq!((next.revision(), next.key()), (None, "default/web"));
    }
}
