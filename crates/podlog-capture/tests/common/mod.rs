//! A container in a temporary directory, run by the real capture program.
#![expect(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod printer;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podlog_container::control::{Reply, Request};
use podlog_container::{
    Config, ContainerDir, EnvVar, Exit, Log, Metadata, Mount, Process, ProcessStat, State,
};

/// Nobody's ids, for runs without root.
pub(crate) const NOBODY: u32 = 65534;

/// A container that is configured and perhaps running.
pub(crate) struct Scene {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) dir: ContainerDir,
    pub(crate) process: Process,
    user: Option<u32>,
    file_limit: Option<u64>,
    within: Vec<String>,
    captures: RefCell<Vec<Child>>,
}

/// A record of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) stream: String,
    pub(crate) tag: String,
    pub(crate) content: Vec<u8>,
}

impl Scene {
    /// A container that runs a shell script.
    pub(crate) fn script(script: &str) -> Self {
        Self::program(&["/bin/sh", "-c", script])
    }

    pub(crate) fn program(argv: &[&str]) -> Self {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let container = temp.path().join("container");
        fs::create_dir(&container).expect("mkdir");
        let log = Log { path: temp.path().join("0.log"), max_bytes: 1 << 40, max_files: 5, ..Log::default() };
        let path = EnvVar { name: "PATH".to_owned(), value: "/usr/bin:/bin".to_owned() };
        let process = Process {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![path],
            log,
            ..Process::default()
        };
        Self {
            dir: ContainerDir::new(container),
            temp,
            process,
            user: None,
            file_limit: None,
            within: Vec::new(),
            captures: RefCell::default(),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Process)) -> Self {
        change(&mut self.process);
        self
    }

    pub(crate) fn mount(self, source: &Path, target: &str, readonly: bool) -> Self {
        let (source, target) = (source.to_owned(), PathBuf::from(target));
        self.with(|process| {
            process.mounts.push(Mount { target, source, readonly, propagation: Default::default() });
        })
    }

    /// Runs capture as nobody instead of root.
    pub(crate) fn by_nobody(mut self) -> Self {
        self.user = Some(NOBODY);
        give_away(self.temp.path(), NOBODY);
        self
    }

    /// No file may become larger than this.
    pub(crate) fn with_file_limit(mut self, bytes: u64) -> Self {
        self.file_limit = Some(bytes);
        self
    }

