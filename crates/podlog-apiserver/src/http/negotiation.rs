//! In which representation a client gets its answer: what its headers and query say, in the terms of [`podlog_api::accept`].

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName, USER_AGENT};
use podlog_api::ApiError;
use podlog_api::accept::{self, Encoding, Endpoint, Representation};
use podlog_api::json::Layout;

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

/// A representation that the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) encoding: Encoding,
    pub(crate) representation: Representation,
    pub(crate) layout: Layout,
    pub(crate) coding: Coding,
}

impl Wanted {
    /// The best that the endpoint has of what the client accepts.
    ///
    /// # Errors
    /// 406 when it has nothing.
    pub(crate) fn negotiate(
        headers: &HeaderMap,
        raw_query: &str,
        endpoint: Endpoint,
    ) -> Result<Self, ApiError> {
        let accepted = accept::negotiate(&joined(headers, &ACCEPT), endpoint)?;
        Ok(Wanted {
            encoding: accepted.encoding,
            representation: accepted.representation,
            layout: accept::layout(accepted, raw_query, &joined(headers, &USER_AGENT)),
            coding: coding(headers),
        })
    }
}

/// How failures are laid out for this client.
pub(crate) fn error_layout(headers: &HeaderMap, raw_query: &str) -> Layout {
    accept::error_layout(&joined(headers, &ACCEPT), raw_query, &joined(headers, &USER_AGENT))
}

/// How large bodies may travel.
pub(crate) fn coding(headers: &HeaderMap) -> Coding {
    let accepted = joined(headers, &ACCEPT_ENCODING).split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|parameter| parameter == "q=0")
    });
    if accepted { Coding::Gzip } else { Coding::Identity }
}

/// All values of a header, as one.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_only_where_it_is_accepted() {
        let rows = [
            ("gzip", Coding::Gzip),
            ("br, gzip;q=0.5", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("", Coding::Identity),
        ];
        for (value, expected) in rows {
            let headers = [(ACCEPT_ENCODING, value.parse().unwrap())].into_iter().collect();
            assert_eq!(coding(&headers), expected, "{value}");
        }
    }
}
