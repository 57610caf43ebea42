//! Two API servers on one etcd, one of them killed.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};

use crate::harness::{kubectl, text, wait_for};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none, command: [sleep, '1']}]}
";

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// etcd and its URL; `None` where there is none, which is said.
fn etcd(folder: &Path) -> Option<(Process, String)> {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, peer) = (format!("http://{}", free()), format!("http://{}", free()));
    let log = std::fs::File::create(folder.join("etcd.log")).unwrap();
    let process = Command::new("etcd")
        .args(["--name=m", "--logger=zap", "--data-dir"])
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg(format!("--initial-cluster=m={peer}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    match process {
        Ok(process) => Some((Process(process), client)),
        Err(error) => {
            eprintln!("SKIPPED, NOT TESTED: no etcd in the PATH ({error}); install etcd-server");
            None
        }
    }
}

struct Cluster {
    folder: PathBuf,
    kubectl: PathBuf,
    etcd: String,
}

impl Cluster {
    fn prepare(folder: &Path, kubectl: PathBuf, etcd: String) -> Cluster {
        let authority = CertificateAuthority::load_or_create(folder, "ca", "test-ca").unwrap();
        let requests = [
            ("apiserver", CertificateRequest::serving("apiserver", ["127.0.0.1"])),
            ("admin", CertificateRequest::client("admin", Some("system:masters"))),
        ];
        for (name, request) in requests {
            authority.ensure(&KeyPairFiles::in_folder(folder, name), &request).unwrap();
        }
        podlog_serving::pki::load_or_create_signing_key(&folder.join("sa.key"), &folder.join("sa.pub"))
            .unwrap();
        Cluster { folder: folder.to_owned(), kubectl, etcd }
    }

    /// A server and its URL.
    fn server(&self) -> (Process, String) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let flags = [
            ("--bind-address", "127.0.0.1".into()),
            ("--secure-port", "0".into()),
            ("--etcd-servers", self.etcd.clone()),
            ("--tls-cert-file", file("apiserver.crt")),
            ("--tls-private-key-file", file("apiserver.key")),
            ("--client-ca-file", file("ca.crt")),
            ("--kubelet-client-certificate", file("admin.crt")),
            ("--kubelet-client-key", file("admin.key")),
            ("--service-account-key-file", file("sa.pub")),
            ("--service-account-signing-key-file", file("sa.key")),
        ];
        let mut process = Command::new(env!("CARGO_BIN_EXE_podlog"))
            .arg("apiserver")
            .args(flags.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        let (_, url) = ready.trim().split_once(": ").unwrap_or_else(|| panic!("not ready: {ready:?}"));
        // Keeps the pipe open and empty for as long as the process lives.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        (Process(process), url.to_owned())
    }

    fn kubectl(&self, server: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        let file = |name: &str| self.folder.join(name).display().to_string();
        command
            .env("KUBECONFIG", self.folder.join("none"))
            .args([format!("--server={server}"), format!("--certificate-authority={}", file("ca.crt"))])
            .args([format!("--client-certificate={}", file("admin.crt"))])
            .args([format!("--client-key={}", file("admin.key"))])
            .args(arguments);
        command
    }

    fn run(&self, server: &str, arguments: &[&str]) -> String {
        let output = self.kubectl(server, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Follows config maps after a resource version.
    fn watch(
        &self,
        server: &str,
        version: &str,
    ) -> (Process, impl Iterator<Item = (String, String)> + use<>) {
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
        let mut command = self.kubectl(server, &["get", "--raw", &path]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The line in which the connection broke is none.
        let events = lines.map_while(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let said = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let event = move |event: serde_json::Value| {
            let metadata = &event["object"]["metadata"];
            (
                format!("{} {}", said(&event["type"]), said(&metadata["name"])),
                said(&metadata["resourceVersion"]),
            )
        };
        (Process(process), events.map(event))
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn one_of_two_servers_is_killed_and_nothing_is_missed() {
    let Some(kubectl) = kubectl() else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some((_etcd, url)) = etcd(folder.path()) else { return };
    let cluster = Cluster::prepare(folder.path(), kubectl, url);
    let (mut first, a) = cluster.server();
    let (_second, b) = cluster.server();

    // What one server was told, the other shows.
    wait_for("kube-root-ca.crt", || {
        let names = cluster.run(&b, &["get", "configmaps", "-o", "name"]);
        names.contains("kube-root-ca.crt").then_some(())
    });
    cluster.run(&a, &["create", "configmap", "c0"]);
    let mut version =
        cluster.run(&b, &["get", "configmap", "c0", "-o", "jsonpath={.metadata.resourceVersion}"]);

    let (_watch, events) = cluster.watch(&a, &version);
    for (server, name) in [(&a, "c1"), (&b, "c2"), (&a, "c3")] {
        cluster.run(server, &["create", "configmap", name]);
    }
    let mut events = events.peekable();
    assert!(events.peek().is_some(), "the watch has begun");
    first.kill();
    for name in ["c4", "c5"] {
        cluster.run(&b, &["create", "configmap", name]);
    }
    let mut seen = Vec::new();
    for (event, at) in events {
        seen.push(event);
        version = at;
    }
    let (_watch, events) = cluster.watch(&b, &version);
    seen.extend(events.map(|(event, _)| event).take(5 - seen.len()));
    assert_eq!(seen, ["ADDED c1", "ADDED c2", "ADDED c3", "ADDED c4", "ADDED c5"]);

    // The controllers go on at the other server, wherever they were.
    let manifest = folder.path().join("deployment.yaml");
    std::fs::write(&manifest, DEPLOYMENT).unwrap();
    cluster.run(&b, &["apply", "-f", manifest.to_str().unwrap()]);
    wait_for("a pod of the deployment", || {
        let pods = cluster.run(&b, &["get", "pods", "-o", "name"]);
        pods.starts_with("pod/web-").then_some(())
    });
}
