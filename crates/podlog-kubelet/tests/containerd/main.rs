//! CRI against a real containerd, where there is one.

#![expect(clippy::print_stderr, reason = "a test that was skipped says so loudly")]

#[path = "../../../../tests/support/containerd.rs"]
mod machine;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use machine::{IMAGE, Machine};
use podlog_driver::{FileLimits, LogRotator};
use podlog_kubelet::runtime::cri::{CriRuntime, Endpoint};
use podlog_kubelet::runtime::{
    ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStatus, PodSandboxConfig,
    Resources, RuntimeError, SandboxId, SandboxState,
};
use podlog_line::Timestamp;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian has CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// One containerd for all: starting it costs more than what is shown with it.
#[tokio::test]
async fn containers_of_containerd() {
    let Some(mut machine) = Machine::start() else { return };
    let runtime = open(&machine);
    assert_eq!(runtime.version().await.expect("version").name, "containerd");
    images(&runtime).await;
    networks(&machine, &runtime).await;
    let sandbox = runtime.run_pod_sandbox(&pod(&machine)).await.expect("sandbox");
    a_life(&runtime, &sandbox).await;
    commands_and_stops(&runtime, &sandbox).await;
    memory(&runtime, &sandbox).await;
    rotation(&runtime, &sandbox).await;
    restarts(&mut machine, &sandbox).await;
    let runtime = open(&machine);
    runtime.stop_pod_sandbox(&sandbox).await.expect("stop");
    runtime.remove_pod_sandbox(&sandbox).await.expect("remove");
    runtime.remove_pod_sandbox(&sandbox).await.expect("remove again");
    assert!(runtime.list_containers(None).await.expect("list").is_empty());
}

/// What a kubelet that has just started has of the runtime.
fn open(machine: &Machine) -> std::sync::Arc<CriRuntime> {
    let endpoint: Endpoint = machine.socket().display().to_string().parse().expect("an absolute path");
    CriRuntime::open(&endpoint)
}

fn pod(machine: &Machine) -> PodSandboxConfig {
    PodSandboxConfig {
        name: "pod-0".into(),
        namespace: "default".into(),
        uid: "1234".into(),
        log_directory: machine.path().join("logs/default_pod-0_1234"),
        labels: [("io.kubernetes.pod.uid".to_owned(), "1234".to_owned())].into(),
        host_network: true,
        ..PodSandboxConfig::default()
    }
}

async fn images(runtime: &CriRuntime) {
    let there = runtime.image_status(IMAGE).await.expect("status").expect("the image");
    assert!(there.reference.starts_with("sha256:"), "{there:?}");
    let missing = "127.0.0.1:1/no/such:1";
    assert_eq!(runtime.image_status(missing).await.expect("status"), None);
    let error = runtime.pull_image(missing, None).await.expect_err("nobody listens there");
    assert!(
        matches!(&error, RuntimeError::Image(text) if text.starts_with("rpc error: code = ")),
        "{error:?}"
    );
}

/// Without CNI only the host's network is to be had, and the runtime's words say so.
async fn networks(machine: &Machine, runtime: &CriRuntime) {
    let config = PodSandboxConfig { host_network: false, uid: "own-network".into(), ..pod(machine) };
    let error = runtime.run_pod_sandbox(&config).await.expect_err("no CNI");
    assert!(matches!(&error, RuntimeError::Rpc { message, .. } if message.contains("cni")), "{error:?}");
    let network =
        runtime.conditions().await.expect("conditions").into_iter().find(|c| c.kind == "NetworkReady");
    assert!(!network.expect("a condition").is_true);
    // What it has begun stays, with its network, until there is somebody who can take it back.
    let left = runtime.list_pod_sandboxes(None).await.expect("list");
    assert_eq!((left.len(), network_count(machine)), (1, 1));
    runtime.stop_pod_sandbox(&left[0].id).await.expect_err("no CNI");
    if !Path::new(PLUGINS).join("loopback").exists() {
        eprintln!(
            "SKIPPED: no CNI plugins: nothing is shown about networks (apt-get install containernetworking-plugins)"
        );
        return;
    }
    let list = r#"{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}"#;
    fs::write(machine.path().join("cni/10-none.conflist"), list).expect("a file");
    let begun = Instant::now();
    while runtime.stop_pod_sandbox(&left[0].id).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "containerd does not read its configuration");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runtime.remove_pod_sandbox(&left[0].id).await.expect("remove");
    assert_eq!(network_count(machine), 0);
}

