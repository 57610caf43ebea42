//! A container runtime whose containers do what the test says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_kubelet::runtime::*;
use tokio::sync::{Notify, mpsc};

/// Containers by id. A container's command says what it does: `exit <code>` ends at once, `missing` cannot be started,
/// `stubborn` ignores SIGTERM, anything else runs until it is stopped.
#[derive(Default)]
pub(crate) struct FakeRuntime {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, PodSandbox>,
    containers: BTreeMap<String, ContainerStatus>,
    configs: HashMap<String, ContainerConfig>,
    next: u32,
    listeners: Vec<mpsc::Sender<ContainerEvent>>,
    /// Exit code of commands run in containers, by their first word.
    exec: HashMap<String, i32>,
    execs: Vec<String>,
    /// `stop_container` calls: name and grace.
    stops: Vec<(String, u64)>,
    /// What the runtime says of itself; `None` when it does not answer.
    down: bool,
    not_ready: Option<&'static str>,
    /// With what every question for a container's status fails.
    broken: Option<&'static str>,
    /// Calls that fail, by their names, and how often each was made.
    failing: BTreeSet<&'static str>,
    calls: BTreeMap<&'static str, usize>,
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The newest instance of a container.
    pub(crate) fn newest(&self, name: &str) -> Option<ContainerStatus> {
        let state = self.state.lock();
        state
            .containers
            .values()
            .filter(|status| status.container.name == name)
            .max_by_key(|s| s.container.attempt)
            .cloned()
    }

