//! A `podlog up` with a runtime behind it, and requests to its API server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::harness::Podlog;
use crate::machine::{IMAGE, Machine};
use crate::relay::Relay;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);

/// When logs are rotated; [`DEFAULT_LOG_MAX_BYTES`] if nothing is said.
const LOG_MAX_BYTES: &str = "PODLOG_LOG_MAX_BYTES";
const DEFAULT_LOG_MAX_BYTES: u64 = 1 << 20;

/// A number of the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

pub(crate) fn log_max_bytes() -> u64 {
    setting(LOG_MAX_BYTES, DEFAULT_LOG_MAX_BYTES)
}

/// What runs the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Processes of this machine.
    Process,
    /// A containerd of the test's own.
    Containerd,
    /// Processes of this machine, by a runtime behind a socket.
    CriServer,
}

impl Column {
    /// Whether pods have images, cgroups and root file systems of their own.
    pub(crate) fn has_containers(self) -> bool {
        self == Column::Containerd
    }

    /// The prefix of container ids.
    pub(crate) fn runtime_name(self) -> &'static str {
        match self {
            Column::Process | Column::CriServer => "process",
            Column::Containerd => "containerd",
        }
    }
}

/// The runtime, where it is not part of the kubelet.
pub(crate) enum Backend {
    None,
    Containerd(Machine),
    Server(Server),
}

impl Backend {
    /// Whether the runtime is a process of its own.
    pub(crate) fn is_apart(&self) -> bool {
        self.socket().is_some()
    }

    /// Kills the runtime where it is a process of its own, and starts a new one.
    pub(crate) fn restart(&mut self) {
        match self {
            Backend::None => {}
            Backend::Containerd(machine) => machine.restart(),
            Backend::Server(server) => server.restart(),
        }
    }

    /// What the kubelet is told of the runtime.
    pub(crate) fn flags(&self) -> Vec<String> {
        let socket = self.socket().into_iter();
        let flags = socket.flat_map(|socket| {
            let endpoint = format!("--container-runtime-endpoint=unix://{}", socket.display());
            ["--runtime=cri".to_owned(), endpoint]
        });
        flags.collect()
    }

    fn socket(&self) -> Option<PathBuf> {
        match self {
            Backend::None => None,
            Backend::Containerd(machine) => Some(machine.socket()),
            Backend::Server(server) => Some(server.path("cri.sock")),
        }
    }
}

/// A `podlog cri`.
pub(crate) struct Server {
    process: Child,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Server { process: spawn(folder.path()), folder }
    }

    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(self.folder.path());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn spawn(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
    command.arg("cri").arg(format!("--listen=unix://{}", folder.join("cri.sock").display()));
    command.arg("--data-dir").arg(folder.join("data")).stdin(Stdio::null());
    command.arg(format!("--container-log-max-size={}", log_max_bytes())).arg("--container-log-max-files=200");
    let child = command.stderr(std::fs::File::create(folder.join("stderr")).unwrap()).spawn().unwrap();
    crate::harness::wait_for("podlog cri", || {
        std::os::unix::net::UnixStream::connect(folder.join("cri.sock")).ok()
    });
    child
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut down = Command::new(env!("CARGO_BIN_EXE_podlog"));
        down.args(["down", "--grace-period=0", "--data-dir"]).arg(self.path("data"));
        let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "podlog cri said: {}",
                std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
            );
        }
    }
}

