//! Reading a log that is at rest, from the page cache.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
use podlog_line::{LineMatch, PatternSyntax, Patterns, Selection};

use crate::{
    Options, logs, note,
    report::{Row, Target, median},
    usage,
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = throughput(options)?;
    rows.extend(ends_of_a_large_file(options)?);
    rows.extend(compressed(options)?);
    Ok(rows)
}

/// What reads a whole file, and how fast it should be in GB of log file per CPU second.
struct Whole {
    what: &'static str,
    selection: Selection,
    target: f64,
}

fn whole(end: podlog_line::Timestamp) -> anyhow::Result<Vec<Whole>> {
    let pattern = |text: &str, syntax| {
        LineMatch::new(Patterns { include: vec![text.to_owned()], exclude: Vec::new(), syntax })
    };
    let default = Selection::default;
    Ok(vec![
        Whole { what: "all", selection: default(), target: 4.0 },
        Whole { what: "timestamps", selection: Selection { timestamps: true, ..default() }, target: 2.5 },
        Whole {
            what: "since the beginning, until the end",
            selection: Selection { since: Some(logs::BEGIN), until: Some(end), ..default() },
            target: 2.5,
        },
        Whole {
            what: "literal match",
            selection: Selection {
                line_match: Some(pattern(logs::RARE, PatternSyntax::Fixed)?),
                ..default()
            },
            target: 4.0,
        },
        Whole {
            what: "regex match",
            selection: Selection {
                line_match: Some(pattern(logs::RARE_EXPRESSION, PatternSyntax::Regex)?),
                ..default()
            },
            target: 2.0,
        },
        Whole {
            what: "regex that is in every time",
            selection: Selection {
                line_match: Some(pattern(logs::RARE_BUT_FOR_TIMES, PatternSyntax::Regex)?),
                ..default()
            },
            target: 2.0,
        },
    ])
}

fn throughput(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let path = directory.path().join("0.log");
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 2 };
    let made = logs::make(&path, options.size(GIB, 16 * MIB), limits)?;
    let bytes = std::fs::metadata(&path)?.len() as f64;
    let rate = |time: Duration| bytes / 1e9 / time.as_secs_f64();
    let references: [(&str, &[&str]); 2] = [("cat", &["cat"]), ("wc -l", &["wc", "-l"])];
    let mut rows = Vec::new();
    for case in whole(made.end)? {
        note(&format!("read: {}", case.what));
        let (mut ours, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..options.rounds() {
            ours.push(rate(read(&path, &case.selection)?.cpu));
            for (values, (_, words)) in theirs.iter_mut().zip(references) {
                values.push(rate(usage::time_of(Command::new(words[0]).args(&words[1..]).arg(&path))?));
            }
        }
        for (values, (name, _)) in theirs.iter().zip(references) {
            let row = Row::new("read", format!("{}, 100-byte lines", case.what), median(&ours), "GB/CPU-s");
            rows.push(row.beside(name, &ours, values).target(Target::AtLeast(case.target)));
        }
    }
    Ok(rows)
}

/// What a query cost.
struct Cost {
    cpu: Duration,
    wall: Duration,
    read: u64,
    output: u64,
}

fn read(path: &Path, selection: &Selection) -> anyhow::Result<Cost> {
    let (cpu, wall, before) = (usage::thread_time(), Instant::now(), usage::bytes_read()?);
    let mut reader = LogSource::open(path)?.read(selection)?;
    let mut out = Vec::with_capacity(512 * 1024);
    let mut output = 0;
    while reader.read_chunk(&mut out)? == ReadState::More {
        output += out.len() as u64;
        out.clear();
    }
    reader.finish(&mut out)?;
    output += out.len() as u64;
    Ok(Cost {
        cpu: usage::thread_time() - cpu,
        wall: wall.elapsed(),
        read: usage::bytes_read()? - before,
        output,
    })
}

/// The medians of several runs of a query that must have output.
fn query(path: &Path, selection: &Selection, rounds: usize) -> anyhow::Result<(f64, f64)> {
    let (mut milliseconds, mut read_bytes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let cost = read(path, selection)?;
        anyhow::ensure!(cost.output > 0, "the query has found nothing");
        milliseconds.push(cost.wall.as_secs_f64() * 1e3);
        read_bytes.push(cost.read as f64);
    }
    Ok((median(&milliseconds), median(&read_bytes)))
}

fn ends_of_a_large_file(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let path = directory.path().join("0.log");
    let bytes = options.size(10 * GIB, 32 * MIB);
    note(&format!("read: making a file of {} MiB", bytes / MIB));
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 2 };
    let made = logs::make(&path, bytes, limits).context("a large file")?;
    anyhow::ensure!(made.lines > 0, "an empty log");
    let mut rows = Vec::new();
    for (what, selection) in [
        ("tail=10", Selection { tail: Some(10), ..Selection::default() }),
        // One chunk of lines, so that the answer is not what is measured.
        (
            "since near the end, limitBytes=1000",
            Selection { since: Some(made.end), limit_bytes: Some(1000), ..Selection::default() },
        ),
    ] {
        let (milliseconds, read_bytes) = query(&path, &selection, options.rounds())?;
        let what = format!("{what}, {} MiB file", bytes / MIB);
        rows.push(Row::new("read", what.clone(), milliseconds, "ms").target(Target::AtMost(5.0)));
        rows.push(Row::new("read", what, read_bytes / 1024.0, "KiB read").target(Target::AtMost(1024.0)));
    }
    Ok(rows)
}

/// What generations cost that a query does not need: five, three of them compressed, against one.
fn compressed(options: &Options) -> anyhow::Result<Vec<Row>> {
    let directory = options.directory()?;
    let (alone, five) = (directory.path().join("alone/0.log"), directory.path().join("five/0.log"));
    let bytes = options.size(64 * MIB, 8 * MIB);
    logs::make(&alone, bytes, FileLimits { max_bytes: u64::MAX, max_files: 2 })?;
    let limits = FileLimits { max_bytes: bytes, max_files: 5 };
    let made = logs::make(&five, 5 * bytes - bytes / 2, limits)?;
    // The writer is the one who compresses.
    let writer = CriFileSink::open(&five, limits)?;
    wait_for_compression(&five, 3)?;
    drop(writer);
    let mut rows = Vec::new();
    for (what, selection) in [
        ("tail=10", Selection { tail: Some(10), ..Selection::default() }),
        (
            "since the last chunk, limitBytes=1000",
            Selection { since: Some(made.end), limit_bytes: Some(1000), ..Selection::default() },
        ),
    ] {
        let without = match selection.since {
            Some(_) => Selection { since: Some(logs::BEGIN), ..selection.clone() },
            None => selection.clone(),
        };
        let (mut extra, unneeded) = (Vec::new(), 4.0);
        for _ in 0..options.rounds() {
            let one = query(&alone, &without, 1)?.0;
            extra.push((query(&five, &selection, 1)?.0 - one) / unneeded);
        }
        let what = format!("{what}: each generation not needed, 5 with 3 .gz");
        rows.push(Row::new("read", what, median(&extra), "ms").target(Target::AtMost(10.0)));
    }
    Ok(rows)
}

fn wait_for_compression(log: &Path, count: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let directory = log.parent().context("no directory")?;
    loop {
        let names =
            std::fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        if names.filter(|name| name.ends_with(".gz")).count() >= count {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{} is not compressed", directory.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}
