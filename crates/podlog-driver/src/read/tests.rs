use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use podlog_line::{LineEnd, Mode, Selection, Stream, Streams, Timestamp, cri};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{CriFileSink, FileLimits, ReadError};

/// A directory with a log in it.
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

    fn generation(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("0.log.20260101-0000{number:02}"))
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).expect("room");
    }

    fn append(&self, bytes: &[u8]) {
        append(&self.path(), bytes);
    }

    fn sink(&self, max_bytes: u64) -> CriFileSink {
        CriFileSink::open(self.path(), FileLimits { max_bytes, max_files: 1000 }).expect("a sink")
    }

    fn reader(&self, selection: &Selection) -> LogReader {
        LogSource::open(self.path()).expect("a log").read(selection).expect("a log")
    }

    fn try_read(&self, selection: &Selection) -> (Vec<u8>, Result<(), ReadError>) {
        let mut out = Vec::new();
        let result = LogSource::open(self.path())
            .and_then(|source| source.read(selection))
            .and_then(|mut reader| drain(&mut reader, &mut out).and_then(|_| reader.finish(&mut out)));
        (out, result)
    }

    fn read(&self, selection: &Selection) -> Vec<u8> {
        let (out, result) = self.try_read(selection);
        result.expect("a log");
        out
    }

    fn text(&self, selection: &Selection) -> String {
        String::from_utf8(self.read(selection)).expect("text")
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("a file");
    file.write_all(bytes).expect("room");
}

fn compress(path: &Path) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs::read(path).expect("a file")).expect("memory");
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    fs::write(name, encoder.finish().expect("memory")).expect("room");
    fs::remove_file(path).expect("a file");
}

/// Reads until everything that is there was read.
fn drain(reader: &mut LogReader, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
    loop {
        match reader.read_chunk(out)? {
            ReadState::More => {}
            state => return Ok(state),
        }
    }
}

fn drained(reader: &mut LogReader) -> String {
    let mut out = Vec::new();
    drain(reader, &mut out).expect("a log");
    String::from_utf8(out).expect("text")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600 + second, 0)
}

/// `o1P x` is `2026-01-01T00:00:01Z stdout P x` and a line feed, `e` is stderr; anything else stands for itself.
fn log(records: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let shorthand = record.strip_prefix(['o', 'e']).and_then(|rest| rest.split_at_checked(1));
        match shorthand {
            Some((second, rest)) if second.as_bytes()[0].is_ascii_digit() => {
                let stream = if record.starts_with('o') { "stdout" } else { "stderr" };
                out.extend_from_slice(format!("2026-01-01T00:00:0{second}Z {stream} {rest}\n").as_bytes());
            }
            _ => out.extend_from_slice(record.as_bytes()),
        }
    }
    out
}

fn selection(mode: Mode, options: &str) -> Selection {
    let mut selection = Selection { mode, ..Selection::default() };
    for option in options.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "ts" => selection.timestamps = true,
            "follow" => selection.follow = true,
            "stdout" => selection.streams = Streams::Stdout,
            "stderr" => selection.streams = Streams::Stderr,
            "since" => selection.since = Some(at(value.parse().expect("a number"))),
            "limit" => selection.limit_bytes = Some(value.parse().expect("a number")),
            "tail" => selection.tail = Some(value.parse().expect("a number")),
            _ => panic!("unknown option {option}"),
        }
    }
    selection
}

const ABC: &[&str] = &["o1F a", "e2F b", "o3F c"];
const PARTS: &[&str] = &["o1P x1", "o2P x2", "o3F x3", "o4F y"];
const MIXED: &[&str] = &["o1P abc", "e2F ERR", "o3F def"];
const TORN: &[&str] = &["o1F a", "o2F b", "2026-01-01T00:00:03Z stdout F partial-no-eol"];
const GARBAGE: &[&str] = &["o1F a", "garbage line\n", "o3F c"];
const JSON: &[&str] = &[
    "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.123Z\"}\n",
    "{\"log\":\"part\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:01Z\"}\n",
    "{\"log\":\"ial\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:02Z\"}\n",
];

