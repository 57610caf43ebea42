//! Where a list goes on: the `continue` parameter.
//!
//! The form is that of `k8s.io/apiserver/pkg/storage/continue.go`, so that it survives a change of server.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podlog_api::ApiError;
use serde::{Deserialize, Serialize};

/// What the token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continuation {
    v: String,
    /// The revision of the first page.
    pub(crate) rv: u64,
    /// The first key that is not served yet, relative to the list.
    start: String,
}

impl Continuation {
    const VERSION: &str = "meta.k8s.io/v1";

    /// After the object with this key.
    pub(crate) fn after(revision: u64, key: &str) -> Self {
        Continuation { v: Self::VERSION.into(), rv: revision, start: format!("{key}\0") }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| refuse(&e.to_string()))?;
        let token: Continuation = serde_json::from_slice(&bytes).map_err(|e| refuse(&e.to_string()))?;
        if token.v != Self::VERSION {
            return Err(refuse(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        Ok(token)
    }

    /// The key after which to go on.
    pub(crate) fn key(&self) -> &str {
        self.start.trim_end_matches('\0')
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// 410 for a token whose revision is forgotten.
pub(crate) fn expired() -> ApiError {
    ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_bad_ones_are_refused() {
        let token = Continuation::after(7, "default/web");
        let parsed = Continuation::parse(&token.encode()).unwrap();
        assert_eq!((parsed.rv, parsed.key()), (7, "default/web"));
        for bad in ["", "%%%", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#)] {
            assert_eq!(Continuation::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
