//! `PodLogOptions`: what part of a container's log is wanted, read from and written to URL queries.

use jiff::{Timestamp, Unit};

use crate::query::Query;
use crate::{ApiError, Cause, LogExtensions, go};

/// The query parameters of `GET …/pods/{name}/log`.
///
/// ```
/// use podlog_api::{PodLogOptions, StreamRules};
///
/// let options = PodLogOptions::from_query("container=web&follow=true&tailLines=10", StreamRules::Exact)?;
/// assert_eq!(options.tail_lines, Some(10));
/// assert_eq!(options.to_kubelet_query(), "follow=true&tailLines=10");
/// # Ok::<(), podlog_api::ApiError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodLogOptions {
    /// Container; empty lets the server choose.
    pub container: String,
    /// Whether to go on as the log grows.
    pub follow: bool,
    /// Whether the log of the previous, terminated instance is wanted.
    pub previous: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<i64>,
    /// Only lines of this moment and later.
    pub since_time: Option<Timestamp>,
    /// Whether every line starts with its time.
    pub timestamps: bool,
    /// Only the last so many lines; 0 means none.
    pub tail_lines: Option<i64>,
    /// At most so many bytes.
    pub limit_bytes: Option<i64>,
    /// Whether the API server accepts any certificate of the kubelet.
    pub insecure_skip_tls_verify_backend: bool,
    /// `All`, `Stdout` or `Stderr`; `None` means all.
    pub stream: Option<String>,
    /// What Kubernetes cannot be asked for.
    pub extensions: LogExtensions,
}

/// Whether `stream` may be given, and with what, and whether there is more than Kubernetes knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamRules {
    /// A stream can be chosen, together with any other option, and [`LogExtensions`] count.
    #[default]
    Exact,
    /// As Kubernetes 1.36 with its default feature gates: `stream` is forbidden.
    Upstream,
    /// As Kubernetes with the gate `PodLogsQuerySplitStreams`: a stream can be chosen, but not with `tailLines`.
    UpstreamSplitStreams,
}

/// Why a kubelet refuses options. `Display` is the body of its answer, [`KubeletOptionsError::code`] the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeletOptionsError {
    /// A parameter is not a number or a time.
    #[error(r#"{{"message": "Unable to decode query."}}"#)]
    Undecodable,
    /// A parameter is out of range, or excludes another.
    #[error(r#"{{"message": "Invalid request."}}"#)]
    Invalid,
}

impl KubeletOptionsError {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            KubeletOptionsError::Undecodable => 400,
            KubeletOptionsError::Invalid => 422,
        }
    }
}

/// Every value of `stream`, in the order in which they are named to whoever gave another one.
const STREAMS: [&str; 3] = ["Stdout", "Stderr", "All"];

impl PodLogOptions {
    /// Reads the query of a request to an API server. Unknown parameters are ignored; those beyond Kubernetes are unknown
    /// to all rules but [`StreamRules::Exact`].
    ///
    /// # Errors
    /// 400 with Go's text for the first parameter that is not a number or a time.
    pub fn from_query(query: &str, rules: StreamRules) -> Result<Self, ApiError> {
        Self::decode(&Query::parse(query), rules)
    }

    /// Reads and validates the query of a request to a kubelet, where an old parameter `tail` (a number or `all`)
    /// takes the place of `tailLines` (`getContainerLogs` in `pkg/kubelet/server/server.go`).
    ///
    /// # Errors
    /// Two texts that say no more than that the query is wrong.
    pub fn from_kubelet_query(query: &str, rules: StreamRules) -> Result<Self, KubeletOptionsError> {
        let mut query = Query::parse(query);
        match query.first("tail").map(str::to_owned).as_deref() {
            None | Some("") => {}
            Some("all") => query.remove("tailLines"),
            Some(lines) => query.set("tailLines", lines),
        }
        let options = Self::decode(&query, rules).map_err(|_| KubeletOptionsError::Undecodable)?;
        options.validate("", rules).map_err(|_| KubeletOptionsError::Invalid)?;
        Ok(options)
    }

    /// Checks ranges and what excludes what; `pod` is for the message.
    ///
    /// # Errors
    /// 422 with one cause per violation, in upstream's order
    /// (`ValidatePodLogOptions` in `pkg/apis/core/validation/validation.go`).
    pub fn validate(&self, pod: &str, rules: StreamRules) -> Result<(), ApiError> {
        let causes: Vec<Cause> = [self.check_tail(), self.check_limit(), self.check_since()]
            .into_iter()
            .chain(self.check_stream(rules))
            .flatten()
            .chain(self.extensions.check(self.previous, self.tail_lines))
            .chain(self.check_file())
            .collect();
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", pod, causes)) }
    }

