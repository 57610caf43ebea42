//! The reader, over files as a careless world may leave them, against a reading that anybody would write.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use podlog_driver::{LogSource, ReadState};
use podlog_line::{
    LineEnd, RecordParser, RenderError, RenderState, Renderer, Selection, Stream, Streams, Timestamp, cri,
};
use rustix::fs::{XattrFlags, fsetxattr};

use crate::parsers::way;

/// However a log is cut into pieces, the output is the same.
pub(crate) fn renderer(input: &[u8]) -> u64 {
    let [flags, size, input @ ..] = input else { return 0 };
    let selection = Selection {
        timestamps: flags & 1 > 0,
        streams: [Streams::Both, Streams::Stdout, Streams::Stderr, Streams::Both]
            [usize::from(flags >> 1 & 3)],
        since: (flags & 8 > 0).then(|| Timestamp::from_seconds(1_767_225_600, 1)),
        limit_bytes: (flags & 16 > 0).then_some(u64::from(*size) * 4),
        ..Selection::default()
    };
    let whole = render(&selection, input, input.len().max(1));
    let pieces = render(&selection, input, usize::from(*size % 64) + 1);
    assert_eq!(whole, pieces, "in pieces of {}", size % 64 + 1);
    way(if whole.is_ok() { "rendered" } else { "no log" }, whole.map_or(0, |out| out.len()))
}

/// Gives the renderer so much more at a time.
fn render(selection: &Selection, input: &[u8], step: usize) -> Result<Vec<u8>, RenderError> {
    let mut renderer = Renderer::new(selection);
    let (mut out, mut begin, mut end) = (Vec::new(), 0, 0);
    while end < input.len() {
        end = (end + step).min(input.len());
        let rendered = renderer.render(&input[begin..end], &mut out)?;
        begin += rendered.consumed;
        if rendered.state == RenderState::LimitReached {
            return Ok(out);
        }
    }
    if renderer.render_rest(&input[begin..], &mut out)? == RenderState::More {
        renderer.finish(&mut out)?;
    }
    Ok(out)
}

/// The files of a log, oldest first.
fn files_of(input: &[u8]) -> Vec<Vec<u8>> {
    let (mut files, mut bytes) = (vec![Vec::new()], input.iter().copied());
    let mut second = 0;
    while let (Some(what), Some(how)) = (bytes.next(), bytes.next()) {
        let count = files.len();
        let file = files.last_mut().expect("there is one");
        let stream = Stream::ALL[usize::from(how & 1)];
        let end = if how & 2 > 0 { LineEnd::Partial } else { LineEnd::Full };
        second += i64::from(how & 4);
        let time = Timestamp::from_seconds(1_767_225_600 + second, 0).to_string();
        match what % 16 {
            0..=9 => {
                let content: Vec<u8> =
                    bytes.by_ref().take(usize::from(what % 16) * 3).filter(|byte| *byte != b'\n').collect();
                cri::append_record(file, time.as_bytes(), stream, end, &content);
            }
            // A long one; the longest are more than a reader's buffer may hold.
            10 => {
                let length = usize::from(how) * if how > 250 { 4000 } else { 50 };
                cri::append_record(file, time.as_bytes(), stream, end, &vec![b'x'; length]);
            }
            11 => file.extend_from_slice(b"no record at all\n"),
            12 => file.extend(std::iter::repeat_n(0, usize::from(how))),
            // Its writer was killed.
            13 => file.truncate(file.len() - usize::from(how).min(file.len())),
            14 if count < 5 => files.push(Vec::new()),
            _ => file.extend(bytes.by_ref().take(usize::from(how % 32))),
        }
    }
    files
}

/// Which files are compressed.
fn write_files(directory: &Path, files: &[Vec<u8>], compressed: u8) {
    for (index, content) in files.iter().enumerate() {
        let is_current = index + 1 == files.len();
        let rotated = format!("0.log.2026010{}-000000", index + 1);
        if is_current {
            fs::write(directory.join("0.log"), content).expect("room");
        } else if compressed >> index & 1 > 0 {
            let file = File::create(directory.join(format!("{rotated}.gz"))).expect("room");
            let mut encoder = GzEncoder::new(file, Compression::fast());
            encoder.write_all(content).and_then(|()| encoder.finish().map(drop)).expect("room");
        } else {
            fs::write(directory.join(rotated), content).expect("room");
        }
    }
}

