//! The whole engine: whatever is written, however it is cut into chunks, files and lives of writers, comes out once, in
//! order, byte for byte; and what retention has deleted is missing at the beginning and nowhere else.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use podlog_driver::{CriFileSink, FileLimits, LogReader, LogSource, MAX_CONTENT, ReadState};
use podlog_line::{Cursor, Gap, GapReason, Selection, Stream, Streams, Timestamp};
use proptest::prelude::*;

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    /// Lines of such lengths arrive, without the last so many bytes of them, which come with the next ones.
    Write { stream: Stream, lengths: Vec<usize>, cut: usize },
    /// Unfinished lines have waited long enough.
    ShowPartial,
    /// The writer dies, and another one begins.
    Die,
    /// Somebody else rotates.
    Rename,
    /// Old files are compressed, as far as that is possible.
    Compress,
    /// The followers look.
    Look,
    /// The followers look, go, and come back where they were.
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![
        20 => 0..300_usize,
        4 => MAX_CONTENT - 2..MAX_CONTENT + 3,
        2 => 0..100_000_usize,
        1 => 0..1_048_577_usize,
    ];
    let write = (any::<bool>(), prop::collection::vec(length, 0..12), 0..200_usize).prop_map(
        |(stderr, lengths, cut)| Step::Write { stream: Stream::ALL[usize::from(stderr)], lengths, cut },
    );
    prop_oneof![
        12 => write,
        1 => Just(Step::ShowPartial),
        1 => Just(Step::Die),
        1 => Just(Step::Rename),
        1 => Just(Step::Compress),
        3 => Just(Step::Look),
        2 => Just(Step::Resume),
    ]
}

/// What one stream should look like.
#[derive(Default)]
struct Model {
    /// What has been written.
    expected: Vec<u8>,
    /// How much of its end is in no record yet.
    held: usize,
    /// What was cut off from the last write.
    later: Vec<u8>,
    lines: usize,
}

impl Model {
    /// The next chunk.
    fn chunk(&mut self, tag: u8, lengths: &[usize], cut: usize) -> Vec<u8> {
        let mut chunk = std::mem::take(&mut self.later);
        for &length in lengths {
            chunk.extend_from_slice(&line(tag, self.lines, length));
            self.lines += 1;
        }
        self.later = chunk.split_off(chunk.len() - cut.min(chunk.len()));
        self.wrote(&chunk);
        chunk
    }

    fn wrote(&mut self, chunk: &[u8]) {
        self.expected.extend_from_slice(chunk);
        self.held = match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => chunk.len() - end - 1,
            None => self.held + chunk.len(),
        };
        // So much is written as soon as it cannot be the end of a line that fits.
        while self.held > MAX_CONTENT {
            self.held -= MAX_CONTENT;
        }
    }

    /// What was in no record is gone.
    fn died(&mut self) {
        self.expected.truncate(self.expected.len() - self.held);
        self.held = 0;
    }
}

/// A line of any bytes, told from every other one by its beginning if it is long enough.
fn line(tag: u8, number: usize, length: usize) -> Vec<u8> {
    let mut line = vec![tag];
    line.extend_from_slice(format!("{number} ").as_bytes());
    line.extend((0_u8..=255).filter(|byte| *byte != b'\n').cycle().skip(number % 256).take(length));
    line.truncate(length);
    line.push(b'\n');
    line
}

/// A log under test.
struct Scene {
    directory: tempfile::TempDir,
    limits: FileLimits,
    sink: Option<CriFileSink>,
    models: [Model; 2],
    /// So far apart that no name of a rotated file, of which each takes a second, overtakes the next step.
    seconds: i64,
}

