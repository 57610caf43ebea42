//! Logs that a real journald keeps, compared with log files of the same records.

#![expect(clippy::unwrap_used, reason = "test code")]
#![expect(clippy::print_stderr, reason = "a test that was skipped says so loudly")]

#[path = "../../../tests/support/journald.rs"]
mod journald;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use journald::Journald;
use podlog_driver::{JournalReader, JournalSource, LogReader, LogSource, ReadState, Resumed, synchronize};
use podlog_line::{Cursor, LineEnd, LineMatch, Patterns, Selection, Stream, Streams, Timestamp, cri};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

impl Journald {
    fn source(&self, container: &str) -> JournalSource {
        JournalSource::new(vec![self.directory()], container)
    }

    fn open(&self, selection: &Selection) -> JournalReader {
        self.settle();
        self.source(ID).read(selection).unwrap().expect("the container is there")
    }

    fn text(&self, selection: &Selection) -> String {
        all(&mut self.open(selection))
    }

    fn settle(&self) {
        synchronize(&self.control(), Duration::from_secs(30)).unwrap();
    }
}

fn more(reader: &mut JournalReader) -> String {
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).unwrap() == ReadState::More {}
    String::from_utf8_lossy(&out).into_owned()
}

fn all(reader: &mut JournalReader) -> String {
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).unwrap() == ReadState::More {}
    reader.finish(&mut out).unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

fn all_of_file(mut reader: LogReader) -> String {
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).unwrap() == ReadState::More {}
    reader.finish(&mut out).unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

/// The entries of the container as `journalctl` shows them, as a runtime would have written them into a log file.
fn write_log_file(journald: &Journald, path: &Path) {
    journald.settle();
    let mut command = Command::new("journalctl");
    command.args(["--all", "-o", "export", "-D"]).arg(journald.files()[0].parent().unwrap());
    let export = command.arg(format!("CONTAINER_ID_FULL={ID}")).output().unwrap().stdout;
    let (mut log, mut rest) = (Vec::new(), &export[..]);
    while !rest.is_empty() {
        let (mut time, mut message, mut end, mut stream) = (0, Vec::new(), LineEnd::Full, Stream::Stdout);
        loop {
            let line = rest.split(|byte| *byte == b'\n').next().unwrap();
            rest = &rest[line.len() + 1..];
            if line.is_empty() {
                break;
            }
            let (name, value) = match line.iter().position(|byte| *byte == b'=') {
                Some(equals) => (&line[..equals], line[equals + 1..].to_vec()),
                None => {
                    let (length, behind) = rest.split_first_chunk::<8>().unwrap();
                    let (value, behind) = behind.split_at(u64::from_le_bytes(*length) as usize);
                    rest = &behind[1..];
                    (line, value.to_vec())
                }
            };
            match name {
                b"__REALTIME_TIMESTAMP" => {
                    time = String::from_utf8(value).unwrap().parse::<i64>().unwrap() * 1000
                }
                b"MESSAGE" => message = value,
                b"PRIORITY" if value == b"3" => stream = Stream::Stderr,
                b"CONTAINER_PARTIAL_MESSAGE" => end = LineEnd::Partial,
                _ => {}
            }
        }
        let time = Timestamp::from_nanoseconds(time).to_string();
        let message = message.strip_suffix(b"\n").unwrap_or(&message);
        cri::append_record(&mut log, time.as_bytes(), stream, end, message);
    }
    fs::write(path, log).unwrap();
}

