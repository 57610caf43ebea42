//! Logs that are in no files but in the journal, where a real conmon puts what a real container prints.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt;
use podlog_kubelet::runtime::ContainerRuntime;
use serde_json::json;

use crate::bench::Bench;
use crate::journald::Journald;

const PATH: &str = "/containerLogs/default/web/c";

/// A kubelet that looks for logs in that journal, and a pod whose container has no log file.
async fn without_file(journald: &Journald, restart: &str) -> (Bench, String) {
    let mut bench = Bench::idle().await;
    bench.config.container_log_journal.directories = vec![journald.directory()];
    bench.config.container_log_journal.socket = journald.control();
    bench.start().await;
    let containers = json!([{"name": "c", "image": "x", "command": ["run"]}]);
    bench.api.create_pod("web", json!({"restartPolicy": restart, "containers": containers}));
    bench.wait_phase("web", "Running").await;
    let id = newest(&bench);
    (bench, id)
}

/// The newest instance, of which no file is left.
fn newest(bench: &Bench) -> String {
    let status = bench.runtime.newest("c").unwrap();
    fs::remove_file(status.log_path).unwrap();
    status.container.id.0
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_the_journal() {
    let Some(journald) = Journald::start(&[]) else { return };
    let (bench, id) = without_file(&journald, "Always").await;
    let (code, text) = bench.get(PATH).await;
    assert!(code == 400 && text.contains("no such file or directory"), "nothing is there yet: {text}");
    for (priority, text) in [("6", "one\n"), ("3", "two\n"), ("6", "thr"), ("6", "ee\n"), ("6", "four\n")] {
        journald.print(&id, priority, text.as_bytes());
    }
    podlog_driver::synchronize(&journald.control(), Duration::from_secs(20)).unwrap();
    for (query, expected) in [
        ("", "one\ntwo\nthree\nfour\n"),
        ("?tailLines=2", "three\nfour\n"),
        ("?tailLines=0", ""),
        ("?limitBytes=5", "one\nt"),
        ("?sinceSeconds=3600&tailLines=1", "four\n"),
        ("?sinceTime=2999-01-01T00:00:00Z", ""),
        ("?untilTime=2001-01-01T00:00:00Z", ""),
        ("?stream=Stderr", "two\n"),
        ("?match=^t&exclude=w", "three\n"),
        ("?instance=0", "one\ntwo\nthree\nfour\n"),
    ] {
        assert_eq!(bench.get(&format!("{PATH}{query}")).await, (200, expected.to_owned()), "{query}");
    }
    let (_, stamped) = bench.get(&format!("{PATH}?timestamps=true&tailLines=1")).await;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z four\n"), "{stamped}");
    let (_, with_cursors) = bench.get(&format!("{PATH}?cursors=true")).await;
    let cursor = with_cursors.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(bench.get(&format!("{PATH}?cursor={cursor}")).await, (200, "three\nfour\n".to_owned()));
    let (code, text) = bench.get(&format!("{PATH}?allInstances=true")).await;
    assert!(code == 400 && text.contains("one by one"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_of_the_journal_hear_the_last_word() {
    let Some(journald) = Journald::start(&[]) else { return };
    let (bench, id) = without_file(&journald, "Always").await;
    journald.print(&id, "6", b"first\n");
    podlog_driver::synchronize(&journald.control(), Duration::from_secs(20)).unwrap();
    let mut followers = Vec::new();
    for _ in 0..10 {
        let mut body = bench.request(Some("admin"), &format!("{PATH}?follow=true")).await.into_body();
        let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "first\n");
        followers.push(body);
    }
    let mut expected = String::new();
    for number in 0..1_000 {
        let line = format!("line {number}\n");
        journald.print(&id, "6", line.as_bytes());
        expected.push_str(&line);
        if number % 300 == 0 {
            journald.rotate();
        }
    }
    journald.print(&id, "6", b"no line feed");
    // journald has not written all of it when the container ends.
    bench.runtime.end("c", 0);
    expected.push_str("no line feed");
    for body in followers {
        let rest = tokio::time::timeout(Duration::from_secs(30), body.collect()).await.unwrap();
        let rest = rest.unwrap().to_bytes();
        assert!(rest == expected.as_bytes(), "{} bytes instead of {}", rest.len(), expected.len());
    }
    // The next instance has a log of its own, and that of the one before is still there.
    let restarted = |bench: &Bench| {
        bench.api.pod("web").filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
    };
    bench.wait("a restart", restarted).await;
    let second = newest(&bench);
    journald.print(&second, "6", b"second life\n");
    podlog_driver::synchronize(&journald.control(), Duration::from_secs(20)).unwrap();
    assert_eq!(bench.get(PATH).await, (200, "second life\n".into()));
    let first = bench.runtime.list_containers(None).await.unwrap();
    fs::remove_file(bench.runtime.container_status(&first[0].id).await.unwrap().log_path).ok();
    assert_eq!(bench.get(&format!("{PATH}?previous=true")).await, (200, format!("first\n{expected}")));
}

/// What it prints, to both streams, is in a log file as well: that is what the journal is compared with.
const SCRIPT: &str =
    "echo hello; echo error >&2; printf 'begun '; sleep 0.2; echo ended; printf 'a\\000b\\377c\\r\\n'
i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done
head -c 30000 /dev/zero | tr '\\000' x; echo; printf 'last words'";

#[tokio::test(flavor = "multi_thread")]
async fn what_conmon_writes_is_read_back() {
    let Some(journald) = Journald::start(&[]) else { return };
    let Some(missing) = ["conmon", "runc", "busybox"].into_iter().find(|program| !is_there(program)) else {
        return with_conmon(&journald).await;
    };
    eprintln!(
        "SKIPPED: no {missing} here: nothing is shown about conmon (apt-get install conmon runc busybox-static)"
    );
}

async fn with_conmon(journald: &Journald) {
    let (bench, id) = without_file(journald, "Never").await;
    let follower = tokio::spawn({
        let container = Conmon::create(journald, &id);
        let log = container.folder.path().join("k8s.log");
        container.start(journald);
        let wanted = format!("CONTAINER_ID_FULL={id}");
        journald.wait(|| fs::metadata(&log).is_ok_and(|log| log.len() > 0), &wanted);
        podlog_driver::synchronize(&journald.control(), Duration::from_secs(20)).unwrap();
        let body = bench.request(Some("admin"), &format!("{PATH}?follow=true")).await.into_body();
        container.wait(journald);
        let in_file = fs::read(&log).unwrap();
        bench.runtime.end("c", 0);
        fs::write(bench.path("0.log"), in_file).unwrap();
        body.collect()
    });
    let followed = tokio::time::timeout(Duration::from_secs(60), follower).await.unwrap().unwrap().unwrap();
    let followed = followed.to_bytes();
    let whole = bench.get_bytes(PATH).await;
    assert!(followed == whole, "{} bytes followed, {} bytes read", followed.len(), whole.len());
    let file = podlog_driver::LogSource::open(bench.path("0.log")).unwrap();
    for stream in ["Stdout", "Stderr"] {
        let streams =
            if stream == "Stdout" { podlog_line::Streams::Stdout } else { podlog_line::Streams::Stderr };
        let selection = podlog_line::Selection { streams, ..Default::default() };
        let (mut reader, mut expected) = (file.read(&selection).unwrap(), Vec::new());
        while reader.read_chunk(&mut expected).unwrap() == podlog_driver::ReadState::More {}
        let found = bench.get_bytes(&format!("{PATH}?stream={stream}")).await;
        assert!(found == expected, "{stream}: {} bytes instead of {}", found.len(), expected.len());
    }
    assert!(whole.ends_with(b"\nlast words") && whole.windows(6).any(|six| six == b"a\0b\xffc\r"));
}

fn is_there(program: &str) -> bool {
    std::process::Command::new("sh")
        .args(["-c", "command -v \"$0\""])
        .arg(program)
        .output()
        .is_ok_and(|found| found.status.success())
}

/// A container of runc under conmon.
struct Conmon {
    id: String,
    folder: tempfile::TempDir,
}

impl Conmon {
    fn create(journald: &Journald, id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        for name in ["rootfs/bin", "rootfs/proc", "rootfs/dev", "exits", "sock", "persist", "runc"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fs::copy(which("busybox"), path.join("rootfs/bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "head", "tr"] {
            symlink("busybox", path.join("rootfs/bin").join(applet)).unwrap();
        }
        fs::write(path.join("config.json"), bundle().to_string()).unwrap();
        let synced = fs::File::create(path.join("synced")).unwrap();
        let mut command = journald.command("sh");
        // Descriptor 3 is where conmon says that the container is made.
        let script = r#"exec conmon -b "$0" -c "$1" -u "$1" -n k8s_c_web_default_uid_0 -r "$(command -v runc)" --runtime-arg --root="$0/runc" \
            --exit-dir "$0/exits" --socket-dir-path "$0/sock" --persist-dir "$0/persist" -P "$0/conmon.pid" -p "$0/pid" \
            --log-level warning -l "k8s-file:$0/k8s.log" -l journald: 3>"$0/synced""#;
        command.args(["-c", script]).arg(&path).arg(id).env("_OCI_SYNCPIPE", "3");
        let made = command.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        assert!(synced.as_raw_fd() >= 0);
        let said = || fs::read_to_string(path.join("synced")).unwrap_or_default();
        journald.wait(|| said().contains('}'), "conmon to say that the container is made");
        assert!(said().contains("\"pid\":") && !said().contains("-1"), "{}", said());
        Conmon { id: id.to_owned(), folder }
    }

    fn runc(&self, journald: &Journald, verb: &str) {
        let root = self.folder.path().join("runc");
        let done = journald.command("runc").arg("--root").arg(root).args([verb, &self.id]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn start(&self, journald: &Journald) {
        self.runc(journald, "start");
    }

    /// Until its last byte is written.
    fn wait(&self, journald: &Journald) {
        let exit = self.folder.path().join("exits").join(&self.id);
        journald.wait(|| exit.exists(), "the container to end");
        self.runc(journald, "delete");
    }
}

fn which(program: &str) -> PathBuf {
    let found =
        std::process::Command::new("sh").args(["-c", "command -v \"$0\""]).arg(program).output().unwrap();
    Path::new(String::from_utf8(found.stdout).unwrap().trim()).to_owned()
}

fn bundle() -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/sh", "-c", SCRIPT]},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]},
    })
}
