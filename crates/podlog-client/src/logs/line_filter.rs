//! Choosing lines where the server does not: by content and by an end of time, and what is counted after that.

use std::collections::VecDeque;

use bytes::Bytes;
use podlog_api::PodLogOptions;
use podlog_line::{LineMatch, MAX_HELD, PatternSyntax, Patterns, Timestamp};

use super::resume::Marks;
use crate::ClientError;

/// Longest time before a line; what is longer is no time.
const MAX_STAMP: usize = 64;

/// Chooses lines as the log reader of a kubelet of podlog does. Each line comes with its time.
#[derive(Debug)]
pub(super) struct LineFilter {
    line_match: Option<LineMatch>,
    until: Option<Timestamp>,
    follow: bool,
    times: Marks,
    tail: Option<Tail>,
    /// Bytes that may still be printed.
    left: Option<usize>,
    /// What has come of a line that is not judged yet.
    held: Vec<u8>,
    verdict: Verdict,
    is_over: bool,
}

/// The last lines that were chosen, before anything is printed.
#[derive(Debug)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    count: usize,
}

/// What is known of the line that the next byte stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Wanted,
    Unwanted,
}

impl LineFilter {
    /// # Errors
    /// When a pattern is none.
    pub(super) fn new(options: &PodLogOptions) -> Result<Self, ClientError> {
        let extensions = &options.extensions;
        let syntax = if extensions.fixed_strings { PatternSyntax::Fixed } else { PatternSyntax::Regex };
        let (include, exclude) = (extensions.include.clone(), extensions.exclude.clone());
        let line_match = LineMatch::new(Patterns { include, exclude, syntax })
            .map_err(|error| ClientError::Invalid(format!("invalid pattern: {error}")))?;
        let number = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        Ok(LineFilter {
            line_match: extensions.has_patterns().then_some(line_match),
            until: extensions.until_time.map(nanoseconds),
            follow: options.follow,
            times: if options.timestamps { Marks::Kept } else { Marks::Removed },
            tail: options.tail_lines.map(|lines| Tail { lines: VecDeque::new(), count: number(lines) }),
            left: options.limit_bytes.map(number),
            held: Vec::new(),
            verdict: Verdict::Open,
            is_over: false,
        })
    }

    /// Nothing more will be chosen.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.left == Some(0)
    }

    /// What is to be printed when this has come.
    pub(super) fn filter(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(chunk.len());
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.take(piece, &mut out);
            if self.is_over {
                break;
            }
        }
        self.within_limit(out)
    }

    /// Everything that there was when it was asked for has come: what is chosen from now on is printed at once.
    pub(super) fn end_of_past(&mut self) -> Bytes {
        let lines = self.tail.take().map(|tail| tail.lines).unwrap_or_default();
        self.within_limit(Vec::from(lines).concat())
    }

    /// The log has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        if self.verdict == Verdict::Open && !self.held.is_empty() {
            self.judge(&mut out);
        }
        let rest = self.within_limit(out);
        [self.end_of_past(), rest].concat().into()
    }

    fn within_limit(&mut self, mut out: Vec<u8>) -> Bytes {
        if let Some(left) = &mut self.left {
            out.truncate(*left);
            *left -= out.len();
        }
        out.into()
    }

    /// A piece of a line, or the end of it.
    fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let is_end = piece.ends_with(b"\n");
        match self.verdict {
            Verdict::Unwanted => {}
            Verdict::Wanted => self.go_on(piece, out),
            Verdict::Open => {
                self.held.extend_from_slice(piece);
                if is_end || self.held.len() > MAX_HELD + MAX_STAMP {
                    self.judge(out);
                }
            }
        }
        if is_end {
            self.verdict = Verdict::Open;
        }
    }

    fn judge(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.held);
        // Words of the server's own have no time, and are no part of the log.
        let (time, text) = split_time(&line).map_or((None, &line[..]), |(time, text)| (Some(time), text));
        let is_late = time.zip(self.until).is_some_and(|(time, until)| time > until);
        // Whoever follows waits for nothing that is later than wanted.
        self.is_over = is_late && self.follow;
        let content = text.strip_suffix(b"\n").unwrap_or(text);
        let is_match = self.line_match.as_ref().is_none_or(|wanted| wanted.is_match(content));
        let is_wanted = time.is_none() || !is_late && is_match;
        self.verdict = if is_wanted { Verdict::Wanted } else { Verdict::Unwanted };
        if is_wanted {
            let shown = if self.times == Marks::Kept { &line[..] } else { text };
            self.begin(shown, out);
        }
    }

    fn begin(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let Some(tail) = &mut self.tail else { return out.extend_from_slice(text) };
        tail.lines.push_back(text.to_vec());
        if tail.lines.len() > tail.count {
            tail.lines.pop_front();
        }
    }

    fn go_on(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match &mut self.tail {
            None => out.extend_from_slice(text),
            Some(tail) => tail.lines.back_mut().into_iter().for_each(|line| line.extend_from_slice(text)),
        }
    }
}

