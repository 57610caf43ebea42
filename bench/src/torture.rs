//! Numbered lines at full speed, rotation every few MiB, readers that are too slow, and everybody but the program killed in
//! turn: nothing may be missing without a word, nothing may come twice, and what markers say must be true.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::Context;
use podlog_driver::{LogSource, ReadState};
use podlog_line::{Gap, GapReason, Selection};
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    container::{self, Pair, Running},
    note,
    report::{Row, Target},
    spam,
};

const READERS: usize = 3;
/// Between two rounds of kills: a reader, and a process of capture.
const INTERVAL: Duration = Duration::from_millis(300);
const QUICK_INTERVAL: Duration = Duration::from_millis(50);
/// What a line takes in a file of the log at most: its time with nine digits of a second, ` stdout F `, and itself.
const RECORD: u64 = 30 + 10 + spam::LINE as u64;
/// Times end without zeros, each line of a chunk in the same one: a byte less for one chunk in ten, two for one in a hundred.
/// By so much more may a few chunks be shorter.
const SHORTER: u64 = 16 << 10;
/// Size and number of the log's files: what a slow reader has not read soon is deleted.
const MAX_BYTES: u64 = 4 << 20;
const MAX_FILES: u32 = 20;

/// Runs until every reader has seen the last line, and fails if one of them missed or repeated a line.
#[derive(clap::Args)]
pub(crate) struct Torture {
    /// How many lines; 10^8 without, 10^5 with --quick.
    #[arg(long)]
    lines: Option<u64>,
}

impl Torture {
    pub(crate) fn measure(&self, options: &Options) -> anyhow::Result<Vec<Row>> {
        let lines = self.lines.unwrap_or(options.size(100_000_000, 100_000));
        let directory = options.directory()?;
        let arguments =
            ["spam".to_owned(), format!("--lines={lines}"), "--chunk=65536".into(), "--numbered".into()];
        let running = container::start_rotated(directory.path(), &arguments, MAX_BYTES, MAX_FILES)?;
        let mut readers = (0..READERS)
            .map(|number| Reader::start(&running.log, directory.path().join(format!("reader-{number}"))))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut kills = Kills::default();
        while !readers.iter().all(Reader::is_done) {
            std::thread::sleep(options.size(INTERVAL, QUICK_INTERVAL));
            readers[kills.readers % READERS].kill_and_start(&running.log)?;
            kills.readers += 1;
            kills.capture(&running);
        }
        let seen: Vec<Progress> = readers.iter().map(Reader::progress).collect();
        note(&format!("torture: {lines} lines, {READERS} readers, {kills:?}: {seen:?}"));
        for progress in &seen {
            anyhow::ensure!(progress.next == lines, "line {} of {lines} was the last", progress.next);
        }
        let rows = rows(lines, &kills, &seen);
        anyhow::ensure!(
            rows.iter().all(|row| row.verdict() != Some(false)),
            "lines are unaccounted for: {seen:?}"
        );
        Ok(rows)
    }
}

fn rows(lines: u64, kills: &Kills, seen: &[Progress]) -> Vec<Row> {
    let row = |what: &str, value: f64, unit: &str| Row::new("torture", what, value, unit);
    let sum = |of: fn(&Progress) -> u64| seen.iter().map(of).sum::<u64>() as f64;
    let none = Target::AtMost(0.0);
    vec![
        row("printed", lines as f64, "lines"),
        row("missing without a word", sum(|seen| seen.undeclared), "lines").target(none),
        row("twice", sum(|seen| seen.twice), "lines").target(none),
        row("declared as missing by markers", sum(|seen| seen.declared), "lines"),
        row("not what the markers' bytes say", sum(|seen| seen.misstated), "markers").target(none),
        row("for another reason than retention", sum(|seen| seen.not_retained), "markers").target(none),
        row("readers killed", kills.readers as f64, "times"),
        row("copiers killed", kills.copiers as f64, "times"),
        row("monitors killed", kills.monitors as f64, "times"),
    ]
}

/// What has been killed, and who is next.
#[derive(Debug, Default)]
struct Kills {
    readers: usize,
    copiers: usize,
    monitors: usize,
}