fn read(path: &Path, stream: Stream) -> Result<Vec<u8>, String> {
    let selection = Selection { streams: Streams::from(stream), ..Selection::default() };
    let mut reader =
        LogSource::open(path).and_then(|source| source.read(&selection)).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    while reader.read_chunk(&mut out).map_err(|error| error.to_string())? == ReadState::More {}
    reader.finish(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Every record of every file, joined by stream; `None` if there is none.
fn read_naively(files: &[Vec<u8>], stream: Stream) -> Option<Vec<u8>> {
    let mut parser = RecordParser::default();
    let (mut out, mut records) = (Vec::new(), 0);
    for line in files.iter().flat_map(|file| file.split(|byte| *byte == b'\n')) {
        let Some(record) = parser.parse(line) else { continue };
        records += 1;
        if record.stream == stream {
            out.extend_from_slice(record.content);
            out.extend((record.end == LineEnd::Full).then_some(b'\n'));
        }
    }
    (records > 0).then_some(out)
}

/// Generations, plain, compressed, torn and damaged, hold what their records hold.
pub(crate) fn generations(input: &[u8]) -> u64 {
    let [compressed, input @ ..] = input else { return 0 };
    let files = files_of(input);
    // What declares itself as a gap ends lines before it: another test's business.
    let marker = podlog_line::GAP_TAG.as_bytes();
    if files.iter().any(|file| file.windows(marker.len()).any(|window| window == marker)) {
        return 1;
    }
    let directory = tempfile::tempdir().expect("a directory");
    write_files(directory.path(), &files, *compressed);
    let mut total = 0;
    for stream in Stream::ALL {
        let actual = read(&directory.path().join("0.log"), stream);
        let Some(expected) = read_naively(&files, stream) else { continue };
        let actual = actual.expect("there are records");
        // The last line may have lost its end.
        let trim = |text: &[u8]| text.strip_suffix(b"\n").unwrap_or(text).to_vec();
        assert!(
            trim(&actual) == trim(&expected),
            "{stream} of {} files: {:?} instead of {:?}",
            files.len(),
            String::from_utf8_lossy(&actual),
            String::from_utf8_lossy(&expected)
        );
        total += actual.len();
    }
    way(["one", "two", "three", "four", "five"][files.len() - 1], total)
}

/// Whatever stands in the attributes of files, reading ends and takes its time only.
pub(crate) fn attributes(input: &[u8]) -> u64 {
    let Some((head, rest)) = input.split_at_checked(24) else { return 0 };
    let files = files_of(rest);
    let directory = tempfile::tempdir().expect("a directory");
    write_files(directory.path(), &files, head[0]);
    for (number, entry) in fs::read_dir(directory.path()).expect("a directory").enumerate() {
        let file = File::open(entry.expect("an entry").path()).expect("a file");
        for (name, value) in [
            ("user.podlog.generation", &head[number % 4..8]),
            ("user.podlog.base", &head[8 + number % 4..16]),
            ("user.podlog.end", &head[16..]),
        ] {
            // A file system may have none.
            let _ = fsetxattr(&file, name, value, XattrFlags::empty());
        }
    }
    let mut total = 0;
    let path = directory.path().join("0.log");
    for selection in [
        Selection::default(),
        Selection { tail: Some(3), ..Selection::default() },
        Selection {
            since: Some(Timestamp::from_seconds(1_767_225_600, 0).saturating_add(Duration::from_secs(3))),
            ..Selection::default()
        },
    ] {
        let Ok(mut reader) = LogSource::open(&path).and_then(|source| source.read(&selection)) else {
            continue;
        };
        let mut out = Vec::new();
        while let Ok(ReadState::More) = reader.read_chunk(&mut out) {
            assert!(out.len() < 64 << 20, "output without an end");
        }
        total += out.len();
    }
    way("read", total)
}