impl Scene {
    fn new(limits: FileLimits) -> Scene {
        let directory = tempfile::tempdir().expect("a directory");
        let sink = CriFileSink::open(directory.path().join("0.log"), limits).expect("a sink");
        Scene { directory, limits, sink: Some(sink), models: Default::default(), seconds: 1_767_225_600 }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("0.log")
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.seconds, 0)
    }

    fn sink(&mut self) -> &mut CriFileSink {
        self.sink.as_mut().expect("a writer lives")
    }

    fn carry_out(&mut self, step: &Step) {
        self.seconds += 100_000;
        let now = self.now();
        match step {
            Step::Write { stream, lengths, cut } => {
                let tag = [b'o', b'e'][stream.index()];
                let chunk = self.models[stream.index()].chunk(tag, lengths, *cut);
                self.sink().write(*stream, &chunk, now).expect("room");
            }
            Step::ShowPartial => {
                self.sink().flush_partial(now).expect("room");
                self.models.iter_mut().for_each(|model| model.held = 0);
            }
            Step::Die => {
                self.sink = None;
                self.models.iter_mut().for_each(Model::died);
                self.sink = Some(CriFileSink::open(self.path(), self.limits).expect("a sink"));
            }
            Step::Rename => {
                let digits: String = now.to_string().chars().filter(char::is_ascii_digit).collect();
                let rotated = format!("0.log.{}-{}", &digits[..8], &digits[8..14]);
                fs::rename(self.path(), self.directory.path().join(rotated)).expect("a rename");
                self.sink().reopen().expect("a new file");
            }
            Step::Compress => self.wait_for_compression(),
            Step::Look | Step::Resume => {}
        }
    }

    /// Names of rotated files: those that are plain, and those that are compressed.
    fn rotated(&self) -> (usize, usize) {
        let names = fs::read_dir(self.directory.path()).expect("a directory");
        let names: Vec<String> =
            names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        let count = |is_counted: &dyn Fn(&str) -> bool| names.iter().filter(|name| is_counted(name)).count();
        let is_plain =
            |name: &str| name.starts_with("0.log.2") && !name.contains(".gz") && !name.ends_with(".tmp");
        (count(&is_plain), count(&|name| name.ends_with(".gz")))
    }

    /// The newest stays plain. What somebody else has renamed is compressed when the writer rotates next.
    fn wait_for_compression(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.rotated().0 > 1 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the last lines, so that there is one way to show them.
    fn end(&mut self) {
        for stream in Stream::ALL {
            let cut_off = std::mem::take(&mut self.models[stream.index()].later);
            let chunk = [&cut_off[..], b"\n"].concat();
            self.models[stream.index()].wrote(&chunk);
            let now = self.now();
            self.sink().write(stream, &chunk, now).expect("room");
        }
    }
}

fn read(path: &Path, selection: &Selection) -> Vec<u8> {
    let mut reader = LogSource::open(path).and_then(|source| source.read(selection)).expect("a log");
    let mut out = Vec::new();
    catch_up(&mut reader, &mut out);
    reader.finish(&mut out).expect("a log");
    assert_eq!(reader.stats().malformed, 0);
    out
}

fn catch_up(reader: &mut LogReader, out: &mut Vec<u8>) {
    while reader.read_chunk(out).expect("a log") == ReadState::More {}
}

/// Somebody who follows a stream.
struct Follower {
    stream: Stream,
    reader: LogReader,
    out: Vec<u8>,
}

impl Follower {
    fn new(path: &Path, stream: Stream) -> Follower {
        Follower { stream, reader: follow(path, stream, None), out: Vec::new() }
    }

    fn look(&mut self) {
        catch_up(&mut self.reader, &mut self.out);
    }

    fn resume(&mut self, path: &Path) {
        // There is no place before anything was read.
        let cursor = self.reader.cursor().map(|cursor| cursor.to_string().parse().expect("a cursor"));
        self.reader = follow(path, self.stream, cursor);
    }

    fn end(mut self) -> Vec<u8> {
        // The first look may have seen a rotation, the next one goes on behind it.
        (0..3).for_each(|_| self.look());
        self.reader.finish(&mut self.out).expect("a log");
        self.out
    }
}

fn follow(path: &Path, stream: Stream, after: Option<Cursor>) -> LogReader {
    let selection = Selection { follow: true, after, ..of(stream) };
    LogSource::open(path).and_then(|source| source.read(&selection)).expect("a log")
}

fn of(stream: Stream) -> Selection {
    Selection { streams: Streams::from(stream), ..Selection::default() }
}

fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    let begin = ends.skip(1).nth(count.saturating_sub(1)).unwrap_or(0);
    &text[begin..]
}

/// What stands behind the word that the beginning is missing.
fn without_marker(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let marker = Gap::parse_content(&text[..end]).filter(|gap| gap.reason == GapReason::Retention);
    if marker.is_some() { &text[end + 1..] } else { text }
}

