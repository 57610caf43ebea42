//! `podlog apiserver` on its own: PKI, processes, kubectl against it, and etcd.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use tempfile::TempDir;

use crate::harness::{text, wait_for};

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Certificates for servers, kubelets and the administrator, and stock kubectl.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) authority: CertificateAuthority,
    kubectl: PathBuf,
}

impl Site {
    pub(crate) fn prepare(kubectl: PathBuf) -> Site {
        podlog_serving::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(folder.path(), "ca", "test-ca").unwrap();
        let requests = [
            ("apiserver", CertificateRequest::serving("apiserver", ["127.0.0.1"])),
            ("admin", CertificateRequest::client("admin", Some("system:masters"))),
        ];
        for (name, request) in requests {
            authority.ensure(&KeyPairFiles::in_folder(folder.path(), name), &request).unwrap();
        }
        let (private, public) = (folder.path().join("sa.key"), folder.path().join("sa.pub"));
        podlog_serving::pki::load_or_create_signing_key(&private, &public).unwrap();
        Site { folder, authority, kubectl }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A server and its URL; `storage` are its flags for where objects are kept.
    pub(crate) fn server(&self, storage: &[&str], environment: &[(&str, &str)]) -> (Process, String) {
        let mut process = self
            .server_command(storage)
            .envs(environment.iter().copied())
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

    /// The command of a server on a free port.
    pub(crate) fn server_command(&self, storage: &[&str]) -> Command {
        let flags = [
            ("--bind-address", "127.0.0.1".into()),
            ("--secure-port", "0".into()),
            ("--tls-cert-file", self.file("apiserver.crt")),
            ("--tls-private-key-file", self.file("apiserver.key")),
            ("--client-ca-file", self.file("ca.crt")),
            ("--kubelet-client-certificate", self.file("admin.crt")),
            ("--kubelet-client-key", self.file("admin.key")),
            ("--kubelet-certificate-authority", self.file("ca.crt")),
            ("--service-account-key-file", self.file("sa.pub")),
            ("--service-account-signing-key-file", self.file("sa.key")),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        command
            .arg("apiserver")
            .args(flags.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .args(storage);
        command
    }

    /// Stock kubectl as the administrator.
    pub(crate) fn kubectl(&self, server: &str, arguments: &[&str]) -> Command {
        self.kubectl_of(&self.kubectl, server, arguments)
    }

    /// Another kubectl as the administrator.
    pub(crate) fn kubectl_of(&self, kubectl: &Path, server: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl);
        command
            .env("KUBECONFIG", self.folder.path().join("none"))
            .env("HOME", self.folder.path())
            .args(self.connection(server))
            .args(arguments);
        command
    }

    /// `podlog logs` as the administrator.
    pub(crate) fn podlog_logs(&self, server: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        command
            .env("KUBECONFIG", self.folder.path().join("none"))
            .arg("logs")
            .args(self.connection(server))
            .args(arguments);
        command
    }

    fn connection(&self, server: &str) -> [String; 4] {
        [
            format!("--server={server}"),
            format!("--certificate-authority={}", self.file("ca.crt")),
            format!("--client-certificate={}", self.file("admin.crt")),
            format!("--client-key={}", self.file("admin.key")),
        ]
    }

    /// What a kubectl prints that has to succeed.
    pub(crate) fn run(&self, server: &str, arguments: &[&str]) -> String {
        let output = self.kubectl(server, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Creates objects.
    pub(crate) fn create(&self, server: &str, objects: &[serde_json::Value]) {
        let path = self.folder.path().join("objects.json");
        let list = serde_json::json!({"kind": "List", "apiVersion": "v1", "items": objects});
        std::fs::write(&path, list.to_string()).unwrap();
        self.run(server, &["create", "-f", path.to_str().unwrap()]);
    }
}

/// etcd and its URL; `None` where there is none, which is said.
pub(crate) fn etcd(folder: &Path) -> Option<(Process, String)> {
    etcd_with(folder, "http", &[])
}

/// The same by another scheme for clients, with the flags that it takes.
pub(crate) fn etcd_with(folder: &Path, scheme: &str, flags: &[String]) -> Option<(Process, String)> {
    // Somebody may take a port between our looking for a free one and etcd's taking it.
    for attempt in 0..5 {
        let log = folder.join(format!("etcd-{attempt}.log"));
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (client, peer) = (format!("{scheme}://{}", free()), format!("http://{}", free()));
        let process = Command::new("etcd")
            .args(["--name=m", "--logger=zap", "--data-dir"])
            .arg(folder.join(format!("etcd-{attempt}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg(format!("--initial-cluster=m={peer}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn();
        let mut process = match process {
            Ok(process) => Process(process),
            Err(error) => {
                eprintln!("SKIPPED, NOT TESTED: no etcd in the PATH ({error}); install etcd-server");
                return None;
            }
        };
        let serves = wait_for("etcd", || {
            let ended = process.0.try_wait().unwrap().is_some();
            let said = std::fs::read_to_string(&log).unwrap();
            (ended || said.contains("serving client traffic")).then_some(!ended)
        });
        if serves {
            return Some((process, client));
        }
    }
    panic!("etcd does not start");
}
