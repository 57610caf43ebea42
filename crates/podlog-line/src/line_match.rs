//! Which lines are wanted by what is in them.

mod lanes;

use std::sync::{Arc, OnceLock};

use memchr::{memchr, memmem::Finder};
use regex::bytes::{Regex, RegexBuilder};

use crate::MAX_HELD;
use lanes::{Ahead, Guide, Lanes};

/// How patterns are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PatternSyntax {
    /// Regular expressions of the `regex` crate over bytes: linear time, no look-around, no back-references.
    #[default]
    Regex,
    /// As they stand.
    Fixed,
}

/// The patterns of a reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    /// A line is wanted when one of these is found in it; every line, if there are none.
    pub include: Vec<String>,
    /// A line is not wanted when one of these is found in it.
    pub exclude: Vec<String>,
    /// How they are read.
    pub syntax: PatternSyntax,
}

/// A pattern is no regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

/// Compiled [`Patterns`]. A line is judged by its content, without time and line feed.
#[derive(Debug, Clone)]
pub struct LineMatch {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    source: Patterns,
    include: AnyOf,
    exclude: AnyOf,
    scan: Option<Scan>,
}

/// Patterns of which one has to be found.
#[derive(Debug)]
struct AnyOf(Vec<Regex>);

/// What is searched for in many records at once, to find the lines that have to be judged.
#[derive(Debug)]
struct Scan {
    needle: Needle,
    /// For lines one by one, if that is needed.
    lanes: OnceLock<Option<Lanes>>,
    /// Whether it is, as far as records alone tell.
    is_misled: OnceLock<bool>,
    /// What is known of a line in which it is not found.
    without: bool,
    /// What is known of a line in which it is found, if anything is.
    with: Option<bool>,
}

#[derive(Debug)]
enum Needle {
    Fixed(Box<Finder<'static>>),
    Regex(Regex),
    /// To this it may make a difference what stands around a line.
    Bound(Regex),
}

/// Where in a block of records the next line is that has to be judged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hit {
    /// No pattern matches within a line that ends before this.
    end: usize,
    /// What was found certainly begins here or later.
    begin: usize,
    /// No line that ends before this is wanted.
    unwanted_before: usize,
    /// How many lines were asked for, and how many searches that took.
    lines: usize,
    searches: usize,
    ahead: Ahead,
}

/// Before a line stand so many bytes of its record.
const HEADER: usize = 48;
/// When so many lines of a block were asked for, and most of them took a search, they are searched one by one.
const ENOUGH_LINES: usize = 8;

/// A compiled pattern may have this size.
const MAX_COMPILED: usize = 4 * 1024 * 1024;

impl LineMatch {
    /// Compiles patterns.
    ///
    /// # Errors
    /// For the first one that is not a regular expression.
    pub fn new(source: Patterns) -> Result<LineMatch, PatternError> {
        let include = AnyOf::new(&source.include, source.syntax)?;
        let exclude = AnyOf::new(&source.exclude, source.syntax)?;
        let scan = Scan::new(&source, &include, &exclude);
        Ok(LineMatch { compiled: Arc::new(Compiled { source, include, exclude, scan }) })
    }

    /// Whether a line is wanted whose content is `block[begin..end]`, followed by a line feed in `block`. The lines of a
    /// block are to be given in order, with the same `hit`: the block is searched as a whole, which costs much less than
    /// a search in each line.
    #[inline]
    pub(crate) fn is_match_in(&self, block: &[u8], begin: usize, end: usize, hit: &mut Hit) -> bool {
        hit.lines += 1;
        if end < hit.unwanted_before {
            return false;
        }
        let content = &block[begin..end];
        let Some(scan) = self.compiled.scan.as_ref().filter(|_| content.len() <= MAX_HELD) else {
            return self.is_match(content);
        };
        match scan.is_found(block, begin, end, hit) {
            Some(true) => scan.with.unwrap_or_else(|| self.is_match(content)),
            Some(false) => scan.without,
            None => self.is_match(content),
        }
    }

    /// Whether a line is wanted. It is judged by its first [`MAX_HELD`] bytes: longer ones are never held as a whole.
    pub fn is_match(&self, content: &[u8]) -> bool {
        let content = &content[..content.len().min(MAX_HELD)];
        let Compiled { include, exclude, .. } = &*self.compiled;
        (include.0.is_empty() || include.is_found(content)) && !exclude.is_found(content)
    }
}

