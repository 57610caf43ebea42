//! A program that prints numbered lines, and what its log must be.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use podlog_line::Stream;
use rustix::process::{Pid, Signal, kill_process};

use super::{Scene, eventually};

/// Numbered lines of both streams as fast as `awk` can, of 0 to 300 bytes, some of 40,000, with pauses so that there is time
/// for some kills on any machine.
pub(crate) const PRINTER: &str = r#"exec awk -v n=$LINES 'BEGIN {
    filler = "x"; while (length(filler) < 40000) filler = filler filler
    for (i = 1; i <= n; i++) {
        size = i % 1000 == 0 ? 40000 : (i * 7919) % 300
        printf "%d %s\n", i, substr(filler, 1, size)
        if (i % 3 == 0) printf "%d %s\n", i, substr(filler, 1, size) > "/dev/stderr"
        if (i % 2000 == 0) { fflush(); if (system("sleep 0.05; [ -e \"$STOP\" ]") == 0) break }
    }
    if (n == 1e9) print i > "$STOP"
}'"#;

/// What line `number` of a stream is.
pub(crate) fn line(number: usize) -> String {
    let size = if number.is_multiple_of(1000) { 40_000 } else { (number * 7919) % 300 };
    format!("{number} {}", "x".repeat(size))
}

/// A program that prints them without an end, until it is told to stop.
pub(crate) struct Endless(tempfile::TempDir);

impl Endless {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn scene(&self) -> Scene {
        let script = PRINTER.replace("$LINES", "1e9").replace("$STOP", &self.file().display().to_string());
        Scene::script(&script)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("stop")
    }

    /// Tells it to stop, and returns how many lines it has printed.
    pub(crate) fn stop(&self) -> usize {
        self.tell_to_stop();
        self.lines()
    }

    pub(crate) fn tell_to_stop(&self) {
        fs::write(self.file(), "").expect("write");
    }

    /// How many lines it has printed, when it has stopped.
    pub(crate) fn lines(&self) -> usize {
        eventually("the number of lines", || fs::read_to_string(self.file()).ok()?.trim().parse().ok())
    }
}

pub(crate) fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).expect("pid"), Signal::KILL);
}

/// Every line of both streams once and in order, in all files of the log, and no gap.
pub(crate) fn check(scene: &Scene, lines: usize) {
    let log = scene.all_files();
    for (stream, step) in [(Stream::Stdout, 1), (Stream::Stderr, 3)] {
        let output = scene.output_of(&log, stream.as_str());
        let mut found = output.split(|byte| *byte == b'\n');
        for number in (1..=lines).filter(|number| number % step == 0) {
            let expected = line(number);
            let found = found.next().map(|line| String::from_utf8_lossy(line).into_owned());
            assert!(
                found.as_deref() == Some(&*expected),
                "{stream} line {number} is {:.80} and not {expected:.80}",
                found.unwrap_or_default()
            );
        }
        assert_eq!(found.map(<[u8]>::len).collect::<Vec<_>>(), [0], "{stream} has more lines");
    }
}

/// Numbers that look random, the same ones each time.
pub(crate) fn pauses(max_microseconds: u64) -> impl FnMut() -> Duration {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_micros(state % max_microseconds)
    }
}