/// Network namespaces that containerd holds for sandboxes.
fn network_count(machine: &Machine) -> usize {
    let folder = machine.path().join("state/io.containerd.grpc.v1.cri/netns");
    fs::read_dir(folder).into_iter().flatten().count()
}

async fn a_life(runtime: &CriRuntime, sandbox: &SandboxId) {
    let mut events = runtime.events();
    let id = start(runtime, sandbox, "life", "echo hello; echo err >&2; exit 3").await;
    let status = wait_exited(runtime, &id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert_eq!((status.container.name.as_str(), &status.container.sandbox), ("life", sandbox));
    // Which of the two comes first is not ours to say: containerd notes the start when its call returns, and the end when it
    // happened.
    let created = Some(status.container.created_at);
    assert!(created < status.started_at && created < status.finished_at, "{status:?}");
    let log = fs::read_to_string(&status.log_path).expect("log");
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F err\n"), "{log}");
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("an event");
        if event.id == id && event.state == ContainerState::Exited {
            break;
        }
    }
    runtime.remove_container(&id).await.expect("remove");
    runtime.remove_container(&id).await.expect("remove again");
    assert!(matches!(runtime.container_status(&id).await, Err(RuntimeError::NotFound { .. })));
}

async fn commands_and_stops(runtime: &CriRuntime, sandbox: &SandboxId) {
    let id =
        start(runtime, sandbox, "polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done").await;
    let log = runtime.container_status(&id).await.expect("status").log_path;
    wait_for(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("up"))).await;
    let command = |text: &str| ["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    let done =
        runtime.exec_sync(&id, &command("echo out; echo err >&2; exit 5"), PATIENCE).await.expect("exec");
    assert_eq!((done.exit_code, done.stdout, done.stderr), (5, b"out\n".to_vec(), b"err\n".to_vec()));
    let late = runtime.exec_sync(&id, &command("sleep 100"), Duration::from_secs(1)).await;
    assert!(matches!(late, Err(RuntimeError::ExecTimeout { .. })), "{late:?}");
    runtime.stop_container(&id, PATIENCE).await.expect("stop");
    assert_eq!(wait_exited(runtime, &id).await.exit_code, 7);
    runtime.stop_container(&id, PATIENCE).await.expect("stop again");
    let missing =
        create(runtime, sandbox, "missing", |config| config.command = vec!["/no/such".into()]).await;
    let error = runtime.start_container(&missing).await.expect_err("no such program");
    assert!(matches!(&error, RuntimeError::StartContainer(text) if !text.contains("rpc error")), "{error:?}");
}

