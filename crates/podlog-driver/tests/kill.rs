//! A writer that is killed at any moment loses nothing that it has handed to the kernel, and nothing is there twice.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
use podlog_line::{Selection, Stream, Timestamp};

const WRITER: &str = "PODLOG_TEST_WRITER";
const ROUNDS: usize = 12;
const LIMITS: FileLimits = FileLimits { max_bytes: 6000, max_files: 100_000 };

/// Not a test: what the killed process does.
#[test]
fn writer() {
    let Ok(arguments) = env::var(WRITER) else { return };
    let (round, path) = arguments.split_once(' ').expect("a round and a path");
    let mut sink = CriFileSink::open(path, LIMITS).expect("a sink");
    for number in 0_i64.. {
        let lines: String = (0..20).map(|line| format!("{round} {}\n", number * 20 + line)).collect();
        let at = Timestamp::from_seconds(1_767_225_600 + number, 0);
        sink.write(Stream::ALL[number as usize % 2], lines.as_bytes(), at).expect("room");
    }
}

fn start_writer(round: usize, path: &Path) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "writer"])
        .env(WRITER, format!("{round} {}", path.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

#[test]
fn a_killed_writer_leaves_a_whole_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("0.log");
    for round in 0..ROUNDS {
        let mut child = start_writer(round, &path);
        let (goal, deadline) =
            (files(directory.path()) + 5 + round, Instant::now() + Duration::from_secs(60));
        while files(directory.path()) < goal && Instant::now() < deadline {
            std::thread::yield_now();
        }
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        assert!(Instant::now() < deadline, "the writer does not write");
    }
    drop(CriFileSink::open(&path, LIMITS).expect("a sink"));
    check_names(directory.path());
    check_rounds(&read(&path));
}

fn read(path: &Path) -> String {
    let mut reader =
        LogSource::open(path).and_then(|source| source.read(&Selection::default())).expect("a log");
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).expect("a log") == ReadState::More {}
    reader.finish(&mut out).expect("a log");
    assert!(reader.stats().malformed <= ROUNDS as u64);
    String::from_utf8(out).expect("text")
}

/// Nothing unfinished is left, and nothing is there in two forms.
fn check_names(directory: &Path) {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    let names: Vec<String> = fs::read_dir(directory).expect("a directory").map(name).collect();
    for name in &names {
        assert!(!name.ends_with(".tmp"), "{name}");
        assert!(!names.contains(&format!("{name}.gz")), "{name} is there twice");
    }
}

/// Each round counts from 0 without a gap; only its last line may be torn.
fn check_rounds(text: &str) {
    let mut lines = text.lines().peekable();
    for round in 0..ROUNDS {
        let mut expected = 0;
        let begin = format!("{round} ");
        while let Some(line) = lines.next_if(|line| line.starts_with(&begin)) {
            let is_last = lines.peek().is_none_or(|next| !next.starts_with(&begin));
            let whole = format!("{begin}{expected}");
            assert!(line == whole || (is_last && whole.starts_with(line)), "{line:?} instead of {whole:?}");
            expected += 1;
        }
        assert!(expected > 100, "round {round} has {expected} lines");
        // Of a record torn before its first digit nothing but its round, or less, is left.
        while lines.next_if(|line| line.len() < 3 && begin.starts_with(line)).is_some() {}
    }
    assert_eq!(lines.next(), None);
}
