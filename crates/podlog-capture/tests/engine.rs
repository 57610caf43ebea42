//! The whole way from a program to readers, while everything that can be killed is killed: every byte of each stream, once and
//! in order.

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Scene, read_replies};
use podlog_container::control::{Reply, Request};
use podlog_driver::{LogReader, LogSource, MAX_CONTENT, ReadState};
use podlog_line::{Selection, Stream, Streams};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// Of each stream.
const BYTES: usize = 24 << 20;
/// The program prints one when it is told which, after one more kill: so there are as many on any machine.
const PIECES: usize = 60;
/// Prints the pieces of both streams at the same time.
const PRINTER: &str = "print() { while read piece && [ $piece != end ]; do cat $1.$piece; done < $1; }
    print stderr >&2 & print stdout; wait";

/// Numbers that look random, the same ones for each seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }

    /// Length of a line: short ones, some about as long as a record may be, and some of up to 1 MiB.
    fn length(&mut self) -> usize {
        match self.below(1000) {
            0..950 => self.below(300),
            950..980 => MAX_CONTENT - 2 + self.below(5),
            980..998 => self.below(100_000),
            _ => self.below((1 << 20) + 1),
        }
    }

    /// Lines of any bytes, each with its number.
    fn lines(&mut self, bytes: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes + (2 << 20));
        let mut number = 0_usize;
        while text.len() < bytes {
            let begin = text.len();
            let length = self.length();
            write!(text, "{number} ").expect("a vector takes everything");
            let any = (0..=u8::MAX).filter(|byte| *byte != b'\n').cycle().skip(number % 255);
            text.extend(any.take(length));
            text.truncate(begin + length);
            text.push(b'\n');
            number += 1;
        }
        text
    }
}

/// What a program prints to a stream: files of random length below `directory`, and all of them in one. Beside them is the pipe in
/// which it is told what to print.
fn make_pieces(directory: &Path, stream: Stream, random: &mut Random) -> Vec<u8> {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, directory.join(stream.as_str()), FileType::Fifo, mode, 0).expect("a pipe");
    let text = random.lines(BYTES);
    let mut rest = &text[..];
    for number in 0..PIECES {
        let is_last = number + 1 == PIECES;
        let length = if is_last { rest.len() } else { random.below(2 * BYTES / PIECES).min(rest.len()) };
        let (piece, after) = rest.split_at(length);
        fs::write(directory.join(format!("{stream}.{number:03}")), piece).expect("write a piece");
        rest = after;
    }
    text
}

/// What has been done to a capture.
#[derive(Debug, Default)]
struct Deeds {
    copiers: usize,
    monitors: usize,
    renames: usize,
    resumes: usize,
}

/// A container whose capture has a hard life.
struct Storm {
    scene: Scene,
    /// Whoever it is by now.
    monitor: i32,
    /// The last copier that was killed.
    killed: i32,
    random: Random,
    deeds: Deeds,
    /// By what its name says, the last rotation by somebody else.
    renamed: jiff::Timestamp,
    /// Where the program is told what to print, and how many pieces of each stream it was told.
    orders: [File; 2],
    told: usize,
}

impl Storm {
    /// Lets the program print on when somebody has been killed since its last pieces.
    fn let_print(&mut self) {
        if self.told > PIECES || self.deeds.copiers + self.deeds.monitors < self.told {
            return;
        }
        let order = if self.told == PIECES { "end\n".to_owned() } else { format!("{:03}\n", self.told) };
        for pipe in &mut self.orders {
            pipe.write_all(order.as_bytes()).expect("a pipe with room");
        }
        self.told += 1;
    }

    /// Kills one of the two processes when both are there; both at once are the end of a container.
    fn kill_one(&mut self) {
        let pair = self.scene.processes(self.monitor);
        // A copier that was killed is there until its monitor has looked.
        let Some((_, copier)) = pair.filter(|(_, copier)| *copier != self.killed) else { return };
        if self.random.below(3) == 0 {
            kill(self.monitor);
            self.monitor = copier;
            self.deeds.monitors += 1;
        } else {
            kill(copier);
            self.killed = copier;
            self.deeds.copiers += 1;
        }
    }

    /// Rotates as a kubelet does.
    fn rename(&mut self) {
        let log = &self.scene.process.log.path;
        // Names of rotated files are a second apart.
        self.renamed = jiff::Timestamp::now().max(self.renamed + jiff::SignedDuration::from_secs(1));
        let name = self.renamed.strftime("%Y%m%d-%H%M%S");
        fs::rename(log, format!("{}.{name}", log.display())).expect("rename");
        self.reopen();
        self.deeds.renames += 1;
    }

    fn reopen(&self) {
        common::eventually("a new file", || {
            if self.scene.dir.exit().expect("read exit").is_some() {
                return Some(());
            }
            // Nobody answers while one process takes the place of the other.
            let mut socket = self.scene.dir.connect_control().ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            writeln!(socket, "{}", Request::Reopen).ok()?;
            let answer = read_replies(&socket, 1).pop();
            (answer == Some(Reply::Ok(String::new()))).then_some(())
        });
    }
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).expect("pid"), Signal::KILL);
}

