//! How fast the renderer is, from memory, on one core: `cargo run --release -p podlog-line --example render_speed [NAME]`, where
//! only what has NAME in its name is measured.
//!
//! Blocks of 64 KiB, as a reader would give them, of lines with 100 bytes of content. Each figure is the best of several
//! rounds in gigabytes (10^9) of log file per second of processor time, so that neighbours do not count.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::{fmt::Write, fs, hint::black_box};

use podlog_line::{LineMatch, PatternSyntax, Patterns, Renderer, Selection, Streams, Timestamp};

const BLOCK: usize = 64 * 1024;
const ROUNDS: usize = 5;
const BLOCKS_A_ROUND: usize = 8000;

/// How the writer of a log writes its records.
#[derive(Clone, Copy)]
enum Writer {
    /// Up to nine digits and `Z`, as containerd does it.
    Trimmed,
    /// The same time for all that was read at once, as podlog does it.
    Chunk,
    /// Nine digits and an offset, as conmon does it.
    Offset,
    /// Docker's json-file.
    JsonFile,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = |include: &[&str], exclude: &[&str], syntax| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let line_match =
            LineMatch::new(Patterns { include: owned(include), exclude: owned(exclude), syntax })?;
        Ok::<_, podlog_line::PatternError>(Selection { line_match: Some(line_match), ..Selection::default() })
    };
    let plain = Selection::default();
    let timestamps = Selection { timestamps: true, ..Selection::default() };
    let begin = Timestamp::from_seconds(1_795_281_890, 0);
    let (fixed, regex) = (PatternSyntax::Fixed, PatternSyntax::Regex);
    for (name, writer, selection) in [
        ("whole", Writer::Trimmed, plain.clone()),
        ("timestamps", Writer::Trimmed, timestamps.clone()),
        ("whole, chunks", Writer::Chunk, plain.clone()),
        ("stderr only", Writer::Trimmed, Selection { streams: Streams::Stderr, ..plain.clone() }),
        ("since, all", Writer::Trimmed, Selection { since: Some(begin), ..plain.clone() }),
        ("until, none", Writer::Trimmed, Selection { until: Some(begin), ..plain.clone() }),
        ("limit", Writer::Trimmed, Selection { limit_bytes: Some(u64::MAX / 2), ..plain.clone() }),
        ("cursors", Writer::Trimmed, Selection { cursors: true, ..plain.clone() }),
        ("literal, 1 in 1000", Writer::Trimmed, wanted(&["number 77 "], &[], fixed)?),
        ("literal, chunks", Writer::Chunk, wanted(&["number 77 "], &[], fixed)?),
        ("literal, every line", Writer::Trimmed, wanted(&["neither"], &[], fixed)?),
        ("exclude 1 in 1000", Writer::Trimmed, wanted(&[], &["number 77 "], fixed)?),
        ("regex, 1 in 1000", Writer::Trimmed, wanted(&["number (77|78) "], &[], regex)?),
        ("regex, none", Writer::Trimmed, wanted(&["status=5[0-9][0-9]"], &[], regex)?),
        ("regex, every line", Writer::Trimmed, wanted(&["[a-z]+ short"], &[], regex)?),
        ("regex, header too", Writer::Trimmed, wanted(&["2026.*x"], &[], regex)?),
        ("regex, anchored", Writer::Trimmed, wanted(&["^number 77 "], &[], regex)?),
        ("regex, classes", Writer::Trimmed, wanted(&[r"\d{4}-\d{2}|=[45]\d\d\b"], &[], regex)?),
        ("regex, classes, chunks", Writer::Chunk, wanted(&[r"\d{4}-\d{2}|=[45]\d\d\b"], &[], regex)?),
        ("conmon", Writer::Offset, plain.clone()),
        ("conmon, timestamps", Writer::Offset, timestamps.clone()),
        ("json-file", Writer::JsonFile, plain),
        ("json-file, timestamps", Writer::JsonFile, timestamps),
    ] {
        if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
            continue;
        }
        let block = block(writer);
        println!("{name:24} {:6.2} GB/s", speed(&block, &selection)?);
    }
    Ok(())
}

fn speed(block: &[u8], selection: &Selection) -> Result<f64, Box<dyn std::error::Error>> {
    let mut renderer = Renderer::new(selection);
    let mut out = Vec::new();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begin = processor_seconds()?;
        for _ in 0..BLOCKS_A_ROUND {
            out.clear();
            renderer.render(black_box(block), &mut out)?;
            black_box(&out);
        }
        best = best.min(processor_seconds()? - begin);
    }
    Ok((block.len() * BLOCKS_A_ROUND) as f64 / best / 1e9)
}

/// What this thread has used, as Linux counts it.
fn processor_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}

/// Lines a hundred bytes long, a third of them of stderr.
fn block(writer: Writer) -> Vec<u8> {
    let mut text = String::new();
    for number in 0.. {
        let stream = if number % 3 == 0 && !matches!(writer, Writer::Chunk) { "stderr" } else { "stdout" };
        let line = number % 1000;
        let content =
            format!("number {line} of the lines as applications write them, neither short nor long");
        let nine = match writer {
            Writer::Chunk => 125_000_000,
            _ => number * 7_919 % 1_000_000_000,
        };
        let at = Timestamp::from_seconds(1_795_281_897, nine);
        let time = format!("{at}");
        let seconds = &time[..19];
        let record = match writer {
            Writer::Trimmed | Writer::Chunk => format!("{time} {stream} F {content:_<100}\n"),
            Writer::Offset => format!("{seconds}.{nine:09}+02:00 {stream} F {content:_<100}\n"),
            Writer::JsonFile => {
                format!(r#"{{"log":"{content:_<100}\n","stream":"{stream}","time":"{time}"}}"#) + "\n"
            }
        };
        if text.len() + record.len() > BLOCK {
            break;
        }
        let _ = write!(text, "{record}");
    }
    text.into_bytes()
}
