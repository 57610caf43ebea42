//! A second reader that is as simple as can be, and what it must have in common with the real one.

use std::collections::BTreeMap;

use podlog_line::{LineMatch, PatternSyntax, Patterns};

use super::*;
use crate::{Resumed, generations::LogPath};

/// A record of the log: seconds, stream, whether its line ends, content.
type Written = (i64, Stream, LineEnd, String);

/// What happens to a log, in order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Records of two streams are written.
    Write(Vec<(bool, bool, u8)>),
    /// The clock is set, forward or back.
    Clock(i64),
    /// The file is rotated.
    Rotate,
    /// The oldest plain rotated file is compressed.
    Pack(bool),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let record = (prop::bool::weighted(0.4), prop::bool::weighted(0.3), any::<u8>());
    prop_oneof![
        6 => prop::collection::vec(record, 1..8).prop_map(Step::Write),
        2 => (-5..9_i64).prop_map(Step::Clock),
        3 => Just(Step::Rotate),
        2 => any::<bool>().prop_map(Step::Pack),
    ]
}

/// A log on disk and, beside it, everything that was ever written to it.
pub(super) struct Playground {
    pub(super) files: Log,
    records: Vec<Written>,
    clock: i64,
    rotations: usize,
    /// Bytes in all files, those included that were deleted.
    bytes: u64,
    /// As podlog's writer leaves word, or as other writers do not.
    is_ours: bool,
    /// The first records of files, in the order of `records`.
    bases: Vec<usize>,
}

impl Playground {
    pub(super) fn new(is_ours: bool) -> Playground {
        let playground = Playground {
            files: Log::new(),
            records: Vec::new(),
            clock: 100,
            rotations: 0,
            bytes: 0,
            is_ours,
            bases: vec![0],
        };
        playground.files.write(b"");
        playground.mark();
        playground
    }

    fn mark(&self) {
        if self.is_ours {
            let file = fs::File::open(self.files.path()).expect("a file");
            crate::attributes::mark_generation(&file, self.rotations as u64 + 1);
            crate::attributes::mark_base(&file, self.bytes);
        }
    }

    pub(super) fn play(&mut self, step: &Step) {
        match step {
            Step::Write(records) => records.iter().for_each(|record| self.write(*record)),
            // Ours begins a new file when the clock is set back.
            Step::Clock(by) => {
                self.clock += by;
                if *by < 0 && self.is_ours {
                    self.rotate();
                }
            }
            Step::Rotate => self.rotate(),
            Step::Pack(with_zstd) => self.pack(if *with_zstd { Packing::Zstd } else { Packing::Gzip }),
        }
    }

    fn write(&mut self, (stderr, partial, content): (bool, bool, u8)) {
        let (stream, number) = (Stream::ALL[usize::from(stderr)], self.records.len());
        let end = if partial { LineEnd::Partial } else { LineEnd::Full };
        // The number makes records differ that are written in the same second.
        let content = format!("{number}:{},", char::from(b'a' + content % 4));
        let mut bytes = Vec::new();
        cri::append_record(
            &mut bytes,
            at(self.clock).to_string().as_bytes(),
            stream,
            end,
            content.as_bytes(),
        );
        self.files.append(&bytes);
        self.bytes += bytes.len() as u64;
        self.records.push((self.clock, stream, end, content));
        self.clock += i64::from(number % 3 == 0);
    }

    pub(super) fn rotate(&mut self) {
        if fs::metadata(self.files.path()).expect("a file").len() == 0 {
            return;
        }
        if self.is_ours {
            let file = fs::File::open(self.files.path()).expect("a file");
            let last = self.records.last().map_or(0, |record| record.0);
            crate::attributes::mark_end(
                &file,
                crate::attributes::FileEnd { last: at(last), inside_line: self.inside() },
            );
        }
        fs::rename(self.files.path(), self.generation(self.rotations)).expect("a rename");
        self.rotations += 1;
        self.files.write(b"");
        self.mark();
        self.bases.push(self.records.len());
    }

    fn generation(&self, number: usize) -> PathBuf {
        self.files.directory.path().join(format!("0.log.20260101-{number:06}"))
    }

    fn inside(&self) -> [bool; 2] {
        Stream::ALL.map(|stream| {
            let last = self.records.iter().rev().find(|record| record.1 == stream);
            last.is_some_and(|record| record.2 == LineEnd::Partial)
        })
    }

