//! What every record is judged by.

use std::ops::Range;

use crate::{LineMatch, Record, Selection, Streams, Timestamp, line_match::Hit};

#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) streams: Streams,
    pub(super) since: Option<Timestamp>,
    pub(super) timestamps: bool,
    /// Not in [`Mode::Upstream`](crate::Mode::Upstream), as what follows.
    pub(super) until: Option<Timestamp>,
    pub(super) line_match: Option<LineMatch>,
    pub(super) cursors: bool,
}

/// How the records of a second stand to `since` and `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Wanted,
    TooOld,
    TooLate,
    /// Not all alike.
    Mixed,
}

impl Filter {
    pub(super) fn new(selection: &Selection) -> Filter {
        Filter {
            streams: selection.streams,
            since: selection.since,
            timestamps: selection.timestamps,
            until: selection.until,
            line_match: selection.line_match.clone(),
            cursors: selection.cursors,
        }
    }

    #[inline]
    pub(super) fn is_too_old(&self, record: &Record<'_>) -> bool {
        self.since.is_some_and(|since| record.time.timestamp() < since)
    }

    #[inline]
    pub(super) fn is_too_late(&self, record: &Record<'_>) -> bool {
        self.until.is_some_and(|until| record.time.timestamp() > until)
    }

    /// What can be said of every record of the second of `record`.
    pub(super) fn time_of_second(&self, record: &Record<'_>) -> Time {
        let begin = Timestamp::from_seconds(record.time.timestamp().as_seconds(), 0);
        let end = Timestamp::from_seconds(begin.as_seconds(), 999_999_999);
        if self.until.is_some_and(|until| begin > until) {
            Time::TooLate
        } else if self.since.is_some_and(|since| end < since) {
            Time::TooOld
        } else if self.until.is_some_and(|until| end > until) || self.since.is_some_and(|since| begin < since)
        {
            Time::Mixed
        } else {
            Time::Wanted
        }
    }

    #[inline]
    pub(super) fn is_match(&self, content: &[u8]) -> bool {
        self.line_match.as_ref().is_none_or(|wanted| wanted.is_match(content))
    }

    /// As [`Filter::is_match`], for lines of a block in their order.
    #[inline]
    pub(super) fn is_match_in(&self, block: &[u8], content: Range<usize>, hit: &mut Hit) -> bool {
        self.line_match
            .as_ref()
            .is_none_or(|wanted| wanted.is_match_in(block, content.start, content.end, hit))
    }

    /// Whether an unfinished line can be shown before all of it is known.
    pub(super) fn shows_unfinished(&self) -> bool {
        self.line_match.is_none()
    }

    #[inline]
    pub(super) fn append_time(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.timestamps {
            record.time.append_nine_digits(out);
            out.push(b' ');
        }
    }
}
