//! Writers that are killed, or refused what they ask for.

use std::collections::HashSet;

use podlog_line::Selection;

use super::*;
use crate::{LogSource, ReadState};

/// Writes numbered lines into files of three; counts those that were taken.
fn write_numbers(log: &Log, numbers: std::ops::Range<u64>, taken: &std::cell::Cell<u64>) {
    let record = "2026-01-01T00:00:00Z stdout F 0123456789\n".len() as u64;
    let mut sink = log.sink(3 * record, 100);
    for number in numbers {
        sink.write(Stream::Stdout, format!("{number:010}\n").as_bytes(), at(0)).expect("room");
        taken.set(number + 1);
    }
}

/// The numbers in a log, and how many lines are none.
fn numbers(files: &[Vec<u8>]) -> (Vec<u64>, usize) {
    let text = String::from_utf8(files.concat()).expect("text");
    let number = |line: &str| {
        line.strip_prefix("2026-01-01T00:00:00Z stdout F ").filter(|text| text.len() == 10)?.parse().ok()
    };
    let found: Vec<Option<u64>> = text.lines().map(number).collect();
    let torn = found.iter().filter(|number| number.is_none()).count();
    (found.into_iter().flatten().collect(), torn)
}

#[test]
fn a_writer_that_is_killed_at_any_step_leaves_every_line_once() {
    for step in 0.. {
        // The second writer is killed while it cleans up, opens, and writes its first lines.
        let mut first_ended = false;
        for second_step in 0..9 {
            let (log, taken) = (Log::new(), std::cell::Cell::new(0));
            first_ended = !crash::kill_at(step, || write_numbers(&log, 0..8, &taken));
            let first = taken.get();
            crash::kill_at(second_step, || write_numbers(&log, 100..104, &taken));
            let second = taken.get().max(100);
            write_numbers(&log, 200..203, &taken);
            let (found, torn) = numbers(&log.files());
            let of = |from: u64| found.iter().filter(|number| **number / 100 * 100 == from).count() as u64;
            let place = format!("killed at {step} and {second_step}: {found:?}");
            assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]), "{place}");
            assert!((first..=first + 1).contains(&of(0)), "{place}");
            assert!((second - 100..=second - 99).contains(&of(100)), "{place}");
            assert!(of(200) == 3 && torn <= 2, "{place}");
            assert!(!log.names().iter().any(|name| name.ends_with(".tmp")), "{place}");
            let mut expected = Some(0);
            let path = LogPath::new(&log.path());
            for file in path.list().expect("a listing").rotated {
                let known = base(&file.path);
                assert!(known.is_none() || known == expected, "{place}: {}", file.path.display());
                expected = expected.map(|bytes| bytes + read(&file.path, file.compressed).len() as u64);
            }
        }
        if first_ended {
            assert!(step > 25, "there are more steps than {step}");
            return;
        }
    }
}

/// As [`write_numbers`], however often that has to be tried.
fn write_numbers_persistently(log: &Log, numbers: std::ops::Range<u64>) {
    let record = "2026-01-01T00:00:00Z stdout F 0123456789\n".len() as u64;
    let options = SinkOptions {
        limits: FileLimits { max_bytes: 3 * record, max_files: 100 },
        when_full: WhenFull::Wait,
        ..SinkOptions::default()
    };
    let mut sink = (0..9).find_map(|_| CriFileSink::open_with(log.path(), options).ok()).expect("a log");
    for number in numbers {
        // That writing begins to fail is news, and expected.
        let _ = sink.write(Stream::Stdout, format!("{number:010}\n").as_bytes(), at(0));
    }
    while sink.is_stalled() {
        sink.flush().expect("no news");
    }
}

/// The numbers that a reader finds, and how many lines are no record.
fn read_numbers(log: &Log) -> (Vec<u64>, u64) {
    let source = LogSource::open(log.path()).expect("a log");
    let mut reader = source.read(&Selection::default()).expect("a log");
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).expect("a log") == ReadState::More {}
    let text = String::from_utf8(out).expect("text");
    (text.lines().map(|line| line.parse().expect("a number")).collect(), reader.stats().malformed)
}

/// How many names in the directory are those of a file that has another one, too.
fn second_names(log: &Log) -> usize {
    let names = log.names();
    let inode = |name: &String| fs::metadata(log.directory.path().join(name)).expect("a file").ino();
    names.len() - names.iter().map(inode).collect::<HashSet<_>>().len()
}

#[test]
fn whatever_fails_at_any_step_every_line_is_there_once() {
    for count in [1, 2, 5] {
        for step in 0.. {
            let log = Log::new();
            let has_failed = crash::fail_at(step, count, || write_numbers_persistently(&log, 0..14));
            let place = format!("{count} failures from step {step} on: {:?}", log.names());
            let (found, damaged) = read_numbers(&log);
            assert!(found == (0..14).collect::<Vec<_>>(), "{place}: {found:?}");
            assert!(damaged <= u64::from(count), "{place}: {damaged} torn records");
            assert!(second_names(&log) <= 1, "{place}");
            write_numbers_persistently(&log, 14..20);
            let (found, _) = numbers(&log.files());
            assert!(found == (0..20).collect::<Vec<_>>(), "{place}: {found:?} after a restart");
            assert!(!log.names().iter().any(|name| name.ends_with(".tmp")), "{place}");
            if !has_failed {
                assert!(step > 25, "there are more steps than {step}");
                break;
            }
        }
    }
}

#[test]
fn what_a_killed_writer_left_is_repaired() {
    let whole = "2026-01-01T00:00:01Z stdout F whole\n";
    for torn in [
        "",
        "2",
        "2026-01-01T00:00:02Z",
        "2026-01-01T00:00:02Z stdout F",
        "2026-01-01T00:00:02Z stdout F to",
        "\0\0\0",
    ] {
        let log = Log::new();
        fs::write(log.path(), format!("{whole}{torn}")).expect("a file");
        let mut sink = log.sink(u64::MAX, 5);
        sink.write(Stream::Stdout, b"next\n", at(3)).expect("room");
        let end = if torn.is_empty() { "" } else { "\n" };
        assert_eq!(log.text(), format!("{whole}{torn}{end}2026-01-01T00:00:03Z stdout F next\n"));
    }
}

#[test]
fn interrupted_rotations_and_compressions_are_cleaned_up() {
    let log = Log::new();
    let name = |suffix: &str| log.directory.path().join(format!("0.log{suffix}"));
    fs::write(log.path(), "2026-01-01T00:00:01Z stdout F a\n").expect("a file");
    fs::hard_link(log.path(), name(".20260101-000002")).expect("a link");
    fs::write(name(".tmp"), "").expect("a file");
    fs::write(name(".20260101-000000.tmp"), "half").expect("a file");
    fs::write(name(".20260101-000000"), "2026-01-01T00:00:00Z stdout F b\n").expect("a file");
    fs::write(name(".20260101-000001"), "same").expect("a file");
    fs::write(name(".20260101-000001.gz"), "same, compressed").expect("a file");
    fs::write(name(".mine"), "").expect("a file");
    log.sink(u64::MAX, 5);
    assert_eq!(log.names(), ["0.log", "0.log.20260101-000000", "0.log.20260101-000001.gz", "0.log.mine"]);
}
