//! Which bytes of a file go out.

use memchr::memchr;
use podlog_line::LineMatch;

/// A longer line is judged by its beginning.
const MAX_HELD: usize = 1 << 20;

/// Chooses lines, and counts bytes.
#[derive(Clone)]
pub(super) struct Lines {
    line_match: Option<LineMatch>,
    /// Lines that are left out, of those that fit.
    skip: u64,
    /// Lines that fit so far.
    count: u64,
    /// Bytes that may still go out.
    left: Option<u64>,
    /// The beginning of a line that is not judged yet.
    held: Vec<u8>,
    /// What was decided about a line of which more is to come.
    decided: Option<bool>,
    /// Whether what went out ends in the middle of a line.
    inside: bool,
}

impl Lines {
    pub(super) fn new(line_match: Option<LineMatch>) -> Self {
        Lines { line_match, skip: 0, count: 0, left: None, held: Vec::new(), decided: None, inside: false }
    }

    pub(super) fn limited_to(self, bytes: Option<u64>) -> Self {
        Lines { left: bytes, ..self }
    }

    /// Whether there are lines that do not go out.
    pub(super) fn chooses(&self) -> bool {
        self.line_match.is_some()
    }

    /// The same choice, only to count.
    pub(super) fn counting(&self) -> Self {
        Lines { skip: u64::MAX, ..Lines::new(self.line_match.clone()) }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Leaves out so many of the lines that fit.
    pub(super) fn skip(&mut self, lines: u64) {
        self.skip = lines;
    }

    /// Whether no byte may go out any more.
    pub(super) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// What goes out of a chunk.
    pub(super) fn choose(&mut self, chunk: Vec<u8>) -> Vec<u8> {
        let chosen = if self.line_match.is_some() { self.choose_lines(&chunk) } else { chunk };
        self.counted(chosen)
    }

    /// What goes out of a line that has no end, the file having one: another file follows, whose lines are its own.
    pub(super) fn end_of_file(&mut self) -> Vec<u8> {
        let mut rest = self.finish();
        if self.inside && !self.is_full() {
            rest.extend(self.counted(b"\n".to_vec()));
        }
        rest
    }

    /// What goes out of something that is no line of the file.
    pub(super) fn insert(&mut self, line: Vec<u8>) -> Vec<u8> {
        self.counted(line)
    }

    /// What goes out of a line that has no end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let is_new = self.decided.take().is_none();
        if held.is_empty() || (is_new && !self.fits(&held)) {
            return Vec::new();
        }
        self.counted(held)
    }

    fn choose_lines(&mut self, mut rest: &[u8]) -> Vec<u8> {
        let mut chosen = Vec::new();
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (piece, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = behind;
            self.held.extend_from_slice(piece);
            if end.is_none() && self.held.len() < MAX_HELD && self.decided.is_none() {
                break;
            }
            let held = std::mem::take(&mut self.held);
            let fits = match self.decided {
                Some(fits) => fits,
                None => self.fits(held.strip_suffix(b"\n").unwrap_or(&held)),
            };
            self.decided = end.is_none().then_some(fits);
            if fits {
                chosen.extend(held);
            }
        }
        chosen
    }

    fn fits(&mut self, line: &[u8]) -> bool {
        if self.line_match.as_ref().is_some_and(|line_match| !line_match.is_match(line)) {
            return false;
        }
        self.count += 1;
        self.count > self.skip
    }

    fn counted(&mut self, mut chosen: Vec<u8>) -> Vec<u8> {
        if let Some(left) = &mut self.left {
            chosen.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chosen.len() as u64;
        }
        if let Some(last) = chosen.last() {
            self.inside = *last != b'\n';
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use podlog_line::Patterns;

    use super::*;

    fn chosen(lines: &mut Lines, chunks: &[&str]) -> String {
        let mut text = Vec::new();
        for chunk in chunks {
            text.extend(lines.choose(chunk.as_bytes().to_vec()));
        }
        text.extend(lines.end_of_file());
        String::from_utf8(text).unwrap()
    }

    fn lines(pattern: &str) -> Lines {
        let patterns = Patterns { include: vec![pattern.into()], ..Patterns::default() };
        Lines::new((!pattern.is_empty()).then(|| LineMatch::new(patterns).unwrap()))
    }

    #[test]
    fn lines_are_chosen_in_whatever_pieces_they_come() {
        for (pattern, chunks, expected) in [
            ("", &["a\nb", "c\n"][..], "a\nbc\n"),
            ("", &["a\nb"], "a\nb\n"),
            ("b", &["a\nb", "c\nab\n\n"], "bc\nab\n"),
            ("^b$", &["a\nb\n", "b", "\nbb"], "b\nb\n"),
            ("b", &["a", "a", "b"], "aab\n"),
            ("x", &["a", "\n"], ""),
        ] {
            assert_eq!(chosen(&mut lines(pattern), chunks), expected, "{pattern} {chunks:?}");
        }
        let long = "y".repeat(MAX_HELD);
        let chunks = ["x", &long, "more\nno\n", "x\n", "y", &long, "x\nx"];
        assert_eq!(
            chosen(&mut lines("x"), &chunks),
            format!("x{long}more\nx\nx\n"),
            "judged by its beginning"
        );
    }

    #[test]
    fn bytes_are_limited() {
        for (limit, expected) in [(1, "a"), (4, "a\nb\n"), (5, "a\nb\nc"), (9, "a\nb\nc\n")] {
            let mut lines = lines("").limited_to(Some(limit));
            assert_eq!(chosen(&mut lines, &["a\nb", "\nc"]), expected);
            assert_eq!(lines.is_full(), limit < 6);
        }
    }
}