pub(crate) struct Cluster {
    column: Column,
    podlog: Podlog,
    backend: Backend,
    arguments: Vec<String>,
    client: kube::Client,
    /// Where clients find the API server, whatever its port.
    relay: Relay,
    scratch: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(column: Column, backend: Backend) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), column, backend, &json!({})).await
    }

    /// The same, in a folder that was made for it, and with further settings of the kubelet.
    pub(crate) async fn start_in(
        home: tempfile::TempDir,
        column: Column,
        backend: Backend,
        more: &Value,
    ) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let config = scratch.path().join("kubelet.yaml");
        let mut settings = settings(log_max_bytes());
        for (key, value) in more.as_object().unwrap() {
            settings[key] = value.clone();
        }
        std::fs::write(&config, settings.to_string()).unwrap();
        let mut arguments = vec![format!("--kubelet-config={}", config.display())];
        arguments.extend(backend.flags());
        let podlog = Podlog::start_in(home, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let client = client(&podlog).await;
        let relay = Relay::to(podlog.port());
        Cluster { column, podlog, backend, arguments, client, relay, scratch }
    }

    pub(crate) fn column(&self) -> Column {
        self.column
    }

    /// A file or folder of the test's own on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Where podlog keeps what it has.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.podlog.data_dir()
    }

    /// Where the runtime's own things are, if it is one of the test's own.
    pub(crate) fn machine_path(&self) -> Option<&Path> {
        match &self.backend {
            Backend::Containerd(machine) => Some(machine.path()),
            Backend::None | Backend::Server(_) => None,
        }
    }

    /// The test's own containerd.
    pub(crate) fn machine(&self) -> &Machine {
        match &self.backend {
            Backend::Containerd(machine) => machine,
            Backend::None | Backend::Server(_) => panic!("no containerd here"),
        }
    }

    /// Kills API server and kubelet, and starts new ones.
    pub(crate) async fn restart_podlog(&mut self) {
        self.podlog.kill();
        self.start_podlog().await;
    }

    async fn start_podlog(&mut self) {
        self.podlog.up(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>());
        self.relay.set_target(self.podlog.port());
        self.client = client(&self.podlog).await;
    }

    /// Kills all there is but the pods.
    pub(crate) async fn restart_both(&mut self) {
        self.podlog.kill();
        self.backend.restart();
        self.start_podlog().await;
    }

    /// Kills API server and kubelet, and starts new ones that rotate logs at another size.
    pub(crate) async fn restart_with_log_size(&mut self, max_bytes: u64) {
        std::fs::write(self.path("kubelet.yaml"), settings(max_bytes).to_string()).unwrap();
        self.restart_podlog().await;
    }

    /// `podlog logs -f` for a pod, in a process of its own.
    pub(crate) fn follower(&self, name: &str) -> Command {
        let server = format!("--server=https://127.0.0.1:{}", self.relay.port);
        self.podlog.command(&["logs", "-f", name, &server])
    }

    /// Stock kubectl, to be run apart.
    pub(crate) fn kubectl(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        self.podlog.kubectl_command(kubectl, arguments)
    }

    /// Kills the runtime where it is a process of its own, and starts a new one.
    pub(crate) fn restart_runtime(&mut self) {
        self.backend.restart();
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let media =
            if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        self.client.request(request.body(body).unwrap()).await
    }

    /// An object that must be made.
    pub(crate) async fn create(&self, plural: &str, object: Value) -> Value {
        let path = format!("/api/v1/namespaces/default/{plural}");
        let made = self.request("POST", &path, &object).await;
        made.unwrap_or_else(|error| panic!("{object}: {error}"))
    }

    /// Makes a pod, in the host's network unless it says otherwise.
    pub(crate) async fn run(&self, name: &str, spec: Value) -> Value {
        self.run_annotated(name, json!({}), spec).await
    }

    /// The same, with annotations.
    pub(crate) async fn run_annotated(&self, name: &str, annotations: Value, mut spec: Value) -> Value {
        if spec.get("hostNetwork").is_none() {
            spec["hostNetwork"] = json!(true);
        }
        if spec.get("terminationGracePeriodSeconds").is_none() {
            spec["terminationGracePeriodSeconds"] = json!(1);
        }
        let metadata = json!({"name": name, "labels": {"app": name}, "annotations": annotations});
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec});
        self.create("pods", pod).await
    }

    pub(crate) async fn pod(&self, name: &str) -> Option<Value> {
        match self.request("GET", &path(name), &Value::Null).await {
            Ok(pod) => Some(pod),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("pod {name}: {error}"),
        }
    }

    /// The pod when `condition` holds for it.
    pub(crate) async fn wait(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let pod = self.pod(name).await;
            if let Some(pod) = pod.as_ref().filter(|pod| condition(pod)) {
                return pod.clone();
            }
            if begun.elapsed() > PATIENCE {
                let events = self.events(name).await;
                panic!("gave up waiting for {what} of pod {name}: {pod:#?}\n{events:#?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    /// The pod when it is ready.
    pub(crate) async fn wait_ready(&self, name: &str) -> Value {
        self.wait(name, "readiness", |pod| condition(pod, "Ready")["status"] == "True").await
    }

    pub(crate) async fn wait_event(&self, name: &str, text: &str) {
        let begun = Instant::now();
        loop {
            let events = self.events(name).await;
            if events.iter().any(|event| event.contains(text)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no event {text:?} of {name} among {events:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Events of a pod as `Reason: message`.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let short = |event: &Value| format!("{}: {}", text(&event["reason"]), text(&event["message"]));
        self.event_objects(name).await.iter().map(short).collect()
    }

    /// The same with who says it, how bad it is, and what it is about; in the order in which they were first said.
    pub(crate) async fn events_in_full(&self, name: &str) -> Vec<String> {
        let mut events = self.event_objects(name).await;
        events.retain(|event| event["reason"] != "FieldsIgnored");
        events.sort_by_key(|event| text(&event["metadata"]["creationTimestamp"]).to_owned());
        let full = |event: &Value| {
            let about = text(&event["involvedObject"]["fieldPath"]);
            let [who, level, reason, message] =
                [&event["reportingComponent"], &event["type"], &event["reason"], &event["message"]].map(text);
            format!("{who} {level} {reason} {about}: {message}")
        };
        events.iter().map(full).collect()
    }

    async fn event_objects(&self, name: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}");
        let list = self.request("GET", &path, &Value::Null).await.unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Ends all but the runtime.
    pub(crate) fn into_backend(self) -> Backend {
        self.backend
    }

    /// What the node's endpoint answers, by way of the API server.
    pub(crate) async fn node(&self, path: &str) -> String {
        let path = format!("/api/v1/nodes/node-a/proxy/{path}");
        self.client.request_text(Request::get(path).body(Vec::new()).unwrap()).await.unwrap()
    }

    /// Log of a container, as an API client gets it.
    pub(crate) async fn log(&self, name: &str, query: &str) -> Result<String, kube::Error> {
        let request = Request::get(format!("{}/log?{query}", path(name))).body(Vec::new()).unwrap();
        self.client.request_text(request).await
    }

    /// The same, as it comes.
    pub(crate) async fn stream(&self, name: &str, query: &str) -> impl futures_util::AsyncBufRead {
        self.try_stream(name, query).await.unwrap()
    }

    pub(crate) async fn try_stream(
        &self,
        name: &str,
        query: &str,
    ) -> Result<impl futures_util::AsyncBufRead, kube::Error> {
        let request = Request::get(format!("{}/log?{query}", path(name))).body(Vec::new()).unwrap();
        self.client.request_stream(request).await
    }

    /// A log that has this text.
    pub(crate) async fn wait_log(&self, name: &str, query: &str, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log(name, query).await;
            if let Some(log) = log.as_ref().ok().filter(|log| log.contains(text)) {
                return log.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no {text:?} in the log of {name}: {log:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.request("DELETE", &path(name), &Value::Null).await.unwrap();
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        let begun = Instant::now();
        while let Some(pod) = self.pod(name).await {
            assert!(begun.elapsed() < PATIENCE, "pod {name} does not go: {pod:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deletes a pod and waits for its end.
    pub(crate) async fn remove(&self, name: &str) {
        self.delete(name).await;
        self.wait_gone(name).await;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The kubelet's configuration.
pub(crate) fn settings(log_max_bytes: u64) -> Value {
    json!({
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
        "containerLogMaxSize": log_max_bytes.to_string(), "containerLogMaxFiles": 200, "syncFrequency": "1s",
    })
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

async fn client(podlog: &Podlog) -> kube::Client {
    podlog_serving::install_crypto_provider();
    client_of(&podlog.data_dir().join("kubeconfig")).await
}

/// A client by a kubeconfig.
pub(crate) async fn client_of(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// A container that runs a script.
pub(crate) fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["/bin/sh", "-c", script]})
}

/// `value` with another field.
pub(crate) fn with(mut value: Value, key: &str, field: Value) -> Value {
    value[key] = field;
    value
}

/// A pod with one container that is not started again.
pub(crate) fn once(container: Value) -> Value {
    json!({"containers": [container], "restartPolicy": "Never"})
}

/// The condition of that type.
pub(crate) fn condition(pod: &Value, kind: &str) -> Value {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// `True`, `False` or empty, of these conditions in turn.
pub(crate) fn conditions(pod: &Value, kinds: [&str; 4]) -> [String; 4] {
    kinds.map(|kind| {
        let found = condition(pod, kind);
        let (status, reason) = (found["status"].as_str().unwrap_or_default(), found["reason"].as_str());
        reason.map_or_else(|| status.to_owned(), |reason| format!("{status} {reason}"))
    })
}

/// The conditions that say how far a pod is.
pub(crate) const PROGRESS: [&str; 4] =
    ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// Status of a container, whatever its kind.
pub(crate) fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// Exit code and reason of a container that has ended.
pub(crate) fn ended(pod: &Value, name: &str) -> (i64, String) {
    let ended = &status(pod, name)["state"]["terminated"];
    (ended["exitCode"].as_i64().unwrap_or(-1), ended["reason"].as_str().unwrap_or_default().to_owned())
}