    /// Runs capture by a command, which gets capture's command line as its last arguments.
    pub(crate) fn within(mut self, command: &[&str]) -> Self {
        self.within = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts capture; returns when the program runs, or why it does not.
    pub(crate) fn capture(&self) -> Result<(), String> {
        let mut capture = self.spawn();
        let (mut started, mut why) = (String::new(), String::new());
        capture.stdout.take().expect("stdout").read_to_string(&mut started).expect("read stdout");
        capture.stderr.take().expect("stderr").read_to_string(&mut why).expect("read stderr");
        if started.as_bytes() == podlog_container::STARTED {
            assert_eq!(why, "");
            self.captures.borrow_mut().push(capture);
            return Ok(());
        }
        assert!(!capture.wait().expect("wait for capture").success());
        Err(why.trim_end().to_owned())
    }

    /// Starts capture.
    pub(crate) fn spawn(&self) -> Child {
        let metadata = Metadata {
            id: "c".repeat(64),
            sandbox: "5".repeat(64),
            name: "app".to_owned(),
            attempt: 0,
            image: "none".to_owned(),
            created_at: jiff::Timestamp::now(),
            labels: Default::default(),
            annotations: Default::default(),
        };
        self.dir.write_config(&Config { metadata, process: self.process.clone() }).expect("write config");
        let mut command = Command::new("/bin/sh");
        let limit = self.file_limit.map_or("unlimited".to_owned(), |bytes| (bytes / 512).to_string());
        command.args(["-c", &format!("ulimit -S -f {limit}; exec \"$@\""), "sh"]);
        command.args(&self.within).arg(env!("CARGO_BIN_EXE_podlog-capture"));
        command.arg("--dir").arg(self.dir.path());
        if let Some(user) = self.user {
            give_away(self.temp.path(), user);
            command.uid(user).gid(user);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("run capture")
    }

    /// Process id of the capture that was started last.
    pub(crate) fn capture_pid(&self) -> u32 {
        self.captures.borrow().last().expect("a capture").id()
    }

    /// Process ids of the monitor and of the copier: the program's parent and its other child. None of them while one of
    /// them is being replaced.
    pub(crate) fn processes(&self, monitor: i32) -> Option<(i32, i32)> {
        let main = self.dir.state().ok()??.process.pid;
        let all = ProcessStat::all().ok()?;
        let copier = all.iter().find(|process| process.parent == monitor && process.session != main)?;
        Some((monitor, copier.pid))
    }

    /// Starts the container, which must succeed.
    pub(crate) fn start(&self) -> State {
        self.capture().expect("start");
        self.dir.state().expect("read state").expect("state after start")
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Exit {
        self.start();
        self.exit()
    }

    /// Runs a container that cannot be started, and returns why.
    pub(crate) fn start_error(&self) -> String {
        let why = self.capture().expect_err("no start");
        let exit = self.exit();
        assert_eq!((exit.exit_code, exit.reason.as_str()), (128, "StartError"));
        assert_eq!(why, exit.message);
        assert_eq!(self.dir.state().expect("read state"), None);
        exit.message
    }

    /// Waits for the container's end.
    pub(crate) fn exit(&self) -> Exit {
        eventually("exit.json", || self.dir.exit().expect("read exit"))
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        parse(&fs::read(&self.process.log.path).unwrap_or_default())
    }

    /// The records of all files of the log, the oldest first.
    pub(crate) fn all_files(&self) -> Vec<Record> {
        let current = &self.process.log.path;
        let entries = fs::read_dir(current.parent().expect("directory")).expect("list");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
        files.retain(|path| {
            path != current && path.to_string_lossy().starts_with(&*current.to_string_lossy())
        });
        files.sort();
        files.push(current.clone());
        files.iter().flat_map(|path| parse(&read_plain(path))).collect()
    }

    /// Everything written to a stream, as the program wrote it but for a last line feed that it did not write.
    pub(crate) fn output(&self, stream: &str) -> Vec<u8> {
        self.output_of(&self.records(), stream)
    }

    /// The same of these records.
    pub(crate) fn output_of(&self, records: &[Record], stream: &str) -> Vec<u8> {
        let mut output = Vec::new();
        for record in records.iter().filter(|record| record.stream == stream) {
            output.extend_from_slice(&record.content);
            if record.tag == "F" {
                output.push(b'\n');
            }
        }
        output
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output("stdout")).expect("text")
    }

    /// Waits until the program has printed something.
    pub(crate) fn wait_for(&self, text: &str) {
        eventually(text, || self.stdout().contains(text).then_some(()));
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.converse(format!("{request}\n").as_bytes()).remove(0)
    }

    /// Sends raw bytes and returns the first answer, if there is one.
    pub(crate) fn converse(&self, bytes: &[u8]) -> Vec<Reply> {
        let mut socket = self.dir.connect_control().expect("connect");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set timeout");
        // Capture may hang up before it has read everything.
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        read_replies(&socket, 1)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let is_running =
            self.dir.liveness().is_ok_and(|liveness| liveness == podlog_container::Liveness::Alive);
        if is_running && let Ok(Some(state)) = self.dir.state() {
            let main = ProcessStat::read(state.process.pid)
                .filter(|main| main.start_ticks == state.process.start_ticks);
            let _ = main.map(|main| main.kill());
        }
        for mut capture in self.captures.take() {
            let _ = capture.wait();
        }
    }
}

fn parse(log: &[u8]) -> Vec<Record> {
    let lines = log.strip_suffix(b"\n").map(|log| log.split(|&byte| byte == b'\n'));
    lines.into_iter().flatten().map(Record::parse).collect()
}

/// A file of a log, unpacked if need be.
fn read_plain(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "gz") {
        return Command::new("gzip").arg("-cd").arg(path).output().expect("gzip").stdout;
    }
    fs::read(path).expect("a file of the log")
}

impl Record {
    fn parse(line: &[u8]) -> Self {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let mut text = || String::from_utf8(fields.next().expect("field").to_vec()).expect("text");
        let (_time, stream, tag) = (text(), text(), text());
        Self { stream, tag, content: fields.next().unwrap_or_default().to_vec() }
    }
}

pub(crate) fn read_replies(socket: &UnixStream, count: usize) -> Vec<Reply> {
    let lines = BufReader::new(socket).lines().take(count);
    lines.map_while(Result::ok).filter_map(|line| Reply::parse(&line)).collect()
}

/// Waits for a condition, at most 20 seconds.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the test runs as root; says loudly that it does nothing if not.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        #[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
        {
            eprintln!("SKIPPED: this test needs root");
        }
    }
    is_root
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

fn give_away(path: &Path, user: u32) {
    let _ = chown(path, Some(user), Some(user));
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("file type");
        if kind.is_dir() {
            give_away(&entry.path(), user);
        } else {
            let _ = chown(entry.path(), Some(user), Some(user));
        }
    }
}
