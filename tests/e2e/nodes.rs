//! API server and kubelets as processes of their own, on their own ports.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::harness::{kubectl, text, wait_for};
use crate::standalone::Process;

/// Starts `podlog` and waits for its ready line; returns the URL in it.
pub(crate) fn podlog(arguments: &[String], stderr: &Path) -> (Process, String) {
    let said = std::fs::File::options().create(true).append(true).open(stderr).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_podlog"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    let mut ready = String::new();
    lines.read_line(&mut ready).unwrap();
    let said = || std::fs::read_to_string(stderr).unwrap_or_default();
    let (_, url) =
        ready.trim().split_once(": ").unwrap_or_else(|| panic!("not ready: {ready:?}\n{}", said()));
    // Keeps the pipe open and empty for as long as the process lives.
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    (Process(process), url.to_owned())
}

/// An authority, an API server, and what nodes need to join.
pub(crate) struct Cluster {
    home: tempfile::TempDir,
    kubectl: PathBuf,
    authority: CertificateAuthority,
    server: Option<Process>,
    /// The server's port, which nobody else gets while the server is away.
    port: TcpSocket,
    url: String,
    nodes: Vec<String>,
    flags: &'static [(&'static str, &'static str)],
}

impl Cluster {
    /// `None` where there is no kubectl, which is said.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with further flags of the API server: names and files.
    pub(crate) fn start_with(flags: &'static [(&'static str, &'static str)]) -> Option<Self> {
        Some(Self::start_for(kubectl()?, flags))
    }

    /// The same, with a kubectl that is not looked for, and may not be there.
    pub(crate) fn start_for(kubectl: PathBuf, flags: &'static [(&'static str, &'static str)]) -> Self {
        podlog_serving::install_crypto_provider();
        let home = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(home.path(), "ca", "test-ca").unwrap();
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (url, nodes) = (String::new(), Vec::new());
        let mut cluster = Cluster { home, kubectl, authority, server: None, port, url, nodes, flags };
        cluster.certificate("apiserver", &CertificateRequest::serving("apiserver", ["127.0.0.1"]));
        cluster.certificate("admin", &CertificateRequest::client("admin", Some("system:masters")));
        podlog_serving::pki::load_or_create_signing_key(&cluster.path("sa.key"), &cluster.path("sa.pub"))
            .unwrap();
        cluster.start_server();
        cluster
    }

    fn certificate(&self, name: &str, request: &CertificateRequest) {
        let files = KeyPairFiles::in_folder(self.home.path(), name);
        self.authority.ensure(&files, request).unwrap();
    }