    /// The query with which an API server asks a kubelet: keys sorted, what is not set left out, `sinceTime` in whole
    /// seconds. `container` is part of the kubelet's path instead.
    pub fn to_kubelet_query(&self) -> String {
        self.kubelet_query().encode()
    }

    /// The query with which a client asks an API server.
    pub fn to_query(&self) -> String {
        let mut query = self.kubelet_query();
        if !self.container.is_empty() {
            query.set("container", &self.container);
        }
        set_flag(&mut query, "insecureSkipTLSVerifyBackend", self.insecure_skip_tls_verify_backend);
        query.encode()
    }

    fn decode(query: &Query, rules: StreamRules) -> Result<Self, ApiError> {
        let mut options = Self::decode_kubernetes(query)?;
        if rules == StreamRules::Exact {
            options.extensions = LogExtensions::decode(query)?;
        }
        Ok(options)
    }

    fn decode_kubernetes(query: &Query) -> Result<Self, ApiError> {
        Ok(PodLogOptions {
            container: query.first("container").unwrap_or_default().to_owned(),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            since_seconds: query.integer("sinceSeconds")?,
            since_time: query.first("sinceTime").map(parse_since_time).transpose()?,
            timestamps: query.flag("timestamps"),
            tail_lines: query.integer("tailLines")?,
            limit_bytes: query.integer("limitBytes")?,
            insecure_skip_tls_verify_backend: query.flag("insecureSkipTLSVerifyBackend"),
            stream: query.first("stream").map(str::to_owned),
            extensions: LogExtensions::default(),
        })
    }

    fn kubelet_query(&self) -> Query {
        let mut query = Query::default();
        set_flag(&mut query, "follow", self.follow);
        set_flag(&mut query, "previous", self.previous);
        set_flag(&mut query, "timestamps", self.timestamps);
        for (name, value) in [
            ("limitBytes", self.limit_bytes),
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
        ] {
            if let Some(value) = value {
                query.set(name, value.to_string());
            }
        }
        if let Some(time) = self.since_time {
            query.set("sinceTime", whole_seconds(time));
        }
        if let Some(stream) = &self.stream {
            query.set("stream", stream);
        }
        self.extensions.encode(&mut query);
        query
    }

    fn check_tail(&self) -> Option<Cause> {
        let lines = self.tail_lines.filter(|lines| *lines < 0)?;
        Some(Cause::invalid_value("tailLines", lines, "must be greater than or equal to 0"))
    }

    fn check_limit(&self) -> Option<Cause> {
        let bytes = self.limit_bytes.filter(|bytes| *bytes < 1)?;
        Some(Cause::invalid_value("limitBytes", bytes, "must be greater than 0"))
    }