    fn pack(&mut self, packing: Packing) {
        let path = (0..self.rotations).map(|number| self.generation(number)).find(|path| path.exists());
        let Some(path) = path else { return };
        let attributes = fs::File::open(&path).expect("a file");
        let packed = fs::File::open(pack(&path, packing)).expect("a file");
        crate::attributes::copy(&attributes, &packed);
    }

    /// A rotated file is deleted, if it is there.
    pub(super) fn delete(&self, number: usize) {
        let name = self.generation(number);
        for suffix in ["", ".gz", ".zst"] {
            let _ = fs::remove_file(format!("{}{suffix}", name.display()));
        }
    }

    /// Of a rotated file, if it is there, only so many percent can be decompressed.
    pub(super) fn damage(&self, number: usize, percent: u8) {
        let path = self.generation(number);
        if path.exists() {
            let attributes = fs::File::open(&path).expect("a file");
            let packed = fs::File::open(pack(&path, Packing::Gzip)).expect("a file");
            crate::attributes::copy(&attributes, &packed);
        }
        if let Ok(packed) = fs::OpenOptions::new().write(true).open(format!("{}.gz", path.display())) {
            let length = packed.metadata().expect("a file").len();
            packed.set_len(length * u64::from(percent) / 100).expect("a file");
        }
    }

    /// The oldest file is deleted.
    fn retain(&self) {
        if let Some(oldest) = LogPath::new(&self.files.path()).old_files().expect("a listing").first() {
            fs::remove_file(&oldest.path).expect("a file");
        }
    }
}

/// A line: the index of its last record, when it began, its stream, its text.
type Line = (usize, i64, Stream, String);

/// The lines of a log in the order of their last records.
fn lines(records: &[Written]) -> Vec<Line> {
    let mut held: BTreeMap<Stream, Line> = BTreeMap::new();
    let mut lines = Vec::new();
    for (index, (second, stream, end, content)) in records.iter().enumerate() {
        let line = held.entry(*stream).or_insert((index, *second, *stream, String::new()));
        line.0 = index;
        line.3 += content;
        if *end == LineEnd::Full {
            let (index, begun, stream, text) = held.remove(stream).expect("a line");
            lines.push((index, begun, stream, text + "\n"));
        }
    }
    lines.extend(held.into_values());
    lines.sort();
    lines
}

/// What reading the records must give. `None` where both streams end inside a line: they may come in any order.
fn expected(records: &[Written], selection: &Selection) -> Option<String> {
    let mut lines = lines(records);
    lines.retain(|(_, begun, stream, text)| {
        selection.wants(*stream, at(*begun), false, text.trim_end().as_bytes())
    });
    let surplus = selection.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
    lines.drain(..surplus);
    lines.retain(|(_, begun, ..)| selection.since.is_none_or(|since| at(*begun) >= since));
    // An unfinished line counts where its last record is, but comes out last.
    let (whole, unfinished): (Vec<Line>, Vec<Line>) =
        lines.into_iter().partition(|line| line.3.ends_with('\n'));
    if unfinished.len() > 1 {
        return None;
    }
    let text: String = whole
        .into_iter()
        .chain(unfinished)
        .map(
            |(_, begun, _, text)| {
                if selection.timestamps { format!("{} {text}", nine_digits(begun)) } else { text }
            },
        )
        .collect();
    let limit = selection.limit_bytes.map_or(text.len(), |limit| text.len().min(limit as usize));
    Some(text[..limit].to_owned())
}

fn nine_digits(second: i64) -> String {
    at(second).to_string().replace('Z', ".000000000Z")
}

