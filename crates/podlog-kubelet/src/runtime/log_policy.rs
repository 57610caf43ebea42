//! Who decides what is kept of too much output: the kubelet's configuration, and above it the annotations of a pod.

use std::collections::BTreeMap;

use podlog_api::quantity::Quantity;
use podlog_container::{BackPressure, DEFAULT_BUFFER_BYTES, Log};

/// What `podlog.dev/log-policy` and [`KubeletConfiguration`](crate::config::KubeletConfiguration) may say.
const POLICIES: [(&str, BackPressure); 3] = [
    ("block", BackPressure::Block),
    ("drop-newest", BackPressure::DropNewest),
    ("drop-oldest", BackPressure::DropOldest),
];

/// What is kept of the output of a container that prints more than may be, or can be, written.
///
/// A pod chooses it by annotations: `podlog.dev/log-policy` (`block`, `drop-newest` or `drop-oldest`),
/// `podlog.dev/log-buffer-bytes`, `podlog.dev/log-lines-per-second`, `podlog.dev/log-bytes-per-second` and
/// `podlog.dev/log-max-record-bytes` (quantities such as `4Mi`). With `.<container>` behind it an annotation is for this
/// container alone, and goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// What happens when the log is slower than the program. Default [`BackPressure::Block`].
    pub back_pressure: BackPressure,
    /// What is kept in memory by the policies that drop, in bytes. Default 1 MiB, at least 64 KiB.
    pub buffer_bytes: u64,
    /// Lines a second. Default 0: no limit.
    pub lines_per_second: u64,
    /// Bytes a second. Default 0: no limit.
    pub bytes_per_second: u64,
    /// Longest content of a record in bytes. Default 0: 16 KiB. At least 1 KiB, at most 256 KiB.
    pub max_record_bytes: u64,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            back_pressure: BackPressure::Block,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            lines_per_second: 0,
            bytes_per_second: 0,
            max_record_bytes: 0,
        }
    }
}

impl LogPolicy {
    /// The policy of a container; `self` where the annotations of its pod say nothing.
    ///
    /// # Errors
    /// Which annotation has a value that is none.
    pub fn of(self, container: &str, annotations: &BTreeMap<String, String>) -> Result<Self, String> {
        let find = |name: &str| {
            let all = format!("podlog.dev/log-{name}");
            let one = format!("{all}.{container}");
            [one, all].into_iter().find_map(|key| annotations.get_key_value(&key))
        };
        let number = |name: &str, default: u64| match find(name) {
            None => Ok(default),
            Some((key, value)) => {
                parse_number(value).ok_or_else(|| refusal(key, value, "is no quantity of zero or more"))
            }
        };
        let back_pressure = match find("policy") {
            None => self.back_pressure,
            Some((key, value)) => parse_policy(value)
                .ok_or_else(|| refusal(key, value, "is none of block, drop-newest and drop-oldest"))?,
        };
        Ok(Self {
            back_pressure,
            buffer_bytes: number("buffer-bytes", self.buffer_bytes)?,
            lines_per_second: number("lines-per-second", self.lines_per_second)?,
            bytes_per_second: number("bytes-per-second", self.bytes_per_second)?,
            max_record_bytes: number("max-record-bytes", self.max_record_bytes)?,
        })
    }

    /// `log` with this policy.
    pub(crate) fn apply(self, log: Log) -> Log {
        Log {
            back_pressure: self.back_pressure,
            buffer_bytes: self.buffer_bytes,
            lines_per_second: self.lines_per_second,
            bytes_per_second: self.bytes_per_second,
            max_record_bytes: self.max_record_bytes,
            ..log
        }
    }
}

/// The policy of that name.
pub(crate) fn parse_policy(name: &str) -> Option<BackPressure> {
    POLICIES.into_iter().find(|(known, _)| *known == name).map(|(_, policy)| policy)
}

/// A number that is not negative, as a quantity.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    u64::try_from(Quantity::parse(text)?.value()).ok()
}

fn refusal(key: &str, value: &str, why: &str) -> String {
    format!("has the annotation {key}: {value:?} {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> Result<LogPolicy, String> {
        let annotations =
            annotations.iter().map(|(key, value)| (format!("podlog.dev/log-{key}"), (*value).to_owned()));
        let defaults = LogPolicy { lines_per_second: 7, ..LogPolicy::default() };
        defaults.of("web", &annotations.collect())
    }

    #[test]
    fn annotations_are_above_the_configuration_and_a_container_above_its_pod() {
        let defaults = LogPolicy { lines_per_second: 7, ..LogPolicy::default() };
        for (annotations, expected) in [
            (&[][..], defaults),
            (&[("policy", "drop-oldest")], LogPolicy { back_pressure: BackPressure::DropOldest, ..defaults }),
            (&[("policy", "drop-oldest"), ("policy.web", "block")], defaults),
            (&[("policy.db", "drop-oldest"), ("lines-per-second.webs", "1")], defaults),
            (
                &[("policy.web", "drop-newest"), ("buffer-bytes", "4Mi"), ("lines-per-second", "0")],
                LogPolicy {
                    back_pressure: BackPressure::DropNewest,
                    buffer_bytes: 4 << 20,
                    lines_per_second: 0,
                    ..defaults
                },
            ),
            (
                &[("bytes-per-second", "1M"), ("max-record-bytes", "32768")],
                LogPolicy { bytes_per_second: 1_000_000, max_record_bytes: 32_768, ..defaults },
            ),
        ] {
            assert_eq!(of(annotations), Ok(expected), "{annotations:?}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (key, value, why) in [
            ("policy", "drop", "is none of block, drop-newest and drop-oldest"),
            ("policy.web", "", "is none of block, drop-newest and drop-oldest"),
            ("buffer-bytes", "much", "is no quantity of zero or more"),
            ("lines-per-second", "-1", "is no quantity of zero or more"),
        ] {
            let expected = format!("has the annotation podlog.dev/log-{key}: {value:?} {why}");
            assert_eq!(of(&[(key, value)]), Err(expected));
        }
    }
}
