//! What a capture at rest holds.

use crate::{
    Options,
    container::Logger,
    note,
    report::{Row, Target, median},
    spam, usage,
};

/// Captures that run at the same time: they share the pages of their program.
const CAPTURES: usize = 10;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let ours = run(options, Logger::Podlog)?;
    let theirs = if Logger::Conmon.is_installed() { run(options, Logger::Conmon)? } else { Vec::new() };
    if theirs.is_empty() {
        note("SKIPPED: conmon is not installed, or not for this user");
    }
    let row = |what: &str, of: fn(&usage::Memory) -> f64| {
        let values = |memory: &[usage::Memory]| memory.iter().map(of).collect::<Vec<_>>();
        let row = Row::new("memory", format!("capture at rest, {what}"), median(&values(&ours)), "KiB");
        if theirs.is_empty() { row } else { row.beside("conmon", &values(&ours), &values(&theirs)) }
    };
    Ok(vec![
        row("resident", |memory| memory.resident),
        row("proportional", |memory| memory.proportional).target(Target::AtMost(3072.0)),
    ])
}

/// Of each of some loggers, when their programs have printed something and sleep.
fn run(options: &Options, logger: Logger) -> anyhow::Result<Vec<usage::Memory>> {
    let directory = options.directory()?;
    let mut running = Vec::new();
    for number in 0..options.size(CAPTURES, 2) {
        let directory = directory.path().join("x".repeat(number + 1));
        std::fs::create_dir(&directory)?;
        running.push(logger.start(&directory, &["spam".to_owned(), "--lines=10000".to_owned()])?);
    }
    for container in &running {
        container.wait_for_last(spam::LAST)?;
    }
    std::thread::sleep(std::time::Duration::from_secs(options.size(5, 1)));
    running.iter().map(|container| sum(&container.loggers())).collect()
}

fn sum(pids: &[u32]) -> anyhow::Result<usage::Memory> {
    let mut sum = usage::Memory::default();
    for pid in pids {
        let memory = usage::memory(*pid)?;
        sum.resident += memory.resident;
        sum.proportional += memory.proportional;
    }
    Ok(sum)
}
