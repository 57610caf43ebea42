//! Numbered lines, and whoever reads them: every line once and in order, but for what markers declare.

use podlog_line::{Gap, GapReason};

/// Prints `lines` numbered lines of `width` bytes, line feeds included, as fast as it can, from `first` on.
pub(crate) fn script(first: &str, last: &str, width: usize) -> String {
    let widest = width - 1;
    format!(
        "awk -v a={first} -v b={last} 'BEGIN {{ for (p = \"x\"; length(p) < {width}; p = p p) {{ }} \
         for (i = a; i <= b; i++) {{ n = sprintf(\"%.0f \", i); print n substr(p, 1, {widest} - length(n)) }} }}'"
    )
}

/// What a reader has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    width: usize,
    /// The last number.
    pub(crate) last: u64,
    /// Markers of a runtime that ended.
    pub(crate) markers: u64,
    /// Of these, those that came behind what they declare.
    pub(crate) late: u64,
    /// Lines that are missing, each declared.
    pub(crate) missing: u64,
    /// Whether a marker stands between the last whole line and here.
    is_declared: bool,
    /// Something was missing that no marker has declared yet.
    owes: Option<String>,
    was_piece: bool,
}

impl Seen {
    /// Of lines of that width, line feeds included.
    pub(crate) fn new(width: usize) -> Self {
        Seen { width, ..Seen::default() }
    }

    /// Takes the next line; fails when it is there twice, or when something before it is missing and not declared.
    pub(crate) fn line(&mut self, line: &str) {
        match self.number(line) {
            Some(number) if number == self.last + 1 => {
                self.is_declared = false;
                self.last = number;
            }
            Some(number) => {
                assert!(number > self.last, "line {number} comes behind line {}", self.last);
                self.lost(line);
                self.missing += number - self.last - 1;
                (self.last, self.is_declared) = (number, false);
            }
            None if Gap::parse_content(line.as_bytes()).is_some() => return self.marker(line),
            None => self.lost(line),
        }
        self.was_piece = self.number(line).is_none();
    }

    /// Nothing may be left to be declared.
    pub(crate) fn end(&self) {
        assert_eq!(self.owes, None, "nobody declares what is missing before this line");
    }

    fn marker(&mut self, line: &str) {
        let gap = Gap::parse_content(line.as_bytes()).expect("a marker");
        assert_eq!(gap.reason, GapReason::RuntimeEnded, "{line}");
        self.markers += 1;
        // The piece of a line before a marker is the beginning of what it declares.
        self.late += u64::from(self.owes.take().is_some() && !self.was_piece);
        (self.is_declared, self.was_piece) = (true, false);
    }

    fn lost(&mut self, line: &str) {
        if !self.is_declared && !self.was_piece {
            assert_eq!(self.owes, None, "nobody declares what is missing before this line");
            self.owes = Some(line.chars().take(40).collect());
        }
    }

    /// The number of a whole line.
    fn number(&self, line: &str) -> Option<u64> {
        let (number, pad) = line.split_once(' ')?;
        let is_whole = line.len() + 1 == self.width && pad.bytes().all(|byte| byte == b'x');
        number.parse().ok().filter(|_| is_whole)
    }
}

#[test]
fn what_is_missing_must_be_declared() {
    let take = |lines: &[&str]| {
        let mut seen = Seen::new(5);
        lines.iter().for_each(|line| seen.line(line));
        seen.end();
        (seen.last, seen.markers, seen.late, seen.missing)
    };
    let fails = |lines: &[&str]| assert!(std::panic::catch_unwind(|| take(lines)).is_err(), "{lines:?}");
    let marker = r#"{"podlog.gap":{"reason":"runtime-ended"}}"#;
    assert_eq!(take(&["1 xx", "2 xx", marker, "3 xx"]), (3, 1, 0, 0));
    assert_eq!(take(&["1 xx", "2 x", marker, "x", "5 xx"]), (5, 1, 0, 3));
    assert_eq!(take(&["1 xx", "x", "5 xx", "6 xx", marker, "7 xx"]), (7, 1, 1, 3));
    fails(&["1 xx", "3 xx"]);
    fails(&["1 xx", "1 xx"]);
    fails(&["1 xx", "x"]);
    fails(&["1 xx", marker, "2 xx", "4 xx"]);
    fails(&["1 xx", "3 xx", "5 xx", marker, marker]);
    fails(&["1 xx", r#"{"podlog.gap":{"reason":"retention"}}"#]);
}
