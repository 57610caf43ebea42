//! Taking up a log where it stopped, by the cursors of its lines.

use bytes::Bytes;

use super::resume::Marks;

/// No cursor is longer.
const MAX_CURSOR: usize = 100;

/// How far a log has been printed whose lines begin with cursors.
#[derive(Debug)]
pub(super) struct ByCursor {
    cursors: Marks,
    /// Behind the last line that was printed to its end.
    last: Option<Vec<u8>>,
    /// The cursor of the line that the next byte stands in, as far as it has come.
    current: Vec<u8>,
    inside: Inside,
    /// Bytes behind that cursor that were printed or left out.
    seen: usize,
    /// The line that the last stream broke off in.
    cut: Option<Cut>,
}

/// A line whose begin was printed.
#[derive(Debug)]
struct Cut {
    cursor: Vec<u8>,
    printed: usize,
}

/// Where in a line the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Cursor,
    Line,
}

impl ByCursor {
    /// Prints cursors or takes them away; `last` is where the log begins.
    pub(super) fn new(cursors: Marks, last: Option<&str>) -> Self {
        ByCursor {
            cursors,
            last: last.map(|last| last.as_bytes().to_vec()),
            current: Vec::new(),
            inside: Inside::Cursor,
            seen: 0,
            cut: None,
        }
    }

    /// Behind the last whole line.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref().and_then(|last| std::str::from_utf8(last).ok())
    }

    /// The stream broke off: a line that has begun will come again, whole, and only its rest is printed.
    pub(super) fn interrupted(&mut self) {
        let printed = self.cut.as_ref().map_or(0, |cut| cut.printed).max(self.seen);
        if self.inside == Inside::Line {
            self.cut = Some(Cut { cursor: std::mem::take(&mut self.current), printed });
        }
        self.current.clear();
        self.inside = Inside::Cursor;
        self.seen = 0;
    }

    /// What is left of a stream that has ended.
    pub(super) fn finish(&mut self) -> Bytes {
        let rest = if self.inside == Inside::Cursor { std::mem::take(&mut self.current) } else { Vec::new() };
        rest.into()
    }

    /// What is new in a chunk.
    pub(super) fn filter(&mut self, chunk: &[u8]) -> Bytes {
        let mut text = Vec::with_capacity(chunk.len());
        let mut rest = self.whole_lines(chunk, &mut text);
        while !rest.is_empty() {
            rest = match self.inside {
                Inside::Cursor => self.take_cursor(rest, &mut text),
                Inside::Line => self.take_line(rest, &mut text),
            };
        }
        text.into()
    }

    /// The usual case: lines that are in the chunk as a whole, each after the other. Returns the rest.
    fn whole_lines<'a>(&mut self, chunk: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
        if self.inside == Inside::Line || !self.current.is_empty() || self.cut.is_some() {
            return chunk;
        }
        let (mut rest, mut last) = (chunk, None);
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end + 1);
            let Some((cursor, behind)) = split_cursor(line) else { break };
            text.extend_from_slice(if self.cursors == Marks::Kept { line } else { behind });
            (rest, last) = (after, Some(cursor));
        }
        if let Some(last) = last {
            self.last = Some(last.to_vec());
        }
        rest
    }

    fn take_cursor<'a>(&mut self, rest: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
        let end = rest.iter().position(|byte| !is_of_cursor(*byte));
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        self.current.extend_from_slice(part);
        if end.is_none() && self.current.len() <= MAX_CURSOR {
            return after;
        }
        self.inside = Inside::Line;
        self.seen = 0;
        let Some(after) = after.strip_prefix(b" ").filter(|_| !self.current.is_empty()) else {
            // Words of the server's own, e.g. that it could not go on.
            text.append(&mut self.current);
            return after;
        };
        if self.cut.as_ref().is_some_and(|cut| cut.cursor != self.current) {
            // What was cut does not come again.
            self.cut = None;
            text.push(b'\n');
        }
        if self.cursors == Marks::Kept && self.cut.is_none() {
            text.extend_from_slice(&self.current);
            text.push(b' ');
        }
        after
    }

    fn take_line<'a>(&mut self, rest: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
        let end = memchr::memchr(b'\n', rest).map(|newline| newline + 1);
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        let known = self.cut.as_ref().map_or(0, |cut| cut.printed.saturating_sub(self.seen));
        text.extend_from_slice(part.get(known..).unwrap_or_default());
        self.seen += part.len();
        if end.is_some() {
            self.end_line();
        }
        after
    }

    fn end_line(&mut self) {
        self.cut = None;
        self.inside = Inside::Cursor;
        let ended = std::mem::take(&mut self.current);
        if !ended.is_empty() {
            self.last = Some(ended);
        }
    }
}

