//! Searching in several lines at the same time.
//!
//! Where no literal says where to look, a regular expression is looked for byte by byte, and each step waits for the one before it.
//! So steps are of two bytes, and lines do not wait for each other: [`LANES`] of them in turn take hardly longer than one.

use std::collections::HashMap;

use memchr::{memchr, memrchr};
use regex_automata::{
    Anchored, MatchKind, Span,
    dfa::{Automaton, StartKind, dense},
    meta,
    nfa::thompson,
    util::{prefilter::Prefilter, start, syntax},
};

/// Lines that are searched at the same time,
const LANES: usize = 6;
/// so many bytes of each in turn,
const TURN: usize = 4;
/// of so many that are looked at together: who has come to the end of a line goes on with the next.
const LINES: usize = 24;
/// Tables have room for so many entries.
const TABLE: usize = 1 << 16;
/// The making of them may take so many bytes of memory, and so a few milliseconds at most.
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

/// A regular expression as tables.
#[derive(Debug)]
pub(super) struct Lanes {
    /// What kind of step two bytes are; `None` where there is no room for so many kinds,
    pairs: Option<Box<[u16; TABLE]>>,
    /// and one alone.
    singles: [u16; 256],
    /// Where each kind of step leads from each state. A state is the place of its row.
    steps: Box<[u16; TABLE]>,
    /// A row has room for as many kinds as this many bits can tell.
    row_bits: u32,
    /// By state: whether the pattern has been found if the line ends there; `None` when the line is not ASCII.
    is_found: Vec<Option<bool>>,
}

/// The states that an automaton may come to.
struct States {
    /// Where each leads with each byte.
    next: Vec<[u8; 256]>,
    is_found: Vec<Option<bool>>,
}

/// Kinds of steps: where one leads from each state. Bytes that lead everywhere to the same are of one kind, and so are pairs.
#[derive(Clone, Default)]
struct Kinds {
    all: Vec<Vec<u8>>,
    numbers: HashMap<Vec<u8>, u16>,
}

/// What is known of the next lines of a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ahead {
    lines: [Judged; LINES],
    next: usize,
}

/// A line that is being searched.
#[derive(Debug, Clone, Copy)]
struct Lane<'a> {
    /// Its place among those that are looked at together; [`LINES`] when there is no line left.
    line: usize,
    rest: &'a [u8],
    state: u16,
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
        let States { next, is_found } = States::of(&automaton(pattern)?)?;
        let mut kinds = Kinds::default();
        let mut singles = [0; 256];
        for (byte, kind) in singles.iter_mut().enumerate() {
            *kind = kinds.number(next.iter().map(|next| next[byte]).collect());
        }
        let (kinds, pairs) = match kinds.with_pairs(&singles, next.len()) {
            Some((kinds, pairs)) => (kinds, Some(pairs)),
            None => (kinds, None),
        };
        let row_bits = kinds.all.len().next_power_of_two().trailing_zeros();
        let place = |state: u8| u16::try_from(usize::from(state) << row_bits).ok();
        let mut steps = vec![0; TABLE];
        for state in 0..next.len() {
            for (kind, leads) in kinds.all.iter().enumerate() {
                *steps.get_mut((state << row_bits) + kind)? = place(leads[state])?;
            }
        }
        Some(Lanes { pairs, singles, steps: table(steps)?, row_bits, is_found })
    }

    /// Whether the pattern is found in each of these lines.
    fn search(&self, lines: &[&[u8]; LINES]) -> [Option<bool>; LINES] {
        let mut found = [None; LINES];
        let mut waiting = lines.iter().enumerate();
        let mut lanes = [Lane { line: LINES, rest: b"", state: 0 }; LANES];
        lanes.iter_mut().for_each(|lane| lane.begin(waiting.next()));
        let is_busy = |lane: &&Lane<'_>| lane.line < LINES;
        while let Some(shortest) =
            lanes.iter().filter(is_busy).map(|lane| lane.rest).min_by_key(|rest| rest.len())
        {
            for lane in &mut lanes {
                // Who has no line does over what another does, for nothing.
                lane.rest = if lane.line < LINES { lane.rest } else { shortest };
            }
            self.advance(&mut lanes, shortest.len());
            for lane in lanes.iter_mut().filter(|lane| lane.rest.is_empty()) {
                if let Some(found) = found.get_mut(lane.line) {
                    *found = self.is_found[usize::from(lane.state >> self.row_bits)];
                }
                lane.begin(waiting.next());
            }
        }
        found
    }

    /// Goes on in each line by so many bytes.
    #[inline]
    fn advance(&self, lanes: &mut [Lane<'_>; LANES], length: usize) {
        let (mut states, mut texts) = ([0; LANES], [&b""[..]; LANES]);
        for ((state, text), lane) in states.iter_mut().zip(&mut texts).zip(&mut *lanes) {
            (*state, (*text, lane.rest)) = (lane.state, lane.rest.split_at(length));
        }
        let mut at = 0;
        while at + TURN <= length {
            for (state, text) in states.iter_mut().zip(texts) {
                *state = self.walk(*state, &text[at..at + TURN]);
            }
            at += TURN;
        }
        for ((state, text), lane) in states.into_iter().zip(texts).zip(lanes) {
            lane.state = self.walk(state, &text[at..]);
        }
    }

    #[inline]
    fn walk(&self, state: u16, text: &[u8]) -> u16 {
        let step = |state: u16, kind: u16| self.steps[usize::from(state | kind)];
        let (state, rest) = match &self.pairs {
            None => (state, text),
            Some(kinds) => {
                let (pairs, last) = text.as_chunks();
                let kind = |pair: &[u8; 2]| kinds[usize::from(u16::from_le_bytes(*pair))];
                (pairs.iter().fold(state, |state, pair| step(state, kind(pair))), last)
            }
        };
        rest.iter().fold(state, |state, byte| step(state, self.singles[usize::from(*byte)]))
    }
}

