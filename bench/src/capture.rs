//! Draining a program into its log: throughput and CPU time, in turn with conmon, containerd and cat.

use std::fs;

use crate::{
    Options,
    container::{Logger, eventually},
    note,
    report::{Row, Target, median},
    spam::{self, SpamReport},
};

/// Bytes of each write(2) of the program.
const WRITES: [usize; 2] = [64 * 1024, spam::LINE];

/// What one run has shown.
struct Run {
    megabytes_per_second: f64,
    cpu_seconds_per_gigabyte: f64,
    /// What the program itself spends.
    program_cpu_seconds_per_gigabyte: f64,
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut others = vec![Logger::Conmon, Logger::Containerd, Logger::Cat];
    others.retain(|logger| {
        let is_installed = logger.is_installed();
        if !is_installed {
            note(&format!("SKIPPED: {} is not installed, or not for this user", logger.name()));
        }
        is_installed
    });
    let mut rows = Vec::new();
    for write in WRITES {
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Run>> = others.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds() {
            note(&format!("capture: writes of {write} bytes, round {}", round + 1));
            ours.push(run(options, Logger::Podlog, write)?);
            for (runs, logger) in theirs.iter_mut().zip(&others) {
                runs.push(run(options, *logger, write)?);
            }
        }
        for (runs, logger) in theirs.iter().zip(&others) {
            rows.extend(compare(write, &ours, runs, *logger));
        }
    }
    Ok(rows)
}

fn compare(write: usize, ours: &[Run], theirs: &[Run], logger: Logger) -> [Row; 3] {
    let what = format!("writes of {write} bytes, 100-byte lines");
    let rates = |runs: &[Run]| runs.iter().map(|run| run.megabytes_per_second).collect::<Vec<_>>();
    let costs = |runs: &[Run]| runs.iter().map(|run| run.cpu_seconds_per_gigabyte).collect::<Vec<_>>();
    let programs =
        |runs: &[Run]| runs.iter().map(|run| run.program_cpu_seconds_per_gigabyte).collect::<Vec<_>>();
    let program =
        Row::new("capture", format!("the program's own: {what}"), median(&programs(ours)), "CPU-s/GB");
    let program = program.beside(logger.name(), &programs(ours), &programs(theirs));
    let rate = Row::new("capture", &what, median(&rates(ours)), "MB/s");
    let rate = rate.beside(logger.name(), &rates(ours), &rates(theirs));
    let cost = Row::new("capture", &what, median(&costs(ours)), "CPU-s/GB");
    let cost = cost.beside(logger.name(), &costs(ours), &costs(theirs));
    match logger {
        Logger::Conmon => [rate.target(Target::RatioAtLeast(1.5)), cost.target(Target::AtMost(1.4)), program],
        _ => [rate, cost, program],
    }
}

/// One program's output, from the first write to the end of the log. What was not read when the program had written
/// everything fits a pipe, and does not count.
fn run(options: &Options, logger: Logger, write: usize) -> anyhow::Result<Run> {
    let payload: u64 = options.size(1_000_000_000, 10_000_000);
    let directory = options.directory()?;
    let report = directory.path().join("report");
    let arguments = [
        "spam".to_owned(),
        format!("--lines={}", payload / spam::LINE as u64),
        format!("--chunk={write}"),
        format!("--report={}", report.display()),
    ];
    let running = logger.start(directory.path(), &arguments)?;
    let report: SpamReport =
        eventually("the program's end", || serde_json::from_slice(&fs::read(&report).ok()?).ok())?;
    running.wait_for_last(spam::LAST)?;
    Ok(Run {
        megabytes_per_second: payload as f64 / 1e6 / report.seconds,
        cpu_seconds_per_gigabyte: running.time()?.as_secs_f64() / payload as f64 * 1e9,
        program_cpu_seconds_per_gigabyte: report.cpu_seconds / payload as f64 * 1e9,
    })
}