/// Somebody who follows a stream, goes and comes back.
struct Follower {
    log: PathBuf,
    stream: Stream,
    reader: LogReader,
    out: Vec<u8>,
}

impl Follower {
    fn new(log: &Path, stream: Stream) -> Follower {
        let reader = Follower::open(log, stream, None);
        Follower { log: log.to_owned(), stream, reader, out: Vec::new() }
    }

    fn open(log: &Path, stream: Stream, cursor: Option<&str>) -> LogReader {
        let after = cursor.map(|cursor| cursor.parse().expect("a cursor"));
        let selection =
            Selection { follow: true, streams: Streams::from(stream), after, ..Selection::default() };
        LogSource::open(log).and_then(|source| source.read(&selection)).expect("a log")
    }

    fn catch_up(&mut self) {
        while self.reader.read_chunk(&mut self.out).expect("a log") == ReadState::More {}
    }

    /// Stops wherever it is, and goes on from there by what its cursor says.
    fn resume(&mut self) {
        let cursor = self.reader.cursor().map(|cursor| cursor.to_string());
        self.reader = Follower::open(&self.log, self.stream, cursor.as_deref());
    }

    fn end(mut self) -> Vec<u8> {
        // The first look may have seen a rotation, the next one goes on behind it.
        (0..3).for_each(|_| self.catch_up());
        self.reader.finish(&mut self.out).expect("a log");
        self.out
    }
}

/// Runs until the container has ended; every so often something happens to capture, or to a follower.
fn rage(storm: &mut Storm, followers: &mut [Follower; 2], renames: bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while storm.scene.dir.exit().expect("read exit").is_none() {
        assert!(Instant::now() < deadline, "the container does not end: {:?}", storm.deeds);
        storm.let_print();
        match storm.random.below(10) {
            0..3 => storm.kill_one(),
            3 if renames => storm.rename(),
            4 => {
                let chosen = storm.random.below(2);
                followers[chosen].resume();
                storm.deeds.resumes += 1;
            }
            _ => {
                let chosen = storm.random.below(2);
                // One chunk and no more: the next thing happens in the middle of something.
                let follower = &mut followers[chosen];
                follower.reader.read_chunk(&mut follower.out).expect("a log");
            }
        }
        std::thread::sleep(Duration::from_micros(storm.random.below(8000) as u64));
    }
}

fn check(what: &str, actual: &[u8], expected: &[u8]) {
    if actual != expected {
        let at = actual.iter().zip(expected).take_while(|(left, right)| left == right).count();
        let near =
            |text: &[u8]| text[at.min(text.len())..(at + 60).min(text.len())].escape_ascii().to_string();
        let (left, right) = (near(actual), near(expected));
        panic!(
            "{what}: {} bytes instead of {}, different from {at} on: {left} instead of {right}",
            actual.len(),
            expected.len()
        );
    }
}

/// A storm over a log of files of that size.
fn check_storm(seed: u64, max_bytes: u64, renames: bool) {
    let mut random = Random(seed);
    let scene = Scene::script(PRINTER);
    let directory = scene.temp.path().to_owned();
    let texts = Stream::ALL.map(|stream| make_pieces(&directory, stream, &mut random));
    let scene = scene.with(|process| {
        process.cwd = Some(directory.clone());
        process.log.max_bytes = max_bytes;
        process.log.max_files = 100_000;
    });
    scene.start();
    let log = scene.process.log.path.clone();
    let mut followers = Stream::ALL.map(|stream| Follower::new(&log, stream));
    let monitor = scene.capture_pid().cast_signed();
    // Open for reading too, nobody waits for the other side.
    let pipe = |stream: Stream| File::options().read(true).write(true).open(directory.join(stream.as_str()));
    let mut storm = Storm {
        orders: Stream::ALL.map(|stream| pipe(stream).expect("a pipe")),
        told: 0,
        scene,
        monitor,
        killed: 0,
        random,
        deeds: Deeds::default(),
        renamed: jiff::Timestamp::UNIX_EPOCH,
    };
    rage(&mut storm, &mut followers, renames);
    let deeds = &storm.deeds;
    assert!(deeds.copiers > 5 && deeds.monitors > 2 && deeds.resumes > 5, "not much of a storm: {deeds:?}");
    assert_eq!(renames, deeds.renames > 0, "{deeds:?}");
    assert_eq!(storm.scene.exit().lost_bytes, 0);
    for (follower, expected) in followers.into_iter().zip(&texts) {
        let stream = follower.stream;
        let whole = Follower::new(&log, stream).end();
        check(&format!("seed {seed}: {stream} read at the end"), &whole, expected);
        check(&format!("seed {seed}: {stream} as followed"), &follower.end(), expected);
    }
}

#[test]
fn every_byte_survives_kills_rotation_and_compression() {
    check_storm(0x9e37_79b9_7f4a_7c15, 200_000, false);
    check_storm(0xbf58_476d_1ce4_e5b9, 2 << 20, false);
}

#[test]
fn every_byte_survives_kills_and_a_rotating_kubelet() {
    check_storm(0x94d0_49bb_1331_11eb, u64::MAX, true);
}
