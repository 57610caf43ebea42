use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use podlog_line::RecordParser;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::generations::FileId;

struct Log {
    directory: TempDir,
}

impl Log {
    fn new() -> Log {
        Log { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn sink(&self, max_bytes: u64, max_files: u32) -> CriFileSink {
        CriFileSink::open(self.path(), FileLimits { max_bytes, max_files }).expect("a sink")
    }

    fn text(&self) -> String {
        String::from_utf8(fs::read(self.path()).expect("a file")).expect("text")
    }

    /// The content of all files, oldest first.
    fn files(&self) -> Vec<Vec<u8>> {
        let path = LogPath::new(&self.path());
        let mut files: Vec<Vec<u8>> = path
            .list()
            .expect("a listing")
            .rotated
            .iter()
            .map(|file| read(&file.path, file.compressed))
            .collect();
        files.push(read(&self.path(), false));
        files
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("text")
        };
        let mut names: Vec<String> =
            fs::read_dir(self.directory.path()).expect("a directory").map(name).collect();
        names.sort();
        names
    }
}

fn read(path: &Path, compressed: bool) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file");
    if !compressed {
        return bytes;
    }
    let mut content = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut content).expect("gzip");
    content
}

/// What the streams wrote, from the records of a log; and that the records are in order.
fn contents(files: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let mut out = [Vec::new(), Vec::new()];
    let mut parser = RecordParser::default();
    for file in files {
        let mut last = Timestamp::MIN;
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            let record =
                line.strip_suffix(b"\n").and_then(|line| parser.parse(line)).expect("a whole record");
            assert!(record.content.len() <= MAX_CONTENT && record.time.timestamp() >= last);
            last = record.time.timestamp();
            out[record.stream.index()].extend_from_slice(record.content);
            if record.end == LineEnd::Full {
                out[record.stream.index()].push(b'\n');
            }
        }
    }
    out
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600 + second, 0)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn records_are_lines() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"a\n\nb\r\nc", at(1)).expect("room");
    sink.write(Stream::Stderr, b"e\n", at(2)).expect("room");
    sink.write(Stream::Stdout, b"d\n> ", at(3)).expect("room");
    assert!(sink.has_partial());
    sink.flush_partial(at(4)).expect("room");
    assert!(!sink.has_partial());
    sink.write(Stream::Stdout, b"\nlast", at(5)).expect("room");
    sink.end(Stream::Stdout, at(6)).expect("room");
    sink.end(Stream::Stderr, at(6)).expect("room");
    let expected = "1Z stdout F a\n1Z stdout F \n1Z stdout F b\r\n2Z stderr F e\n3Z stdout F cd\n4Z stdout P > \n5Z stdout F \n6Z stdout P last\n";
    assert_eq!(log.text().replace("2026-01-01T00:00:0", ""), expected);
    assert_eq!(fs::metadata(log.path()).expect("a file").permissions().mode() & 0o7777, 0o640);
    assert_eq!(sink.stats().bytes_written, log.text().len() as u64);
}

#[test]
fn long_lines_are_split_as_containerd_does() {
    for (length, chunk, expected) in [
        (MAX_CONTENT, usize::MAX, &[("F", MAX_CONTENT)][..]),
        (MAX_CONTENT + 1, usize::MAX, &[("P", MAX_CONTENT), ("F", 1)]),
        (40_000, usize::MAX, &[("P", MAX_CONTENT), ("P", MAX_CONTENT), ("F", 7232)]),
        (40_000, 1000, &[("P", MAX_CONTENT), ("P", MAX_CONTENT), ("F", 7232)]),
        (2 * MAX_CONTENT, 4096, &[("P", MAX_CONTENT), ("F", MAX_CONTENT)]),
    ] {
        let log = Log::new();
        let mut sink = log.sink(u64::MAX, 5);
        let mut line = vec![b'x'; length];
        line.push(b'\n');
        for part in line.chunks(chunk) {
            sink.write(Stream::Stdout, part, at(0)).expect("room");
        }
        let header = "2026-01-01T00:00:00Z stdout F ".len();
        let text = log.text();
        let records: Vec<(&str, usize)> =
            text.lines().map(|line| (&line[header - 2..header - 1], line.len() - header)).collect();
        assert_eq!(records, expected, "{length} {chunk}");
    }
}