/// What the log reader of Kubernetes 1.36 gave for these files when it was run. `T1` is
/// `2026-01-01T00:00:01.000000000Z`.
#[test]
fn upstream_mode_gives_what_kubernetes_gives() {
    let unsupported = r#"error: failed to get parse function: unsupported log format: "garbage line\n""#;
    let rows: &[(u32, &[&str], &str, &str)] = &[
        (1, ABC, "", "a\nb\nc\n"),
        (2, ABC, "tail=1", "c\n"),
        (3, ABC, "stdout", "a\nc\n"),
        (4, ABC, "stderr limit=1", "b"),
        (5, PARTS, "ts", "T1 x1x2x3\nT4 y\n"),
        (6, PARTS, "ts tail=2", "T3 x3\nT4 y\n"),
        (7, PARTS, "ts since=2", "x2x3\nT4 y\n"),
        (8, MIXED, "ts", "T1 abcERR\nT3 def\n"),
        (9, MIXED, "ts stdout", "T1 abcT3 def\n"),
        (10, TORN, "", "a\nb\npartial-no-eol"),
        (11, TORN, "tail=1", "b\n"),
        (12, TORN, "follow", "a\nb\n"),
        (13, TORN, "follow tail=0", ""),
        (14, GARBAGE, "", "a\nc\n"),
        (15, GARBAGE, "tail=2", unsupported),
        (16, &["garbage line\n", "o1F a", "e2F b", "o3F c"], "", unsupported),
        (17, &[], "tail=5", ""),
        (18, ABC, "ts limit=35", "T1 a\n20"),
        (19, &["2026-01-01T02:00:00.5+02:00 stdout F z\n"], "ts", "2026-01-01T02:00:00.500000000+02:00 z\n"),
        (20, JSON, "ts", "2026-01-01T00:00:00.123000000Z hi\nT1 partial\n"),
        (
            21,
            &["{\"log\":\"hi\\n\",\"time\":\"2026-01-01T00:00:00Z\"}\n"],
            "",
            "error: unexpected stream type \"\"",
        ),
        (22, &["o1F ", "2026-01-01T00:00:02Z stdout F\n", "o3F ok"], "", "\nok\n"),
        (23, ABC, "tail=2 since=3", "c\n"),
        (24, &["o1P:T1 a", "o2F:T1:T2 b", "o3X c"], "", "ab\nc\n"),
        (25, ABC, "limit=2", "a\n"),
        (26, &["o1F a\r"], "", "a\r\n"),
        (27, &["o1F a", "2026-01-01T00:00:02Z stdin F b\n", "o3F c"], "", "a\nc\n"),
        (28, &["o1P abc"], "ts", "T1 abc"),
    ];
    for (number, records, options, expected) in rows {
        let files = Log::new();
        files.write(&log(records));
        let (out, result) = files.try_read(&selection(Mode::Upstream, options));
        let mut text = String::from_utf8(out).expect("text");
        if let Err(error) = result {
            text += &format!("error: {error}");
        }
        let text = text.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        let expected = expected.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        assert_eq!(text, expected, "vector {number}");
    }
}

