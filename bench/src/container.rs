//! A program whose output somebody logs: podlog's capture, conmon, or cat.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use podlog_container::{Config, ContainerDir, EnvVar, Log, Metadata, Process, STARTED};
use rustix::process::{Pid, Signal, kill_process};

use crate::{conmon::Conmon, containerd::Containerd, usage};

/// Who logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logger {
    Podlog,
    Conmon,
    Containerd,
    /// `cat > file`: what a pipe and a file cost, nothing else.
    Cat,
}

impl Logger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Logger::Podlog => "podlog",
            Logger::Conmon => "conmon",
            Logger::Containerd => "containerd",
            Logger::Cat => "cat",
        }
    }

    /// Whether it is there on this machine.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Logger::Conmon => Conmon::is_installed(),
            Logger::Containerd => Containerd::is_installed(),
            Logger::Podlog | Logger::Cat => true,
        }
    }

    /// Runs a program of this executable; its directory must be fresh.
    pub(crate) fn start(self, directory: &Path, arguments: &[String]) -> anyhow::Result<Running> {
        let argv = argv(arguments)?;
        let log = directory.join("0.log");
        let by = match self {
            Logger::Podlog => return start_rotated(directory, arguments, 1 << 40, 2),
            Logger::Conmon => By::Conmon(Conmon::start(directory, &log, &argv)?),
            Logger::Containerd => {
                let (containerd, log) = Containerd::start(directory, &argv)?;
                return Ok(Running { log, by: By::Containerd(containerd) });
            }
            Logger::Cat => By::Cat(Cat::start(&log, &argv)?),
        };
        Ok(Running { log, by })
    }
}

/// The words of `spam`, by this executable, which prints as most programs do: to a pipe that the program itself has never polled. Rust's
/// runtime polls the three standard descriptors when it begins, and that changes what a pipe costs its writer for ever.
fn argv(arguments: &[String]) -> anyhow::Result<Vec<String>> {
    let own = std::env::current_exe()?.display().to_string();
    let script = "exec 3>&1 >/dev/null && exec \"$0\" \"$@\" --descriptor=3";
    let shell = ["/bin/sh", "-c", script].map(str::to_owned);
    Ok(shell.into_iter().chain([own]).chain(arguments.iter().cloned()).collect())
}

/// Where this executable is, which a container has to see.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a program without a directory")?.to_owned())
}

/// As [`Logger::start`] for podlog, with a log of files of that size and number.
pub(crate) fn start_rotated(
    directory: &Path,
    arguments: &[String],
    max_bytes: u64,
    max_files: u32,
) -> anyhow::Result<Running> {
    let path = directory.join("0.log");
    let argv = argv(arguments)?;
    let log = Log { path: path.clone(), max_bytes, max_files, ..Log::default() };
    Ok(Running { log: path, by: By::Podlog(Capture::start(directory, log, argv)?) })
}

/// A program that runs; it and its logger end when this is dropped.
pub(crate) struct Running {
    /// Where its output goes.
    pub(crate) log: PathBuf,
    by: By,
}

enum By {
    Podlog(Capture),
    Conmon(Conmon),
    Containerd(Containerd),
    Cat(Cat),
}

impl Running {
    /// The processes that log, the program not among them.
    pub(crate) fn loggers(&self) -> Vec<u32> {
        match &self.by {
            By::Podlog(capture) => capture.processes(),
            By::Conmon(conmon) => vec![conmon.pid()],
            By::Containerd(containerd) => containerd.processes(),
            By::Cat(cat) => vec![cat.cat.id()],
        }
    }

    /// The two processes of podlog's capture; `None` while one takes the other's place, and for other loggers.
    pub(crate) fn pair(&self) -> Option<Pair> {
        match &self.by {
            By::Podlog(capture) => capture.pair(),
            By::Conmon(_) | By::Containerd(_) | By::Cat(_) => None,
        }
    }

    /// CPU time that the loggers have used.
    pub(crate) fn time(&self) -> anyhow::Result<Duration> {
        match &self.by {
            By::Containerd(containerd) => containerd.time(),
            By::Podlog(_) | By::Conmon(_) | By::Cat(_) => {
                self.loggers().into_iter().map(usage::process_time).sum()
            }
        }
    }

