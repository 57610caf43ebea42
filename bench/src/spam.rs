//! The program whose output is captured.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::usage;

/// The last line.
pub(crate) const LAST: &str = "that was all";
/// Noise repeats itself after more lines than a compressor looks back.
const NOISY_LINES: usize = 4096;
/// Every line is so long, line feed included.
pub(crate) const LINE: usize = 100;

/// One of this process's own descriptors. Its name below `/proc/self/fd` would open a pipe anew, as one with a name, to which
/// each write costs more.
fn inherited(number: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

/// Prints lines of 100 bytes, then [`LAST`], reports, and sleeps until it is killed.
#[derive(clap::Args)]
pub(crate) struct Spam {
    /// How many lines.
    #[arg(long)]
    lines: u64,
    /// Bytes of each write(2).
    #[arg(long, default_value_t = LINE)]
    chunk: usize,
    /// Each line begins with its number.
    #[arg(long)]
    numbered: bool,
    /// Lines that cannot be compressed by much.
    #[arg(long)]
    noise: bool,
    /// Lines a second, each with the time of its writing in front; as fast as possible without.
    #[arg(long)]
    rate: Option<u64>,
    /// Where to print: a number that this process has been given. To stdout without.
    #[arg(long)]
    descriptor: Option<i32>,
    /// Where to say how long it took.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// What it says when it has printed everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpamReport {
    /// From the first write(2) to the end of the last.
    pub(crate) seconds: f64,
    /// CPU time it took of its own, also of what the pipe costs its writer.
    pub(crate) cpu_seconds: f64,
}

impl Spam {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let out = match self.descriptor {
            Some(number) => inherited(number)?,
            None => io::stdout().as_fd().try_clone_to_owned()?,
        };
        let begin = Instant::now();
        match self.rate {
            Some(rate) => self.pace(&out, rate)?,
            None if self.numbered => self.count(&out)?,
            None => self.flood(&out)?,
        }
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_seconds = usage::thread_time().as_secs_f64();
        write_all(&out, &padded(LAST))?;
        if let Some(path) = &self.report {
            write_report(path, &SpamReport { seconds, cpu_seconds })?;
        }
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }

    fn flood(&self, out: &OwnedFd) -> io::Result<()> {
        let chunk = self.chunk.max(1);
        // Whole lines, and at least a chunk from wherever in the first of them.
        let lines = (chunk / LINE + 2).max(if self.noise { NOISY_LINES } else { 0 });
        let text = if self.noise { noise(lines) } else { padded(&"x".repeat(LINE)).repeat(lines) };
        let places = ((lines - chunk / LINE - 1) * LINE) as u64;
        let total = self.lines * LINE as u64;
        let mut written = 0;
        while written < total {
            let from = (written % places) as usize;
            let size = chunk.min(usize::try_from(total - written).unwrap_or(usize::MAX));
            written += rustix::io::write(out, &text[from..from + size])? as u64;
        }
        Ok(())
    }

    fn count(&self, out: &OwnedFd) -> io::Result<()> {
        let lines_at_once = (self.chunk / LINE).max(1) as u64;
        let mut number = 0;
        while number < self.lines {
            let end = (number + lines_at_once).min(self.lines);
            let text: Vec<u8> = (number..end).flat_map(|number| padded(&format!("{number} "))).collect();
            write_all(out, &text)?;
            number = end;
        }
        Ok(())
    }

    fn pace(&self, out: &OwnedFd, rate: u64) -> io::Result<()> {
        exact_sleep();
        let begin = Instant::now();
        for number in 0..self.lines {
            let due = begin + Duration::from_nanos(number * 1_000_000_000 / rate.max(1));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            write_all(out, &padded(&format!("{} ", now())))?;
        }
        Ok(())
    }
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> i128 {
    let time = clock_gettime(ClockId::Monotonic);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Lets this thread's sleeps end when they should, instead of 50 µs later.
pub(crate) fn exact_sleep() {
    // A sleep that is too long makes a figure worse, never better.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// So many lines, no two of which have much in common.
fn noise(lines: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut line = || {
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + (state >> 58) as u8)
        };
        padded(&(1..LINE).map(|_| letter()).collect::<String>())
    };
    (0..lines).flat_map(|_| line()).collect()
}

/// A line that begins with `text`.
fn padded(text: &str) -> Vec<u8> {
    let width = LINE - 1;
    format!("{text:x<width$.width$}\n").into_bytes()
}

/// By one call a line, whatever the buffer of stdout would think.
fn write_all(out: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::write(out, bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// It is there whole, or not at all.
fn write_report(path: &Path, report: &SpamReport) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(report)?)?;
    Ok(fs::rename(temporary, path)?)
}