/// The time that a line begins with, and what is behind it.
fn split_time(line: &[u8]) -> Option<(Timestamp, &[u8])> {
    let end = memchr::memchr2(b' ', b'\n', &line[..line.len().min(MAX_STAMP)])?;
    let time = Timestamp::parse(&line[..end]).ok()?;
    Some((time, line[end..].strip_prefix(b" ").unwrap_or(&line[end..])))
}

fn nanoseconds(at: jiff::Timestamp) -> Timestamp {
    let nanoseconds = at.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Timestamp::from_nanoseconds(i64::try_from(nanoseconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use podlog_api::StreamRules;
    use podlog_line::{Renderer, Selection};

    use super::*;

    const LOG: [&str; 5] = ["1.5Z one a", "2.5Z two b", "4.5Z ", "3Z four ab", "5.123456789Z five a"];

    fn stamped(lines: &[&str]) -> String {
        lines.iter().map(|line| format!("2026-01-01T00:00:0{line}\n")).collect()
    }

    fn filtered(query: &str, log: &str, size: usize) -> String {
        let options = PodLogOptions::from_query(query, StreamRules::Exact).unwrap();
        let mut filter = LineFilter::new(&options).unwrap();
        let mut text = Vec::new();
        for chunk in log.as_bytes().chunks(size) {
            text.extend(filter.filter(chunk));
            if filter.is_over() {
                return String::from_utf8(text).unwrap();
            }
        }
        text.extend(filter.finish());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_chosen_as_podlogs_kubelet_chooses_them() {
        let log = stamped(&LOG) + "2026-01-01T00:00:06Z no end a";
        let records = log.replace("Z ", "Z stdout F ");
        let at = |second: &str| format!("2026-01-01T00:00:0{second}Z");
        for query in
            ["match=a", "exclude=a", "match=^$", "match=a&exclude=b", "match=a.&fixedStrings=1", "match=x"]
        {
            for more in ["", "&timestamps=1", "&untilTime=2026-01-01T00:00:03Z", "&limitBytes=9"] {
                let query = format!("{query}{more}");
                let options = PodLogOptions::from_query(&query, StreamRules::Exact).unwrap();
                let extensions = &options.extensions;
                let syntax =
                    if extensions.fixed_strings { PatternSyntax::Fixed } else { PatternSyntax::Regex };
                let (include, exclude) = (extensions.include.clone(), extensions.exclude.clone());
                let selection = Selection {
                    line_match: Some(LineMatch::new(Patterns { include, exclude, syntax }).unwrap()),
                    until: extensions.until_time.map(|_| at("3").parse().unwrap()),
                    timestamps: options.timestamps,
                    limit_bytes: options.limit_bytes.map(|limit| limit as u64),
                    ..Selection::default()
                };
                let mut renderer = Renderer::new(&selection);
                let mut expected = Vec::new();
                let done = renderer.render(records.as_bytes(), &mut expected).unwrap().consumed;
                renderer.render_rest(&records.as_bytes()[done..], &mut expected).unwrap();
                renderer.finish(&mut expected).unwrap();
                let expected = String::from_utf8(expected).unwrap();
                for size in [1, 7, 1000] {
                    // Times are shown as the server has sent them.
                    let shown = filtered(&query, &log, size);
                    let nine = |text: &str| text.replace(".5Z", ".500000000Z").replace("3Z", "3.000000000Z");
                    let nine = |text: &str| nine(text).replace("6Z", "6.000000000Z");
                    assert_eq!(nine(&shown), expected, "{query} {size}");
                }
            }
        }
    }

    #[test]
    fn tails_and_limits_count_what_was_chosen() {
        let log = stamped(&LOG);
        for (query, expected) in [
            ("match=a&tailLines=2", "four ab\nfive a\n"),
            ("match=b&tailLines=9", "two b\nfour ab\n"),
            ("match=a&tailLines=2&limitBytes=3", "fou"),
            ("untilTime=2026-01-01T00:00:04Z&tailLines=1", "four ab\n"),
            // The first line that is too late ends a log that is followed.
            ("untilTime=2026-01-01T00:00:04Z&follow=1", "one a\ntwo b\n"),
            ("match=five&timestamps=1&tailLines=1", "2026-01-01T00:00:05.123456789Z five a\n"),
        ] {
            for size in [1, 5, 1000] {
                assert_eq!(filtered(query, &log, size), expected, "{query} {size}");
            }
        }
    }

    #[test]
    fn what_has_no_time_is_shown_and_long_lines_are_judged_by_their_begin() {
        let long = "x".repeat(MAX_HELD);
        let log = format!(
            "{}unable to go on\n",
            stamped(&[&format!("1Z a{long}b"), &format!("2Z {long}ab"), "3Z b"])
        );
        for size in [1 << 16, 1 << 24] {
            assert!(filtered("match=a", &log, size) == format!("a{long}b\nunable to go on\n"));
            assert!(filtered("match=a&tailLines=2", &log, size) == format!("a{long}b\nunable to go on\n"));
        }
        let options = PodLogOptions::from_query("match=(", StreamRules::Exact).unwrap();
        assert!(LineFilter::new(&options).unwrap_err().to_string().contains("invalid pattern"));
    }
}
