//! What a reader asked for.

use crate::{Cursor, LineMatch, Stream, Streams, Timestamp};

/// How records become lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Whole lines: partial records are joined per stream, a line of one stream is never glued to a line of the other,
    /// `tail` counts lines of the wanted streams, damaged records are skipped and counted, and all generations of a log
    /// are one log.
    #[default]
    Exact,
    /// Record by record as the log reader of Kubernetes 1.36 does it (`k8s.io/cri-client/pkg/logs/logs.go`), with its
    /// oddities: it begins in the current file, `tail` counts raw records, both streams share one newline state. Only
    /// its losses are not reproduced: whoever follows gets every file that comes after the first.
    Upstream,
}

/// The part of a log that a reader wants. The default is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only what was logged at this time or later. A line counts as logged when its first record was.
    pub since: Option<Timestamp>,
    /// Only what was logged at this time or earlier. A line counts as logged when its first record was. Taken before
    /// `tail`: "the last N of what there was at that time". [`Mode::Exact`] only.
    pub until: Option<Timestamp>,
    /// Only lines with such content. Taken before `tail`: "the last N of these lines". Declared gaps are always shown.
    /// [`Mode::Exact`] only.
    pub line_match: Option<LineMatch>,
    /// Only the last so many lines ([`Mode::Exact`]) or records ([`Mode::Upstream`]) of what is there when reading
    /// starts. Taken before `since`: "of the last N, those that are new enough". 0 is nothing.
    pub tail: Option<u64>,
    /// At most so many bytes of output, exactly cut.
    pub limit_bytes: Option<u64>,
    /// Whether each line begins with the time of its first record and a space.
    pub timestamps: bool,
    /// Whether each line begins with the [`Cursor`] behind it and a space, before the time. Lines then come when they
    /// have ended, and one longer than [`MAX_HELD`](crate::MAX_HELD) comes in several. [`Mode::Exact`] only.
    pub cursors: bool,
    /// Only what comes after this place. It is the business of the one who feeds the [`Renderer`](crate::Renderer).
    /// [`Mode::Exact`] only.
    pub after: Option<Cursor>,
    /// The wanted streams.
    pub streams: Streams,
    /// How records become lines.
    pub mode: Mode,
    /// Whether reading goes on after the end was reached. Without it, the log ends where it ended when reading began.
    pub follow: bool,
}

impl Selection {
    /// Whether `tail` counts the line of `stream` that was begun at that time, has this content (all of it, or at least
    /// the first [`MAX_HELD`](crate::MAX_HELD) bytes) and is a declared gap or not.
    pub fn wants(&self, stream: Stream, begun: Timestamp, is_gap: bool, content: &[u8]) -> bool {
        self.streams.contains(stream)
            && self.until.is_none_or(|until| begun <= until)
            && (is_gap || self.line_match.as_ref().is_none_or(|wanted| wanted.is_match(content)))
    }
}
