//! What the log engine and the API server cost, each figure beside a reference that was measured in the same minute.
//!
//! A subcommand a question; without one, all of them, each in a process of its own. The table goes to stdout, and so does
//! `--json`; what is going on goes to stderr. `bench/README.md` says what the rows mean.

mod access;
mod api;
mod capture;
mod conmon;
mod container;
mod containerd;
mod disk;
mod followers;
mod https;
mod kubelet;
mod latency;
mod logs;
mod memory;
mod node;
mod read;
mod relay;
mod report;
mod sink;
mod site;
mod spam;
mod torture;
mod usage;
mod watches;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use report::Row;

#[derive(Parser)]
#[command(about = "What the log engine costs, measured beside what others cost")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    question: Option<Question>,
}

/// What all questions understand.
#[derive(clap::Args, Clone)]
struct Options {
    /// Small sizes and few rounds: shows that everything works, not how fast it is.
    #[arg(long, global = true)]
    quick: bool,
    /// One JSON object a row instead of the table.
    #[arg(long, global = true)]
    json: bool,
    /// Where logs are made; they are deleted afterwards. Tens of GiB are needed without --quick.
    #[arg(long, global = true, default_value = "/tmp")]
    dir: PathBuf,
    /// How often each figure and its reference are measured, in turn.
    #[arg(long, global = true)]
    rounds: Option<usize>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// `full`, or `quick` in quick mode.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn directory(&self) -> anyhow::Result<tempfile::TempDir> {
        let directory = tempfile::Builder::new().prefix("podlog-bench-").tempdir_in(&self.dir);
        directory.with_context(|| format!("no directory in {}", self.dir.display()))
    }
}

#[derive(Subcommand)]
enum Question {
    /// Reading a log that is at rest.
    Read,
    /// Writing records, without a process or a pipe.
    Sink,
    /// Draining a program into its log, against conmon, containerd and cat.
    Capture,
    /// How long a line takes to the file, and to a follower.
    Latency,
    /// Many followers in one process.
    Followers,
    /// Following through a kubelet's HTTPS.
    Https,
    /// What a capture at rest holds.
    Memory,
    /// The way of a log through the API server.
    Relay(relay::Relay),
    /// What a kubelet hands out, and what it holds at rest.
    Kubelet,
    /// The API server with many objects.
    Api,
    /// The API server with many watches that nobody reads.
    Watches,
    /// Deciding by roles, with many bindings.
    Access,
    /// An API server, for the other subcommands.
    #[command(hide = true)]
    ServeApi(site::Serve),
    /// What many logs take on disk while all are written at once. Not one of all.
    Disk,
    /// A kubelet, for the other subcommands.
    #[command(hide = true)]
    ServeKubelet(node::Serve),
    /// Numbered lines, rotation, and readers that are slow and killed: nothing missing, nothing twice. Not one of all.
    Torture(torture::Torture),
    /// A reader of that.
    #[command(hide = true)]
    TortureReader(torture::TortureReader),
    /// Prints lines, for the other subcommands.
    #[command(hide = true)]
    Spam(spam::Spam),
}

const ALL: [&str; 12] = [
    "read",
    "sink",
    "capture",
    "latency",
    "followers",
    "https",
    "memory",
    "relay",
    "kubelet",
    "api",
    "watches",
    "access",
];

#[global_allocator]
static MEMORY: podlog_serving::SparseBuffers = podlog_serving::SparseBuffers;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "podlog-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    let rows = match arguments.question {
        Some(Question::Read) => read::measure(options)?,
        Some(Question::Sink) => sink::measure(options)?,
        Some(Question::Capture) => capture::measure(options)?,
        Some(Question::Latency) => latency::measure(options)?,
        Some(Question::Followers) => followers::measure(options)?,
        Some(Question::Https) => https::measure(options)?,
        Some(Question::Memory) => memory::measure(options)?,
        Some(Question::Relay(relay)) => relay.measure(options)?,
        Some(Question::Kubelet) => kubelet::measure(options)?,
        Some(Question::Api) => api::measure(options)?,
        Some(Question::Watches) => watches::measure(options)?,
        Some(Question::Access) => access::measure(options)?,
        Some(Question::ServeApi(serve)) => return serve.run(),
        Some(Question::Disk) => disk::measure(options)?,
        Some(Question::ServeKubelet(serve)) => return serve.run(),
        Some(Question::Torture(torture)) => torture.measure(options)?,
        Some(Question::TortureReader(reader)) => return reader.run(),
        Some(Question::Spam(spam)) => return spam.run(),
        None => all(options)?,
    };
    report::print(&rows, options.json)
}

/// Asks every question in a process of its own, so that none inherits the memory and the threads of another.
fn all(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for question in ALL {
        note(&format!("{question} …"));
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args([question, "--json", "--dir"]).arg(&options.dir);
        command.args(options.quick.then_some("--quick"));
        command.args(options.rounds.map(|rounds| format!("--rounds={rounds}")));
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        anyhow::ensure!(output.status.success(), "{question} failed");
        rows.extend(report::parse(&output.stdout)?);
    }
    Ok(rows)
}

/// Says to stderr what is going on.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
