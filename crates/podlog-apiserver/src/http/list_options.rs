//! Options of lists and watches, as their query carries them, and how they fit together.
//!
//! As `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation` and `ValidateListOptions` of
//! `k8s.io/apiserver/pkg/storage/interfaces.go`.

use podlog_api::query::Query;
use podlog_api::{ApiError, Cause, Reason, go};

use super::continuation::Continuation;

/// What is asked for of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Its objects.
    List,
    /// What happens to them.
    Watch,
}

/// The options that are not selectors.
#[derive(Debug)]
pub(crate) struct ListOptions<'q> {
    /// Seconds that a watch lasts; 0 where it does not say.
    pub(crate) timeout_seconds: u64,
    /// Objects of a page; 0 for all.
    pub(crate) limit: u64,
    /// Whether a watch begins with what there is, where it says so.
    pub(crate) initial_events: Option<bool>,
    version: &'q str,
    matching: &'q str,
    continuation: &'q str,
}

/// What a resource version in a list or watch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The newest.
    Newest,
    /// Whatever is at hand (`0`); we have the newest at hand.
    Any,
    /// A revision.
    At(u64),
}

impl Version {
    /// Reads a `resourceVersion`; the error is upstream's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Version::Newest);
        }
        let invalid = |why| format!("resourceVersion: Invalid value: {}: {why}", go::quote(text));
        Ok(match go::parse_uint(text).map_err(invalid)? {
            0 => Version::Any,
            revision => Version::At(revision),
        })
    }

    /// Of a request for one object, or of a watch: what cannot be read is upstream's own fault there.
    pub(crate) fn of(query: &Query) -> Result<Self, ApiError> {
        let text = query.first("resourceVersion").unwrap_or_default();
        Version::parse(text).map_err(|why| ApiError::new(500, Reason::Unknown, why))
    }
}

/// Where the reading of a list begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// At its beginning, as of the newest revision, which is at least this one.
    Newest(u64),
    /// At its beginning, as of this revision.
    Exactly(u64),
    /// Where a page before ended.
    Page(Continuation),
}