    /// Waits until the log ends with a line that holds `text`.
    pub(crate) fn wait_for_last(&self, text: &str) -> anyhow::Result<()> {
        eventually(&format!("{text:?} in {}", self.log.display()), || {
            let end = tail(&self.log, 1024).ok()?;
            end.windows(text.len()).any(|window| window == text.as_bytes()).then_some(())
        })
    }
}

fn tail(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut end = vec![0; usize::try_from(length.min(bytes)).unwrap_or(0)];
    file.read_exact_at(&mut end, length.saturating_sub(bytes))?;
    Ok(end)
}

/// Waits for something, at most two minutes.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Process ids of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) monitor: u32,
    /// The monitor's child.
    pub(crate) copier: u32,
}

/// One of podlog's captures.
struct Capture {
    process: Child,
    directory: ContainerDir,
}

impl Capture {
    fn start(directory: &Path, log: Log, argv: Vec<String>) -> anyhow::Result<Capture> {
        let container = directory.join("container");
        fs::create_dir(&container)?;
        let container = ContainerDir::new(container);
        container.write_config(&config(argv, log))?;
        let mut process = Command::new(program()?)
            .arg("--dir")
            .arg(container.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut said = Vec::new();
        process.stdout.take().context("no stdout")?.read_to_end(&mut said)?;
        let capture = Capture { process, directory: container };
        anyhow::ensure!(said == STARTED, "capture has not started the program");
        Ok(capture)
    }

    fn program_pid(&self) -> Option<u32> {
        u32::try_from(self.directory.state().ok()??.process.pid).ok()
    }

    fn processes(&self) -> Vec<u32> {
        let of_program = self.program_pid().map_or_else(Vec::new, usage::tree);
        let mut all = usage::tree(self.process.id());
        all.retain(|pid| !of_program.contains(pid));
        all
    }

    /// Whoever they are by now: they are known by their command line.
    fn pair(&self) -> Option<Pair> {
        let directory = self.directory.path().as_os_str().as_encoded_bytes();
        match usage::processes_with_argument(directory)[..] {
            [one, other] if usage::parent(other) == Some(one) => Some(Pair { monitor: one, copier: other }),
            [one, other] if usage::parent(one) == Some(other) => Some(Pair { monitor: other, copier: one }),
            _ => None,
        }
    }

    fn has_ended(&self) -> bool {
        self.directory.exit().is_ok_and(|exit| exit.is_some())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        kill(self.program_pid());
        // Capture ends by itself when its program has ended; the first of its processes may have been killed.
        let _ = self.process.wait();
        let _ = eventually("the end of capture", || self.has_ended().then_some(()));
    }
}

fn config(argv: Vec<String>, log: Log) -> Config {
    let metadata = Metadata {
        id: "b".repeat(64),
        sandbox: "5".repeat(64),
        name: "bench".to_owned(),
        attempt: 0,
        image: "none".to_owned(),
        created_at: jiff::Timestamp::now(),
        labels: Default::default(),
        annotations: Default::default(),
    };
    let path = EnvVar { name: "PATH".to_owned(), value: "/usr/bin:/bin".to_owned() };
    Config { metadata, process: Process { argv, env: vec![path], log, ..Process::default() } }
}

/// The program `podlog-capture` that was built with this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("podlog-capture");
    anyhow::ensure!(program.exists(), "{} is missing: cargo build -p podlog-capture", program.display());
    Ok(program)
}

/// A pipe into `cat > file`.
struct Cat {
    program: Child,
    cat: Child,
}

impl Cat {
    fn start(log: &Path, argv: &[String]) -> anyhow::Result<Cat> {
        let mut program = Command::new(&argv[0]).args(&argv[1..]).stdout(Stdio::piped()).spawn()?;
        let pipe = program.stdout.take().context("no stdout")?;
        let cat = Command::new("cat").stdin(pipe).stdout(File::create(log)?).spawn()?;
        Ok(Cat { program, cat })
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = self.cat.wait();
    }
}

/// Kills a process that may have ended by itself.
pub(crate) fn kill(pid: Option<u32>) {
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}