#[test]
fn the_log_is_rotated_at_a_record_and_old_files_are_compressed() {
    let log = Log::new();
    let record = "2026-01-01T00:00:00Z stdout F 0123456789\n".len() as u64;
    let mut sink = log.sink(3 * record, 4);
    let lines: Vec<String> = (0..28).map(|number| format!("{number:010}\n")).collect();
    sink.write(Stream::Stdout, lines.concat().as_bytes(), at(0)).expect("room");
    wait_until("compression", || {
        log.names().iter().filter(|name| name.ends_with(".gz")).count() == 2 && log.names().len() == 4
    });
    assert_eq!(
        log.names(),
        ["0.log", "0.log.20260101-000006.gz", "0.log.20260101-000007.gz", "0.log.20260101-000008"]
    );
    let [stdout, _] = contents(&log.files());
    assert_eq!(String::from_utf8_lossy(&stdout), lines[18..].concat());
    assert_eq!(sink.stats().rotations, 9);
    for name in log.names() {
        let mode = fs::metadata(log.directory.path().join(name)).expect("a file").mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
}

/// What stands in the directory, each file counted once.
fn bytes_on_disk(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory");
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    let sizes: std::collections::HashMap<u64, u64> = files.map(|file| (file.ino(), file.len())).collect();
    sizes.values().sum()
}

#[test]
fn a_log_never_takes_more_room_than_its_files_may() {
    const MAX_BYTES: u64 = 300_000;
    let mut noise = 1_u64;
    let mut incompressible = move || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b' ' + (noise >> 58) as u8
    };
    for (max_files, is_noise) in [(2, true), (4, true), (4, false)] {
        let log = Log::new();
        let mut sink = log.sink(MAX_BYTES, max_files);
        let mut second = 0;
        for round in 0..40 {
            // At full speed for a while, then so slow that there is time to compress; then full speed in the midst of it.
            for _ in 0..(10 * round % 130) {
                let mut chunk: Vec<u8> =
                    if is_noise { (0..9999).map(|_| incompressible()).collect() } else { vec![b'x'; 9999] };
                chunk.push(b'\n');
                second += 1;
                sink.write(Stream::Stdout, &chunk, at(second)).expect("room");
                let (bytes, limit) =
                    (bytes_on_disk(log.directory.path()), MAX_BYTES * u64::from(max_files) * 105 / 100);
                assert!(bytes <= limit, "{bytes} of {limit}: {:?}", log.names());
            }
            let deadline = Instant::now() + Duration::from_millis(20);
            let is_compressing = || log.names().iter().any(|name| name.ends_with(".tmp"));
            while Instant::now() < deadline && !is_compressing() {
                std::thread::yield_now();
            }
        }
        if !is_noise {
            wait_until("compression", || log.names().iter().any(|name| name.ends_with(".gz")));
        }
        drop(sink);
        let [stdout, _] = contents(&log.files());
        assert!(stdout.len() as u64 > MAX_BYTES / 2);
    }
}

fn base(path: &Path) -> Option<u64> {
    attributes::base(fs::File::open(path).expect("a file"))
}

/// Whether the file system of the temporary directory has extended attributes.
fn has_attributes(log: &Log) -> bool {
    log.sink(u64::MAX, 5);
    let has = base(&log.path()).is_some();
    if !has {
        eprintln!("SKIPPED: there are no extended attributes in the temporary directory");
    }
    has
}

#[test]
fn each_file_knows_how_much_was_before_it() {
    let log = Log::new();
    if !has_attributes(&log) {
        return;
    }
    let mut expected = 0;
    for round in 0..5 {
        // A new writer each time; somebody else renames and asks for a reopen, too.
        let mut sink = log.sink(400, 100);
        for second in 0..30 {
            sink.write(Stream::Stdout, b"0123456789\n", at(round * 100 + second)).expect("room");
        }
        fs::rename(log.path(), log.directory.path().join(format!("0.log.2027010{}-000000", round + 1)))
            .expect("a rename");
        sink.reopen().expect("a new file");
        drop(sink);
    }
    let listing = LogPath::new(&log.path()).list().expect("a listing");
    for file in &listing.rotated {
        assert_eq!(base(&file.path), Some(expected), "{}", file.path.display());
        expected += read(&file.path, file.compressed).len() as u64;
    }
    assert_eq!(base(&log.path()), Some(expected));
    assert!(listing.rotated.len() > 10);
}