impl<'q> ListOptions<'q> {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 for what is no number, 422 for what does not fit together.
    pub(crate) fn parse(query: &'q Query, asking: Asking) -> Result<Self, ApiError> {
        let text = |name| query.first(name).unwrap_or_default();
        let options = ListOptions {
            timeout_seconds: natural(query, "timeoutSeconds")?,
            limit: natural(query, "limit")?,
            initial_events: query.first("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            version: text("resourceVersion"),
            matching: text("resourceVersionMatch"),
            continuation: text("continue"),
        };
        let causes = match asking {
            Asking::List => options.wrong_in_list(),
            Asking::Watch => options.wrong_in_watch(),
        };
        if causes.is_empty() {
            return Ok(options);
        }
        Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", causes))
    }

    /// Where a list begins.
    ///
    /// # Errors
    /// 400 when version or token cannot be read, or both are given.
    pub(crate) fn from(&self) -> Result<From, ApiError> {
        if !self.continuation.is_empty() {
            let token = Continuation::parse(self.continuation)
                .map_err(|why| ApiError::bad_request(format!("invalid continue token: {why}")))?;
            if !matches!(self.version, "" | "0") {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return Ok(From::Page(token));
        }
        let version = Version::parse(self.version)
            .map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")))?;
        Ok(match (version, self.matching) {
            (Version::At(revision), "Exact") => From::Exactly(revision),
            // Clients of before there was a choice expect their first page to be as old as they say.
            (Version::At(revision), "") if self.limit > 0 => From::Exactly(revision),
            (Version::At(revision), _) => From::Newest(revision),
            (Version::Newest | Version::Any, _) => From::Newest(0),
        })
    }

    fn wrong_in_list(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if !self.matching.is_empty() {
            if self.version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                causes.push(forbidden(MATCH, why));
            }
            causes.extend(self.match_with_continue());
            if !matches!(self.matching, "Exact" | "NotOlderThan") {
                causes.push(unsupported(self.matching, r#""Exact", "NotOlderThan", """#));
            }
            if self.matching == "Exact" && self.version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                causes.push(forbidden(MATCH, why));
            }
        }
        if self.initial_events.is_some() {
            causes.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        causes
    }

    fn wrong_in_watch(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if self.initial_events.is_some() && self.matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(forbidden(MATCH, why));
        }
        if !self.matching.is_empty() {
            if self.initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(forbidden(MATCH, why));
            }
            if self.matching != "NotOlderThan" {
                causes.push(unsupported(self.matching, r#""NotOlderThan""#));
            }
            causes.extend(self.match_with_continue());
        }
        causes
    }

    fn match_with_continue(&self) -> Option<Cause> {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        (!self.continuation.is_empty()).then(|| forbidden(MATCH, why))
    }
}

const MATCH: &str = "resourceVersionMatch";

fn forbidden(field: &str, why: &str) -> Cause {
    let reason = "FieldValueForbidden".to_owned();
    Cause { reason, message: format!("Forbidden: {why}"), field: field.to_owned() }
}

fn unsupported(value: &str, supported: &str) -> Cause {
    let message = format!("Unsupported value: {}: supported values: {supported}", go::quote(value));
    Cause { reason: "FieldValueNotSupported".to_owned(), message, field: MATCH.to_owned() }
}

/// A number; 0 for a negative one, and where there is none.
fn natural(query: &Query, name: &str) -> Result<u64, ApiError> {
    Ok(query.integer(name)?.and_then(|value| u64::try_from(value).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_fit_together_or_are_refused() {
        use Asking::{List, Watch};
        let only_watch = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        let needs_match = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let no_continue = "resourceVersionMatch is forbidden when continue is provided";
        for (asking, query, expected) in [
            (
                List,
                "limit=x&timeoutSeconds=y",
                r#"400 strconv.ParseInt: parsing "y": invalid syntax"#.to_owned(),
            ),
            (List, "limit=x", r#"400 strconv.ParseInt: parsing "x": invalid syntax"#.into()),
            (List, "limit=-1&timeoutSeconds=-1", String::new()),
            (List, "resourceVersion=0&resourceVersionMatch=NotOlderThan", String::new()),
            (
                List,
                "resourceVersion=0&resourceVersionMatch=Exact",
                "422 Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".into(),
            ),
            (
                List,
                "resourceVersionMatch=Never&continue=x&sendInitialEvents=false",
                format!(
                    "422 Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided; Forbidden: \
                     {no_continue}; Unsupported value: \"Never\": supported values: \"Exact\", \"NotOlderThan\", \"\"; \
                     Forbidden: sendInitialEvents is forbidden for list"
                ),
            ),
            (Watch, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan", String::new()),
            (Watch, "sendInitialEvents=false", format!("422 Forbidden: {needs_match}")),
            (Watch, "resourceVersionMatch=NotOlderThan", format!("422 Forbidden: {only_watch}")),
            (
                Watch,
                "resourceVersionMatch=Exact&continue=x&sendInitialEvents=1",
                format!(
                    "422 Forbidden: {needs_match}; Unsupported value: \"Exact\": supported values: \"NotOlderThan\"; \
                     Forbidden: {no_continue}"
                ),
            ),
        ] {
            let query = Query::parse(query);
            let said = match ListOptions::parse(&query, asking) {
                Ok(_) => String::new(),
                Err(ApiError { code, details: Some(details), .. }) => {
                    let causes: Vec<String> = details.causes.into_iter().map(|cause| cause.message).collect();
                    format!("{code} {}", causes.join("; "))
                }
                Err(error) => format!("{} {error}", error.code),
            };
            assert_eq!(said, expected, "{asking:?} {query:?}");
        }
    }

    #[test]
    fn lists_begin_where_they_are_told() {
        let token = Continuation::after(7, "a").encode();
        let bad = |text: &str, why: &str| {
            let parsing = format!("strconv.ParseUint: parsing \"{text}\": {why}");
            format!("invalid resource version: resourceVersion: Invalid value: \"{text}\": {parsing}")
        };
        for (query, expected) in [
            (String::new(), Ok(From::Newest(0))),
            ("resourceVersion=0&limit=5".into(), Ok(From::Newest(0))),
            ("resourceVersion=9".into(), Ok(From::Newest(9))),
            ("resourceVersion=9&limit=5".into(), Ok(From::Exactly(9))),
            ("resourceVersion=9&resourceVersionMatch=Exact".into(), Ok(From::Exactly(9))),
            ("resourceVersion=9&resourceVersionMatch=NotOlderThan&limit=5".into(), Ok(From::Newest(9))),
            (format!("continue={token}&resourceVersion=0"), Ok(From::Page(Continuation::after(7, "a")))),
            (
                format!("continue={token}&resourceVersion=7"),
                Err("specifying resource version is not allowed when using continue".to_owned()),
            ),
            (
                "continue=e30".into(),
                Err("invalid continue token: continue key is not valid: server does not recognize this encoded \
                     version "
                    .to_owned()),
            ),
            ("resourceVersion=-1".into(), Err(bad("-1", "invalid syntax"))),
            ("resourceVersion=%2B1".into(), Err(bad("+1", "invalid syntax"))),
            ("resourceVersion=99999999999999999999".into(), Err(bad("99999999999999999999", "value out of range"))),
        ] {
            let query = Query::parse(&query);
            let from = ListOptions::parse(&query, Asking::List).unwrap().from();
            assert_eq!(from.map_err(|error| error.message), expected, "{query:?}");
        }
    }
}
