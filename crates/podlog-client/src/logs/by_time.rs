//! Taking up a log where it stopped, by the times of its lines.

use bytes::Bytes;
use jiff::Timestamp;

use super::resume::Marks;

/// Longest time before a line, `2006-01-02T15:04:05.999999999+07:00`, with its blank; what is longer is no time.
const MAX_STAMP: usize = 64;

/// How far a log has been printed. Lines may share a time, so those of the last one are counted.
#[derive(Debug, Default)]
pub(crate) struct ByTime {
    times: Marks,
    last: Option<Timestamp>,
    /// Complete lines of that time that were printed.
    printed_at_last: usize,
    /// While true, lines may have been printed before.
    skipping: bool,
    /// Lines of the last time seen in this stream.
    seen_at_last: usize,
    /// The begin of a line whose time is not complete.
    held: Vec<u8>,
    inside: Inside,
    /// Bytes of the line that the next byte stands in that were printed.
    printed: usize,
    /// The line that the last stream broke off in.
    cut: Option<Cut>,
}

/// A line whose begin was printed.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: Timestamp,
    printed: usize,
}

/// Where in a line the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Stamp,
    Printed,
    Skipped,
}

impl ByTime {
    /// Prints times or takes them away.
    pub(super) fn new(times: Marks) -> Self {
        ByTime { times, ..ByTime::default() }
    }

    /// What to ask for: times are sent in whole seconds, the rest is ours.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.last
    }

    /// A new stream begins, with lines that may have been printed already.
    pub(crate) fn begin(&mut self) {
        self.skipping = self.last.is_some();
        self.seen_at_last = 0;
        self.held.clear();
        self.inside = Inside::Stamp;
    }

    /// The stream broke off: a line that has begun will come again, whole, and only its rest is printed.
    pub(crate) fn interrupted(&mut self) {
        if self.inside == Inside::Printed {
            self.printed_at_last = self.printed_at_last.saturating_sub(1);
            let printed = self.cut.map_or(0, |cut| cut.printed).max(self.printed);
            self.cut = self.last.map(|at| Cut { at, printed });
        }
    }

    /// What is left of a stream that has ended.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// The new lines of a chunk.
    pub(crate) fn filter(&mut self, chunk: &[u8]) -> Bytes {
        let mut text = Vec::with_capacity(chunk.len());
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match self.inside {
                Inside::Stamp => self.take_stamp(rest, &mut text),
                Inside::Printed | Inside::Skipped => self.take_line(rest, &mut text),
            };
        }
        text.into()
    }

    fn take_line<'a>(&mut self, rest: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
        let end = memchr::memchr(b'\n', rest).map(|newline| newline + 1);
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        if self.inside == Inside::Printed {
            self.print(line, text);
        }
        if end.is_some() {
            self.inside = Inside::Stamp;
        }
        after
    }

    /// All but what was printed before the stream broke off.
    fn print(&mut self, part: &[u8], text: &mut Vec<u8>) {
        let known = self.cut.map_or(0, |cut| cut.printed.saturating_sub(self.printed));
        text.extend_from_slice(part.get(known..).unwrap_or_default());
        self.printed += part.len();
        if part.ends_with(b"\n") {
            self.cut = None;
        }
    }

    fn take_stamp<'a>(&mut self, rest: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
        let end = memchr::memchr2(b' ', b'\n', rest);
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        self.held.extend_from_slice(part);
        if end.is_none() && self.held.len() <= MAX_STAMP {
            return after;
        }
        let held = std::mem::take(&mut self.held);
        let stamp = std::str::from_utf8(&held).ok().and_then(|stamp| stamp.parse::<Timestamp>().ok());
        self.printed = 0;
        let Some(stamp) = stamp else {
            // Words of the server's own, e.g. that it could not go on.
            text.extend_from_slice(&held);
            self.inside = Inside::Printed;
            return after;
        };
        if !self.is_new(stamp) {
            self.inside = Inside::Skipped;
            return after;
        }
        self.inside = Inside::Printed;
        self.end_cut_line(stamp, text);
        if self.times == Marks::Kept {
            self.print(&held, text);
            return after;
        }
        after.strip_prefix(b" ").unwrap_or(after)
    }

    /// The line that was cut comes first, if it comes again.
    fn end_cut_line(&mut self, stamp: Timestamp, text: &mut Vec<u8>) {
        if self.cut.is_some_and(|cut| cut.at != stamp) {
            self.cut = None;
            text.push(b'\n');
        }
    }

    fn is_new(&mut self, stamp: Timestamp) -> bool {
        if self.skipping && self.last.is_some_and(|last| stamp < last) {
            return false;
        }
        if self.last != Some(stamp) {
            self.skipping = false;
            self.last = Some(stamp);
            self.printed_at_last = 1;
            self.seen_at_last = 1;
            return true;
        }
        self.seen_at_last += 1;
        if self.skipping && self.seen_at_last <= self.printed_at_last {
            return false;
        }
        self.printed_at_last += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "2024-01-01T00:00:00.5Z";
    const B: &str = "2024-01-01T00:00:00.7Z";
    const C: &str = "2024-01-01T00:00:01.123456789+02:00";

    fn all(resume: &mut ByTime, chunks: &[&str]) -> String {
        resume.begin();
        chunks
            .iter()
            .map(|chunk| String::from_utf8(resume.filter(chunk.as_bytes()).to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn times_are_taken_away_however_the_chunks_fall() {
        let log = format!("{A} one\n{A} \n{B} two words \nunable to go on: x\n{B}\n{B} no newline");
        let expected = "one\n\ntwo words \nunable to go on: x\n\nno newline";
        for size in [1, 2, 7, 23, 1000] {
            let chunks: Vec<&str> =
                log.as_bytes().chunks(size).map(|c| std::str::from_utf8(c).unwrap()).collect();
            assert_eq!(all(&mut ByTime::default(), &chunks), expected, "{size}");
        }
        let long = "x".repeat(100);
        assert_eq!(all(&mut ByTime::default(), &[&long, " y\n"]), format!("{long} y\n"));
    }

    #[test]
    fn nothing_is_printed_twice_or_left_out() {
        let mut resume = ByTime::default();
        assert_eq!(resume.since(), None);
        assert_eq!(all(&mut resume, &[&format!("{A} 1\n{B} 2\n{B} 3\n")]), "1\n2\n3\n");
        assert_eq!(resume.since(), Some(B.parse().unwrap()));
        assert_eq!(all(&mut resume, &[&format!("{A} 1\n{B} 2\n{B} 3\n{B} 4\n")]), "4\n");
        assert_eq!(all(&mut resume, &[&format!("{A} 1\n{B} 2\n{B} 3\n{B} 4\n")]), "");
        assert_eq!(all(&mut resume, &[&format!("{B} 2\n{B} 3\n{B} 4\n{B} 5\n{A} back in time\n")]), "5\n");
        assert_eq!(all(&mut resume, &[&format!("{B} 2\n{B} 3\n{B} 4\n{B} 5\n{B} 6 bro")]), "6 bro");
        resume.interrupted();
        assert_eq!(all(&mut resume, &[&format!("{B} 2\n{B} 3\n{B} 4\n{B} 5\n{B} 6 broken\n")]), "ken\n");
        let later = C.replace("+02:00", "Z");
        assert_eq!(
            all(&mut resume, &[&format!("{later} 7\n{A} the clock went back\n")]),
            "7\nthe clock went back\n"
        );
    }
}