/// Fails at the first difference, with a word that can be read.
fn assert_same(what: &str, actual: &[u8], expected: &[u8]) {
    if actual != expected {
        let at = actual.iter().zip(expected).take_while(|(left, right)| left == right).count();
        let near = |text: &[u8]| {
            String::from_utf8_lossy(&text[at.min(text.len())..][..60.min(text.len() - at.min(text.len()))])
                .into_owned()
        };
        panic!(
            "{what}: {} bytes instead of {}, different from {at} on: {:?} instead of {:?}",
            actual.len(),
            expected.len(),
            near(actual),
            near(expected)
        );
    }
}

fn check_order(path: &Path, models: &[Model; 2]) {
    let both = read(path, &Selection::default());
    assert_eq!(both.len(), models[0].expected.len() + models[1].expected.len());
    let tags = [b'o', b'e'];
    // A writer that died may have taken the tag of a line with it; then any byte stands there, also the other's tag.
    let keeps_tags = |(tag, model): (&u8, &Model)| {
        model.expected.split_inclusive(|byte| *byte == b'\n').all(|line| line[0] == b'\n' || line[0] == *tag)
    };
    if !tags.iter().zip(models).all(keeps_tags) {
        return;
    }
    for (tag, model) in tags.into_iter().zip(models) {
        let tagged = |text: &[u8]| -> Vec<u8> {
            let lines = text.split_inclusive(|byte| *byte == b'\n');
            lines.filter(|line| line[0] == tag).flatten().copied().collect()
        };
        assert_same("both streams", &tagged(&both), &tagged(&model.expected));
    }
}

/// A few cases; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 6, ..config } }
}

/// Carries out the steps while two followers look and resume, and compares all that is read with what was written. The
/// log at the end.
fn play(steps: &[Step], max_bytes: u64, tail: usize) -> Scene {
    let mut scene = Scene::new(FileLimits { max_bytes, max_files: 100_000 });
    let mut followers = Stream::ALL.map(|stream| Follower::new(&scene.path(), stream));
    for step in steps {
        scene.carry_out(step);
        if matches!(step, Step::Look | Step::Resume) {
            followers.iter_mut().for_each(Follower::look);
        }
        if matches!(step, Step::Resume) {
            followers.iter_mut().for_each(|follower| follower.resume(&scene.path()));
        }
    }
    scene.end();
    check_order(&scene.path(), &scene.models);
    for (stream, follower) in Stream::ALL.into_iter().zip(followers) {
        let expected = &scene.models[stream.index()].expected;
        assert_same("reader", &read(&scene.path(), &of(stream)), expected);
        let selection = Selection { tail: Some(tail as u64), ..of(stream) };
        assert_same("tail", &read(&scene.path(), &selection), last_lines(expected, tail));
        assert_same("follower", &follower.end(), expected);
    }
    scene
}

#[test]
fn followers_come_back_to_places_that_were_compressed_meanwhile() {
    let write = |stream, lengths: &[usize], cut| Step::Write { stream, lengths: lengths.to_vec(), cut };
    let many = [3000; 30];
    let mut steps = vec![Step::Look, Step::Resume];
    for stream in Stream::ALL {
        steps.extend([
            // Longer than a file, and cut within a line.
            write(stream, &many, 100),
            Step::Resume,
            write(stream, &[1 << 20, 0, 70_000], 50_000),
            Step::Compress,
            Step::Resume,
            Step::Die,
            write(stream, &many, 0),
            Step::Rename,
            write(stream, &many, 10),
            Step::Compress,
            Step::Look,
        ]);
    }
    let scene = play(&steps, 20_000, 50);
    let (_, compressed) = scene.rotated();
    assert!(compressed > 20, "only {compressed} files are compressed");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_written_comes_out_once_and_in_order(
        steps in prop::collection::vec(step(), 1..30),
        max_bytes in prop::sample::select(vec![20_000_u64, 100_000, 1 << 20]),
        tail in 1..200_usize,
    ) {
        play(&steps, max_bytes, tail);
    }

    #[test]
    fn retention_takes_the_oldest_and_nothing_else(steps in prop::collection::vec(step(), 10..40)) {
        let mut scene = Scene::new(FileLimits { max_bytes: 20_000, max_files: 4 });
        steps.iter().for_each(|step| scene.carry_out(step));
        scene.end();
        for stream in Stream::ALL {
            let expected = &scene.models[stream.index()].expected;
            let kept = read(&scene.path(), &of(stream));
            let kept = without_marker(&kept);
            prop_assert!(!kept.is_empty());
            assert_same("what was kept", kept, &expected[expected.len() - kept.len().min(expected.len())..]);
        }
    }
}
