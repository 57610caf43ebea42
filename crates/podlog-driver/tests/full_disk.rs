//! A disk that is full again and again, in the midst of anything: what is missing is marked where it is missing, and
//! nothing is glued together.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use podlog_driver::{CriFileSink, FileLimits, SinkOptions, SinkStats, WhenFull};
use podlog_line::{Gap, GapReason, LineEnd, RecordParser, Stream, Timestamp};

/// A small file system in memory, where the test may mount one.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(directory.path())
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk { directory });
        }
        #[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
        {
            eprintln!("SKIPPED: this test needs root, to mount a small file system");
        }
        None
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    /// Takes all room but so many bytes, as far as they are not taken already.
    fn leave(&self, bytes: u64) {
        let path = self.directory.path().join("filler");
        let _ = fs::remove_file(&path);
        let free = rustix::fs::statvfs(self.directory.path()).map(|stat| stat.f_bavail * stat.f_bsize);
        let filler = File::create(path).expect("a file");
        let length = free.expect("a file system").saturating_sub(bytes);
        if length > 0 {
            rustix::fs::fallocate(filler, rustix::fs::FallocateFlags::empty(), 0, length).expect("room");
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

/// A number that looks like chance, always the same.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn line(number: u64) -> String {
    let length = if number.is_multiple_of(50) { 40_000 } else { number as usize * 37 % 700 };
    format!("{number} {} {number}\n", "x".repeat(length))
}

/// Writes numbered lines while the room on the disk changes; returns how many for each stream.
fn write_on(disk: &SmallDisk, limits: FileLimits, seed: u64) -> ([u64; 2], SinkStats) {
    let mut sink = CriFileSink::open(disk.log(), limits).expect("a sink");
    let (mut state, mut written) = (seed, [0; 2]);
    for second in 0..4000 {
        let at = Timestamp::from_seconds(1_767_225_600 + second, 0);
        let stream = Stream::ALL[chance(&mut state) as usize % 2];
        let text: String = (0..5).map(|index| line(written[stream.index()] + index)).collect();
        written[stream.index()] += 5;
        let (begin, end) = text.split_at(chance(&mut state) as usize % text.len());
        // That it begins to fail is news, and expected.
        let _ = sink.write(stream, begin.as_bytes(), at);
        if second % 7 == 0 {
            let _ = sink.flush_partial(at);
        }
        if second % 100 == 50 {
            disk.leave(chance(&mut state) % 400_000);
        }
        let _ = sink.write(stream, end.as_bytes(), at);
    }
    disk.leave(u64::MAX);
    sink.flush_partial(Timestamp::from_seconds(1_767_235_600, 0)).expect("room");
    (written, sink.stats())
}

/// The lines of a stream.
fn lines(path: &Path, stream: Stream) -> Vec<String> {
    let content = fs::read(path).expect("a log");
    let mut parser = RecordParser::default();
    let mut text = Vec::new();
    for record in content.strip_suffix(b"\n").expect("whole records").split(|byte| *byte == b'\n') {
        let record = parser.parse(record).expect("a record");
        if record.stream == stream {
            text.extend_from_slice(record.content);
            text.extend((record.end == LineEnd::Full).then_some(b'\n'));
        }
    }
    let text = String::from_utf8(text).expect("text");
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// The lines and bytes that a marker says are missing.
fn missing(line: &str) -> Option<(u64, u64)> {
    let gap = Gap::parse_content(line.trim_end().as_bytes())?;
    assert_eq!(gap.reason, GapReason::WriteFailed);
    Some((gap.lines?, gap.bytes?))
}

/// Every line is whole and in its place, unless a marker stands beside it. Returns what markers say is missing.
fn check(lines: &[String], written: u64) -> (u64, u64) {
    let (mut next, mut total, mut lost) = (0, (0, 0), false);
    for (index, text) in lines.iter().enumerate() {
        let number = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        if let Some((lines, bytes)) = missing(text) {
            total = (total.0 + lines, total.1 + bytes);
            lost = true;
        } else if let Some(number) = number.filter(|number| *text == line(*number)) {
            assert!(number == next || (lost && number > next), "{number} instead of {next}");
            (next, lost) = (number + 1, false);
        } else {
            let is_cut_off = lines.get(index + 1).is_some_and(|next| missing(next).is_some());
            assert!(is_cut_off || lost, "after {next}: {text:.100}");
        }
    }
    assert!(next == written || lost, "{next} of {written}");
    total
}

#[test]
fn what_is_missing_is_marked_where_it_is_missing() {
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 2 };
    for seed in 1..6 {
        let Some(disk) = SmallDisk::mount("24m") else { return };
        let (written, stats) = write_on(&disk, limits, seed);
        let totals = Stream::ALL.map(|stream| check(&lines(&disk.log(), stream), written[stream.index()]));
        assert!(stats.dropped_records > 100, "{stats:?}");
        assert!(totals[0].0 + totals[1].0 > 100, "{totals:?}");
        assert_eq!(totals[0].1 + totals[1].1, stats.dropped_bytes);
    }
}

#[test]
fn a_writer_that_waits_loses_nothing_in_a_hundred_full_disks() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let options = SinkOptions {
        limits: FileLimits { max_bytes: u64::MAX, max_files: 2 },
        when_full: WhenFull::Wait,
        ..SinkOptions::default()
    };
    let mut sink = CriFileSink::open_with(disk.log(), options).expect("a sink");
    let (mut state, mut written) = (7, 0);
    for second in 0..100 {
        let at = Timestamp::from_seconds(1_767_225_600 + second, 0);
        disk.leave(chance(&mut state) % 30_000);
        while !sink.is_stalled() {
            // That it begins to fail is news, and expected.
            let _ = sink.write(Stream::Stdout, line(written).as_bytes(), at);
            written += 1;
        }
        assert!(sink.flush().is_ok() && sink.is_stalled(), "there is still no room");
        disk.leave(20_000_000);
        // What was deleted takes its room until a program that another test is about to start has closed it.
        let deadline = Instant::now() + Duration::from_secs(20);
        while sink.is_stalled() {
            assert!(Instant::now() < deadline, "there is room");
            sink.flush().expect("room");
        }
    }
    assert_eq!((sink.stats().dropped_records, sink.stats().backlog_bytes), (0, 0));
    let expected: Vec<String> = (0..written).map(line).collect();
    assert!(written > 500 && lines(&disk.log(), Stream::Stdout) == expected);
}

#[test]
fn what_could_not_be_compressed_is_compressed_when_there_is_room() {
    const FILE: u64 = 1_000_000;
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let is_compressed = || {
        let names = fs::read_dir(disk.directory.path()).expect("a directory");
        names.filter_map(Result::ok).any(|name| name.path().extension().is_some_and(|end| end == "gz"))
    };
    disk.leave(3 * FILE + FILE / 5);
    let mut sink =
        CriFileSink::open(disk.log(), FileLimits { max_bytes: FILE, max_files: 5 }).expect("a sink");
    let (mut state, at) = (1, Timestamp::from_seconds(1_767_225_600, 0));
    while sink.stats().bytes_written < 3 * FILE - FILE / 10 {
        let noise: String = (0..20).map(|_| format!("{:x}", chance(&mut state))).collect();
        sink.write(Stream::Stdout, format!("{noise}\n").as_bytes(), at).expect("room");
    }
    // Much longer than it takes to find that there is no room for half a file.
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(!is_compressed() && sink.stats().rotations == 2);
    disk.leave(20 * FILE);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_compressed() {
        assert!(std::time::Instant::now() < deadline, "nothing is compressed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(sink.stats().rotations, 2, "nothing was written meanwhile");
}
