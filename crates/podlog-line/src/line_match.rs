//! Which lines are wanted by what is in them.

use std::sync::Arc;

use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::MAX_HELD;

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
    include: Option<RegexSet>,
    exclude: Option<RegexSet>,
}

/// A compiled pattern may have this size.
const MAX_COMPILED: usize = 4 * 1024 * 1024;

impl LineMatch {
    /// Compiles patterns.
    ///
    /// # Errors
    /// For the first one that is not a regular expression.
    pub fn new(source: Patterns) -> Result<LineMatch, PatternError> {
        let include = compile(&source.include, source.syntax)?;
        let exclude = compile(&source.exclude, source.syntax)?;
        Ok(LineMatch { compiled: Arc::new(Compiled { source, include, exclude }) })
    }

    /// Whether a line is wanted. It is judged by its first [`MAX_HELD`] bytes: longer ones are never held as a whole.
    pub fn is_match(&self, content: &[u8]) -> bool {
        let content = &content[..content.len().min(MAX_HELD)];
        let Compiled { include, exclude, .. } = &*self.compiled;
        include.as_ref().is_none_or(|set| set.is_match(content))
            && !exclude.as_ref().is_some_and(|set| set.is_match(content))
    }
}

impl PartialEq for LineMatch {
    fn eq(&self, other: &LineMatch) -> bool {
        self.compiled.source == other.compiled.source
    }
}

impl Eq for LineMatch {}

fn compile(patterns: &[String], syntax: PatternSyntax) -> Result<Option<RegexSet>, PatternError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let as_regex = |pattern: &String| match syntax {
        PatternSyntax::Regex => pattern.clone(),
        PatternSyntax::Fixed => regex::escape(pattern),
    };
    let set = RegexSetBuilder::new(patterns.iter().map(as_regex)).size_limit(MAX_COMPILED).build();
    set.map(Some).map_err(|error| PatternError(error.to_string()))
}

#[cfg(test)]
mod tests {
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
        ] {
            let matcher = LineMatch::new(patterns(include, exclude, syntax)).expect("patterns");
            assert_eq!(matcher.is_match(line), expected, "{include:?} {exclude:?} {line:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["(", "(?=a)", r"\w{1000}{1000}"] {
            assert!(LineMatch::new(patterns(&[pattern], &[], PatternSyntax::Regex)).is_err(), "{pattern}");
        }
    }
}
