//! URL queries and paths with the meaning that Go's `net/url` gives them.

use crate::{ApiError, go};

/// The parameters of a request, in the order given. Malformed pairs are dropped, as Go's `URL.Query` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URL behind `?`.
    pub fn parse(query: &str) -> Query {
        Query(query.split('&').filter_map(pair).collect())
    }

    /// All values of a parameter, in the order given.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// The first value of a parameter; the others never count in Kubernetes.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A Boolean parameter: absent, `0` and `false` in any case are false; everything else, also an empty value, is
    /// true (`Convert_Slice_string_To_bool` in `k8s.io/apimachinery/pkg/runtime/conversion.go`).
    pub fn flag(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// An integer parameter.
    ///
    /// # Errors
    /// 400 with Go's text when it is present and not an `int64`; an empty value is not.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.first(name).map(go::parse_int).transpose().map_err(ApiError::bad_request)
    }

    /// Sets a parameter, in place of any values it had.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.add(name, value);
    }

    /// Adds a value of a parameter to those that it has.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Drops a parameter.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// The text of the query with keys sorted, as Go's `url.Values.Encode` writes it.
    pub fn encode(&self) -> String {
        let mut pairs: Vec<&(String, String)> = self.0.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let encoded: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
        encoded.join("&")
    }
}

/// Escapes text for a query as Go's `url.QueryEscape`: a blank becomes `+`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Decodes percent escapes of a path. `None` when an escape is malformed.
pub fn unescape_path(text: &str) -> Option<String> {
    unescape(text, Plus::Literal)
}

#[derive(Clone, Copy, PartialEq)]
enum Plus {
    Blank,
    Literal,
}

fn pair(text: &str) -> Option<(String, String)> {
    if text.is_empty() || text.contains(';') {
        return None;
    }
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Some((unescape(key, Plus::Blank)?, unescape(value, Plus::Blank)?))
}

fn unescape(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let [high, low, after @ ..] = after else { return None };
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                rest = after;
            }
            b'+' if plus == Plus::Blank => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    Some(
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_as_go_does() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(Query::parse(query), Query(expected), "{query}");
        };
        check("", &[]);
        check("a=1&b=2&a=3", &[("a", "1"), ("b", "2"), ("a", "3")]);
        check("follow", &[("follow", "")]);
        check("&&a=b=c&", &[("a", "b=c")]);
        check("a=x+y%20z%2B", &[("a", "x y z+")]);
        check("a=1;b=2&c=3", &[("c", "3")]);
        check("a=%zz&b=%4&c=ok", &[("c", "ok")]);
        check("a=%ff", &[("a", "\u{fffd}")]);
        check("%61=1", &[("a", "1")]);
    }

    #[test]
    fn flags_follow_kubernetes_rules() {
        for (query, expected) in [
            ("", false),
            ("f=0", false),
            ("f=false", false),
            ("f=FALSE", false),
            ("f=False&f=true", false),
            ("f", true),
            ("f=", true),
            ("f=1", true),
            ("f=no", true),
            ("f=00", true),
            ("F=1", false),
        ] {
            assert_eq!(Query::parse(query).flag("f"), expected, "{query}");
        }
    }

    #[test]
    fn writes_sorted_and_escaped() {
        let mut query = Query::parse("b=2&a=1");
        query.set("sinceTime", "2026-01-01T00:00:00Z");
        query.set("a", "x y~*");
        query.remove("b");
        assert_eq!(query.encode(), "a=x+y~%2A&sinceTime=2026-01-01T00%3A00%3A00Z");
    }

    #[test]
    fn paths_keep_plus_and_decode_slashes() {
        assert_eq!(unescape_path("/a+b%2Fc").as_deref(), Some("/a+b/c"));
        assert_eq!(unescape_path("/a%2"), None);
    }
}
