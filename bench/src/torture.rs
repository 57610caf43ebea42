//! Numbered lines at full speed, rotation every few MiB, readers that are too slow and are killed in turn: nothing may be
//! missing without a word, and nothing may come twice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::Context;
use podlog_driver::{LogSource, ReadState};
use podlog_line::{Gap, Selection};
use serde::{Deserialize, Serialize};

use crate::{
    Options, container, note,
    report::{Row, Target},
    spam,
};

const READERS: usize = 3;
/// Between two kills.
const INTERVAL: Duration = Duration::from_millis(300);
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
        let mut kills = 0;
        while !readers.iter().all(Reader::is_done) {
            std::thread::sleep(INTERVAL);
            let next = kills % READERS;
            readers[next].kill_and_start(&running.log)?;
            kills += 1;
        }
        let seen: Vec<Progress> = readers.iter().map(Reader::progress).collect();
        note(&format!("torture: {lines} lines, {READERS} readers, {kills} kills: {seen:?}"));
        let sum = |of: fn(&Progress) -> u64| seen.iter().map(of).sum::<u64>() as f64;
        for progress in &seen {
            anyhow::ensure!(progress.next == lines, "line {} of {lines} was the last", progress.next);
        }
        anyhow::ensure!(
            sum(|seen| seen.undeclared + seen.twice) == 0.0,
            "lines are missing or came twice: {seen:?}"
        );
        let row = |what: &str, value| Row::new("torture", what, value, "lines");
        Ok(vec![
            row("printed", lines as f64),
            row("missing without a word", sum(|seen| seen.undeclared)).target(Target::AtMost(0.0)),
            row("twice", sum(|seen| seen.twice)).target(Target::AtMost(0.0)),
            row("declared as missing by markers", sum(|seen| seen.declared)),
            Row::new("torture", "readers killed", kills as f64, "times"),
        ])
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
    /// A marker stood before it.
    after_marker: bool,
    undeclared: u64,
    declared: u64,
    twice: u64,
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
        if Gap::parse_content(line.as_bytes()).is_some() {
            self.after_marker = true;
            return Ok(());
        }
        if line.starts_with(spam::LAST) {
            self.is_done = true;
            return Ok(());
        }
        let number: u64 = line.split(' ').next().unwrap_or_default().parse().context(line.to_owned())?;
        let missing = number.saturating_sub(self.next);
        if self.after_marker {
            self.declared += missing
        } else {
            self.undeclared += missing
        }
        self.twice += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
        self.after_marker = false;
        Ok(())
    }
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
