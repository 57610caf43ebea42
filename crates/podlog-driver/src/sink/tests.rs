mod crashes;
mod full_disk;
mod rotation;

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

/// What a file says of how much was before it.
fn base(path: &Path) -> Option<u64> {
    attributes::base(fs::File::open(path).expect("a file"))
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
