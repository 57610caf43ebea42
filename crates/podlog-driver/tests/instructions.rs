//! What a line costs in instructions of the processor, which no neighbour on the machine changes: counted by valgrind.
//!
//! The test runs itself under callgrind with a number of lines and with twice as many; the difference is what the lines
//! cost. Budgets are what was measured and a tenth, more where nothing is optimised; one for each profile, as `cargo test` does not
//! optimise.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use podlog_driver::{CriFileSink, FileLimits, LogSource, ReadState};
use podlog_line::{LineMatch, PatternSyntax, Patterns, Selection, Stream, Timestamp};

const LINES: usize = 5000;
const LINES_A_CHUNK: usize = 500;
/// Tells the process under valgrind which work to do, with how many lines, on which log.
const WORK: [&str; 3] = ["PODLOG_WORK", "PODLOG_LINES", "PODLOG_LOG"];

/// Instructions that a line may cost.
struct Budget {
    work: &'static str,
    optimised: u64,
    unoptimised: u64,
}

const BUDGETS: [Budget; 6] = [
    Budget { work: "write", optimised: 180, unoptimised: 2300 },
    Budget { work: "read", optimised: 250, unoptimised: 3600 },
    Budget { work: "read with times", optimised: 290, unoptimised: 4200 },
    Budget { work: "read what matches", optimised: 262, unoptimised: 7000 },
    Budget { work: "read by an expression", optimised: 800, unoptimised: 32600 },
    Budget { work: "read with cursors", optimised: 360, unoptimised: 5100 },
];

#[test]
fn a_line_costs_no_more_instructions_than_it_may() {
    if let [Ok(work), Ok(lines), Ok(log)] = WORK.map(env::var) {
        return carry_out(&work, lines.parse().expect("a number"), Path::new(&log));
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        say("SKIPPED: instructions are counted by valgrind, which is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let costs = BUDGETS.map(|budget| {
        let count = |lines| instructions(budget.work, lines, directory.path());
        let cost = (count(2 * LINES) - count(LINES)) / LINES as u64;
        (budget, cost)
    });
    let is_within = |(budget, cost): &(Budget, u64)| {
        let most = if cfg!(debug_assertions) { budget.unoptimised } else { budget.optimised };
        say(&format!("{}: {cost} instructions a line, {most} at most", budget.work));
        (1..=most).contains(cost)
    };
    let within = costs.iter().map(is_within).filter(|is_within| *is_within).count();
    assert_eq!(within, costs.len(), "see above");
}

/// Also where the output of tests is captured.
fn say(text: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{text}").expect("a place for words");
}

/// All instructions of a process that does the work.
fn instructions(work: &str, lines: usize, directory: &Path) -> u64 {
    let (log, counts) = (directory.join(format!("{work}-{lines}.log")), directory.join("counts"));
    if work != "write" {
        write(&log, lines);
    }
    let this = env::current_exe().expect("a program");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", counts.display()));
    command.arg(this).args(["--exact", "a_line_costs_no_more_instructions_than_it_may"]);
    command.envs([(WORK[0], work), (WORK[1], &lines.to_string())]).env(WORK[2], &log);
    let output = command.output().expect("valgrind");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts = fs::read_to_string(&counts).expect("counts");
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse().expect("a number")
}

fn carry_out(work: &str, lines: usize, log: &Path) {
    let (pattern, syntax) = match work {
        "read what matches" => ("line 7 ", PatternSyntax::Fixed),
        // No literal leads to it, and it is in every time.
        _ => (r"\d{4}-\d{2}|line [7] ", PatternSyntax::Regex),
    };
    let pattern = Patterns { include: vec![pattern.to_owned()], syntax, ..Patterns::default() };
    let selection = Selection {
        timestamps: work == "read with times",
        cursors: work == "read with cursors",
        line_match: matches!(work, "read what matches" | "read by an expression")
            .then(|| LineMatch::new(pattern).expect("a pattern")),
        ..Selection::default()
    };
    match work {
        "write" => write(log, lines),
        _ => read(log, &selection, lines),
    }
}

/// Lines of 100 bytes, of both streams.
fn write(log: &Path, lines: usize) {
    let limits = FileLimits { max_bytes: u64::MAX, max_files: 2 };
    let mut sink = CriFileSink::open(log, limits).expect("a sink");
    let line = |number: usize| format!("{:<99}\n", format!("line {number} of those that applications write"));
    let chunk: String = (0..LINES_A_CHUNK).map(line).collect();
    for number in 0..lines / LINES_A_CHUNK {
        let at = Timestamp::from_seconds(1_767_225_600, 123_456_789 + number as u32);
        sink.write(Stream::ALL[number % 2], chunk.as_bytes(), at).expect("room");
    }
}

fn read(log: &Path, selection: &Selection, lines: usize) {
    let mut reader = LogSource::open(log).and_then(|source| source.read(selection)).expect("a log");
    let mut out = Vec::with_capacity(512 * 1024);
    let mut shown = 0;
    loop {
        let state = reader.read_chunk(&mut out).expect("a log");
        shown += out.len();
        out.clear();
        if state != ReadState::More {
            break;
        }
    }
    assert_eq!(reader.stats().records, lines as u64);
    assert!(shown > 0);
}