#[test]
fn exact_mode_gives_lines() {
    for (records, options, expected) in [
        (ABC, "", "a\nb\nc\n"),
        (ABC, "tail=1 stderr", "b\n"),
        (ABC, "tail=2 since=3", "c\n"),
        (PARTS, "ts tail=2", "T1 x1x2x3\nT4 y\n"),
        (PARTS, "tail=1", "y\n"),
        (PARTS, "ts since=2", "T4 y\n"),
        (MIXED, "ts", "T2 ERR\nT1 abcdef\n"),
        (MIXED, "tail=1", "abcdef\n"),
        (MIXED, "tail=1 stderr", "ERR\n"),
        (TORN, "", "a\nb\npartial-no-eol"),
        (TORN, "tail=1", "partial-no-eol"),
        (TORN, "tail=2", "b\npartial-no-eol"),
        (TORN, "tail=0", ""),
        (TORN, "follow tail=0", "partial-no-eol"),
        (TORN, "follow tail=1", "b\npartial-no-eol"),
        (GARBAGE, "tail=2", "a\nc\n"),
        (&["garbage line\n", "o1F a"], "tail=2", "a\n"),
        (JSON, "tail=1", "partial\n"),
        (JSON, "tail=1 stdout", "hi\n"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=2", "e\nf\n"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=3", "e\nf\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=4", "a\ne\nf\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "tail=1 stdout", "x"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "follow tail=1", "f\nx"),
        (&["o1F a", "o2P x", "e3F e", "e4F f"], "follow tail=0", "x"),
        (&["o1F a", "e4F f"], "follow tail=0", ""),
        (&[], "follow tail=0", ""),
        (&[], "tail=3", ""),
        (&["e1P x", "o2F a", "o3F b", "o4F c", "e5F y"], "tail=1", "xy\n"),
        (&["e1P x", "o2F a", "o3F b", "o4F c", "e5F y"], "tail=2", "c\nxy\n"),
    ] {
        let files = Log::new();
        files.write(&log(records));
        let text = files.text(&selection(Mode::Exact, options));
        let text = text.replace("2026-01-01T00:00:0", "T").replace(".000000000Z", "");
        assert_eq!(text, expected, "{records:?} {options}");
    }
}

#[test]
fn all_generations_are_one_log() {
    let files = Log::new();
    fs::write(files.generation(1), log(&["o1F a", "o1P b"])).expect("room");
    fs::write(files.generation(2), log(&["e2F c", "2026-01-01T00:00:02Z stdout F torn"])).expect("room");
    fs::write(files.generation(3), log(&["o3F d", "e3F e"])).expect("room");
    files.write(&log(&["o4F f"]));
    compress(&files.generation(1));
    for (options, expected) in [
        ("", "a\nc\nbtorn\nd\ne\nf\n"),
        ("stderr", "c\ne\n"),
        ("tail=2", "e\nf\n"),
        ("tail=4", "btorn\nd\ne\nf\n"),
        ("tail=4 stdout", "a\nbtorn\nd\nf\n"),
        ("tail=100", "a\nc\nbtorn\nd\ne\nf\n"),
        ("since=3", "d\ne\nf\n"),
        ("limit=5", "a\nc\nb"),
        ("follow tail=1", "f\n"),
    ] {
        assert_eq!(files.text(&selection(Mode::Exact, options)), expected, "{options}");
    }
    assert_eq!(files.text(&selection(Mode::Upstream, "")), "f\n");
    fs::remove_file(files.path()).expect("a file");
    assert_eq!(files.text(&selection(Mode::Exact, "tail=2")), "d\ne\n", "between two files");
}

#[test]
fn a_damaged_compressed_file_gives_what_is_left_of_it() {
    let files = Log::new();
    let lines: Vec<String> =
        (0..20_000).map(|n| format!("2026-01-01T00:00:01Z stdout F {}\n", n * 7919)).collect();
    fs::write(files.generation(1), lines.concat()).expect("room");
    files.write(&log(&["o4F end"]));
    compress(&files.generation(1));
    let mut path = files.generation(1).into_os_string();
    path.push(".gz");
    let whole = fs::read(&path).expect("a file");
    fs::write(&path, &whole[..whole.len() / 2]).expect("room");
    let mut reader = files.reader(&Selection::default());
    let text = drained(&mut reader);
    assert!(text.starts_with("0\n7919\n") && text.ends_with("\nend\n") && text.lines().count() > 1000);
    assert_eq!(reader.stats().damaged_files, 1);
}

#[test]
fn damaged_records_are_skipped_and_counted() {
    let files = Log::new();
    files.write(&log(&[
        "o1F a",
        "\n",
        "2026-01-01T00:00:01Z stdout F\n",
        "\0\0\0\x002026-01-01T00:00:01Z stdout F b\n",
        "2026-99-01T00:00:01Z stdout F x\n",
        "{\"log\":\n",
        "o2F c",
    ]));
    let mut reader = files.reader(&Selection::default());
    assert_eq!(drained(&mut reader), "a\nb\nc\n");
    assert_eq!((reader.stats().records, reader.stats().malformed), (3, 4));
}

#[test]
fn records_of_any_length_are_read() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        let long = "x".repeat(5_000_000);
        files.write(format!("2026-01-01T00:00:01Z stdout F {long}\n").as_bytes());
        files.append(&log(&["o2F end"]));
        assert!(files.text(&Selection { mode, ..Selection::default() }) == format!("{long}\nend\n"));
        let tail = Selection { mode, tail: Some(1), ..Selection::default() };
        assert_eq!(files.text(&tail), "end\n");
        let tail = Selection { mode, tail: Some(2), ..Selection::default() };
        assert!(files.text(&tail) == format!("{long}\nend\n"));
    }
}

