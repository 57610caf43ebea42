//! What many logs take on disk while all are written at once as fast as possible: never more than their files may.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    Options,
    container::{self, Running},
    note,
    report::{Row, Target, percentile},
    spam::{self, SpamReport},
};

/// Size and number of the files of each log: small, so that they are rotated and compressed all the time.
const MAX_BYTES: u64 = 1 << 20;
const MAX_FILES: u32 = 5;
const LIMIT: u64 = MAX_BYTES * MAX_FILES as u64;

/// A container of which the size of the log is looked at.
struct Container {
    directory: PathBuf,
    running: Running,
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let containers: usize = options.size(100, 4);
    let mut rows = Vec::new();
    for (text, flags) in [("compressible", &[][..]), ("incompressible", &["--noise".to_owned()])] {
        note(&format!("disk: {containers} containers at once, {text} lines"));
        let bytes: u64 = options.size(60_000_000, 20_000_000);
        rows.extend(flood(options, containers, bytes, flags, text)?);
    }
    Ok(rows)
}

fn flood(
    options: &Options,
    containers: usize,
    bytes: u64,
    flags: &[String],
    text: &str,
) -> anyhow::Result<[Row; 4]> {
    let directory = options.directory()?;
    let start = |number: usize| start(&directory.path().join(number.to_string()), bytes, flags);
    let running = (0..containers).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut shares, mut compressed) = (Vec::new(), 0);
    while !running.iter().all(|container| report(container).is_some()) {
        for container in &running {
            if let Some(taken) = taken(&container.directory.join("log")) {
                shares.push(taken.bytes as f64 / LIMIT as f64 * 100.0);
                compressed += u64::from(taken.is_compressing);
            }
        }
    }
    let mut cpu = 0.0;
    for container in &running {
        cpu += container.running.time()?.as_secs_f64();
    }
    let what = |what: &str| format!("{what}, {containers} containers at full speed, {text} lines");
    let most = percentile(&shares, 1.0);
    let row = |text: &str, value: f64, unit: &str| Row::new("disk", what(text), value, unit);
    Ok([
        row("most on disk, of what the limits allow", most, "%").target(Target::AtMost(105.0)),
        row("times that a log was looked at", shares.len() as f64, "times"),
        row("of those, while a file was being compressed", compressed as f64, "times"),
        row("captures, compression included", cpu / (containers as u64 * bytes) as f64 * 1e9, "CPU-s/GB"),
    ])
}

fn start(directory: &Path, bytes: u64, flags: &[String]) -> anyhow::Result<Container> {
    fs::create_dir_all(directory.join("log"))?;
    let lines = bytes / spam::LINE as u64;
    let report = directory.join("report");
    let mut arguments = vec![
        "spam".to_owned(),
        format!("--lines={lines}"),
        "--chunk=8192".to_owned(),
        format!("--report={}", report.display()),
    ];
    arguments.extend_from_slice(flags);
    let running = container::start_rotated(&directory.join("log"), &arguments, MAX_BYTES, MAX_FILES)?;
    Ok(Container { directory: directory.to_owned(), running })
}

fn report(container: &Container) -> Option<SpamReport> {
    serde_json::from_slice(&fs::read(container.directory.join("report")).ok()?).ok()
}

/// What the files of a log take.
struct Taken {
    bytes: u64,
    is_compressing: bool,
}

/// Each file counts once, whatever its names. `None` when the log was rotated while it was looked at: then the sum is of
/// files that were never there together.
fn taken(directory: &Path) -> Option<Taken> {
    let before = list(directory).ok()?;
    let after = list(directory).ok()?;
    let is_same = before.len() == after.len() && before.keys().all(|inode| after.contains_key(inode));
    is_same.then(|| Taken {
        bytes: before.values().map(|(_, bytes)| bytes).sum(),
        is_compressing: before.values().any(|(name, _)| name.ends_with(".tmp")),
    })
}

/// Name and size of each file by its number.
fn list(directory: &Path) -> anyhow::Result<HashMap<u64, (String, u64)>> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            let name = entry.file_name().into_string().ok().context("a name that is not text")?;
            files.insert(metadata.ino(), (name, metadata.len()));
        }
    }
    Ok(files)
}
