//! The control socket.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{Scene, eventually, is_alive};
use podlog_container::control::{self, Exec, Reply, Request, Stdio};

fn sleeper() -> Scene {
    let scene = Scene::script(
        "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 9' TERM; echo up; while :; do sleep 0.01; done",
    );
    scene.start();
    scene.wait_for("up");
    scene
}

#[test]
fn requests_are_answered() {
    let scene = sleeper();
    let mode = std::fs::metadata(scene.dir.path().join("control.sock")).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    assert_eq!(scene.ask(&Request::Signal(10)), Reply::Ok(String::new()));
    scene.wait_for("got USR1");
    assert_eq!(scene.ask(&Request::Signal(15)), Reply::Ok(String::new()));
    assert_eq!(scene.exit().exit_code, 9);
    assert!(scene.stdout().ends_with("got TERM\n"));
}

#[test]
fn garbage_does_no_harm() {
    let scene = sleeper();
    let long = vec![b'x'; 2 << 20];
    for bytes in [&b"\n"[..], b"\0\xff\n", b"signal 9999\n", b"exec {}\n", b"GET / HTTP/1.1\r\n\r\n", &long] {
        let replies = scene.converse(bytes);
        assert!(replies.iter().all(|reply| matches!(reply, Reply::Error(_))), "{replies:?}");
    }
    let without_descriptors = Request::Exec(Exec { argv: vec!["true".to_owned()], stdio: Stdio::Output });
    assert!(matches!(scene.ask(&without_descriptors), Reply::Error(_)));
    assert_eq!(scene.converse(b"sta"), [], "half a request has no answer");
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
}

#[test]
fn clients_cannot_hold_up_capture() {
    let scene = sleeper();
    // Some that say nothing, and one that asks and never reads.
    let idle: Vec<_> = (0..100).filter_map(|_| scene.dir.connect_control().ok()).collect();
    drop(idle);
    let mut deaf = scene.dir.connect_control().expect("connect");
    deaf.set_write_timeout(Some(Duration::from_millis(100))).expect("set timeout");
    while deaf.write_all(&b"status\n".repeat(1000)).is_ok() {}
    eventually("an answer", || {
        (scene.ask(&Request::Status) == Reply::Ok("running".to_owned())).then_some(())
    });
}

#[test]
fn the_end_closes_connections() {
    let scene = sleeper();
    let mut waiting = scene.dir.connect_control().expect("connect");
    scene.ask(&Request::Signal(9));
    let mut rest = Vec::new();
    waiting.set_read_timeout(Some(Duration::from_secs(20))).expect("set timeout");
    waiting.read_to_end(&mut rest).expect("end of connection");
    assert!(rest.is_empty());
    assert_eq!(scene.dir.exit().expect("read exit").expect("exit").exit_code, 137);
}

/// Runs a command in the container: what it wrote, and the answers.
fn exec(scene: &Scene, argv: &[&str]) -> (String, String, Vec<Reply>) {
    let socket = scene.dir.connect_control().expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set timeout");
    let ((mut stdout, out), (mut stderr, err)) = (pipe().expect("pipe"), pipe().expect("pipe"));
    let request = Request::Exec(Exec {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        stdio: Stdio::Output,
    });
    control::send(&socket, format!("{request}\n").as_bytes(), &[out, err]).expect("send");
    let mut text = [String::new(), String::new()];
    stdout.read_to_string(&mut text[0]).expect("read");
    stderr.read_to_string(&mut text[1]).expect("read");
    let lines = BufReader::new(&socket).lines().map_while(Result::ok);
    let mut replies = Vec::new();
    for reply in lines.filter_map(|line| Reply::parse(&line)) {
        let is_last = !matches!(reply, Reply::Ok(_));
        replies.push(reply);
        if is_last {
            break;
        }
    }
    let [stdout, stderr] = text;
    (stdout, stderr, replies)
}

#[test]
fn commands_are_executed() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(temp.path().join("file"), "seen").expect("write");
    let scene = Scene::script("echo up; sleep 1000")
        .with(|process| process.env.push(podlog_container::EnvVar { name: "A".into(), value: "b".into() }));
    let scene = if common::is_root() { scene.mount(temp.path(), "/podlog-volume", true) } else { scene };
    scene.start();
    let ok = Reply::Ok(String::new());
    let (stdout, stderr, replies) = exec(&scene, &["sh", "-c", "echo $A; echo err >&2; exit 3"]);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("b\n", "err\n"));
    assert_eq!(replies, [ok.clone(), Reply::Exited(3)]);
    if common::is_root() {
        assert_eq!(exec(&scene, &["cat", "/podlog-volume/file"]).0, "seen");
    }
    assert_eq!(exec(&scene, &["sh", "-c", "kill -9 $$"]).2, [ok, Reply::Exited(137)]);
    let missing = Reply::Error("exec: \"no-such\": executable file not found in $PATH".to_owned());
    assert_eq!(exec(&scene, &["no-such"]).2, [missing]);
    assert_eq!(scene.dir.exit().expect("read exit"), None);
}

#[test]
fn closing_the_connection_kills_the_command() {
    let scene = sleeper();
    let socket = scene.dir.connect_control().expect("connect");
    let (out, err) = (pipe().expect("pipe"), pipe().expect("pipe"));
    let request = Request::Exec(Exec {
        argv: vec!["sh".into(), "-c".into(), "echo $$; sleep 1000; true".into()],
        stdio: Stdio::Output,
    });
    control::send(&socket, format!("{request}\n").as_bytes(), &[out.1, err.1]).expect("send");
    let mut buffer = [0; 32];
    let length = File::from(std::os::fd::OwnedFd::from(out.0)).read(&mut buffer).expect("read");
    let pid: i32 = std::str::from_utf8(&buffer[..length]).expect("text").trim().parse().expect("pid");
    assert!(is_alive(pid));
    drop(socket);
    eventually("the command's end", || (!is_alive(pid)).then_some(()));
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
}

/// How often a process has gone to sleep by itself.
fn sleeps(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living capture");
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.expect("Linux").trim().parse().expect("a number")
}

#[test]
fn capture_sleeps_even_without_a_descriptor_left() {
    let scene = Scene::script("sleep 1000").within(&["/bin/sh", "-c", "ulimit -n 20; exec \"$@\"", "sh"]);
    scene.start();
    let connect = || scene.dir.connect_control().expect("connect");
    let connections: Vec<_> = (0..40).map(|_| connect()).collect();
    let before = sleeps(scene.capture_pid());
    eventually("sleep", || (sleeps(scene.capture_pid()) > before + 10).then_some(()));
    drop(connections);
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
}