impl AnyOf {
    fn new(patterns: &[String], syntax: PatternSyntax) -> Result<AnyOf, PatternError> {
        let each = patterns.iter().map(|pattern| compile(&expression(pattern, syntax)));
        let each: Vec<Regex> =
            each.collect::<Result<_, _>>().map_err(|error| PatternError(error.to_string()))?;
        // A comment, which only a pattern with flags can have, would go on into the next pattern.
        let can_be_joined = each.len() > 1 && !patterns.iter().any(|pattern| pattern.contains('#'));
        let parts = || each.iter().map(|regex| format!("(?:{regex})")).collect::<Vec<_>>().join("|");
        let joined = can_be_joined.then(|| compile(&parts()).ok()).flatten();
        Ok(AnyOf(joined.map_or(each, |regex| vec![regex])))
    }

    fn is_found(&self, content: &[u8]) -> bool {
        self.0.iter().any(|regex| regex.is_match(content))
    }
}

impl Scan {
    /// `None` for several patterns that cannot be one.
    ///
    /// A match within a line is a match at the same place of the block, unless the pattern says where a line begins or
    /// ends. Before the content stands a space and behind it a line feed, which are to `\\b` what the ends of a text are.
    fn new(source: &Patterns, include: &AnyOf, exclude: &AnyOf) -> Option<Scan> {
        let without = source.include.is_empty();
        let (patterns, any_of) =
            if without { (&source.exclude, exclude) } else { (&source.include, include) };
        let with = (without || source.exclude.is_empty()).then_some(!without);
        let is_bound =
            || source.syntax == PatternSyntax::Regex && patterns.iter().any(|pattern| is_bound(pattern));
        let needle = match (source.syntax, &patterns[..], &any_of.0[..]) {
            (PatternSyntax::Fixed, [text], _) => Needle::Fixed(Box::new(Finder::new(text).into_owned())),
            (_, _, [regex]) if is_bound() => Needle::Bound(regex.clone()),
            (_, _, [regex]) => Needle::Regex(regex.clone()),
            _ => return None,
        };
        Some(Scan { needle, lanes: OnceLock::new(), is_misled: OnceLock::new(), without, with })
    }

    /// Whether a match is in `block[begin..end]`; `None` when it takes a closer look.
    #[inline]
    fn is_found(&self, block: &[u8], begin: usize, end: usize, hit: &mut Hit) -> Option<bool> {
        if hit.end < begin {
            hit.searches += 1;
            if let Some(lanes) = self.lanes(hit, &block[begin.saturating_sub(HEADER)..begin]) {
                return hit.ahead.is_found(lanes, block, begin, end);
            }
            self.needle.find(block, begin, hit);
            hit.unwanted_before = if self.without { 0 } else { hit.end };
        }
        if hit.end > end { Some(false) } else { (hit.begin >= begin).then_some(true) }
    }

    /// What searches lines one by one, where that is better. `header` stands before the line.
    fn lanes(&self, hit: &Hit, header: &[u8]) -> Option<&Lanes> {
        let regex = match &self.needle {
            Needle::Fixed(_) => return None,
            Needle::Regex(regex) => {
                let is_misled = || *self.is_misled.get_or_init(|| !Guide::new(regex.as_str()).leads(header));
                let is_everywhere = hit.lines > ENOUGH_LINES && hit.searches * 2 > hit.lines;
                Some(regex).filter(|_| is_everywhere || is_misled())?
            }
            Needle::Bound(regex) => regex,
        };
        self.lanes.get_or_init(|| Lanes::new(regex.as_str())).as_ref()
    }
}

/// Whether a pattern may say where a line begins or ends, or has flags that make this hard to tell.
fn is_bound(pattern: &str) -> bool {
    let harmless = ["(?:", "(?i)", "(?i:"];
    let rest = harmless.iter().fold(pattern.to_owned(), |text, group| text.replace(group, ""));
    ["^", "$", "\\A", "\\z", "(?"].iter().any(|bound| rest.contains(bound))
}

impl Hit {
    /// Where the line of a block ends that begins there.
    #[inline]
    pub(crate) fn end_of_line(&self, block: &[u8], begin: usize) -> Option<usize> {
        self.ahead.end_of(begin).or_else(|| Some(begin + memchr(b'\n', block.get(begin..)?)?))
    }
}

impl Needle {
    #[inline]
    fn find(&self, block: &[u8], from: usize, hit: &mut Hit) {
        let found = match self {
            Needle::Fixed(finder) => finder.find(&block[from..]).map(|found| {
                let begin = from + found;
                (begin, begin + finder.needle().len())
            }),
            // The end at which it is first certain that there is a match: what comes later need not be searched.
            Needle::Regex(regex) => regex.shortest_match_at(block, from).map(|end| (from, end)),
            // Each line is to be looked at.
            Needle::Bound(_) => Some((0, 0)),
        };
        (hit.begin, hit.end) = found.unwrap_or((usize::MAX, usize::MAX));
    }
}

impl PartialEq for LineMatch {
    fn eq(&self, other: &LineMatch) -> bool {
        self.compiled.source == other.compiled.source
    }
}

impl Eq for LineMatch {}