impl States {
    /// `None` when there are too many.
    fn of(automaton: &dense::DFA<Vec<u32>>) -> Option<States> {
        let first = automaton.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()?;
        let mut states = vec![first];
        let mut places = HashMap::from([(first, 0)]);
        let (mut next, mut is_found) = (Vec::new(), Vec::new());
        while let Some(state) = states.get(next.len()).copied() {
            let is_known = !automaton.is_quit_state(state);
            let is_match = || automaton.is_match_state(automaton.next_eoi_state(state));
            is_found.push(is_known.then(is_match));
            let mut row = [0; 256];
            for (byte, entry) in (0..=u8::MAX).zip(&mut row) {
                let next = if is_known { automaton.next_state(state, byte) } else { state };
                let place = *places.entry(next).or_insert_with(|| {
                    states.push(next);
                    states.len() - 1
                });
                *entry = u8::try_from(place).ok()?;
            }
            next.push(row);
        }
        Some(States { next, is_found })
    }
}

impl Kinds {
    /// These, and those of two bytes, and of which kind each two are. `None` when the table of all would be too large.
    fn with_pairs(&self, singles: &[u16; 256], states: usize) -> Option<(Kinds, Box<[u16; TABLE]>)> {
        let mut kinds = self.clone();
        let mut of_pairs = vec![Vec::new(); self.all.len()];
        for (first, of_pairs) in self.all.iter().zip(&mut of_pairs) {
            for second in &self.all {
                let two = first.iter().map(|state| second[usize::from(*state)]).collect();
                of_pairs.push(kinds.number(two));
                if kinds.all.len().next_power_of_two() * states > TABLE {
                    return None;
                }
            }
        }
        let kind = |pair: u16| {
            let [first, second] = pair.to_le_bytes().map(|byte| usize::from(singles[usize::from(byte)]));
            of_pairs[first][second]
        };
        Some((kinds, table((0..=u16::MAX).map(kind))?))
    }

    fn number(&mut self, leads: Vec<u8>) -> u16 {
        let next = self.all.len();
        *self.numbers.entry(leads).or_insert_with_key(|leads| {
            self.all.push(leads.clone());
            u16::try_from(next).unwrap_or(u16::MAX)
        })
    }
}

impl<'a> Lane<'a> {
    fn begin(&mut self, line: Option<(usize, &&'a [u8])>) {
        let (line, rest) = line.map_or((LINES, self.rest), |(line, text)| (line, *text));
        *self = Lane { line, rest, state: 0 };
    }
}

fn table(entries: impl IntoIterator<Item = u16>) -> Option<Box<[u16; TABLE]>> {
    entries.into_iter().collect::<Box<[u16]>>().try_into().ok()
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

    /// Where the line ends that begins there, if it is the next one.
    #[inline]
    pub(super) fn end_of(&self, begin: usize) -> Option<usize> {
        self.lines.get(self.next).filter(|line| line.begin == begin).map(|line| line.end)
    }

    /// Searches a line and those behind it.
    fn look(&mut self, lanes: &Lanes, block: &[u8], begin: usize, end: usize) {
        let header = begin - memrchr(b'\n', &block[..begin]).map_or(0, |before| before + 1);
        let mut texts = [&b""[..]; LINES];
        let mut next = Some((begin, end));
        for (line, text) in self.lines.iter_mut().zip(&mut texts) {
            let (begin, end) = next.unwrap_or((block.len(), block.len()));
            *line = Judged { begin, end, is_found: None };
            *text = &block[begin..end];
            next = next.and_then(|(_, end)| line_at(block, end + 1, header));
        }
        for (line, is_found) in self.lines.iter_mut().zip(lanes.search(&texts)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters and digits of which hardly two stand twice side by side.
    fn varied(length: usize) -> String {
        let all: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
        (0..length).map(|at| all[(at * at * 7 + at / 62) % all.len()]).collect()
    }

    #[test]
    fn steps_are_of_one_byte_where_there_are_too_many_kinds_of_two() {
        for (pattern, has_pairs) in [
            (r"\d{4}-\d{2}|=[45]\d\d\b", Some(true)),
            (r"^\S+ =4\d (x|y)$", Some(true)),
            (&format!("^{}$", varied(240)), Some(false)),
            ("^[a-z]{300}", None),
        ] {
            let lanes = Lanes::new(pattern);
            assert_eq!(lanes.as_ref().map(|lanes| lanes.pairs.is_some()), has_pairs, "{pattern}");
            let lines: [String; LINES] = std::array::from_fn(|number| match number % 6 {
                5 => varied(238 + number / 6),
                _ => format!("{}-{number} =4{number} x", number * 421),
            });
            let regex = regex::Regex::new(pattern).expect("an expression");
            let expected = lines.each_ref().map(|line| Some(regex.is_match(line)));
            let found = lanes.map(|lanes| lanes.search(&lines.each_ref().map(|line| line.as_bytes())));
            assert!(found.is_none_or(|found| found == expected), "{pattern}");
            assert!(expected.contains(&Some(true)) || has_pairs.is_none(), "{pattern}");
        }
    }
}
