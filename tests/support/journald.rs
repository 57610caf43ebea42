//! A journald of the test's own, in a mount namespace of its own: nothing of it is seen by the system's, whose files and sockets are
//! elsewhere.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
/// Programs that the test needs; all are in Debian.
const NEEDED: &[&str] = &[JOURNALD, "journalctl", "unshare", "nsenter"];
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = "[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToWall=no
";

pub(crate) struct Journald {
    process: Child,
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Journald {
    /// Starts; `None`, and says so, where that cannot be. `environment` chooses the layout of its files.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Option<Self> {
        if let Some(missing) = NEEDED.iter().find(|program| !is_there(program)) {
            eprintln!(
                "SKIPPED: no {missing} here: nothing is shown about the journal (apt-get install systemd)"
            );
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: journald needs root: nothing is shown about it");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["systemd", "log", "etc"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("etc/journald.conf"), CONFIGURATION).expect("a file");
        let script = format!(
            "mount --bind systemd /run/systemd && mount --bind log /run/log && mount --bind etc /etc/systemd && exec {JOURNALD}"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(folder.path());
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(folder.path().join("journald.out")).expect("a file");
        let process = command.stderr(log).spawn().expect("run journald");
        let socket = UnixDatagram::unbound().expect("a socket");
        let journald = Journald { process, folder, socket };
        let out = || fs::read_to_string(journald.folder.path().join("journald.out")).unwrap_or_default();
        journald.wait(|| journald.control().exists() && !journald.files().is_empty(), &out());
        Some(journald)
    }

    /// Where its journals are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("log/journal")
    }

    /// Where it is asked to write what it has.
    pub(crate) fn control(&self) -> PathBuf {
        self.folder.path().join("systemd/journal/io.systemd.journal")
    }

    /// Its files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let machines = fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let files = machines.flat_map(|machine| fs::read_dir(machine.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).collect()
    }

    /// Sends an entry, in the native protocol.
    pub(crate) fn send(&self, fields: &[(&str, &[u8])]) {
        let mut datagram = Vec::new();
        for (name, value) in fields {
            datagram.extend_from_slice(name.as_bytes());
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(value);
            datagram.push(b'\n');
        }
        self.socket
            .send_to(&datagram, self.folder.path().join("systemd/journal/socket"))
            .expect("journald takes it");
    }

    /// As conmon sends what a container has printed: with its line feed, or as a part.
    pub(crate) fn print(&self, container: &str, priority: &str, text: &[u8]) {
        let fields = [
            ("MESSAGE", text),
            ("CONTAINER_ID_FULL", container.as_bytes()),
            ("PRIORITY", priority.as_bytes()),
        ];
        if text.ends_with(b"\n") {
            self.send(&fields);
        } else {
            self.send(&[&fields[..], &[("CONTAINER_PARTIAL_MESSAGE", b"true")]].concat());
        }
    }

    /// Makes it begin a new file, when it has written what it was sent.
    pub(crate) fn rotate(&self) {
        podlog_driver::synchronize(&self.control(), PATIENCE).expect("journald writes what it has");
        let before = self.files().len();
        let rotated = Command::new("kill").args(["-USR2", &self.process.id().to_string()]).status();
        assert!(rotated.expect("run kill").success());
        self.wait(|| self.files().len() > before, "a new file");
    }

    /// A command that sees its sockets where programs expect those of the system.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.process.id())).arg("--").arg(program);
        command
    }

    pub(crate) fn wait(&self, is_so: impl Fn() -> bool, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            sleep(Duration::from_millis(5));
        }
    }
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\""]).arg(program).output();
    found.is_ok_and(|output| output.status.success())
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