#[test]
fn errors_are_those_of_the_kubelet() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("a directory");
    let message = |path: &Path| {
        let result = LogSource::open(path).and_then(|source| source.read(&Selection::default()).map(|_| ()));
        result.expect_err("no log").to_string()
    };
    let missing = root.join("0.log");
    let resolving = |path: &Path, component: &Path| {
        format!(
            "failed to try resolving symlinks in path \"{}\": lstat {}: no such file or directory",
            path.display(),
            component.display()
        )
    };
    assert_eq!(message(&missing), resolving(&missing, &missing));
    let deep = root.join("a/b/0.log");
    assert_eq!(message(&deep), resolving(&deep, &root.join("a")));
    let link = root.join("1.log");
    std::os::unix::fs::symlink(root.join("target"), &link).expect("a link");
    assert_eq!(message(&link), resolving(&link, &root.join("target")));
    let directory_as_log = root.join("2.log");
    fs::create_dir(&directory_as_log).expect("a directory");
    let result = LogSource::open(&directory_as_log)
        .and_then(|source| source.read(&Selection::default()))
        .and_then(|mut reader| reader.read_chunk(&mut Vec::new()).map(|_| ()));
    let expected = format!("failed to read log file \"{}\": is a directory", directory_as_log.display());
    assert_eq!(result.expect_err("no log").to_string(), expected);
}

#[test]
fn a_link_leads_to_the_generations_beside_its_target() {
    let files = Log::new();
    fs::write(files.generation(1), log(&["o1F a"])).expect("room");
    files.write(&log(&["o2F b"]));
    let link = files.directory.path().join("link.log");
    std::os::unix::fs::symlink(files.path(), &link).expect("a link");
    let mut reader = LogSource::open(link).expect("a log").read(&Selection::default()).expect("a log");
    assert_eq!(drained(&mut reader), "a\nb\n");
}

#[test]
fn without_follow_the_log_ends_where_it_ended_at_the_beginning() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        files.write(&log(&["o1F a", "2026-01-01T00:00:02Z stdout F be"]));
        let mut reader = files.reader(&Selection { mode, ..Selection::default() });
        files.append(b"gun\n");
        files.append(&log(&["o3F later"]));
        assert_eq!(drained(&mut reader), "a\nbegun\n", "a record is read to its end");
    }
}

#[test]
fn since_skips_what_is_too_old_in_ordered_files() {
    let files = Log::new();
    let mut sink = files.sink(300_000);
    for second in 0..20_000 {
        let line = format!("{second:06}{}\n", " ".repeat(40));
        sink.write(Stream::ALL[second as usize % 2], line.as_bytes(), at(second)).expect("room");
    }
    drop(sink);
    let numbers = |options: &str| -> Vec<u32> {
        let text = files.text(&selection(Mode::Exact, options));
        text.lines().map(|line| line.trim_end().parse().expect("a number")).collect()
    };
    for since in [0, 1, 3333, 9999, 15_000, 19_990, 19_999] {
        assert_eq!(numbers(&format!("since={since}")), Vec::from_iter(since..20_000), "{since}");
        let tail = Vec::from_iter(since.max(19_995)..20_000);
        assert_eq!(numbers(&format!("since={since} tail=5")), tail, "{since}");
    }
    assert!(numbers("since=20000").is_empty());
    let mut reader = files.reader(&selection(Mode::Exact, "since=19999"));
    assert_eq!(drained(&mut reader).len(), 47);
    // Not every file system has extended attributes.
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some() {
        assert!(reader.stats().records < 12_000, "most of it was not read: {:?}", reader.stats());
    }
}

