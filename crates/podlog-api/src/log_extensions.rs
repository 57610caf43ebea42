//! What may be asked of a log beyond Kubernetes. Servers that do not know these parameters ignore them, so a server that
//! does says which ones it has honoured.

use jiff::Timestamp;

use crate::query::Query;
use crate::{ApiError, Cause, go};

/// The header of an answer that lists the parameters beyond Kubernetes that were honoured, by name, separated by commas.
pub const LOG_OPTIONS_HEADER: &str = "podlog-log-options";

/// Patterns of a kind that may be given.
const MAX_PATTERNS: usize = 32;
/// Bytes of a pattern.
const MAX_PATTERN: usize = 1024;
/// Bytes of a cursor.
const MAX_CURSOR: usize = 100;
/// Characters of a pod's uid.
const MAX_UID: usize = 128;

/// The part of a log that is wanted, beyond what Kubernetes can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogExtensions {
    /// Only lines that are at least so many seconds old (`untilSeconds`).
    pub until_seconds: Option<i64>,
    /// Only lines of this moment and earlier (`untilTime`).
    pub until_time: Option<Timestamp>,
    /// Only lines in which one of these is found (`match`, repeatable).
    pub include: Vec<String>,
    /// Only lines in which none of these is found (`exclude`, repeatable).
    pub exclude: Vec<String>,
    /// Whether patterns are meant literally and not as regular expressions (`fixedStrings`).
    pub fixed_strings: bool,
    /// Whether every line begins with its cursor (`cursors`).
    pub cursors: bool,
    /// Whether the log comes in frames (`frames`): [`FrameHead`](crate::FrameHead).
    pub frames: bool,
    /// Only what comes after this cursor (`cursor`).
    pub cursor: Option<String>,
    /// Whether the earlier instances of the container are wanted, too, oldest first (`allInstances`).
    pub all_instances: bool,
    /// The instance that is wanted: its restart count, or how many instances before the newest, as a negative number
    /// (`instance`).
    pub instance: Option<i64>,
    /// Whether a pod is meant that has been deleted (`deleted`).
    pub deleted: bool,
    /// Which of several deleted pods of a name (`uid`); the one that was deleted last otherwise.
    pub uid: Option<String>,
    /// A log file inside the container, by its path there, that the pod declares (`file`).
    pub file: Option<String>,
}

impl LogExtensions {
    /// Whether nothing beyond Kubernetes is asked for.
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// Whether lines are chosen by what is in them.
    pub fn has_patterns(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// The names of the parameters that are given, for [`LOG_OPTIONS_HEADER`].
    pub fn names(&self) -> Vec<&'static str> {
        let given = [
            ("allInstances", self.all_instances),
            ("cursor", self.cursor.is_some()),
            ("cursors", self.cursors),
            ("deleted", self.deleted),
            ("exclude", !self.exclude.is_empty()),
            ("file", self.file.is_some()),
            ("fixedStrings", self.fixed_strings),
            ("frames", self.frames),
            ("instance", self.instance.is_some()),
            ("match", !self.include.is_empty()),
            ("uid", self.uid.is_some()),
            ("untilSeconds", self.until_seconds.is_some()),
            ("untilTime", self.until_time.is_some()),
        ];
        given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
    }

    pub(crate) fn decode(query: &Query) -> Result<Self, ApiError> {
        Ok(LogExtensions {
            until_seconds: query.integer("untilSeconds")?,
            until_time: query.first("untilTime").map(parse_time).transpose()?,
            include: query.all("match"),
            exclude: query.all("exclude"),
            fixed_strings: query.flag("fixedStrings"),
            cursors: query.flag("cursors"),
            frames: query.flag("frames"),
            cursor: query.first("cursor").map(str::to_owned),
            all_instances: query.flag("allInstances"),
            instance: query.integer("instance")?,
            deleted: query.flag("deleted"),
            uid: query.first("uid").map(str::to_owned),
            file: query.first("file").map(str::to_owned),
        })
    }