#[test]
fn what_is_before_a_file_of_somebody_else_is_not_known() {
    let log = Log::new();
    fs::write(log.path(), "2026-01-01T00:00:01Z stdout F foreign\n").expect("a file");
    let mut sink = log.sink(100, 5);
    assert_eq!(base(&log.path()), None);
    for second in 2..9 {
        sink.write(Stream::Stdout, b"0123456789 0123456789\n", at(second)).expect("room");
    }
    assert_eq!(base(&log.path()), None);
}

#[test]
fn a_rotation_that_fails_does_not_end_the_file_for_readers() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let limits = FileLimits { max_bytes: 100, max_files: 5 };
    let mut sink = CriFileSink::open(directory.join("0.log"), limits).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    for second in 0..5 {
        sink.write(Stream::Stdout, b"0123456789 0123456789\n", at(second)).expect("room");
    }
    assert_eq!(attributes::file_end(fs::File::open(moved.join("0.log")).expect("a file")), None);
}

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

#[test]
fn max_files_counts_the_current_one() {
    for max_files in [1, 2, 5] {
        let log = Log::new();
        let mut sink = log.sink(1, max_files);
        for second in 0..20 {
            sink.write(Stream::Stdout, b"x\n", at(second)).expect("room");
        }
        drop(sink);
        let names = log.names();
        assert_eq!(
            names.iter().filter(|name| !name.ends_with(".tmp")).count(),
            max_files as usize,
            "{names:?}"
        );
    }
}

#[test]
fn the_clock_never_goes_back_within_a_file() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    for (second, text) in
        [(100, "a\n"), (99, "b\n"), (50, "c\n"), (101, "d\n"), (-9999, "e\n"), (-9998, "f\n")]
    {
        sink.write(Stream::Stdout, text.as_bytes(), at(second)).expect("room");
    }
    let files = log.files();
    assert_eq!(files.len(), 2, "a big step begins a new file");
    assert_eq!(contents(&files)[0], b"a\nb\nc\nd\ne\nf\n");
    assert!(log.text().starts_with("2025-12-31T21:13:21Z"), "and tells the truth: {}", log.text());
    assert!(String::from_utf8_lossy(&files[0]).contains("00:01:40Z stdout F c"));
}

#[test]
fn the_clock_does_not_go_back_after_a_restart() {
    let log = Log::new();
    log.sink(u64::MAX, 5).write(Stream::Stdout, b"a\n", at(30)).expect("room");
    log.sink(u64::MAX, 5).write(Stream::Stdout, b"b\n", at(10)).expect("room");
    assert_eq!(contents(&log.files())[0], b"a\nb\n");
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

#[test]
fn reopening_goes_on_in_a_new_file() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"a\nb", at(1)).expect("room");
    let renamed = log.directory.path().join("0.log.20260101-000000");
    fs::rename(log.path(), &renamed).expect("a rename");
    sink.write(Stream::Stdout, b"c\nd", at(2)).expect("room");
    assert!(!log.path().exists());
    sink.reopen().expect("a directory");
    assert!(log.path().exists());
    sink.write(Stream::Stdout, b"e\n", at(3)).expect("room");
    assert_eq!(log.text(), "2026-01-01T00:00:03Z stdout F de\n");
    let old = fs::read_to_string(renamed).expect("a file");
    assert_eq!(old, "2026-01-01T00:00:01Z stdout F a\n2026-01-01T00:00:02Z stdout F bc\n");
}

#[test]
fn reopening_without_a_rename_changes_nothing() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"a\n", at(1)).expect("room");
    sink.reopen().expect("a file");
    sink.write(Stream::Stdout, b"b\n", at(0)).expect("room");
    assert_eq!(contents(&log.files())[0], b"a\nb\n");
    assert_eq!(attributes::file_end(fs::File::open(log.path()).expect("a file")), None);
}

#[test]
fn a_failed_reopen_keeps_the_old_file() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let mut sink = CriFileSink::open(directory.join("0.log"), FileLimits::default()).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    assert!(sink.reopen().is_err());
    sink.write(Stream::Stdout, b"a\n", at(1)).expect("room");
    assert_eq!(fs::read_to_string(moved.join("0.log")).expect("a file"), "2026-01-01T00:00:01Z stdout F a\n");
}