impl Kills {
    /// Kills the copier or the monitor in turn; nobody while one of them takes the other's place: both at once are the
    /// end of a container.
    fn capture(&mut self, running: &Running) {
        let Some(Pair { monitor, copier }) = running.pair() else { return };
        let (victim, count) = if self.copiers <= self.monitors {
            (copier, &mut self.copiers)
        } else {
            (monitor, &mut self.monitors)
        };
        container::kill(Some(victim));
        *count += 1;
    }
}

/// A reader in a process of its own.
struct Reader {
    process: Child,
    state: PathBuf,
}

impl Reader {
    fn start(log: &Path, state: PathBuf) -> anyhow::Result<Reader> {
        let mut command = Command::new(std::env::current_exe()?);
        let process =
            command.args(["torture-reader", "--log"]).arg(log).arg("--state").arg(&state).spawn()?;
        Ok(Reader { process, state })
    }

    fn progress(&self) -> Progress {
        Progress::load(&self.state)
    }

    fn is_done(&self) -> bool {
        self.progress().is_done
    }

    fn kill_and_start(&mut self, log: &Path) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.process.kill();
        self.process.wait()?;
        *self = Reader::start(log, self.state.clone())?;
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a reader has seen up to its cursor.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    cursor: Option<String>,
    /// The line that the cursor stands in, so far.
    rest: String,
    /// The number that should come next.
    next: u64,
    /// Bytes of log files that the markers before it say are missing, if there are any markers.
    marked: Option<u64>,
    undeclared: u64,
    declared: u64,
    twice: u64,
    /// How often the bytes of markers were not those of the lines that are missing.
    misstated: u64,
    /// Markers of capture's own: nothing was lost on the way to the log.
    not_retained: u64,
    is_done: bool,
}

impl Progress {
    fn load(path: &Path) -> Progress {
        let text = fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        Ok(fs::rename(temporary, path)?)
    }

    fn take(&mut self, out: &[u8]) -> anyhow::Result<()> {
        let mut text = std::mem::take(&mut self.rest);
        text.push_str(std::str::from_utf8(out).context("lines of the program are text")?);
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => self.line(line)?,
                None => line.clone_into(&mut self.rest),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(gap) = Gap::parse_content(line.as_bytes()) {
            self.marker(&gap);
            return Ok(());
        }
        if line.starts_with(spam::LAST) {
            self.is_done = true;
            return Ok(());
        }
        let number: u64 = line.split(' ').next().unwrap_or_default().parse().context(line.to_owned())?;
        let missing = number.saturating_sub(self.next);
        match self.marked.take() {
            Some(bytes) => {
                self.declared += missing;
                self.misstated += u64::from(!takes(missing, bytes));
            }
            None => self.undeclared += missing,
        }
        self.twice += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
        Ok(())
    }

    fn marker(&mut self, gap: &Gap) {
        self.not_retained += u64::from(gap.reason != GapReason::Retention);
        // Of the files of this log it is known how much stood before them: a marker without bytes says nothing true.
        *self.marked.get_or_insert(0) += gap.bytes.unwrap_or(0);
    }
}

/// Whether so many lines may take so many bytes in files of the log.
fn takes(lines: u64, bytes: u64) -> bool {
    (lines * (RECORD - 1)).saturating_sub(SHORTER) <= bytes && bytes <= lines * RECORD
}

/// Follows a log at half speed, from where it stopped when it was killed.
#[derive(clap::Args)]
pub(crate) struct TortureReader {
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    state: PathBuf,
}

impl TortureReader {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut progress = Progress::load(&self.state);
        let after = progress.cursor.as_deref().map(str::parse).transpose()?;
        let selection = Selection { follow: true, after, ..Selection::default() };
        let mut reader = LogSource::open(&self.log)?.read(&selection)?;
        let mut out = Vec::new();
        while !progress.is_done {
            let begin = std::time::Instant::now();
            let state = reader.read_chunk(&mut out)?;
            progress.take(&out)?;
            out.clear();
            progress.cursor = reader.cursor().map(|cursor| cursor.to_string());
            progress.save(&self.state)?;
            let pause = if state == ReadState::CaughtUp { Duration::from_millis(2) } else { begin.elapsed() };
            std::thread::sleep(pause);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn markers_are_held_to_what_lines_take() {
        assert!(takes(0, 0) && takes(30_000, 30_000 * 140) && takes(30_000, 30_000 * 140 - 3_300));
        assert!(!takes(0, 1) && !takes(30_000, 30_001 * 140) && !takes(31_000, 30_000 * 140));
    }
}
