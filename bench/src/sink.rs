//! Writing records, without a process or a pipe around it.

use podlog_driver::{CriFileSink, FileLimits};
use podlog_line::{Stream, Timestamp};

use crate::{
    Options, logs,
    report::{Row, Target, median},
    usage,
};

/// Chunks as a drained pipe gives them, and as a program that flushes each line gives them.
const CHUNKS: [usize; 2] = [128 * 1024, logs::LINE];

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let payload: usize = options.size(1_000_000_000, 10_000_000);
    let mut rows = Vec::new();
    for chunk in CHUNKS {
        // One write(2) a line: a tenth says as much.
        let payload = if chunk == logs::LINE { payload / 10 } else { payload };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds() {
            ours.push(sink(options, chunk, payload)?);
            theirs.push(plain(options, chunk, payload)?);
        }
        let row =
            Row::new("sink", format!("CRI records, chunks of {chunk} bytes"), median(&ours), "CPU-s/GB");
        let row = row.beside("bare write(2)", &ours, &theirs);
        rows.push(if chunk == logs::LINE { row } else { row.target(Target::AtMost(1.4)) });
    }
    Ok(rows)
}

fn text(chunk: usize) -> Vec<u8> {
    let mut line = vec![b'x'; logs::LINE - 1];
    line.push(b'\n');
    line.repeat(chunk / logs::LINE)
}

/// CPU seconds a GB of payload.
fn sink(options: &Options, chunk: usize, payload: usize) -> anyhow::Result<f64> {
    let directory = options.directory()?;
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 2 };
    let mut sink = CriFileSink::open(directory.path().join("0.log"), limits)?;
    let text = text(chunk);
    let before = usage::thread_time();
    for number in 0..payload / text.len() {
        let at = Timestamp::from_seconds(1_767_225_600, 0)
            .saturating_add(std::time::Duration::from_micros(number as u64));
        sink.write(Stream::Stdout, &text, at)?;
    }
    Ok((usage::thread_time() - before).as_secs_f64() / payload as f64 * 1e9)
}

/// The same bytes, as many calls, no records.
fn plain(options: &Options, chunk: usize, payload: usize) -> anyhow::Result<f64> {
    let directory = options.directory()?;
    let file = std::fs::File::create(directory.path().join("plain"))?;
    let text = text(chunk);
    let before = usage::thread_time();
    for _ in 0..payload / text.len() {
        std::io::Write::write_all(&mut &file, &text)?;
    }
    Ok((usage::thread_time() - before).as_secs_f64() / payload as f64 * 1e9)
}