    fn check_since(&self) -> Option<Cause> {
        if self.since_time.is_some() && self.since_seconds.is_some() {
            return Some(Cause::forbidden(
                "[]",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        let seconds = self.since_seconds.filter(|seconds| *seconds < 1)?;
        Some(Cause::invalid_value("sinceSeconds", seconds, "must be greater than 0"))
    }

    fn check_file(&self) -> Option<Cause> {
        self.extensions.file.as_ref()?;
        let has_others = self.previous
            || self.timestamps
            || self.since_seconds.is_some()
            || self.since_time.is_some()
            || self.stream.is_some()
            || self.extensions.excludes_file();
        let why = "may only be specified together with `follow`, `tailLines`, `limitBytes`, `match`, `exclude` and \
                   `fixedStrings`";
        has_others.then(|| Cause::forbidden("file", why))
    }

    fn check_stream(&self, rules: StreamRules) -> Option<Option<Cause>> {
        let stream = self.stream.as_deref()?;
        let cause = match rules {
            StreamRules::Upstream => Some(Cause::forbidden("stream", "may not be specified")),
            _ if !STREAMS.contains(&stream) => Some(unsupported_stream(stream)),
            StreamRules::UpstreamSplitStreams if stream != "All" && self.tail_lines.is_some() => Some(
                Cause::forbidden("[]", "`tailLines` and specific `stream` are mutually exclusive for now"),
            ),
            _ => None,
        };
        Some(cause)
    }
}

/// Empty and `null` are the zero time, which counts as given (`UnmarshalQueryParameter` in
/// `k8s.io/apimachinery/pkg/apis/meta/v1/time.go`).
fn parse_since_time(text: &str) -> Result<Timestamp, ApiError> {
    let text = if matches!(text, "" | "null") { "0001-01-01T00:00:00Z" } else { text };
    go::parse_rfc3339(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn whole_seconds(time: Timestamp) -> String {
    let nanoseconds = time.subsec_nanosecond();
    let down = if nanoseconds < 0 { nanoseconds + 1_000_000_000 } else { nanoseconds };
    let floor = time.checked_sub(jiff::Span::new().nanoseconds(down)).unwrap_or(time);
    floor.round(Unit::Second).unwrap_or(floor).to_string()
}

fn set_flag(query: &mut Query, name: &str, value: bool) {
    if value {
        query.set(name, "true");
    }
}

fn unsupported_stream(stream: &str) -> Cause {
    let supported = STREAMS.map(go::quote).join(", ");
    Cause {
        reason: "FieldValueNotSupported".into(),
        message: format!("Unsupported value: {}: supported values: {supported}", go::quote(stream)),
        field: "stream".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Option<Timestamp> {
        Some(text.parse().expect("a time"))
    }

    #[test]
    fn reads_queries() {
        let none = PodLogOptions::default;
        for (query, expected) in [
            ("", none()),
            ("pretty=true&unknown=x&Follow=true", none()),
            ("container=web&container=other", PodLogOptions { container: "web".into(), ..none() }),
            ("follow", PodLogOptions { follow: true, ..none() }),
            ("follow=&previous=yes", PodLogOptions { follow: true, previous: true, ..none() }),
            ("follow=0&previous=False&timestamps=FALSE", none()),
            ("timestamps=1", PodLogOptions { timestamps: true, ..none() }),
            ("sinceSeconds=60", PodLogOptions { since_seconds: Some(60), ..none() }),
            ("tailLines=0&tailLines=7", PodLogOptions { tail_lines: Some(0), ..none() }),
            ("limitBytes=-1", PodLogOptions { limit_bytes: Some(-1), ..none() }),
            ("stream=Stdout", PodLogOptions { stream: Some("Stdout".into()), ..none() }),
            ("stream=", PodLogOptions { stream: Some(String::new()), ..none() }),
            (
                "insecureSkipTLSVerifyBackend=true",
                PodLogOptions { insecure_skip_tls_verify_backend: true, ..none() },
            ),
            ("sinceTime=", PodLogOptions { since_time: time("0001-01-01T00:00:00Z"), ..none() }),
            ("sinceTime=null", PodLogOptions { since_time: time("0001-01-01T00:00:00Z"), ..none() }),
            (
                "sinceTime=2026-01-01T02%3A00%3A00.5%2B02%3A00",
                PodLogOptions { since_time: time("2026-01-01T00:00:00.5Z"), ..none() },
            ),
        ] {
            assert_eq!(PodLogOptions::from_query(query, StreamRules::Exact), Ok(expected), "{query}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_read() {
        let layout = "as \"2006-01-02T15:04:05Z07:00\"";
        for (query, expected) in [
            ("tailLines=x", r#"strconv.ParseInt: parsing "x": invalid syntax"#.to_owned()),
            ("tailLines=", r#"strconv.ParseInt: parsing "": invalid syntax"#.into()),
            ("tailLines", r#"strconv.ParseInt: parsing "": invalid syntax"#.into()),
            (
                "limitBytes=9223372036854775808",
                r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#.into(),
            ),
            ("sinceSeconds=1.5", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#.into()),
            ("sinceTime=abc", format!(r#"parsing time "abc" {layout}: cannot parse "abc" as "2006""#)),
            // A `+` that is not escaped is a blank.
            (
                "sinceTime=2026-01-01T00:00:00+02:00",
                format!(
                    r#"parsing time "2026-01-01T00:00:00 02:00" {layout}: cannot parse " 02:00" as "Z07:00""#
                ),
            ),
            // The first in the order of the type is reported.
            ("limitBytes=b&sinceSeconds=s", r#"strconv.ParseInt: parsing "s": invalid syntax"#.into()),
            // Reading comes before validating.
            ("tailLines=-1&limitBytes=b", r#"strconv.ParseInt: parsing "b": invalid syntax"#.into()),
        ] {
            assert_eq!(
                PodLogOptions::from_query(query, StreamRules::Exact),
                Err(ApiError::bad_request(expected)),
                "{query}"
            );
        }
    }

    fn causes(query: &str, rules: StreamRules) -> Vec<(String, String, String)> {
        let options = PodLogOptions::from_query(query, StreamRules::Exact).expect(query);
        let Err(error) = options.validate("web", rules) else { return Vec::new() };
        assert_eq!(error.code, 422);
        let details = error.details.expect("details");
        assert_eq!(
            (details.name.as_str(), details.kind.as_str(), details.group.as_str()),
            ("web", "PodLogOptions", "")
        );
        details.causes.into_iter().map(|cause| (cause.field, cause.reason, cause.message)).collect()
    }

    #[test]
    fn validates() {
        use StreamRules::{Exact, Upstream, UpstreamSplitStreams};
        const GE_0: &str = "must be greater than or equal to 0";
        const GT_0: &str = "must be greater than 0";
        let invalid = |field: &'static str, value: i64, rule: &str| {
            (field, "FieldValueInvalid", format!("Invalid value: {value}: {rule}"))
        };
        let forbidden =
            |field: &'static str, why: &str| (field, "FieldValueForbidden", format!("Forbidden: {why}"));
        let both_since = || forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified");
        let unsupported = |stream: &str| {
            let message =
                format!("Unsupported value: \"{stream}\": supported values: \"Stdout\", \"Stderr\", \"All\"");
            ("stream", "FieldValueNotSupported", message)
        };
        let exclusive =
            || forbidden("[]", "`tailLines` and specific `stream` are mutually exclusive for now");
        let stream_forbidden = || forbidden("stream", "may not be specified");

        for (query, rules, expected) in [
            ("", Upstream, vec![]),
            ("tailLines=0&limitBytes=1&sinceSeconds=1", Upstream, vec![]),
            ("tailLines=-1", Upstream, vec![invalid("tailLines", -1, GE_0)]),
            ("limitBytes=0", Upstream, vec![invalid("limitBytes", 0, GT_0)]),
            ("sinceSeconds=0", Upstream, vec![invalid("sinceSeconds", 0, GT_0)]),
            ("sinceSeconds=-3", Upstream, vec![invalid("sinceSeconds", -3, GT_0)]),
            ("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", Upstream, vec![both_since()]),
            ("sinceSeconds=5&sinceTime=", Upstream, vec![both_since()]),
            ("sinceSeconds=0&sinceTime=null", Upstream, vec![both_since()]),
            (
                "tailLines=-1&limitBytes=0&sinceSeconds=0&stream=x",
                Upstream,
                vec![
                    invalid("tailLines", -1, GE_0),
                    invalid("limitBytes", 0, GT_0),
                    invalid("sinceSeconds", 0, GT_0),
                    stream_forbidden(),
                ],
            ),
            ("stream=All", Upstream, vec![stream_forbidden()]),
            ("stream=", Upstream, vec![stream_forbidden()]),
            ("stream=All&tailLines=1", UpstreamSplitStreams, vec![]),
            ("stream=Stdout", UpstreamSplitStreams, vec![]),
            ("stream=stdout", UpstreamSplitStreams, vec![unsupported("stdout")]),
            ("stream=Stdout&tailLines=1", UpstreamSplitStreams, vec![exclusive()]),
            ("stream=Stderr&tailLines=0", UpstreamSplitStreams, vec![exclusive()]),
            ("stream=both&tailLines=1", UpstreamSplitStreams, vec![unsupported("both")]),
            ("stream=All", Exact, vec![]),
            ("stream=Stdout&tailLines=5&limitBytes=9", Exact, vec![]),
            ("stream=", Exact, vec![unsupported("")]),
            ("stream=STDERR", Exact, vec![unsupported("STDERR")]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(field, reason, message)| (field.to_owned(), reason.to_owned(), message))
                .collect();
            assert_eq!(causes(query, rules), expected, "{query} {rules:?}");
        }
    }

    #[test]
    fn the_body_of_a_refusal() {
        let options =
            PodLogOptions::from_query("tailLines=-1&limitBytes=0", StreamRules::Exact).expect("readable");
        let error = options.validate("web", StreamRules::Exact).expect_err("invalid");
        let expected = concat!(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"PodLogOptions \"web\" is "#,
            r#"invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, limitBytes: Invalid value: 0: "#,
            r#"must be greater than 0]","reason":"Invalid","details":{"name":"web","kind":"PodLogOptions","causes":["#,
            r#"{"reason":"FieldValueInvalid","message":"Invalid value: -1: must be greater than or equal to 0","#,
            r#""field":"tailLines"},{"reason":"FieldValueInvalid","message":"Invalid value: 0: must be greater than 0","#,
            r#""field":"limitBytes"}]},"code":422}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(error.to_json()).expect("UTF-8"), expected);
    }

    #[test]
    fn asks_the_kubelet() {
        for (query, expected) in [
            ("container=web", ""),
            ("insecureSkipTLSVerifyBackend=true&pretty=1", ""),
            ("follow=false&previous=0", ""),
            (
                "timestamps=x&tailLines=5&follow&previous=1",
                "follow=true&previous=true&tailLines=5&timestamps=true",
            ),
            ("tailLines=0&limitBytes=7&sinceSeconds=3", "limitBytes=7&sinceSeconds=3&tailLines=0"),
            ("sinceTime=2026-01-01T00:00:00.999Z", "sinceTime=2026-01-01T00%3A00%3A00Z"),
            ("sinceTime=1969-12-31T23:59:58.2Z", "sinceTime=1969-12-31T23%3A59%3A58Z"),
            ("sinceTime=", "sinceTime=0001-01-01T00%3A00%3A00Z"),
            ("stream=Stdout", "stream=Stdout"),
            (
                "match=b&match=a+b&untilTime=2026-01-01T00:00:00.999Z&cursor=x&exclude=c&cursors=1&untilSeconds=3",
                "cursor=x&cursors=true&exclude=c&match=b&match=a+b&untilSeconds=3&untilTime=2026-01-01T00%3A00%3A00.999Z",
            ),
            ("fixedStrings=1&allInstances=1&frames", "allInstances=true&fixedStrings=true&frames=true"),
            ("instance=-1&uid=x&deleted=1", "deleted=true&instance=-1&uid=x"),
        ] {
            let options = PodLogOptions::from_query(query, StreamRules::Exact).expect(query);
            assert_eq!(options.to_kubelet_query(), expected, "{query}");
        }
    }

    #[test]
    fn the_kubelet_reads() {
        use KubeletOptionsError::{Invalid, Undecodable};
        let tail = |lines| Ok(PodLogOptions { tail_lines: lines, ..PodLogOptions::default() });
        for (query, expected) in [
            ("tailLines=3", tail(Some(3))),
            ("tail=5", tail(Some(5))),
            ("tail=5&tailLines=3", tail(Some(5))),
            ("tail=all&tailLines=3", tail(None)),
            ("tail=&tailLines=3", tail(Some(3))),
            ("tail=x", Err(Undecodable)),
            ("sinceTime=x", Err(Undecodable)),
            ("tail=-1", Err(Invalid)),
            ("limitBytes=0", Err(Invalid)),
            ("stream=x", Err(Invalid)),
        ] {
            let options = PodLogOptions::from_kubelet_query(query, StreamRules::UpstreamSplitStreams);
            assert_eq!(options, expected, "{query}");
        }
        assert_eq!(
            (Undecodable.code(), Undecodable.to_string().as_str()),
            (400, r#"{"message": "Unable to decode query."}"#)
        );
        assert_eq!(
            (Invalid.code(), Invalid.to_string().as_str()),
            (422, r#"{"message": "Invalid request."}"#)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            container in "[a-z0-9 &=+%~-]{0,12}",
            flags in any::<(bool, bool, bool, bool)>(),
            numbers in any::<(Option<i64>, Option<i64>, Option<i64>)>(),
            seconds in proptest::option::of(-62_135_596_800_i64..253_000_000_000),
            stream in proptest::option::of("(All|Stdout|ö)"),
            more in any::<(Option<i64>, bool, bool, Option<String>, bool, bool)>(),
            which in any::<(Option<i64>, bool, Option<String>, Option<String>)>(),
            nanoseconds in proptest::option::of(-62_135_596_800_000_000_000_i128..253_000_000_000_000_000_000),
            patterns in any::<Vec<String>>(),
        ) {
            let options = PodLogOptions {
                container,
                follow: flags.0,
                previous: flags.1,
                timestamps: flags.2,
                insecure_skip_tls_verify_backend: flags.3,
                since_seconds: numbers.0,
                tail_lines: numbers.1,
                limit_bytes: numbers.2,
                since_time: seconds.map(|seconds| Timestamp::from_second(seconds).expect("in range")),
                stream,
                extensions: LogExtensions {
                    until_seconds: more.0,
                    until_time: nanoseconds.map(|at| Timestamp::from_nanosecond(at).expect("in range")),
                    include: patterns.clone(),
                    exclude: patterns,
                    fixed_strings: more.1,
                    cursors: more.2,
                    cursor: more.3,
                    all_instances: more.4,
                    frames: more.5,
                    instance: which.0,
                    deleted: which.1,
                    uid: which.2,
                    file: which.3,
                },
            };
            prop_assert_eq!(PodLogOptions::from_query(&options.to_query(), StreamRules::Exact), Ok(options));
        }

        #[test]
        fn no_query_is_fatal(query in any::<String>()) {
            let _ = PodLogOptions::from_query(&query, StreamRules::Exact);
            let _ = PodLogOptions::from_kubelet_query(&query, StreamRules::Exact);
        }
    }
}