    pub(crate) fn encode(&self, query: &mut Query) {
        for (name, is_set) in [
            ("fixedStrings", self.fixed_strings),
            ("cursors", self.cursors),
            ("frames", self.frames),
            ("allInstances", self.all_instances),
            ("deleted", self.deleted),
        ] {
            if is_set {
                query.set(name, "true");
            }
        }
        let texts = [
            ("untilSeconds", self.until_seconds.map(|seconds| seconds.to_string())),
            ("untilTime", self.until_time.map(|time| time.to_string())),
            ("cursor", self.cursor.clone()),
            ("instance", self.instance.map(|instance| instance.to_string())),
            ("uid", self.uid.clone()),
            ("file", self.file.clone()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                query.set(name, text);
            }
        }
        for (name, patterns) in [("match", &self.include), ("exclude", &self.exclude)] {
            for pattern in patterns {
                query.add(name, pattern);
            }
        }
    }

    /// What is wrong, `previous` and `tail_lines` being the options of the same name.
    pub(crate) fn check(&self, previous: bool, tail_lines: Option<i64>) -> impl Iterator<Item = Cause> {
        [
            self.check_until(),
            check_patterns("match", &self.include),
            check_patterns("exclude", &self.exclude),
            self.check_cursor(tail_lines),
            (self.all_instances && previous)
                .then(|| Cause::forbidden("[]", "`allInstances` and `previous` are mutually exclusive")),
            (self.instance.is_some() && previous)
                .then(|| Cause::forbidden("[]", "`instance` and `previous` are mutually exclusive")),
            self.check_uid(),
        ]
        .into_iter()
        .flatten()
    }

    fn check_until(&self) -> Option<Cause> {
        if self.until_time.is_some() && self.until_seconds.is_some() {
            return Some(Cause::forbidden(
                "[]",
                "at most one of `untilTime` or `untilSeconds` may be specified",
            ));
        }
        let seconds = self.until_seconds.filter(|seconds| *seconds < 0)?;
        Some(Cause::invalid_value("untilSeconds", seconds, "must be greater than or equal to 0"))
    }