fn is_of_cursor(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// A line's cursor, and what is behind it.
fn split_cursor(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', &line[..line.len().min(MAX_CURSOR + 1)])?;
    let (cursor, behind) = line.split_at(end);
    (!cursor.is_empty() && cursor.iter().all(|byte| is_of_cursor(*byte))).then(|| (cursor, &behind[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "c1.a one\nc1.b \nc1.c two words \nc1.d x\n";
    const TEXT: &str = "one\n\ntwo words \nx\n";

    fn filter(resume: &mut ByCursor, text: &str, size: usize) -> String {
        let chunks = text.as_bytes().chunks(size);
        chunks.map(|chunk| String::from_utf8(resume.filter(chunk).to_vec()).unwrap()).collect()
    }

    /// What a server sends that is asked for what comes after a cursor.
    fn after(last: Option<&str>) -> &'static str {
        let Some(last) = last else { return LOG };
        let line = LOG.find(last).unwrap();
        &LOG[line + LOG[line..].find('\n').unwrap() + 1..]
    }

    #[test]
    fn a_log_that_is_cut_twice_anywhere_is_printed_once() {
        for (cursors, expected) in [(Marks::Removed, TEXT), (Marks::Kept, LOG)] {
            for size in [1, 3, 100] {
                for first in 0..=LOG.len() {
                    let mut resume = ByCursor::new(cursors, None);
                    let mut text = filter(&mut resume, &LOG[..first], size);
                    resume.interrupted();
                    let rest = after(resume.last());
                    for second in 0..=rest.len() {
                        let mut resume = ByCursor {
                            last: resume.last.clone(),
                            cut: resume.cut.as_ref().map(|cut| Cut { cursor: cut.cursor.clone(), ..*cut }),
                            ..ByCursor::new(cursors, None)
                        };
                        let mut text = text.clone() + &filter(&mut resume, &rest[..second], size);
                        resume.interrupted();
                        let last = after(resume.last());
                        text += &filter(&mut resume, last, size);
                        assert_eq!(text, expected, "{first} {second} {size} {cursors:?}");
                    }
                    text += &filter(&mut resume, rest, size);
                    assert_eq!(text, expected, "{first} {size} {cursors:?}");
                }
            }
        }
    }

    #[test]
    fn a_cut_line_that_does_not_come_again_is_ended() {
        let mut resume = ByCursor::new(Marks::Removed, None);
        assert_eq!(filter(&mut resume, "c1.a one\nc1.b tw", 100), "one\ntw");
        resume.interrupted();
        assert_eq!(filter(&mut resume, "c1.z gap\n", 100), "\ngap\n");
        assert_eq!(resume.last(), Some("c1.z"));
    }

    #[test]
    fn what_has_no_cursor_is_printed_and_is_no_place() {
        let log = format!("c1.a one\nerror: broken\n{}\n", "x".repeat(300));
        for size in [1, 7, 1000] {
            let mut resume = ByCursor::new(Marks::Removed, None);
            assert_eq!(filter(&mut resume, &log, size), log.replace("c1.a ", ""), "{size}");
            assert_eq!(resume.last(), Some("c1.a"));
            assert_eq!(filter(&mut resume, "end", size) + &String::from_utf8_lossy(&resume.finish()), "end");
        }
    }
}