    pub(crate) fn config(&self, name: &str) -> ContainerConfig {
        let id = self.newest(name).unwrap().container.id;
        self.state.lock().configs[&id.0].clone()
    }

    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }

    pub(crate) fn stops(&self) -> Vec<(String, u64)> {
        self.state.lock().stops.clone()
    }

    pub(crate) fn execs(&self) -> Vec<String> {
        self.state.lock().execs.clone()
    }

    /// Makes every question for a container's status fail.
    pub(crate) fn fail_statuses(&self, why: &'static str) {
        self.state.lock().broken = Some(why);
    }

    /// Makes calls of a name fail, or lets them succeed again.
    pub(crate) fn set_failing(&self, call: &'static str, fails: bool) {
        let failing = &mut self.state.lock().failing;
        let _ = if fails { failing.insert(call) } else { failing.remove(call) };
    }

    /// How often a call was made.
    pub(crate) fn calls(&self, call: &str) -> usize {
        self.state.lock().calls.get(call).copied().unwrap_or_default()
    }

    /// Whether it answers when it is asked how it is, and what keeps it from being ready.
    pub(crate) fn set_health(&self, down: bool, not_ready: Option<&'static str>) {
        let mut state = self.state.lock();
        (state.down, state.not_ready) = (down, not_ready);
    }

    /// What commands that begin with this word end with.
    pub(crate) fn set_exec(&self, word: &str, code: i32) {
        self.state.lock().exec.insert(word.into(), code);
    }

    /// Writes CRI records of a container.
    pub(crate) fn log(&self, name: &str, lines: &[&str]) {
        let path = self.newest(name).unwrap().log_path;
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        for line in lines {
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ");
            writeln!(file, "{now} stdout F {line}").unwrap();
        }
    }

    /// Ends the newest instance of a container.
    pub(crate) fn end(&self, name: &str, code: i32) {
        let id = self.newest(name).unwrap().container.id;
        self.exit(&id, code);
    }

    fn exit(&self, id: &ContainerId, code: i32) {
        let mut state = self.state.lock();
        let Some(status) = state.containers.get_mut(&id.0) else { return };
        if status.container.state != ContainerState::Running {
            return;
        }
        status.container.state = ContainerState::Exited;
        status.exit_code = code;
        status.finished_at = Some(Timestamp::now());
        status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        let event = ContainerEvent {
            id: id.clone(),
            sandbox: status.container.sandbox.clone(),
            state: ContainerState::Exited,
        };
        state.tell(event);
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn tell(&mut self, event: ContainerEvent) {
        self.listeners.retain(|listener| {
            !matches!(listener.try_send(event.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    /// Counts a call, which may be one that fails.
    fn call(&mut self, call: &'static str) -> Result<(), RuntimeError> {
        *self.calls.entry(call).or_default() += 1;
        match self.failing.contains(call) {
            true => Err(RuntimeError::Rpc { code: "Unknown", message: format!("{call} says \"no\"") }),
            false => Ok(()),
        }
    }

    fn next_id(&mut self, prefix: &str) -> String {
        self.next += 1;
        // As long as those of real runtimes.
        format!("{prefix}{:063}", self.next)
    }
}

fn gone(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what, id: id.to_owned() }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: "fake".into(), version: "1.0".into() })
    }

    fn images(&self) -> Images {
        Images::Used
    }

    async fn conditions(&self) -> Result<Vec<RuntimeCondition>, RuntimeError> {
        let state = self.state.lock();
        if state.down {
            return Err(RuntimeError::Unavailable("no such socket".into()));
        }
        let condition = |kind: &str, complaint: Option<&str>| RuntimeCondition {
            kind: kind.into(),
            is_true: complaint.is_none(),
            reason: "Because".into(),
            message: complaint.unwrap_or_default().into(),
        };
        let network = state.failing.contains("network").then_some("no plugin");
        Ok(vec![condition("RuntimeReady", state.not_ready), condition("NetworkReady", network)])
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let image = Image { reference: image.to_owned(), ..Image::default() };
        Ok(Some(image).filter(|image| !image.reference.contains("unknown")))
    }

    async fn pull_image(&self, image: &str, _auth: Option<&RegistryAuth>) -> Result<String, RuntimeError> {
        if image.contains("unknown") {
            return Err(RuntimeError::Image("no such image".into()));
        }
        Ok(image.to_owned())
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId, RuntimeError> {
        let mut state = self.state.lock();
        let id = SandboxId(state.next_id("s"));
        let made = state.call("run_pod_sandbox");
        let sandbox = PodSandbox {
            id: id.clone(),
            config: config.clone(),
            // What could not be made is there all the same, as with containerd.
            state: if made.is_ok() { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: Timestamp::now(),
        };
        state.sandboxes.insert(id.0.clone(), sandbox);
        made.map(|()| id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.call("stop_pod_sandbox")?;
        if let Some(sandbox) = state.sandboxes.get_mut(&id.0) {
            sandbox.state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.sandboxes.remove(&id.0);
        state.containers.retain(|_, status| status.container.sandbox != *id);
        Ok(())
    }

    async fn list_pod_sandboxes(&self, label: Option<(&str, &str)>) -> Result<Vec<PodSandbox>, RuntimeError> {
        let has_label = |sandbox: &&PodSandbox| {
            label.is_none_or(|(key, value)| sandbox.config.labels.get(key).is_some_and(|own| own == value))
        };
        let mut state = self.state.lock();
        state.call("list_pod_sandboxes")?;
        Ok(state.sandboxes.values().filter(has_label).cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        if config.command.is_empty() {
            return Err(RuntimeError::CreateContainer("no command specified".into()));
        }
        let mut state = self.state.lock();
        let directory = state.sandboxes[&sandbox.0].config.log_directory.clone();
        let id = ContainerId(state.next_id("c"));
        let log_path = directory.join(&config.log_path);
        fs::write(&log_path, "").unwrap();
        let status = ContainerStatus {
            container: Container {
                id: id.clone(),
                sandbox: sandbox.clone(),
                name: config.name.clone(),
                attempt: config.attempt,
                state: ContainerState::Created,
                created_at: Timestamp::now(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            },
            image: config.image.clone(),
            image_name: String::new(),
            user: None,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path,
        };
        state.containers.insert(id.0.clone(), status);
        state.configs.insert(id.0.clone(), config.clone());
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let command = {
            let mut state = self.state.lock();
            let command = state.configs[&id.0].command.join(" ");
            let status = state.containers.get_mut(&id.0).ok_or_else(|| gone("container", &id.0))?;
            status.started_at = Some(Timestamp::now());
            if command == "missing" {
                status.container.state = ContainerState::Exited;
                status.finished_at = Some(Timestamp::now());
                (status.exit_code, status.reason) = (128, "StartError".into());
                status.message = "no such file or directory".into();
                return Err(RuntimeError::StartContainer("no such file or directory".into()));
            }
            status.container.state = ContainerState::Running;
            let event = ContainerEvent {
                id: id.clone(),
                sandbox: status.container.sandbox.clone(),
                state: ContainerState::Running,
            };
            state.tell(event);
            command
        };
        if let Some(code) = command.strip_prefix("exit ") {
            self.exit(id, code.parse().unwrap());
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let stubborn = {
            let mut state = self.state.lock();
            state.call("stop_container")?;
            let Some(config) = state.configs.get(&id.0).cloned() else { return Ok(()) };
            state.stops.push((config.name, grace.as_secs()));
            config.command == ["stubborn"]
        };
        if stubborn {
            let ended = async {
                loop {
                    let changed = self.changed.notified();
                    let status = self.container_status(id).await;
                    if status.is_ok_and(|status| status.container.state == ContainerState::Exited) {
                        return;
                    }
                    changed.await;
                }
            };
            let _ = tokio::time::timeout(grace, ended).await;
            self.exit(id, 137);
        } else {
            self.exit(id, 143);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.state.lock().containers.remove(&id.0);
        Ok(())
    }

    async fn list_containers(&self, label: Option<(&str, &str)>) -> Result<Vec<Container>, RuntimeError> {
        let has_label = |status: &&ContainerStatus| {
            label.is_none_or(|(key, value)| status.container.labels.get(key).is_some_and(|own| own == value))
        };
        let state = self.state.lock();
        Ok(state.containers.values().filter(has_label).map(|status| status.container.clone()).collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let state = self.state.lock();
        if let Some(why) = state.broken {
            return Err(RuntimeError::Failed { step: why.into(), source: "told so".into() });
        }
        state.containers.get(&id.0).cloned().ok_or_else(|| gone("container", &id.0))
    }

    /// As containerd: what is not there is made, but for its directory.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let path = {
            let mut state = self.state.lock();
            state.call("reopen_container_log")?;
            let status = state.containers.get(&id.0).ok_or_else(|| gone("container", &id.0))?;
            status.log_path.clone()
        };
        let opened = fs::OpenOptions::new().append(true).create(true).open(path);
        opened.map(drop).map_err(|error| RuntimeError::Rpc { code: "Unknown", message: error.to_string() })
    }

    async fn exec_sync(
        &self,
        _: &ContainerId,
        command: &[String],
        _: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let mut state = self.state.lock();
        state.execs.push(command.join(" "));
        let exit_code = state.exec.get(&command[0]).copied().unwrap_or(0);
        Ok(ExecResult { exit_code, stdout: b"said\n".to_vec(), stderr: Vec::new() })
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(100);
        self.state.lock().listeners.push(sender);
        receiver
    }
}