#[test]
fn a_log_that_cannot_be_rotated_grows() {
    let log = Log::new();
    let directory = log.directory.path().join("sub");
    let limits = FileLimits { max_bytes: 100, max_files: 5 };
    let mut sink = CriFileSink::open(directory.join("0.log"), limits).expect("a sink");
    let moved = log.directory.path().join("moved");
    fs::rename(&directory, &moved).expect("a rename");
    for second in 0..10 {
        sink.write(Stream::Stdout, b"0123456789\n", at(second)).expect("room");
    }
    let content = fs::read(moved.join("0.log")).expect("a file");
    assert_eq!(contents(&[content])[0], b"0123456789\n".repeat(10));
}

#[test]
fn there_is_a_current_file_at_every_moment() {
    let log = Log::new();
    let path = log.path();
    let mut sink = log.sink(200, 3);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = std::collections::HashSet::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                seen.insert(FileId::of(&fs::metadata(&path).expect("the current file")));
            }
            seen.len()
        });
        for second in 0..300 {
            sink.write(Stream::Stdout, b"0123456789 0123456789 0123456789\n", at(second)).expect("room");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watcher.join().expect("no panic") > 0);
    });
}

#[test]
fn a_full_disk_is_survived_and_marked() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    sink.write(Stream::Stdout, b"before\n", at(1)).expect("room");
    // A file opened for reading only takes no byte, as a full disk.
    let writable = std::mem::replace(
        &mut sink.file,
        Appender::new(fs::File::open(log.path()).expect("a file"), 0, false, [false; 2]),
    );
    sink.write(Stream::Stdout, b"kept\n", at(2)).expect_err("the beginning of the failure is reported");
    let line = [vec![b'x'; 1000], vec![b'\n']].concat();
    for _ in 0..1100 {
        sink.write(Stream::Stdout, &line, at(3)).expect("reported already");
    }
    let stats = sink.stats();
    assert!(stats.dropped_records > 0 && stats.dropped_records < 1100, "{stats:?}");
    assert_eq!(stats.dropped_bytes, stats.dropped_records * 1001);
    assert!(
        stats.backlog_bytes as usize >= MAX_BACKLOG && (stats.backlog_bytes as usize) < MAX_BACKLOG + 20_000
    );
    assert!(sink.is_stalled());
    let backlog = std::mem::replace(&mut sink.file, writable).batch;
    sink.file.batch = backlog;
    sink.write(Stream::Stdout, b"lost\n", at(4)).expect("room");
    sink.write(Stream::Stdout, b"after\n", at(5)).expect("room");
    let [stdout, stderr] = contents(&log.files());
    let kept = 1100 - stats.dropped_records as usize;
    let gap = Gap {
        reason: GapReason::WriteFailed,
        stream: Some(Stream::Stdout),
        lines: Some(stats.dropped_records + 1),
        bytes: Some(stats.dropped_bytes + 5),
        from: Some(at(3)),
        to: Some(at(4)),
    };
    let expected =
        [b"before\nkept\n".to_vec(), line.repeat(kept), content_of(&gap), b"after\n".to_vec()].concat();
    assert!(stdout == expected, "{}", String::from_utf8_lossy(&stdout[stdout.len() - 200..]));
    assert!(stderr.is_empty());
    assert_eq!(sink.stats().backlog_bytes, 0);
}

fn content_of(gap: &Gap) -> Vec<u8> {
    let mut content = Vec::new();
    gap.append_content(&mut content);
    content.push(b'\n');
    content
}

#[test]
fn a_sink_that_waits_drops_nothing() {
    let log = Log::new();
    let options = SinkOptions {
        limits: FileLimits { max_bytes: 500_000, max_files: 50 },
        when_full: WhenFull::Wait,
        ..SinkOptions::default()
    };
    let mut sink = CriFileSink::open_with(log.path(), options).expect("a sink");
    sink.write(Stream::Stdout, b"before\n", at(1)).expect("room");
    let full = Appender::new(fs::File::open(log.path()).expect("a file"), 0, false, [false; 2]);
    let mut writable = std::mem::replace(&mut sink.file, full);
    sink.write(Stream::Stdout, b"kept\n", at(2)).expect_err("the beginning of the failure is reported");
    let line = [vec![b'x'; 1000], vec![b'\n']].concat();
    for _ in 0..3000 {
        sink.write(Stream::Stdout, &line, at(3)).expect("reported already");
        assert!(sink.is_stalled());
    }
    assert!(sink.stats().backlog_bytes > 3_000_000);
    std::mem::swap(&mut writable.batch, &mut sink.file.batch);
    sink.file = writable;
    sink.flush().expect("room");
    assert!(!sink.is_stalled());
    assert_eq!((sink.stats().dropped_records, sink.stats().backlog_bytes), (0, 0));
    drop(sink);
    assert!(contents(&log.files())[0] == [b"before\nkept\n".to_vec(), line.repeat(3000)].concat());
}

