//! Followers of one log that meet, part and go on from where another stood.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;

use podlog_driver::{CriFileSink, FileLimits, LogReader, LogSource, ReadState};
use podlog_line::{Selection, Stream, Timestamp};
use proptest::prelude::*;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A line is written, of this length.
    Write(usize),
    /// A part of a line is written.
    Begin(usize),
    /// The follower of that number reads all there is.
    Read(usize),
    /// The follower of that number goes on as a clone of the other.
    Take(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..400).prop_map(Step::Write),
        1 => (1_usize..40).prop_map(Step::Begin),
        4 => (0_usize..3).prop_map(Step::Read),
        2 => ((0_usize..3), (0_usize..3)).prop_map(|(from, to)| Step::Take(from, to)),
    ]
}

struct Follower {
    reader: LogReader,
    text: Vec<u8>,
}

impl Follower {
    fn new(path: &Path) -> Follower {
        let selection = Selection { follow: true, ..Selection::default() };
        Follower { reader: LogSource::open(path).unwrap().read(&selection).unwrap(), text: Vec::new() }
    }

    fn read(&mut self) {
        while self.reader.read_chunk(&mut self.text).unwrap() == ReadState::More {}
    }
}

/// `to` goes on with a clone of `from`'s reader where that is allowed.
fn take(followers: &mut [Follower], from: usize, to: usize) {
    followers[from].read();
    followers[to].read();
    let (from_place, to_place) = (followers[from].reader.place(), followers[to].reader.place());
    if from_place.zip(to_place).is_some_and(|(from, to)| from.covers(&to)) {
        followers[to].reader = followers[from].reader.try_clone().unwrap();
    }
}

fn run(steps: &[Step], max_bytes: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let limits = FileLimits { max_bytes, max_files: 1000 };
    let mut sink = CriFileSink::open(&path, limits).unwrap();
    let mut followers: Vec<Follower> = (0..3).map(|_| Follower::new(&path)).collect();
    let mut written = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let at = Timestamp::from_seconds(1_767_225_600 + number as i64, 0);
        let mut write = |bytes: Vec<u8>| {
            sink.write(Stream::Stdout, &bytes, at).unwrap();
            written.extend(bytes);
        };
        match step {
            Step::Write(length) => write([vec![b'x'; *length], format!(" {number}\n").into()].concat()),
            Step::Begin(length) => write(vec![b'y'; *length]),
            Step::Read(follower) => followers[*follower].read(),
            Step::Take(from, to) => take(&mut followers, *from, *to),
        }
    }
    sink.write(Stream::Stdout, b"end\n", Timestamp::from_seconds(1_767_325_600, 0)).unwrap();
    written.extend(b"end\n");
    for follower in &mut followers {
        follower.read();
        assert_eq!(String::from_utf8_lossy(&follower.text), String::from_utf8_lossy(&written));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_reader_can_stand_for_another_at_its_place(
        steps in prop::collection::vec(step(), 1..60),
        max_bytes in 300_u64..3000,
    ) {
        run(&steps, max_bytes);
    }
}

#[test]
fn places_meet_again_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let limits = FileLimits { max_bytes: 300, max_files: 1000 };
    let mut sink = CriFileSink::open(&path, limits).unwrap();
    let mut write = |text: &str| {
        sink.write(Stream::Stdout, text.as_bytes(), Timestamp::from_seconds(1_767_225_600, 0)).unwrap()
    };
    write("first\n");
    let mut early = Follower::new(&path);
    early.read();
    for number in 0..50 {
        write(&format!("{number}\n"));
    }
    let late = Selection { follow: true, tail: Some(1), ..Selection::default() };
    let mut late =
        Follower { reader: LogSource::open(&path).unwrap().read(&late).unwrap(), text: Vec::new() };
    early.read();
    late.read();
    let (early, late) = (early.reader.place().unwrap(), late.reader.place().unwrap());
    assert!(early.covers(&late), "{early:?} {late:?}");
    assert!(fs::read_dir(directory.path()).unwrap().count() > 2, "the log was rotated");
}
