//! How long a line takes: from its write(2) to the file, and to a follower.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use podlog_driver::{LogSource, LogWatcher, ReadState};
use podlog_line::Selection;

use crate::{
    Options,
    container::{Logger, Running, eventually},
    note,
    report::{Row, Target, percentile},
    spam,
};

/// Lines a second when the file is looked at, and when somebody follows.
const TO_FILE: u64 = 1_000;
const TO_FOLLOWER: u64 = 10_000;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_micros(2);

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = to_file(options)?;
    rows.extend(to_follower(options)?);
    Ok(rows)
}

fn to_file(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for reference in [Logger::Conmon, Logger::Cat] {
        if !reference.is_installed() {
            note(&format!("SKIPPED: {} is not installed, or not for this user", reference.name()));
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds() {
            ours.push(watch_file(options, Logger::Podlog)?);
            theirs.push(watch_file(options, reference)?);
        }
        for (share, target) in [(0.5, 20.0), (0.99, 70.0)] {
            let at = |runs: &[Vec<f64>]| runs.iter().map(|run| percentile(run, share)).collect::<Vec<_>>();
            let what = format!("write to file, p{:.0}, {TO_FILE} lines/s", share * 100.0);
            let row = Row::new("latency", what, crate::report::median(&at(&ours)), "µs");
            rows.push(row.beside(reference.name(), &at(&ours), &at(&theirs)).target(Target::AtMost(target)));
        }
    }
    Ok(rows)
}

fn start(options: &Options, logger: Logger, directory: &Path, rate: u64) -> anyhow::Result<Running> {
    let lines = rate * options.size(2, 1) / options.size(1, 5);
    logger.start(directory, &["spam".to_owned(), format!("--lines={lines}"), format!("--rate={rate}")])
}

/// Microseconds of each line until it can be read from the file.
fn watch_file(options: &Options, logger: Logger) -> anyhow::Result<Vec<f64>> {
    spam::exact_sleep();
    let directory = options.directory()?;
    let running = start(options, logger, directory.path(), TO_FILE)?;
    let file = eventually("the log", || File::open(&running.log).ok())?;
    let (mut arrivals, mut offset) = (Arrivals::default(), 0);
    let mut buffer = vec![0; 64 * 1024];
    while !arrivals.is_over {
        let count = file.read_at(&mut buffer, offset)?;
        offset += count as u64;
        match count {
            0 => std::thread::sleep(LOOK),
            _ => arrivals.take(&buffer[..count])?,
        }
    }
    Ok(arrivals.microseconds)
}

/// What has arrived of the lines of [`spam`], whatever stands in front of each.
#[derive(Default)]
pub(crate) struct Arrivals {
    rest: Vec<u8>,
    pub(crate) microseconds: Vec<f64>,
    pub(crate) is_over: bool,
}

impl Arrivals {
    pub(crate) fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let now = spam::now();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line);
            let content = &text[text.trim_end().len().saturating_sub(spam::LINE - 1)..];
            if content.starts_with(spam::LAST) {
                self.is_over = true;
                return Ok(());
            }
            let (stamp, _) = content.split_once(' ').context("a line without a time")?;
            let written: i128 = stamp.parse().with_context(|| format!("{stamp:?} is no time"))?;
            self.microseconds.push((now - written) as f64 / 1e3);
        }
        Ok(())
    }
}

fn to_follower(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut runs = Vec::new();
    for _ in 0..options.rounds() {
        let directory = options.directory()?;
        let running = start(options, Logger::Podlog, directory.path(), TO_FOLLOWER)?;
        runs.push(follow(&running.log)?);
    }
    let rows = [(0.5, None), (0.99, Some(Target::AtMost(10_000.0)))].map(|(share, target)| {
        let values: Vec<f64> = runs.iter().map(|run| percentile(run, share)).collect();
        let what = format!("write to follower, p{:.0}, {TO_FOLLOWER} lines/s", share * 100.0);
        let mut row = Row::new("latency", what, crate::report::median(&values), "µs");
        row.target = target;
        row
    });
    Ok(rows.into())
}

/// Microseconds of each line until a follower has it, as the log server follows.
fn follow(path: &Path) -> anyhow::Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watcher = Arc::new(LogWatcher::new()?);
    let mut changes = watcher.watch(path);
    let selection = Selection { follow: true, ..Selection::default() };
    let mut reader = LogSource::open(path)?.read(&selection)?;
    let mut arrivals = Arrivals::default();
    let mut out = Vec::new();
    while !arrivals.is_over {
        let state = reader.read_chunk(&mut out)?;
        arrivals.take(&out)?;
        out.clear();
        if state == ReadState::CaughtUp {
            runtime.block_on(changes.changed());
        }
    }
    Ok(arrivals.microseconds)
}