#[test]
fn gaps_stand_in_their_stream_and_end_what_was_cut_off() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    let gap = |stream| Gap { stream, lines: Some(2), ..Gap::new(GapReason::DropOldest) };
    sink.write(Stream::Stdout, b"a\nb", at(1)).expect("room");
    sink.write(Stream::Stderr, b"c", at(1)).expect("room");
    sink.flush_partial(at(2)).expect("room");
    sink.write(Stream::Stdout, b"d", at(3)).expect("room");
    sink.gap(gap(Some(Stream::Stdout)), at(4)).expect("room");
    sink.gap(gap(None), at(5)).expect("room");
    sink.write(Stream::Stdout, b"e\n", at(6)).expect("room");
    sink.write(Stream::Stderr, b"f\n", at(7)).expect("room");
    let expected = [
        "1Z stdout F a",
        "2Z stdout P b",
        "2Z stderr P c",
        "4Z stdout P d",
        "4Z stdout F ",
        r#"4Z stdout F:podlog-gap {"podlog.gap":{"reason":"drop-oldest","stream":"stdout","lines":2}}"#,
        r#"5Z stdout F:podlog-gap {"podlog.gap":{"reason":"drop-oldest","lines":2}}"#,
        "6Z stdout F e",
        "7Z stderr F f",
        "",
    ];
    assert_eq!(log.text().replace("2026-01-01T00:00:0", ""), expected.join("\n"));
}

#[test]
fn the_size_of_records_is_bounded() {
    for (asked, expected) in [(0, MAX_CONTENT), (1, 1024), (5000, 5000), (usize::MAX, 256 * 1024)] {
        let log = Log::new();
        let options = SinkOptions { max_record_bytes: asked, ..SinkOptions::default() };
        let mut sink = CriFileSink::open_with(log.path(), options).expect("a sink");
        sink.write(Stream::Stdout, &vec![b'x'; expected + 1], at(0)).expect("room");
        sink.write(Stream::Stdout, b"\n", at(0)).expect("room");
        let header = "2026-01-01T00:00:00Z stdout P ".len();
        let lengths: Vec<usize> = log.text().lines().map(|line| line.len() - header).collect();
        assert_eq!(lengths, [expected, 1], "{asked}");
    }
}

#[test]
fn chunks_that_are_added_are_written_at_once() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    for number in 0..100 {
        sink.add(Stream::ALL[number % 2], b"line\n", at(number as i64)).expect("room");
    }
    assert_eq!(log.text(), "");
    sink.flush().expect("room");
    let [stdout, stderr] = contents(&log.files());
    assert_eq!((stdout, stderr), (b"line\n".repeat(50), b"line\n".repeat(50)));
}

#[test]
fn all_bytes_come_out_as_they_went_in() {
    let log = Log::new();
    let mut sink = log.sink(u64::MAX, 5);
    let soup: Vec<u8> =
        (0..4096_u32).flat_map(|n| [(n % 256) as u8, (n * 7 % 256) as u8, (n * n % 253) as u8]).collect();
    sink.write(Stream::Stdout, &soup, at(0)).expect("room");
    sink.end(Stream::Stdout, at(0)).expect("room");
    assert_eq!(contents(&log.files())[0], soup);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn chunks_make_no_difference(
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..300), 0..6u8), 1..40),
        max_bytes in 200..3000u64,
    ) {
        let log = Log::new();
        let mut sink = log.sink(max_bytes, 1000);
        let mut expected = [Vec::new(), Vec::new()];
        for (second, (stderr, chunk, action)) in chunks.iter().enumerate() {
            let stream = Stream::ALL[usize::from(*stderr)];
            expected[stream.index()].extend_from_slice(chunk);
            sink.write(stream, chunk, at(second as i64)).expect("room");
            match action {
                0 => sink.flush_partial(at(second as i64)).expect("room"),
                // As if the writer had been restarted in peace.
                1 => {
                    sink.flush_partial(at(second as i64)).expect("room");
                    drop(sink);
                    sink = log.sink(max_bytes, 1000);
                }
                _ => {}
            }
        }
        sink.flush_partial(at(1000)).expect("room");
        drop(sink);
        prop_assert_eq!(contents(&log.files()), expected);
    }
}
