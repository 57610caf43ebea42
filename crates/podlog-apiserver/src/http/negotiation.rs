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
        let accepted = accept::negotiate(first(headers, ACCEPT), endpoint)?;
        Ok(Wanted {
            encoding: accepted.encoding,
            representation: accepted.representation,
            layout: accept::layout(accepted, raw_query, first(headers, USER_AGENT)),
            coding: coding(headers),
        })
    }
}

/// How failures are laid out for this client.
pub(crate) fn error_layout(headers: &HeaderMap, raw_query: &str) -> Layout {
    accept::error_layout(first(headers, ACCEPT), raw_query, first(headers, USER_AGENT))
}

/// How large bodies may travel.
pub(crate) fn coding(headers: &HeaderMap) -> Coding {
    let accepted = first(headers, ACCEPT_ENCODING).split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|parameter| parameter == "q=0")
    });
    if accepted { Coding::Gzip } else { Coding::Identity }
}

/// The first value of a header, empty where there is none: upstream looks at no other (`http.Header.Get`).
pub(crate) fn first(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_header_of_a_name_counts() {
        let yaml = ["application/yaml", "application/json"].map(|value| (ACCEPT, value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        yaml.into_iter().for_each(|(name, value)| {
            headers.append(name, value);
        });
        assert_eq!(Wanted::negotiate(&headers, "", Endpoint::Objects).unwrap().encoding, Encoding::Yaml);
        let refused: HeaderMap = [(ACCEPT, "image/png".parse().unwrap())].into_iter().collect();
        assert_eq!(Wanted::negotiate(&refused, "", Endpoint::Objects).unwrap_err().code, 406);
    }

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