fn arbitrary_selection() -> impl Strategy<Value = Selection> {
    let patterns = prop_oneof![
        3 => Just(None),
        1 => Just(Some((vec!["a"], vec![]))),
        1 => Just(Some((vec![], vec!["b,"]))),
        1 => Just(Some((vec!["[ad]"], vec!["c"]))),
    ];
    (
        prop::option::of(0..40_u64),
        prop::option::of(95..140_i64),
        prop::option::of(95..140_i64),
        prop::option::weighted(0.2, 0..300_u64),
        0..3_usize,
        any::<bool>(),
        patterns,
    )
        .prop_map(|(tail, since, until, limit_bytes, streams, timestamps, patterns)| {
            let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            let line_match = patterns.map(|(include, exclude)| {
                let syntax = PatternSyntax::Regex;
                LineMatch::new(Patterns { include: owned(include), exclude: owned(exclude), syntax })
                    .expect("patterns")
            });
            Selection {
                tail,
                since: since.map(at),
                until: until.map(at),
                limit_bytes,
                streams: [Streams::Both, Streams::Stdout, Streams::Stderr][streams],
                timestamps,
                line_match,
                ..Selection::default()
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn every_selection_is_what_a_naive_reader_gives(
        steps in prop::collection::vec(step(), 1..25),
        selections in prop::collection::vec(arbitrary_selection(), 6),
        is_ours: bool,
    ) {
        let mut playground = Playground::new(is_ours);
        steps.iter().for_each(|step| playground.play(step));
        for selection in selections {
            if let Some(expected) = expected(&playground.records, &selection) {
                prop_assert_eq!(playground.files.text(&selection), expected, "{:?}", selection);
            }
        }
    }

    #[test]
    fn a_cursor_gives_exactly_the_rest(
        steps in prop::collection::vec(step(), 1..25),
        cuts in prop::collection::vec((0..25_usize, prop::option::of(0..120_u64)), 1..6),
        follow: bool,
        is_ours: bool,
    ) {
        let mut playground = Playground::new(is_ours);
        let (mut cursor, mut out) = (None, Vec::new());
        let mut read = |playground: &Playground, limit_bytes| {
            let selection = Selection { after: cursor, limit_bytes, follow, ..Selection::default() };
            let mut reader = playground.files.reader(&selection);
            drain(&mut reader, &mut out).expect("a log");
            assert_eq!(reader.resumed(), Resumed::Exact);
            cursor = reader.cursor();
            // Cursors are texts.
            cursor = cursor.map(|cursor| cursor.to_string().parse().expect("a cursor"));
        };
        for (index, step) in steps.iter().enumerate() {
            playground.play(step);
            for (_, limit) in cuts.iter().filter(|(cut, _)| *cut == index) {
                read(&playground, *limit);
            }
        }
        // Prompts are shown, and broken: the lines are ended to compare.
        playground.write((false, false, 0));
        playground.write((true, false, 0));
        read(&playground, None);
        let text = String::from_utf8(out).expect("text");
        let content: String = playground.records.iter().map(|record| record.3.clone()).collect();
        let mut got: Vec<&str> = text.split_terminator(['\n', ',']).filter(|part| !part.is_empty()).collect();
        let mut written: Vec<&str> = content.split_terminator(',').collect();
        got.sort_unstable();
        written.sort_unstable();
        prop_assert_eq!(got, written, "every record once");
        for stream in Stream::ALL {
            let of_stream = |record: &&Written| record.1 == stream;
            let written: Vec<&str> = playground.records.iter().filter(of_stream).map(|record| record.3.trim_end_matches(',')).collect();
            let got: Vec<&str> = text.split_terminator(['\n', ',']).filter(|part| written.contains(part)).collect();
            prop_assert_eq!(got, written, "in order");
        }
    }
}

#[test]
fn a_place_that_is_gone_is_told_with_what_is_lost() {
    let mut playground = Playground::new(true);
    for _ in 0..3 {
        playground.play(&Step::Write(vec![(false, false, 0), (false, false, 1)]));
        playground.rotate();
    }
    let mut reader = playground.files.reader(&Selection { limit_bytes: Some(4), ..Selection::default() });
    assert_eq!(drained(&mut reader), "0:a,");
    let cursor = reader.cursor();
    let resume = || playground.files.reader(&Selection { after: cursor, ..Selection::default() });
    let mut reader = resume();
    assert_eq!(drained(&mut reader), "\n1:b,\n2:a,\n3:b,\n4:a,\n5:b,\n");
    assert_eq!(reader.resumed(), Resumed::Exact);
    playground.retain();
    let mut reader = resume();
    let text = drained(&mut reader);
    let (marker, rest) = text.split_once('\n').expect("a marker");
    let gap = podlog_line::Gap::parse_content(marker.as_bytes()).expect("a gap");
    assert_eq!(gap.reason, podlog_line::GapReason::Retention);
    assert_eq!(rest, "2:a,\n3:b,\n4:a,\n5:b,\n");
    assert!(matches!(reader.resumed(), Resumed::Gone { .. }));
}