#[test]
fn since_leaves_out_a_line_that_began_too_early() {
    let files = Log::new();
    let mut sink = files.sink(60);
    let writes = [(1, "a\n"), (2, "b"), (3, "c"), (4, "d\n"), (5, "e\n"), (6, "f")];
    for (second, text) in writes {
        sink.write(Stream::Stdout, text.as_bytes(), at(second)).expect("room");
        sink.flush_partial(at(second)).expect("room");
    }
    drop(sink);
    for (since, expected) in
        [(1, "a\nbcd\ne\nf"), (2, "bcd\ne\nf"), (3, "e\nf"), (4, "e\nf"), (5, "e\nf"), (6, "f"), (7, "")]
    {
        assert_eq!(files.text(&selection(Mode::Exact, &format!("since={since}"))), expected, "{since}");
    }
}

#[test]
fn a_follower_sees_what_is_appended() {
    let files = Log::new();
    files.write(&log(&["o1F a"]));
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    assert_eq!(drained(&mut reader), "a\n");
    files.append(b"2026-01-01T00:00:02Z stdo");
    assert_eq!(drained(&mut reader), "");
    files.append(b"ut F b\n");
    assert_eq!(drained(&mut reader), "b\n");
    files.append(&log(&["o3P > "]));
    assert_eq!(drained(&mut reader), "");
    assert_eq!(drained(&mut reader), "> ", "a prompt is shown when nothing follows it");
    files.append(&log(&["o4F yes"]));
    let mut out = Vec::new();
    drain(&mut reader, &mut out).expect("a log");
    reader.finish(&mut out).expect("a log");
    assert_eq!(out, b"yes\n");
}

#[test]
fn a_follower_survives_every_kind_of_rotation() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        files.write(&log(&["o1F a"]));
        let mut reader = files.reader(&Selection { mode, follow: true, ..Selection::default() });
        assert_eq!(drained(&mut reader), "a\n");
        // Renamed, and not yet made anew.
        fs::rename(files.path(), files.generation(1)).expect("a rename");
        append(&files.generation(1), &log(&["o1F b"]));
        assert_eq!(drained(&mut reader), "b\n");
        // The writer is still in the old file when the new one is there.
        files.write(b"");
        append(&files.generation(1), &log(&["o1F c"]));
        assert_eq!(drained(&mut reader), "c\n");
        append(&files.generation(1), &log(&["o1F late"]));
        files.append(&log(&["o2F d"]));
        assert_eq!(drained(&mut reader), "late\nd\n");
        // Copied and cut off.
        files.write(b"");
        assert_eq!(drained(&mut reader), "");
        files.append(&log(&["o3F e"]));
        assert_eq!(drained(&mut reader), "e\n");
        // Cut off and already longer than before.
        files.write(&log(&["o4F f", "o4F g", "o4F h"]));
        assert_eq!(drained(&mut reader), "f\ng\nh\n");
        assert_eq!(reader.stats().truncations, 2);
        // Deleted and made anew.
        fs::remove_file(files.path()).expect("a file");
        files.write(&log(&["o5F i"]));
        assert_eq!(drained(&mut reader), "i\n");
    }
}

#[test]
fn a_slow_follower_reads_all_generations_in_between() {
    let names = |numbers: &[usize]| numbers.to_vec();
    // What has become of the file that was being read: renamed, compressed, or deleted.
    for fate in 0..3 {
        for compressed in [names(&[]), names(&[2]), names(&[2, 3])] {
            let files = Log::new();
            fs::write(files.generation(0), log(&["o0F old"])).expect("room");
            files.write(&log(&["o1F a"]));
            let mut reader = files.reader(&selection(Mode::Exact, "follow tail=1"));
            assert_eq!(drained(&mut reader), "a\n");
            files.append(&log(&["o1F b"]));
            for number in 1..4 {
                fs::rename(files.path(), files.generation(number)).expect("a rename");
                files.write(&log(&[&format!("o{}F {number}", number + 1)]));
            }
            compressed.iter().for_each(|number| compress(&files.generation(*number)));
            match fate {
                1 => compress(&files.generation(1)),
                2 => fs::remove_file(files.generation(1)).expect("a file"),
                _ => {}
            }
            assert_eq!(drained(&mut reader), "b\n1\n2\n3\n", "fate {fate}, compressed {compressed:?}");
            assert_eq!(drained(&mut reader), "");
        }
    }
}

