//! A node with a process runtime in a temporary directory.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podlog_container::{ContainerDir, Liveness, ProcessStat};
use podlog_driver::FileLimits;
use podlog_kubelet::runtime::process::{ProcessRuntime, ProcessRuntimeConfig};
use podlog_kubelet::runtime::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStatus, LogPolicy,
    PodSandboxConfig, SandboxId,
};
use rustix::process::{Pid, Signal, kill_process};

/// Set in a process that is to be a capture.
const CAPTURE: &str = "PODLOG_TEST_CAPTURE";

/// Runs this program as a capture.
pub(crate) fn capture_command() -> Vec<OsString> {
    let test = env::current_exe().expect("path of this program");
    vec!["/usr/bin/env".into(), format!("{CAPTURE}=1").into(), test.into()]
}

#[expect(unsafe_code, reason = "capture must start before the test harness makes threads")]
mod before_main {
    // SAFETY: the linker's list of constructors takes pointers to functions like this one, which does not unwind.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BECOME_CAPTURE: extern "C" fn() = super::become_capture_if_asked;
}

extern "C" fn become_capture_if_asked() {
    if env::var_os(CAPTURE).is_none() {
        return;
    }
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let invocation = podlog_capture::Invocation::parse(&arguments).expect("what captures are told");
    let has_run = invocation.run() == ExitCode::SUCCESS;
    std::process::exit(if has_run { 0 } else { 1 });
}

pub(crate) struct Node {
    pub(crate) runtime: Arc<ProcessRuntime>,
    capture: Vec<OsString>,
    temp: Arc<Temp>,
}

/// Ends what still runs in it before it goes.
struct Temp(tempfile::TempDir);

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_capture(capture_command())
    }

    pub(crate) fn with_capture(capture: Vec<OsString>) -> Self {
        Self::open(capture, Arc::new(Temp(tempfile::tempdir().expect("a temporary directory"))))
    }

    fn open(capture: Vec<OsString>, temp: Arc<Temp>) -> Self {
        let config = ProcessRuntimeConfig {
            root: temp.0.path().join("run"),
            capture_command: capture.clone(),
            log_limits: FileLimits::default(),
            log_policy: LogPolicy::default(),
        };
        let runtime = ProcessRuntime::open(config).expect("open runtime");
        Self { runtime, capture, temp }
    }

    /// What `kill -9` of a kubelet and a new one come to: nothing of the old runtime is left but its files.
    pub(crate) fn restart(self) -> Self {
        self.restart_after(|| {})
    }

    /// The same, with something happening while there is no kubelet.
    pub(crate) fn restart_after(self, meanwhile: impl FnOnce()) -> Self {
        let Self { runtime, capture, temp } = self;
        drop(runtime);
        meanwhile();
        Self::open(capture, temp)
    }

    /// The same, with another program for captures.
    pub(crate) fn restart_with(self, capture: Vec<OsString>) -> Self {
        let Self { runtime, temp, .. } = self;
        drop(runtime);
        Self::open(capture, temp)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.temp.0.path().join("run")
    }

    pub(crate) fn pod(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            name: "pod-0".to_owned(),
            namespace: "default".to_owned(),
            uid: "1234".to_owned(),
            hostname: "pod-0".to_owned(),
            log_directory: self.temp.0.path().join("logs/default_pod-0_1234"),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..PodSandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self) -> SandboxId {
        self.runtime.run_pod_sandbox(&self.pod()).await.expect("run sandbox")
    }

    pub(crate) fn config(&self, name: &str, change: impl FnOnce(&mut ContainerConfig)) -> ContainerConfig {
        let mut config = ContainerConfig {
            name: name.to_owned(),
            image: "none".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned()],
            log_path: format!("{name}/0.log").into(),
            ..ContainerConfig::default()
        };
        change(&mut config);
        config
    }

    pub(crate) async fn create(
        &self,
        sandbox: &SandboxId,
        change: impl FnOnce(&mut ContainerConfig),
        script: &str,
    ) -> ContainerId {
        let name = format!("c{}", self.runtime.list_containers(None).await.expect("list").len());
        let config = self.config(&name, |config| {
            config.args = vec![script.to_owned()];
            change(config);
        });
        self.runtime.create_container(sandbox, &config).await.expect("create")
    }

    pub(crate) async fn run(&self, sandbox: &SandboxId, script: &str) -> ContainerId {
        let id = self.create(sandbox, |_| {}, script).await;
        self.runtime.start_container(&id).await.expect("start");
        id
    }

    pub(crate) async fn status(&self, id: &ContainerId) -> ContainerStatus {
        self.runtime.container_status(id).await.expect("status")
    }

    pub(crate) async fn wait_exited(&self, id: &ContainerId) -> ContainerStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status(id).await;
            if status.container.state == ContainerState::Exited {
                return status;
            }
            assert!(Instant::now() < deadline, "waited too long for the end of a container");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn container_dir(&self, id: &ContainerId) -> PathBuf {
        let sandboxes = fs::read_dir(self.root()).expect("list");
        let paths = sandboxes.map(|entry| entry.expect("entry").path().join(&id.0));
        paths.into_iter().find(|path| path.is_dir()).expect("container directory")
    }

    pub(crate) fn main_of(&self, id: &ContainerId) -> i32 {
        let state = ContainerDir::new(self.container_dir(id)).state().expect("read state").expect("state");
        state.process.pid
    }

    pub(crate) fn capture_of(&self, id: &ContainerId) -> i32 {
        ProcessStat::read(self.main_of(id)).expect("process").parent
    }

    /// Kills the container's first process behind the runtime's back.
    pub(crate) fn kill(&self, id: &ContainerId) {
        kill(self.main_of(id));
    }

    /// Both processes of a container's capture: its monitor and its copier.
    pub(crate) fn captures_of(&self, id: &ContainerId) -> Vec<i32> {
        let (main, monitor) = (self.main_of(id), self.capture_of(id));
        let processes = ProcessStat::all().expect("processes");
        let is_copier = |process: &&ProcessStat| process.parent == monitor && process.session != main;
        let copiers = processes.iter().filter(is_copier).map(|process| process.pid);
        copiers.chain([monitor]).collect()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let directories = |path: PathBuf| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        for sandbox in directories(self.0.path().join("run")) {
            for dir in directories(sandbox).into_iter().map(ContainerDir::new) {
                let is_alive = dir.liveness().is_ok_and(|liveness| liveness == Liveness::Alive);
                // Its end is told before its last process is gone.
                let has_ended = dir.exit().is_ok_and(|exit| exit.is_some());
                if let (true, false, Ok(Some(state))) = (is_alive, has_ended, dir.state()) {
                    kill(state.process.pid);
                }
            }
        }
    }
}

/// Kills one process by its id.
pub(crate) fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).expect("pid");
    kill_process(pid, Signal::KILL).expect("kill");
}

/// Kills several processes before one of them can do anything about it.
pub(crate) fn kill_together(pids: &[i32]) {
    for pid in pids {
        kill_process(Pid::from_raw(*pid).expect("pid"), Signal::STOP).expect("stop");
    }
    pids.iter().copied().for_each(kill);
}

/// Waits for a condition, at most 20 seconds.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Whether the test runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
