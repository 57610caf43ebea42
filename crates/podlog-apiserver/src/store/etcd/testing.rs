//! etcd itself, in processes of the test's own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::storage::Names;
use super::{EtcdConfig, EtcdStore};
use crate::store::Retention;

/// The program; `etcd` of the PATH where it is not set.
const PROGRAM: &str = "PODLOG_TEST_ETCD";

/// A cluster; its members are killed and its files removed when it is dropped.
pub(crate) struct Etcd {
    folder: tempfile::TempDir,
    members: Vec<Member>,
    /// Of every member, besides those that a cluster needs.
    flags: &'static [&'static str],
}

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    /// Nobody else gets these addresses, whether or not the member lives.
    _held: [TcpSocket; 2],
    process: Option<Child>,
}

impl Member {
    fn prepare() -> Member {
        let held = [(); 2].map(|()| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            socket
        });
        let [client, peer] = [&held[0], &held[1]].map(|socket| socket.local_addr().unwrap());
        Member { client, peer, _held: held, process: None }
    }
}

impl Etcd {
    /// Starts a cluster of so many members; `None` where there is no etcd, which is said on stderr.
    pub(crate) fn start(members: usize) -> Option<Etcd> {
        Self::start_with(members, &[])
    }

    /// Starts a cluster whose members have further flags.
    pub(crate) fn start_with(members: usize, flags: &'static [&'static str]) -> Option<Etcd> {
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into());
        match Command::new(program).arg("--version").output() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("SKIPPED, NOT TESTED: no etcd in the PATH; install etcd-server, or set {PROGRAM}");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let members = (0..members).map(|_| Member::prepare()).collect();
        let mut etcd = Etcd { folder: tempfile::tempdir().unwrap(), members, flags };
        for index in 0..etcd.members.len() {
            etcd.revive(index);
        }
        assert!((0..etcd.members.len()).all(|index| etcd.wait(index)), "etcd does not start");
        Some(etcd)
    }

    /// Starts a member, for the first time or again.
    pub(crate) fn revive(&mut self, index: usize) {
        let peers = self.members.iter().enumerate();
        let peers: Vec<_> = peers.map(|(at, member)| format!("m{at}=http://{}", member.peer)).collect();
        let member = &mut self.members[index];
        let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("m{index}.log")))
            .unwrap();
        let flags = [
            ("--name", format!("m{index}")),
            ("--data-dir", self.folder.path().join(format!("m{index}")).display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", peers.join(",")),
            ("--heartbeat-interval", "20".into()),
            ("--election-timeout", "200".into()),
            ("--logger", "zap".into()),
        ];
        let program = std::env::var_os(PROGRAM).unwrap_or_else(|| "etcd".into());
        let process = Command::new(program)
            .args(flags.iter().flat_map(|(name, value)| [*name, value.as_str()]))
            .args(self.flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        member.process = Some(process);
    }

    /// Has a member stand still.
    pub(crate) fn pause(&self, index: usize) {
        self.signal(index, "STOP");
        let threads = format!("/proc/{}/task", self.members[index].process.as_ref().unwrap().id());
        let is_still = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        // Threads stop one after the other, the first when it is its turn: until then all work on.
        while !std::fs::read_dir(&threads)
            .unwrap()
            .all(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).is_ok_and(is_still))
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has it go on.
    pub(crate) fn resume(&self, index: usize) {
        self.signal(index, "CONT");
    }

    fn signal(&self, index: usize, signal: &str) {
        let process = self.members[index].process.as_ref().unwrap();
        let pid = process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// Asks a member by its JSON gateway.
    pub(crate) fn ask(&self, index: usize, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let mut connection = TcpStream::connect(self.members[index].client).unwrap();
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// Kills a member.
    pub(crate) fn kill(&mut self, index: usize) {
        let Some(mut process) = self.members[index].process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Waits until a member listens; false when it ended instead.
    pub(crate) fn wait(&mut self, index: usize) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        let member = &mut self.members[index];
        while TcpStream::connect(member.client).is_err() {
            let ended = member.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some());
            if ended || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        let servers = self.members.iter().map(|member| format!("http://{}", member.client));
        EtcdConfig {
            servers: servers.collect(),
            ca: None,
            client: None,
            prefix: EtcdConfig::DEFAULT_PREFIX.into(),
        }
    }

    /// A store whose callers' keys begin with `root`.
    pub(crate) async fn store(&self, root: &'static str) -> EtcdStore {
        let config = self.config();
        let names = Names::new(root, &config.prefix);
        EtcdStore::connect_with(&config, names, Retention::default()).await.unwrap()
    }

    /// Where a member listens for clients.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.members[index].client
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}