#[test]
fn the_second_name_of_the_current_file_is_no_generation() {
    let files = Log::new();
    files.write(&log(&["o1F a"]));
    fs::hard_link(files.path(), files.generation(1)).expect("a link");
    assert_eq!(files.text(&Selection::default()), "a\n");
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    assert_eq!(drained(&mut reader), "a\n");
    let new = files.directory.path().join("new");
    fs::write(&new, log(&["o2F b"])).expect("room");
    fs::rename(new, files.path()).expect("a rename");
    assert_eq!(drained(&mut reader), "b\n");
}

/// Lines of two streams, some of them partial, in several generations.
fn arbitrary_log() -> impl Strategy<Value = Vec<Vec<(Stream, LineEnd, u8)>>> {
    let record =
        (any::<bool>(), prop::bool::weighted(0.3), any::<u8>()).prop_map(|(stderr, partial, content)| {
            let end = if partial { LineEnd::Partial } else { LineEnd::Full };
            (Stream::ALL[usize::from(stderr)], end, content)
        });
    prop::collection::vec(prop::collection::vec(record, 0..12), 1..4)
}

/// All lines in the order of their ends, unfinished ones where their last record is.
fn lines(records: &[(Stream, LineEnd, u8)], streams: Streams) -> Vec<String> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut held = [(0, String::new()), (0, String::new())];
    for (index, (stream, end, content)) in records.iter().enumerate() {
        if streams.contains(*stream) {
            let line = &mut held[stream.index()];
            line.0 = index;
            line.1 += &format!("{content},");
            if *end == LineEnd::Full {
                lines.push((index, std::mem::take(&mut line.1)));
            }
        }
    }
    lines.extend(held.into_iter().filter(|(_, line)| !line.is_empty()));
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn tail_counts_lines_for_every_number(generations in arbitrary_log(), streams in 0..3usize, compress_first: bool) {
        let streams = [Streams::Both, Streams::Stdout, Streams::Stderr][streams];
        let files = Log::new();
        for (index, records) in generations.iter().enumerate() {
            let mut bytes = Vec::new();
            for (stream, end, content) in records {
                cri::append_record(&mut bytes, b"2026-01-01T00:00:00Z", *stream, *end, format!("{content},").as_bytes());
            }
            let is_current = index + 1 == generations.len();
            let path = if is_current { files.path() } else { files.generation(index) };
            fs::write(&path, bytes).expect("room");
            if index == 0 && !is_current && compress_first {
                compress(&path);
            }
        }
        let all = lines(&generations.concat(), streams);
        for count in 0..all.len() + 3 {
            let text = files.text(&Selection { streams, tail: Some(count as u64), ..Selection::default() });
            let mut got: Vec<&str> = text.lines().collect();
            let mut expected: Vec<&str> = all[all.len().saturating_sub(count)..].iter().map(String::as_str).collect();
            // Unfinished lines come last in the output.
            got.sort();
            expected.sort();
            prop_assert_eq!(got, expected, "tail={}", count);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn a_follower_gets_every_line_once_whatever_happens(
        steps in prop::collection::vec((0..8u8, 1..30usize), 1..60),
        max_bytes in 150..2000u64,
    ) {
        let files = Log::new();
        let mut sink = files.sink(max_bytes);
        let mut reader = files.reader(&selection(Mode::Exact, "follow"));
        let (mut written, mut out, mut second) = (String::new(), Vec::new(), 0);
        for (step, count) in steps {
            second += 1;
            match step {
                0..4 => {
                    let text: String = (0..count).map(|index| format!("{second} {index}\n")).collect();
                    sink.write(Stream::Stdout, text.as_bytes(), at(second)).expect("room");
                    written += &text;
                }
                4 => {
                    // Somebody else rotates.
                    let name = files.directory.path().join("renamed");
                    fs::rename(files.path(), &name).expect("a rename");
                    reader.read_chunk(&mut out).expect("a log");
                    let newest = crate::generations::LogPath::new(&files.path()).list().expect("a listing").rotated.pop();
                    let age = crate::generations::next_age(at(second), newest.as_ref().map(|file| &*file.age));
                    fs::rename(name, files.directory.path().join(format!("0.log.{age}"))).expect("a rename");
                    sink.write(Stream::Stdout, format!("{second} between\n").as_bytes(), at(second)).expect("room");
                    written += &format!("{second} between\n");
                    sink.reopen().expect("a file");
                }
                5 => {
                    drop(sink);
                    sink = files.sink(max_bytes);
                }
                _ => {
                    drain(&mut reader, &mut out).expect("a log");
                }
            }
        }
        drop(sink);
        drain(&mut reader, &mut out).expect("a log");
        reader.finish(&mut out).expect("a log");
        prop_assert_eq!(String::from_utf8_lossy(&out), &*written);
        prop_assert_eq!(files.text(&Selection::default()), written);
    }
}

/// A writer at full speed, rotating all the time, and followers that start at different moments.
#[test]
fn nothing_is_lost_between_a_fast_writer_and_its_followers() {
    let files = Log::new();
    let mut sink = files.sink(20_000);
    let source = LogSource::open(files.path()).expect("a log");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let total = 60_000;
    std::thread::scope(|scope| {
        let follow = || {
            let mut reader = source.read(&selection(Mode::Exact, "follow")).expect("a log");
            let mut out = Vec::new();
            loop {
                let ended = is_over.load(std::sync::atomic::Ordering::Acquire);
                drain(&mut reader, &mut out).expect("a log");
                if ended {
                    reader.finish(&mut out).expect("a log");
                    return out;
                }
                std::thread::yield_now();
            }
        };
        let mut followers = vec![scope.spawn(follow)];
        for chunk in 0..total / 100 {
            let text: String = (0..100).map(|index| format!("{}\n", chunk * 100 + index)).collect();
            sink.write(Stream::ALL[chunk % 2], text.as_bytes(), at(chunk as i64)).expect("room");
            if chunk % 200 == 100 {
                followers.push(scope.spawn(follow));
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::Release);
        let expected: String = (0..total).map(|number| format!("{number}\n")).collect();
        for follower in followers {
            assert!(follower.join().expect("no panic") == expected.as_bytes());
        }
    });
    assert!(sink.stats().rotations > 50);
}

#[test]
fn soup_goes_in_and_out() {
    let soup: Vec<u8> = (0..200_000_u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    assert_eq!(std::collections::HashSet::<u8>::from_iter(soup.iter().copied()).len(), 256);
    let files = Log::new();
    let mut sink = files.sink(50_000);
    for (index, chunk) in soup.chunks(4099).enumerate() {
        sink.write(Stream::Stdout, chunk, at(index as i64)).expect("room");
    }
    sink.end(Stream::Stdout, at(100)).expect("room");
    assert!(files.read(&Selection::default()) == soup);
}

#[test]
fn a_torn_record_may_be_cut_off_and_written_anew() {
    for mode in [Mode::Exact, Mode::Upstream] {
        let files = Log::new();
        let whole = log(&["o1F a"]);
        files.write(&whole);
        let mut reader = files.reader(&Selection { mode, follow: true, ..Selection::default() });
        assert_eq!(drained(&mut reader), "a\n");
        for (anew, expected) in
            [("", ""), ("o2F b", "b\n"), ("o2F longer than what was torn", "longer than what was torn\n")]
        {
            files.append(b"2026-01-01T00:00:02Z stdout F torn");
            assert_eq!(drained(&mut reader), "");
            let length = fs::metadata(files.path()).expect("a file").len() - 34;
            let file = fs::OpenOptions::new().write(true).open(files.path()).expect("a file");
            file.set_len(length).expect("a file");
            files.append(&log(&[anew]));
            assert_eq!(drained(&mut reader), expected);
        }
        assert_eq!(reader.stats().truncations, 0);
    }
}

#[test]
fn what_a_follower_was_too_slow_for_is_counted() {
    let files = Log::new();
    let mut sink =
        CriFileSink::open(files.path(), FileLimits { max_bytes: 100, max_files: 3 }).expect("a sink");
    let mut reader = files.reader(&selection(Mode::Exact, "follow"));
    for second in 0..40 {
        sink.write(Stream::Stdout, b"0123456789\n", at(second)).expect("room");
        if second == 1 {
            assert_eq!(drained(&mut reader).lines().count(), 2);
        }
    }
    // Two records a file: the first file and the last three were read.
    assert_eq!(drained(&mut reader).lines().count(), 6);
    if crate::attributes::generation(fs::File::open(files.path()).expect("a file")).is_some() {
        assert_eq!(reader.stats().missing_files, 16);
    }
}