fn compile(expression: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(expression).size_limit(MAX_COMPILED).build()
}

fn expression(pattern: &str, syntax: PatternSyntax) -> String {
    match syntax {
        PatternSyntax::Regex => pattern.to_owned(),
        PatternSyntax::Fixed => regex::escape(pattern),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(include: &[&str], exclude: &[&str], syntax: PatternSyntax) -> Patterns {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Patterns { include: owned(include), exclude: owned(exclude), syntax }
    }

    #[test]
    fn lines_are_judged_by_their_content() {
        use PatternSyntax::{Fixed, Regex};
        for (include, exclude, syntax, line, expected) in [
            (&[][..], &[][..], Regex, &b"anything"[..], true),
            (&["err|warn"], &[], Regex, b"a warning", true),
            (&["err|warn"], &[], Fixed, b"a warning", false),
            (&["a", "b"], &[], Regex, b"xbx", true),
            (&["a"], &["b"], Regex, b"ab", false),
            (&[], &["b"], Regex, b"a", true),
            (&["^a$"], &[], Regex, b"a", true),
            (&[r"(?-u)\xff"], &[], Regex, b"\xff", true),
            (&["(?x) a # comment", "b"], &[], Regex, b"b", true),
            (&["a", "(?i)B"], &[], Regex, b"A", false),
            (&["(?i)A", "b"], &[], Regex, b"B", false),
            (&[""], &[], Fixed, b"", true),
            (&["a", ""], &[], Regex, b"", true),
        ] {
            let matcher = LineMatch::new(patterns(include, exclude, syntax)).expect("patterns");
            assert_eq!(matcher.is_match(line), expected, "{include:?} {exclude:?} {line:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["(", "(?=a)", "a)|(b", r"\w{1000}{1000}"] {
            assert!(LineMatch::new(patterns(&[pattern], &[], PatternSyntax::Regex)).is_err(), "{pattern}");
        }
    }

    /// Lines with something like a header before them, judged one by one and by scanning.
    fn scan_agrees(matcher: &LineMatch, lines: &[&[u8]]) -> bool {
        let header = b"2026-01-01T00:00:01.5Z stdout F ";
        let block: Vec<u8> = lines.iter().flat_map(|line| [header, *line, b"\n"].concat()).collect();
        let (mut hit, mut begin) = (Hit::default(), 0);
        lines.iter().all(|line| {
            begin += header.len();
            let end = begin + line.len();
            let scanned = matcher.is_match_in(&block, begin, end, &mut hit);
            begin = end + 1;
            scanned == matcher.is_match(line)
        })
    }

    #[test]
    fn scanning_a_block_judges_each_line_by_its_content() {
        let lines =
            [&b"error"[..], b"", b"xay", b"stdout F ", b"2026", b"F er", b"z", b"a\xffb", b"tail", b" a"];
        // Enough for a search line by line.
        let lines = lines.repeat(3);
        for pattern in [
            "error",
            "a",
            "2026",
            "F ",
            "x[^q]*z",
            r"\s",
            r"\b",
            r"\Ba",
            r"\d{2}|Q",
            r"\b[0-9]+\b",
            r"[0-9]$|^F",
            r"\ba",
            "r$",
            "^e",
            r"\Ae",
            r"l\z",
            "",
            "x.*z",
            "(?s)x.*z",
            "(?m)^e",
            "(?i)ERROR",
            ".",
            "[^a]",
            "\n",
            "F er",
            r"\s*a",
            "(?-u)\\xff",
            r"\w+\s\w",
            "a|^e",
            "Z",
            "o*",
        ] {
            for syntax in [PatternSyntax::Regex, PatternSyntax::Fixed] {
                for (include, exclude) in
                    [(vec![pattern], vec![]), (vec![], vec![pattern]), (vec![pattern, "z"], vec!["y"])]
                {
                    let matcher = LineMatch::new(patterns(&include, &exclude, syntax)).expect("patterns");
                    assert!(scan_agrees(&matcher, &lines), "{include:?} {exclude:?} {syntax:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn scanning_agrees_with_judging(
            pattern in "[ab.*+?|\\\\bs F2Z^$(\\[\\])]{1,6}",
            fixed: bool,
            exclude: bool,
            lines in prop::collection::vec("[ab 2FZ.]{0,6}|[ab 2FZ.é]{0,30}", 1..60),
        ) {
            let syntax = if fixed { PatternSyntax::Fixed } else { PatternSyntax::Regex };
            let (include, exclude): (&[&str], &[&str]) = if exclude { (&[], &[&pattern]) } else { (&[&pattern], &[]) };
            if let Ok(matcher) = LineMatch::new(patterns(include, exclude, syntax)) {
                let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
                prop_assert!(scan_agrees(&matcher, &lines));
            }
        }
    }
}