    /// Whether a file inside the container is asked for together with what it does not have: times, streams and instances.
    pub(crate) fn excludes_file(&self) -> bool {
        let only = LogExtensions {
            file: self.file.clone(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            fixed_strings: self.fixed_strings,
            ..LogExtensions::default()
        };
        *self != only
    }

    fn check_uid(&self) -> Option<Cause> {
        let uid = self.uid.as_deref()?;
        if !self.deleted {
            return Some(Cause::forbidden("uid", "may only be specified together with `deleted`"));
        }
        let can_be = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_uid = !uid.is_empty() && uid.len() <= MAX_UID && uid.bytes().all(can_be);
        (!is_uid).then(|| Cause::invalid_value("uid", go::quote(uid), "must be the uid of a pod"))
    }

    fn check_cursor(&self, tail_lines: Option<i64>) -> Option<Cause> {
        let cursor = self.cursor.as_deref()?;
        let is_printable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if cursor.is_empty() || cursor.len() > MAX_CURSOR || !cursor.bytes().all(is_printable) {
            return Some(Cause::invalid_value("cursor", go::quote(cursor), "must be a cursor of this log"));
        }
        tail_lines?;
        Some(Cause::forbidden("[]", "`cursor` and `tailLines` are mutually exclusive"))
    }
}

fn check_patterns(name: &str, patterns: &[String]) -> Option<Cause> {
    if patterns.len() > MAX_PATTERNS {
        let message = format!("Too many: {}: must have at most {MAX_PATTERNS} items", patterns.len());
        return Some(Cause { reason: "FieldValueTooMany".into(), message, field: name.into() });
    }
    let index = patterns.iter().position(|pattern| pattern.len() > MAX_PATTERN)?;
    let message = format!("Too long: may not be more than {MAX_PATTERN} bytes");
    Some(Cause { reason: "FieldValueTooLong".into(), message, field: format!("{name}[{index}]") })
}

fn parse_time(text: &str) -> Result<Timestamp, ApiError> {
    go::parse_rfc3339(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use crate::{PodLogOptions, StreamRules};

    fn messages(query: &str) -> Vec<String> {
        let options = PodLogOptions::from_query(query, StreamRules::Exact).expect(query);
        let Err(error) = options.validate("web", StreamRules::Exact) else { return Vec::new() };
        let causes = error.details.expect("details").causes;
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    const FILE: &str = "file: Forbidden: may only be specified together with `follow`, `tailLines`, `limitBytes`, `match`, \
         `exclude` and `fixedStrings`";

    #[test]
    fn extensions_are_validated_behind_upstreams_options() {
        let many = "&match=x".repeat(33);
        let long = format!("exclude=a&exclude={}", "x".repeat(1025));
        for (query, expected) in [
            (
                "untilSeconds=0&match=a&match=b&exclude=c&fixedStrings=1&cursors=1&cursor=A.b_9-&allInstances",
                &[][..],
            ),
            ("untilTime=2026-01-01T00:00:00.5Z&tailLines=5", &[]),
            ("untilSeconds=-1", &["untilSeconds: Invalid value: -1: must be greater than or equal to 0"]),
            (
                "untilSeconds=1&untilTime=2026-01-01T00:00:00Z",
                &["[]: Forbidden: at most one of `untilTime` or `untilSeconds` may be specified"],
            ),
            (many.as_str(), &["match: Too many: 33: must have at most 32 items"]),
            (&long, &["exclude[1]: Too long: may not be more than 1024 bytes"]),
            ("cursor=", &["cursor: Invalid value: \"\": must be a cursor of this log"]),
            ("cursor=a%20b", &["cursor: Invalid value: \"a b\": must be a cursor of this log"]),
            ("cursor=a&tailLines=1", &["[]: Forbidden: `cursor` and `tailLines` are mutually exclusive"]),
            (
                "allInstances=1&previous=1&tailLines=-1",
                &[
                    "tailLines: Invalid value: -1: must be greater than or equal to 0",
                    "[]: Forbidden: `allInstances` and `previous` are mutually exclusive",
                ],
            ),
            ("instance=-3&allInstances=1&deleted&uid=0b-c", &[]),
            ("instance=0&previous=1", &["[]: Forbidden: `instance` and `previous` are mutually exclusive"]),
            ("uid=a", &["uid: Forbidden: may only be specified together with `deleted`"]),
            ("file=/a&follow=1&tailLines=1&limitBytes=1&match=a&exclude=b&fixedStrings=1", &[]),
            ("file=/a&timestamps=1", &[FILE]),
            ("file=/a&instance=1", &[FILE]),
            ("file=/a&stream=Stdout", &[FILE]),
            ("deleted=1&uid=..", &["uid: Invalid value: \"..\": must be the uid of a pod"]),
        ] {
            assert_eq!(messages(query), expected, "{query}");
        }
    }

    #[test]
    fn extensions_that_cannot_be_read_are_refused_unless_they_are_unknown() {
        for query in ["untilSeconds=x", "untilTime=x", "untilTime=", "instance=x"] {
            assert!(PodLogOptions::from_query(query, StreamRules::Exact).is_err(), "{query}");
            for rules in [StreamRules::Upstream, StreamRules::UpstreamSplitStreams] {
                let options = PodLogOptions::from_query(query, rules).expect(query);
                assert_eq!(options, PodLogOptions::default());
            }
        }
    }

    #[test]
    fn names_tell_what_is_given() {
        for (query, expected) in [
            ("tailLines=5&follow=1", ""),
            ("match=a&exclude=b&untilSeconds=1&cursors", "cursors,exclude,match,untilSeconds"),
            ("fixedStrings=1&cursor=x&untilTime=2026-01-01T00:00:00Z", "cursor,fixedStrings,untilTime"),
            ("allInstances=true&frames=1", "allInstances,frames"),
            ("deleted&uid=x&instance=0&file=/a", "deleted,file,instance,uid"),
        ] {
            let options = PodLogOptions::from_query(query, StreamRules::Exact).expect(query);
            assert_eq!(options.extensions.names().join(","), expected);
            assert_eq!(options.extensions.is_empty(), expected.is_empty());
        }
    }
}