async fn memory(runtime: &CriRuntime, sandbox: &SandboxId) {
    let id = create(runtime, sandbox, "hungry", |config| {
        config.args = vec!["x=a; while :; do x=$x$x; done".to_owned()];
        config.resources = Resources { memory_limit_bytes: 16 << 20, ..Resources::default() };
    });
    let id = id.await;
    runtime.start_container(&id).await.expect("start");
    let status = wait_exited(runtime, &id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

/// While it writes, its log is rotated again and again: every line is there once.
async fn rotation(runtime: &CriRuntime, sandbox: &SandboxId) {
    // It never comes to an end by itself, however late the rotations are.
    let id = start(runtime, sandbox, "many", "seq 1 1000000000").await;
    let path = runtime.container_status(&id).await.expect("status").log_path;
    let mut rotator =
        LogRotator::open(&path, FileLimits { max_files: 100, ..FileLimits::default() }).expect("a log");
    let mut second = 0;
    while second < 5 {
        let size = rotator.size().expect("size").unwrap_or_default();
        if size > 0 {
            rotator.rotate(Timestamp::from_seconds(1_767_225_600 + second, 0)).expect("rotate");
            assert!(path.exists());
            runtime.reopen_container_log(&id).await.expect("reopen");
            rotator.settle();
            second += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runtime.stop_container(&id, Duration::ZERO).await.expect("stop");
    wait_exited(runtime, &id).await;
    let mut written = lines(&path);
    // The last one may have been cut by the end.
    written.pop();
    assert!(!written.is_empty() && written.iter().zip(1..).all(|(line, number)| *line == number.to_string()));
    let refused = runtime.reopen_container_log(&id).await;
    assert!(matches!(refused, Err(RuntimeError::Rpc { .. })), "{refused:?}");
}

/// All lines of a log, as its reader gives them.
fn lines(path: &Path) -> Vec<String> {
    let read = || -> Result<Vec<u8>, podlog_driver::ReadError> {
        let selection = podlog_line::Selection::default();
        let mut reader = podlog_driver::LogSource::open(path)?.read(&selection)?;
        let mut data = Vec::new();
        while matches!(reader.read_chunk(&mut data)?, podlog_driver::ReadState::More) {}
        reader.finish(&mut data)?;
        Ok(data)
    };
    String::from_utf8(read().expect("a log")).expect("text").lines().map(str::to_owned).collect()
}

/// Neither a new kubelet nor a new containerd changes anything for what runs.
async fn restarts(machine: &mut Machine, sandbox: &SandboxId) {
    let runtime = open(machine);
    let id = start(&runtime, sandbox, "lasting", "while :; do sleep 0.1; done").await;
    let before = runtime.container_status(&id).await.expect("status");
    machine.restart();
    // The connection that broke is made anew.
    wait_until_answered(&runtime).await;
    assert_eq!(runtime.container_status(&id).await.expect("status"), before);
    let adopted = open(machine);
    assert_eq!(adopted.container_status(&id).await.expect("status"), before);
    let found = adopted.list_pod_sandboxes(None).await.expect("list");
    let own = found.into_iter().find(|found| found.id == *sandbox).expect("the sandbox");
    assert_eq!((own.config, own.state), (pod(machine), SandboxState::Ready));
    assert_eq!(adopted.pod_sandbox_ips(sandbox).await.expect("addresses"), None);
    adopted.stop_container(&id, Duration::ZERO).await.expect("stop");
    assert_eq!(wait_exited(&adopted, &id).await.exit_code, 137);
}

async fn wait_until_answered(runtime: &CriRuntime) {
    let deadline = Instant::now() + PATIENCE;
    while runtime.version().await.is_err() || runtime.list_containers(None).await.is_err() {
        assert!(Instant::now() < deadline, "the runtime does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn create(
    runtime: &CriRuntime,
    sandbox: &SandboxId,
    name: &str,
    change: impl FnOnce(&mut ContainerConfig),
) -> ContainerId {
    let mut config = ContainerConfig {
        name: name.into(),
        image: IMAGE.into(),
        user_specified_image: IMAGE.into(),
        command: vec!["/bin/sh".into(), "-c".into()],
        log_path: format!("{name}/0.log").into(),
        ..ContainerConfig::default()
    };
    change(&mut config);
    runtime.create_container(sandbox, &config).await.expect("create")
}

async fn start(runtime: &CriRuntime, sandbox: &SandboxId, name: &str, script: &str) -> ContainerId {
    let id = create(runtime, sandbox, name, |config| config.args = vec![script.to_owned()]).await;
    runtime.start_container(&id).await.expect("start");
    id
}

async fn wait_exited(runtime: &CriRuntime, id: &ContainerId) -> ContainerStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = runtime.container_status(id).await.expect("status");
        if status.container.state == ContainerState::Exited {
            return status;
        }
        assert!(Instant::now() < deadline, "waited too long for the end of {id:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