/// Everything that messages can be, in three files of the journal, beside a container that prints other things.
fn print_everything(journald: &Journald) {
    let long = "long and dull ".repeat(3_000);
    let noise: Vec<u8> =
        (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    for round in 0..3 {
        for number in 0..40 {
            journald.print(ID, "6", format!("round {round} line {number}\n").as_bytes());
            journald.print(OTHER, "6", b"something else\n");
            if number % 5 == 0 {
                journald.print(ID, "3", format!("error {number}\n").as_bytes());
                journald.print(ID, "6", b"begun, ");
                journald.print(ID, "3", b"error begun, ");
                journald.print(ID, "6", b"gone on, ");
                journald.print(ID, "3", b"\n");
                journald.print(ID, "6", b"ended\n");
            }
        }
        journald.print(ID, "6", format!("{long}\n").as_bytes());
        journald.print(ID, "6", &[&noise[..], b"\0\r\n"].concat());
        // The line goes on in the next file.
        journald.print(ID, "6", b"before rotation, ");
        journald.rotate();
        journald.print(ID, "6", b"after it\n");
        journald.print(ID, "6", b"\n");
    }
    journald.print(ID, "6", b"prompt> ");
}

fn selections(log: &str) -> Vec<Selection> {
    let time = |line: usize| {
        let line = log.lines().nth(line).unwrap();
        Some(Timestamp::parse(line.split(' ').next().unwrap().as_bytes()).unwrap())
    };
    let (early, middle, late) = (time(10), time(100), time(150));
    let matching = |pattern: &str| {
        Some(LineMatch::new(Patterns { include: vec![pattern.into()], ..Patterns::default() }).unwrap())
    };
    let default = Selection::default;
    let mut selections = vec![
        default(),
        Selection { timestamps: true, ..default() },
        Selection { streams: Streams::Stdout, ..default() },
        Selection { streams: Streams::Stderr, timestamps: true, ..default() },
        Selection { line_match: matching("7"), ..default() },
        Selection { line_match: matching("begun.*ended"), tail: Some(4), ..default() },
        Selection { line_match: matching("error"), streams: Streams::Stderr, tail: Some(7), ..default() },
        Selection { since: middle, ..default() },
        Selection { since: Some(Timestamp::MAX), ..default() },
        Selection { until: middle, ..default() },
        Selection { until: late, tail: Some(9), ..default() },
        Selection { since: early, until: middle, ..default() },
        Selection { since: middle, tail: Some(1_000), ..default() },
        Selection { limit_bytes: Some(1_000), timestamps: true, ..default() },
        Selection { limit_bytes: Some(70_000), ..default() },
    ];
    for tail in [0, 1, 2, 3, 10, 60, 61, 62, 63, 64, 65, 1_000_000] {
        selections.push(Selection { tail: Some(tail), ..default() });
        selections.push(Selection { tail: Some(tail), streams: Streams::Stderr, ..default() });
    }
    selections
}

/// Layouts of files that versions of journald have written.
const LAYOUTS: &[&[(&str, &str)]] = &[
    &[],
    &[("SYSTEMD_JOURNAL_COMPACT", "0")],
    &[("SYSTEMD_JOURNAL_COMPACT", "0"), ("SYSTEMD_JOURNAL_KEYED_HASH", "0")],
];

#[test]
fn a_journal_reads_as_a_log_file_does() {
    for layout in LAYOUTS {
        let Some(journald) = Journald::start(layout) else { return };
        print_everything(&journald);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        write_log_file(&journald, &path);
        let log = fs::read(&path).unwrap();
        for selection in selections(&String::from_utf8_lossy(&log)) {
            let expected = all_of_file(LogSource::open(&path).unwrap().read(&selection).unwrap());
            let found = journald.text(&selection);
            assert!(found == expected, "{selection:?}\n{found:.2000}\ninstead of\n{expected:.2000}");
        }
        assert_eq!(journald.files().len(), 4);
    }
}

#[test]
fn behind_each_cursor_is_exactly_the_rest() {
    let Some(journald) = Journald::start(&[]) else { return };
    print_everything(&journald);
    let whole = journald.text(&Selection::default());
    let marked = journald.text(&Selection { cursors: true, ..Selection::default() });
    let lines: Vec<&str> = marked.split_inclusive('\n').collect();
    let mut rest = whole.clone();
    for (index, line) in lines.iter().enumerate() {
        let (cursor, text) = line.split_once(' ').unwrap();
        rest = rest.strip_prefix(text).unwrap().to_owned();
        if index % 7 != 0 && index + 7 < lines.len() {
            continue;
        }
        let after: Cursor = cursor.parse().unwrap();
        let mut reader = journald.open(&Selection { after: Some(after), ..Selection::default() });
        let found = all(&mut reader);
        assert!(found == rest, "{cursor}: {found:.300}\ninstead of\n{rest:.300}");
        assert_eq!(reader.resumed(), Resumed::Exact);
    }
    // Cut anywhere.
    for limit in [1, 50, 333, 1_000, 45_000, 90_000] {
        let selection = Selection { limit_bytes: Some(limit), ..Selection::default() };
        let mut reader = journald.open(&selection);
        let mut text = all(&mut reader);
        let after = reader.cursor();
        text.push_str(&all(&mut journald.open(&Selection { after, ..Selection::default() })));
        assert!(text == whole, "{limit}");
    }
}

#[test]
fn what_was_deleted_is_declared() {
    let Some(journald) = Journald::start(&[]) else { return };
    journald.print(ID, "6", b"one\n");
    let after = {
        let mut reader = journald.open(&Selection::default());
        all(&mut reader);
        reader.cursor()
    };
    journald.rotate();
    journald.print(ID, "6", b"two\n");
    let archived: Vec<_> =
        journald.files().into_iter().filter(|path| !path.ends_with("system.journal")).collect();
    archived.iter().for_each(|path| fs::remove_file(path).unwrap());
    let mut reader = journald.open(&Selection { after, ..Selection::default() });
    let text = all(&mut reader);
    assert!(text.starts_with(r#"{"podlog.gap":{"reason":"retention","to":""#), "{text}");
    assert!(text.ends_with("}}\ntwo\n"), "{text}");
    assert_eq!(reader.resumed(), Resumed::Gone { bytes: None });
    assert_eq!(reader.stats().gaps, 1);
    // What stands behind the marker is the rest, and the marker does not come again.
    let cursor = text.lines().next().map(|_| {
        let marked = journald.text(&Selection { after, cursors: true, ..Selection::default() });
        marked.split(' ').next().unwrap().parse().unwrap()
    });
    assert_eq!(journald.text(&Selection { after: cursor, ..Selection::default() }), "two\n");
}

#[test]
fn a_follower_goes_on_through_rotations() {
    let Some(journald) = Journald::start(&[]) else { return };
    journald.print(ID, "6", b"0\n");
    let mut follower = journald.open(&Selection { follow: true, ..Selection::default() });
    assert_eq!(more(&mut follower), "0\n");
    let mut slow = follower.try_clone().unwrap();
    let mut expected = String::new();
    for number in 1..=200 {
        let line = format!("{number}\n");
        journald.print(ID, "6", line.as_bytes());
        expected.push_str(&line);
        if number % 50 == 0 {
            journald.rotate();
        }
        if number == 125 {
            journald.settle();
            assert_eq!(more(&mut follower), expected, "read through two rotations");
            expected.clear();
        }
    }
    journald.settle();
    assert_eq!(more(&mut follower), expected);
    assert_eq!(more(&mut slow).lines().count(), 200, "another at the same place has the same");
    assert_eq!(more(&mut follower), "", "nothing twice");
    assert!(follower.place().unwrap().covers(&slow.place().unwrap()));
}

#[test]
fn files_that_come_and_go_unseen_are_declared() {
    let Some(journald) = Journald::start(&[]) else { return };
    journald.print(ID, "6", b"seen\n");
    let mut follower = journald.open(&Selection { follow: true, ..Selection::default() });
    assert_eq!(more(&mut follower), "seen\n");
    journald.print(ID, "6", b"still open\n");
    journald.rotate();
    journald.print(ID, "6", b"never seen\n");
    journald.settle();
    journald.rotate();
    journald.settle();
    for path in journald.files() {
        if !path.ends_with("system.journal") {
            fs::remove_file(path).unwrap();
        }
    }
    journald.print(ID, "6", b"after\n");
    journald.settle();
    let text = more(&mut follower);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("still open", "after"), "{text}");
    assert!(lines[1].starts_with(r#"{"podlog.gap":{"reason":"retention","from":""#), "{text}");
    assert_eq!(follower.stats().missing_files, 1);
}

#[test]
fn nobody_else_puts_words_into_a_log() {
    let Some(journald) = Journald::start(&[]) else { return };
    journald.print(ID, "6", b"printed\n");
    let entry = journald.directory().parent().unwrap().join("entry");
    fs::write(&entry, format!("MESSAGE=forged\nCONTAINER_ID_FULL={ID}\n")).unwrap();
    let mut forger = journald.command("setpriv");
    forger.args(["--reuid", "12345", "--clear-groups", "logger", "--journald"]);
    let forged = forger.stdin(fs::File::open(&entry).unwrap()).output().unwrap();
    if !forged.status.success() {
        eprintln!("SKIPPED: logger cannot write to the journal here: {forged:?}");
        return;
    }
    journald.print(ID, "6", b"printed again\n");
    journald.settle();
    let mut shown = Command::new("journalctl");
    shown.arg("-D").arg(journald.files()[0].parent().unwrap()).arg(format!("CONTAINER_ID_FULL={ID}"));
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    assert!(shown.contains("forged"), "it is in the journal: {shown}");
    assert_eq!(journald.text(&Selection::default()), "printed\nprinted again\n");
}

#[test]
fn containers_that_the_journal_does_not_know_have_no_log() {
    let Some(journald) = Journald::start(&[]) else { return };
    journald.print(ID, "6", b"one\n");
    journald.settle();
    assert!(journald.source(OTHER).read(&Selection::default()).unwrap().is_none());
    assert!(journald.source(&ID[..12]).read(&Selection::default()).unwrap().is_none());
    let nowhere = JournalSource::new(vec!["/does/not/exist".into()], ID);
    assert!(nowhere.read(&Selection::default()).unwrap().is_none());
}

#[test]
fn damaged_files_are_declared_and_never_a_panic() {
    let Some(journald) = Journald::start(&[]) else { return };
    for number in 0..200 {
        journald.print(ID, "6", format!("first {number}\n").as_bytes());
    }
    journald.rotate();
    journald.print(ID, "6", b"second\n");
    journald.settle();
    let folder = tempfile::tempdir().unwrap();
    let sources = journald.files();
    let archived = sources.iter().find(|path| !path.ends_with("system.journal")).unwrap();
    let content = fs::read(archived).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    let current = sources.iter().find(|path| path.ends_with("system.journal")).unwrap();
    fs::copy(current, folder.path().join("system.journal")).unwrap();
    let source = JournalSource::new(vec![folder.path().to_owned()], ID);
    let mut declared = 0;
    for round in 0..100_usize {
        let mut damaged = content.clone();
        // Before the entries are tables of hashes, which nobody reads here.
        let at = used - round.wrapping_mul(7_919) % 80_000;
        for byte in &mut damaged[at..(at + 64).min(used)] {
            *byte = byte.wrapping_add(round as u8 | 1);
        }
        fs::write(folder.path().join("system@1.journal"), damaged).unwrap();
        for tail in [None, Some(3)] {
            let selection = Selection { tail, ..Selection::default() };
            let mut reader = source.read(&selection).unwrap().expect("the other file is whole");
            let mut out = Vec::new();
            let end = loop {
                match reader.read_chunk(&mut out) {
                    Ok(ReadState::More) => {}
                    end => break end,
                }
            };
            let text = String::from_utf8_lossy(&out);
            assert!(end.is_ok(), "byte {at}: {end:?}");
            assert!(text.contains("second\n"), "byte {at}: {text}");
            declared += usize::from(text.contains(r#""reason":"damaged""#));
        }
    }
    assert!(declared > 0, "some damage was met");
}

const ZSTD: u8 = 4;
const LZ4: u8 = 2;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn set(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// A journal file as journald wrote it until systemd 246: what is compressed is compressed by LZ4. Behind what was there stand the data
/// that entries have in the place of theirs; returns where, too.
fn with_lz4(journal: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (begin, last) = (number(journal, 88) as usize, number(journal, 136) as usize);
    let behind = |object: usize| (object + number(journal, object + 8) as usize).next_multiple_of(8);
    let next = |object: &usize| (*object < last).then(|| behind(*object));
    let objects = || std::iter::successors(Some(begin), next);
    let (mut out, mut moved) = (journal[..behind(last)].to_vec(), Vec::new());
    for object in objects().filter(|at| journal[*at] == 1 && journal[at + 1] == ZSTD) {
        let size = number(journal, object + 8) as usize;
        let payload = zstd::stream::decode_all(&journal[object + 64..object + size]).unwrap();
        let block = lz4_flex::block::compress(&payload);
        let place = out.len();
        moved.push((object, place));
        out.extend_from_slice(&journal[object..object + 64]);
        out[place + 1] = LZ4;
        set(&mut out, place + 8, (64 + 8 + block.len()) as u64);
        out.extend((payload.len() as u64).to_le_bytes());
        out.extend(block);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    for entry in objects().filter(|at| journal[*at] == 3) {
        for item in (entry + 64..entry + number(journal, entry + 8) as usize).step_by(16) {
            if let Some((_, to)) = moved.iter().find(|(from, _)| *from as u64 == number(journal, item)) {
                set(&mut out, item, *to as u64);
            }
        }
    }
    // Of the header: how it is compressed, how long it is, and its last object.
    out[12] = out[12] & !(1 | 8) | LZ4;
    let length = (out.len() - begin) as u64;
    set(&mut out, 96, length);
    set(&mut out, 136, moved.last().map_or(last, |(_, to)| *to) as u64);
    (out, moved.into_iter().map(|(_, to)| to).collect())
}

#[test]
fn what_older_journalds_compressed_is_read() {
    let Some(journald) = Journald::start(&[("SYSTEMD_JOURNAL_COMPACT", "0")]) else { return };
    let long = "long and dull ".repeat(3_000);
    for text in ["first", &long, "last"] {
        journald.print(ID, "6", format!("{text}\n").as_bytes());
    }
    journald.rotate();
    let files = journald.files();
    let archived = files.iter().find(|path| !path.ends_with("system.journal")).unwrap();
    let (content, places) = with_lz4(&fs::read(archived).unwrap());
    assert_eq!(places.len(), 1, "of the long message");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("system@1.journal");
    fs::write(&path, &content).unwrap();
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--all", "-o", "cat", "--file"]).arg(&path).arg(format!("CONTAINER_ID_FULL={ID}"));
    let shown = journalctl.output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&shown).contains(&long), "the file is as systemd reads it");
    let source = JournalSource::new(vec![folder.path().to_owned()], ID);
    let read = || all(&mut source.read(&Selection::default()).unwrap().unwrap());
    assert_eq!(read(), format!("first\n{long}\nlast\n"));
    for (at, wrong) in [(64, u64::MAX), (64, 1), (64, 1 << 23), (72, u64::MAX), (8, 80), (8, 64)] {
        let mut damaged = content.clone();
        set(&mut damaged, places[0] + at, wrong);
        fs::write(&path, damaged).unwrap();
        let text = read();
        assert!(text.starts_with("first\n") && text.ends_with("\nlast\n"), "{at} {wrong}: {text}");
        assert!(text.contains(r#""reason":"damaged""#), "{at} {wrong}: {text}");
    }
}
