//! Searching in several lines at the same time.
//!
//! Where no literal says where to look, a regular expression is looked for byte by byte, and each step waits for the one before it.
//! Lines do not wait for each other: [`LANES`] of them, one byte of each in turn, take hardly longer than one.

use std::collections::HashMap;

use memchr::{memchr, memrchr};
use regex_automata::{
    Anchored, MatchKind, Span,
    dfa::{Automaton, StartKind, dense},
    meta,
    nfa::thompson,
    util::{prefilter::Prefilter, start, syntax},
};

/// Lines that are searched at the same time.
const LANES: usize = 6;
/// Where a state leads with each byte.
const ROW: usize = 256;
/// A table has room for so many entries, which are for 256 states.
const TABLE: usize = 1 << 16;
/// The making of it may take so many bytes of memory, and so a few milliseconds at most.
const MAX_MAKING: usize = 1024 * 1024;

/// Whether there is a literal that leads to a regular expression in a block of records.
#[derive(Debug)]
pub(super) struct Guide {
    is_fast: bool,
    /// What every match begins with, if that says something.
    literals: Option<Prefilter>,
}

impl Guide {
    pub(super) fn new(pattern: &str) -> Guide {
        let syntax = syntax::Config::new().utf8(false);
        let hir = syntax::parse_with(pattern, &syntax).ok();
        let regex = hir.as_ref().and_then(|hir| meta::Builder::new().build_from_hir(hir).ok());
        Guide {
            is_fast: regex.is_some_and(|regex| regex.is_accelerated()),
            literals: hir.and_then(|hir| Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, &hir)),
        }
    }

    /// Whether it leads anywhere in records that begin with `header`.
    pub(super) fn leads(&self, header: &[u8]) -> bool {
        let all = Span::from(0..header.len());
        let is_misled = |literals: &Prefilter| literals.find(header, all).is_some();
        self.is_fast && !self.literals.as_ref().is_some_and(is_misled)
    }
}

/// A regular expression as a table: where each state leads with each byte.
#[derive(Debug)]
pub(super) struct Lanes {
    /// By state and byte; a state is the place of its row.
    table: Box<[u16; TABLE]>,
    /// By state: whether the pattern has been found if the line ends there; `None` when the line is not ASCII.
    is_found: Vec<Option<bool>>,
}

/// What is known of the next lines of a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ahead {
    lines: [Judged; LANES],
    next: usize,
}

/// A line of a block, and whether the pattern is in it, if that is known.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    begin: usize,
    end: usize,
    is_found: Option<bool>,
}

impl Lanes {
    /// `None` when it would be too large.
    pub(super) fn new(pattern: &str) -> Option<Lanes> {
        let automaton = automaton(pattern)?;
        let first = automaton.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()?;
        let mut states = vec![first];
        let mut places = HashMap::from([(first, 0)]);
        let mut table = vec![0; TABLE];
        let mut is_found = Vec::new();
        while let Some(state) = states.get(is_found.len()).copied() {
            let (place, is_known) = (is_found.len(), !automaton.is_quit_state(state));
            let is_match = || automaton.is_match_state(automaton.next_eoi_state(state));
            is_found.push(is_known.then(is_match));
            for (byte, entry) in (0..=u8::MAX).zip(&mut table[place * ROW..]) {
                let next = if is_known { automaton.next_state(state, byte) } else { state };
                let place = *places.entry(next).or_insert_with(|| {
                    states.push(next);
                    states.len() - 1
                });
                *entry = u16::try_from(place * ROW).ok()?;
            }
        }
        Some(Lanes { table: table.into_boxed_slice().try_into().ok()?, is_found })
    }

    /// Whether the pattern is found in these lines.
    fn search(&self, lines: [&[u8]; LANES]) -> [Option<bool>; LANES] {
        let common = lines.iter().map(|line| line.len()).min().unwrap_or(0);
        let (heads, rests) = (lines.map(|line| &line[..common]), lines.map(|line| &line[common..]));
        let mut states = [0; LANES];
        #[expect(clippy::needless_range_loop, reason = "it is the same place of each line")]
        for at in 0..common {
            for lane in 0..LANES {
                states[lane] = self.next(states[lane], heads[lane][at]);
            }
        }
        for (state, rest) in states.iter_mut().zip(rests) {
            *state = rest.iter().fold(*state, |state, byte| self.next(state, *byte));
        }
        states.map(|state| self.is_found[usize::from(state) / ROW])
    }

    #[inline]
    fn next(&self, state: u16, byte: u8) -> u16 {
        self.table[usize::from(state | u16::from(byte))]
    }
}

/// What has come to a match somewhere in a line when it comes to the line's end, if the line is ASCII.
fn automaton(pattern: &str) -> Option<dense::DFA<Vec<u32>>> {
    // Behind flags there may be a comment, which would go on behind the pattern.
    if pattern.contains("(?") && pattern.contains('#') {
        return None;
    }
    let mut config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .unicode_word_boundary(true)
        .dfa_size_limit(Some(MAX_MAKING))
        .determinize_size_limit(Some(MAX_MAKING));
    // That keeps it small whatever Unicode knows of letters.
    for byte in 0x80..=0xff {
        config = config.quit(byte, true);
    }
    // Once found, it stays found: nobody has to look before the end.
    dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_MAKING)))
        .build(&format!("(?s-u:.)*?(?:{pattern})(?s-u:.)*"))
        .ok()
}

impl Ahead {
    /// Whether the pattern is found in `block[begin..end]`, which is followed by a line feed; `None` when that has to be found out
    /// in another way. The lines of a block are to be given in order.
    #[inline]
    pub(super) fn is_found(&mut self, lanes: &Lanes, block: &[u8], begin: usize, end: usize) -> Option<bool> {
        while let Some(line) = self.lines.get(self.next)
            && line.begin <= begin
        {
            self.next += 1;
            if (line.begin, line.end) == (begin, end) {
                return line.is_found;
            }
        }
        self.look(lanes, block, begin, end);
        self.next = 1;
        self.lines[0].is_found
    }

    /// Searches a line and those behind it.
    fn look(&mut self, lanes: &Lanes, block: &[u8], begin: usize, end: usize) {
        let header = begin - memrchr(b'\n', &block[..begin]).map_or(0, |before| before + 1);
        let mut texts = [&b""[..]; LANES];
        let mut next = Some((begin, end));
        for (line, text) in self.lines.iter_mut().zip(&mut texts) {
            let (begin, end) = next.unwrap_or((block.len(), block.len()));
            *line = Judged { begin, end, is_found: None };
            *text = &block[begin..end];
            next = next.and_then(|(_, end)| line_at(block, end + 1, header));
        }
        for (line, is_found) in self.lines.iter_mut().zip(lanes.search(texts)) {
            line.is_found = is_found;
        }
    }
}

/// The content of the record that begins at `start`, if it is one: what is behind its third space. Its header is probably as long as
/// that of another one. The caller knows better which lines are records.
fn line_at(block: &[u8], start: usize, header: usize) -> Option<(usize, usize)> {
    let space = |from: usize| Some(from + memchr(b' ', block.get(from..)?)? + 1);
    let begin = match start + header {
        probable if block.get(probable - 3..probable) == Some(b" F ") => probable,
        _ => space(space(space(start)?)?)?,
    };
    Some((begin, begin + memchr(b'\n', block.get(begin..)?)?))
}