    /// Starts the API server, for the first time or again.
    pub(crate) fn start_server(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let mut arguments = vec!["apiserver".to_owned()];
        for (flag, value) in [
            ("--bind-address", "127.0.0.1".into()),
            ("--secure-port", self.port.local_addr().unwrap().port().to_string()),
            ("--store", file("store.redb")),
            ("--tls-cert-file", file("apiserver.crt")),
            ("--tls-private-key-file", file("apiserver.key")),
            ("--client-ca-file", file("ca.crt")),
            ("--kubelet-client-certificate", file("admin.crt")),
            ("--kubelet-client-key", file("admin.key")),
            ("--kubelet-preferred-address-types", "InternalIP".into()),
            ("--service-account-key-file", file("sa.pub")),
            ("--service-account-signing-key-file", file("sa.key")),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        for (flag, name) in self.flags {
            arguments.push(if name.is_empty() {
                (*flag).to_owned()
            } else {
                format!("{flag}={}", file(name))
            });
        }
        let (server, url) = podlog(&arguments, &self.path("apiserver.stderr"));
        (self.server, self.url) = (Some(server), url);
    }

    /// Kills the API server.
    pub(crate) fn kill_server(&mut self) {
        self.server = None;
    }

    /// The arguments of a kubelet, with the process runtime unless they say otherwise.
    pub(crate) fn kubelet(&mut self, node: &str, more: &[&str]) -> Vec<String> {
        let user = format!("system:node:{node}");
        self.certificate(node, &CertificateRequest::client(user, Some("system:nodes")));
        let file = |name: &str| self.path(name).display().to_string();
        self.kubeconfig(
            &format!("{node}.conf"),
            json!({"client-certificate": file(&format!("{node}.crt")), "client-key": file(&format!("{node}.key"))}),
        );
        let config = json!({
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "podLogsDir": file(&format!("{node}/pods")), "healthzPort": 0,
            "authentication": {"x509": {"clientCAFile": file("ca.crt")}},
        });
        std::fs::write(self.path(&format!("{node}.yaml")), config.to_string()).unwrap();
        let mut arguments = vec!["kubelet".to_owned(), "--address=127.0.0.1".into()];
        if !more.iter().any(|flag| flag.starts_with("--runtime=")) {
            arguments.push("--runtime=process".into());
        }
        for (flag, value) in [
            ("--config", file(&format!("{node}.yaml"))),
            ("--kubeconfig", file(&format!("{node}.conf"))),
            ("--hostname-override", node.to_owned()),
            ("--root-dir", file(&format!("{node}/kubelet"))),
            ("--port", "0".into()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        self.nodes.push(node.to_owned());
        arguments
    }

    pub(crate) fn run(&self, arguments: &[String]) -> (Process, String) {
        podlog(arguments, &self.path("kubelet.stderr"))
    }

    /// Writes a kubeconfig for this server.
    pub(crate) fn kubeconfig(&self, name: &str, user: serde_json::Value) -> String {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": self.url, "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{"name": "c", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(self.path(name), kubeconfig.to_string()).unwrap();
        self.path(name).display().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        let file = |name: &str| self.path(name).display().to_string();
        command
            .env("KUBECONFIG", self.path("none"))
            .env("HOME", self.home.path())
            .args([format!("--server={}", self.url), format!("--certificate-authority={}", file("ca.crt"))])
            .args([format!("--client-certificate={}", file("admin.crt"))])
            .args([format!("--client-key={}", file("admin.key"))])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().unwrap()
    }

    /// `podlog` as the administrator, to its end.
    pub(crate) fn podlog(&self, arguments: &[&str]) -> Output {
        self.podlog_command(arguments).output().unwrap()
    }

    /// `podlog` as the administrator.
    pub(crate) fn podlog_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        command.args(arguments).env("KUBECONFIG", self.administrator()).env("HOME", self.home.path());
        command.stdin(Stdio::null());
        command
    }

    /// The administrator's kubeconfig, written once: others may be reading it.
    pub(crate) fn administrator(&self) -> String {
        let written = self.path("admin.conf");
        if written.exists() {
            return written.display().to_string();
        }
        let file = |name: &str| self.path(name).display().to_string();
        let user = json!({"client-certificate": file("admin.crt"), "client-key": file("admin.key")});
        self.kubeconfig("admin.conf", user)
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stderr), self.messages());
        text(&output.stdout)
    }

    pub(crate) fn apply(&self, manifest: &str) {
        let file = self.path("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        // The default service account is made a moment after its namespace.
        wait_for("the manifest to be taken", || {
            let output = self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
            output.status.success().then_some(())
        });
    }

    pub(crate) fn messages(&self) -> String {
        let said = |name| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        format!(
            "\n--- kubelets said:\n{}\n--- the server said:\n{}",
            said("kubelet.stderr"),
            said("apiserver.stderr")
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            stop_containers(&self.path(node).join("kubelet/run"));
        }
        if std::thread::panicking() {
            eprintln!("{}", self.messages());
        }
    }
}

/// Kills what a kubelet left running: the first process of each container, by the pid in its state.
fn stop_containers(run: &Path) {
    let directories = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    for container in directories(run).iter().flat_map(|sandbox| directories(sandbox)) {
        let state = std::fs::read(container.join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
        let has_ended = container.join("exit.json").exists();
        if let (false, Some(pid)) = (has_ended, state["process"]["pid"].as_i64()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}
