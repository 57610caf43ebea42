//! A `podlog up` of a test's own: own data directory, own ports, own kubeconfig, gone when the test ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up. Conditions are met far earlier; a loaded machine gets its time.
const PATIENCE: Duration = Duration::from_secs(90);

/// The folder of the workspace: where the README's commands are typed.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A running `podlog up`.
pub(crate) struct Podlog {
    home: TempDir,
    up: Option<Child>,
}

impl Podlog {
    /// Starts one on a new data directory, with further arguments, and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same, in a folder that was made for it.
    pub(crate) fn start_in(home: TempDir, arguments: &[&str]) -> Self {
        let mut podlog = Podlog { home, up: None };
        podlog.up(arguments);
        podlog
    }

    /// Starts one that may open so many files.
    pub(crate) fn start_with_files(files: u32) -> Self {
        let mut podlog = Podlog { home: tempfile::tempdir().unwrap(), up: None };
        let up = podlog.up_command();
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
            .arg(up.get_program())
            .args(up.get_args())
            .envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(ROOT);
        podlog.begin(limited);
        podlog
    }

    /// Starts `podlog up` on the same data directory and waits until it is ready.
    pub(crate) fn up(&mut self, arguments: &[&str]) {
        let mut up = self.up_command();
        up.args(arguments);
        self.begin(up);
    }

    fn up_command(&self) -> Command {
        self.command(&["up", "--secure-port=0", "--kubelet-port=0", "--node-name=node-a"])
    }

    fn begin(&mut self, mut up: Command) {
        let mut up = up
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(std::fs::File::create(self.path("up.stderr")).unwrap()))
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        assert!(ready.contains("export KUBECONFIG="), "not ready: {ready:?}\n{}", self.messages());
        // Keeps the pipe open and empty for as long as the process lives.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        self.up = Some(up);
    }

    /// The pid of `podlog up`.
    pub(crate) fn pid(&self) -> u32 {
        self.up.as_ref().unwrap().id()
    }

    /// Kills `podlog up` as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// Sends a signal to `podlog up` and waits until it has ended.
    pub(crate) fn signal(&mut self, signal: &str) -> std::process::ExitStatus {
        let mut up = self.up.take().unwrap();
        let pid = up.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        up.wait().unwrap()
    }

    /// `podlog` with this data directory in the environment that its user would have.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        command
            .args(arguments)
            .current_dir(ROOT)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.kubeconfig());
        if matches!(arguments.first(), Some(&("up" | "down"))) {
            command.arg("--data-dir").arg(self.data_dir());
        }
        command
    }

    /// Runs `podlog` to its end.
    pub(crate) fn podlog(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Stock kubectl against this API server, to its end.
    pub(crate) fn kubectl(&self, kubectl: &Path, arguments: &[&str]) -> Output {
        self.kubectl_command(kubectl, arguments).output().unwrap()
    }

    /// Stock kubectl against this API server.
    pub(crate) fn kubectl_command(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl);
        command
            .args(arguments)
            .current_dir(ROOT)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null());
        command
    }

    /// The standard output of a kubectl that must succeed.
    pub(crate) fn kubectl_ok(&self, kubectl: &Path, arguments: &[&str]) -> String {
        let output = self.kubectl(kubectl, arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}{}",
            text(&output.stderr),
            self.messages()
        );
        text(&output.stdout)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The port of the API server.
    pub(crate) fn port(&self) -> u16 {
        let kubeconfig = std::fs::read_to_string(self.kubeconfig()).unwrap();
        let (_, rest) = kubeconfig.split_once("https://127.0.0.1:").expect("a server on loopback");
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// What `podlog up` said on stderr; shown when a test fails.
    pub(crate) fn messages(&self) -> String {
        let said = std::fs::read_to_string(self.path("up.stderr")).unwrap_or_default();
        format!("\n--- podlog up said:\n{said}")
    }
}

impl Drop for Podlog {
    fn drop(&mut self) {
        let _ =
            self.command(&["down", "--grace-period=0"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.messages());
        }
    }
}

/// The kubectl to test with: `$KUBECTL`, the one that `.ci/kubectl` installs, or the one of the PATH.
/// `None` says loudly that the test is skipped.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let installed = Path::new(ROOT).join("target/tools/kubectl");
    let candidates =
        [std::env::var_os("KUBECTL").map(PathBuf::from), Some(installed), Some("kubectl".into())];
    let found = candidates.into_iter().flatten().find(|kubectl| {
        let version = Command::new(kubectl).args(["version", "--client"]).output();
        version.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: no kubectl. Run .ci/kubectl, or set KUBECTL to one.");
    }
    found
}

/// Waits until `condition` gives a value.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes as text, for messages and comparisons.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
