//! A new build takes over a running container, and nobody notices.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::printer::{Endless, check, kill, pauses};
use common::{Scene, eventually, is_alive, read_replies};
use podlog_container::control::{self, Exec, Program, Reply, Request, Stdio};
use podlog_container::{BackPressure, Build, Liveness, ProcessStat, REASON_UNKNOWN};

/// Another build: a copy of the program is another file.
fn build(scene: &Scene, name: &str) -> PathBuf {
    let path = scene.temp.path().join(name);
    fs::copy(env!("CARGO_BIN_EXE_podlog-capture"), &path).expect("copy");
    path
}

/// A program that is a shell script.
fn script(scene: &Scene, text: &str) -> PathBuf {
    let path = scene.temp.path().join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

/// Sends the request, and returns the connection.
fn request(scene: &Scene, program: &Path) -> UnixStream {
    let socket = scene.dir.connect_control().expect("connect");
    let argv = vec![program.display().to_string()];
    let line = format!("{}\n", Request::HandOver(Program { argv }));
    let program = File::open(program).expect("a program");
    control::send(&socket, line.as_bytes(), &[program]).expect("send");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set timeout");
    socket
}

fn hand_over(scene: &Scene, program: &Path) -> Reply {
    read_replies(&request(scene, program), 1).remove(0)
}

fn done() -> Reply {
    Reply::Ok(String::new())
}

fn refused(reply: &Reply) -> &str {
    let Reply::Error(why) = reply else { panic!("{reply:?} instead of a refusal") };
    why
}

fn own_build(scene: &Scene) -> String {
    let Reply::Ok(build) = scene.ask(&Request::Build) else { panic!("no build") };
    build
}

/// Monitor and copier, whoever they are by now; `None` while there is not one of each, with its name.
fn pair(scene: &Scene) -> Option<(i32, i32)> {
    let is_capture = |process: &ProcessStat| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == scene.dir.path().as_os_str().as_encoded_bytes())
    };
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let all = ProcessStat::all().expect("processes").into_iter().filter(is_capture);
    let mut named: Vec<_> = all.map(|process| (name(process.pid), process)).collect();
    named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let [(first, copier), (second, monitor)] = &named[..] else { return None };
    let are_both = first == "podlog-copier\n" && second == "podlog-monitor\n";
    // A child of a monitor that has just been killed is none, though it has its name.
    (are_both && copier.parent == monitor.pid).then_some((monitor.pid, copier.pid))
}

/// Waits until both processes run a program.
fn wait_for_program(scene: &Scene, program: &Path) -> (i32, i32) {
    let runs = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    eventually("the new program in both processes", || {
        pair(scene).filter(|(monitor, copier)| runs(*monitor) && runs(*copier))
    })
}

#[test]
fn lines_printed_at_full_speed_across_ten_hand_overs_arrive_once() {
    let printer = Endless::new();
    let scene = printer.scene().with(|process| {
        process.log.max_bytes = 1 << 20;
        process.log.max_files = 10_000;
    });
    scene.start();
    let builds = ["one", "another"].map(|name| build(&scene, name));
    let before = eventually("two processes", || pair(&scene));
    for round in 0..10 {
        let program = &builds[round % 2];
        assert_eq!(hand_over(&scene, program), done());
        assert_eq!(own_build(&scene), Build::of(program).expect("a build").to_string());
        assert_eq!(wait_for_program(&scene, program), before, "the processes are the same");
    }
    let lines = printer.stop();
    let exit = scene.exit();
    assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
    check(&scene, lines);
}

#[test]
fn either_process_may_be_killed_at_any_step() {
    let printer = Endless::new();
    let scene = printer.scene();
    scene.start();
    let builds = ["one", "another"].map(|name| build(&scene, name));
    let mut pause = pauses(12_000);
    for round in 0..60 {
        // Both at once is another story: it waits until there are two.
        let (monitor, copier) = eventually("two processes", || pair(&scene));
        let connection = request(&scene, &builds[round % 2]);
        std::thread::sleep(pause());
        let victim = if round % 3 == 0 { copier } else { monitor };
        kill(victim);
        eventually("its end", || (!is_alive(victim)).then_some(()));
        drop(connection);
    }
    let lines = printer.stop();
    let exit = scene.exit();
    assert!(exit.exit_code == 0 || exit.reason == REASON_UNKNOWN, "{exit:?}");
    check(&scene, lines);
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let scene = Scene::script("echo up; exec sleep 1000");
    scene.start();
    scene.wait_for("up");
    let (own, before) = (own_build(&scene), eventually("two processes", || pair(&scene)));
    let garbage = scene.temp.path().join("garbage");
    fs::write(&garbage, "\x7fELF nothing else").expect("write");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).expect("chmod");
    let refuses = |program: &Path, why: &str| {
        let reply = hand_over(&scene, program);
        assert!(refused(&reply).contains(why), "{reply:?} instead of {why}");
        assert_eq!((own_build(&scene), pair(&scene)), (own.clone(), Some(before)));
    };
    refuses(&garbage, "exec format error");
    refuses(&script(&scene, "exit 0"), "refuses");
    refuses(&script(&scene, "echo understood; exit 1"), "refuses");
    refuses(&script(&scene, "echo I am too old >&2; exit 1"), "I am too old");
    refuses(&script(&scene, "exec sleep 1000"), "nothing within");
    let without_program = Request::HandOver(Program { argv: vec!["podlog".to_owned()] });
    assert!(refused(&scene.ask(&without_program)).contains("descriptor"));
    assert_eq!(scene.ask(&Request::Signal(15)), done());
    assert_eq!(scene.exit().signal, Some(15));
}

#[test]
fn a_program_that_fails_after_all_is_replaced_by_the_old_copier() {
    for end in ["exit 1", "exec sleep 1000"] {
        let scene = Scene::script("echo up; until [ -e go ]; do sleep 0.01; done; echo last; exit 7");
        let cwd = scene.temp.path().to_owned();
        let scene = scene.with(|process| process.cwd = Some(cwd.clone()));
        scene.start();
        scene.wait_for("up");
        let (_, copier) = eventually("two processes", || pair(&scene));
        let liar = script(&scene, &format!("case $* in *--trial*) echo understood;; *) {end};; esac"));
        assert_eq!(read_replies(&request(&scene, &liar), 1), [], "it does not answer");
        eventually("a new monitor", || pair(&scene).filter(|(monitor, _)| *monitor == copier));
        eventually("an answer", || {
            let is_there = scene.dir.connect_control().is_ok();
            (is_there && scene.ask(&Request::Status) == Reply::Ok("running".to_owned())).then_some(())
        });
        fs::write(cwd.join("go"), "").expect("write");
        let exit = scene.exit();
        assert!(exit.exit_code == 7 || exit.reason == REASON_UNKNOWN, "{exit:?}");
        assert_eq!(scene.stdout(), "up\nlast\n");
    }
}

#[test]
fn what_clients_wait_for_comes_from_the_new_program() {
    let scene = Scene::script("printf begun; exec sleep 1000");
    scene.start();
    scene.wait_for("begun");
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let command = "echo out; until [ -e go ]; do sleep 0.01; done; exit 3";
    let argv = ["/bin/sh", "-c", &format!("cd {} && {command}", scene.temp.path().display())];
    let exec = Request::Exec(Exec { argv: argv.map(str::to_owned).into(), stdio: Stdio::Output });
    let executing = scene.dir.connect_control().expect("connect");
    let error_writer = writer.try_clone().expect("clone");
    control::send(&executing, format!("{exec}\n").as_bytes(), &[writer, error_writer]).expect("send");
    assert_eq!(read_replies(&executing, 1), [done()]);
    let mut half = scene.dir.connect_control().expect("connect");
    half.write_all(b"sta").expect("send");
    let watching = scene.dir.connect_control().expect("connect");
    eventually("half a request has come", || (own_build(&scene).len() > 1).then_some(()));
    assert_eq!(hand_over(&scene, &build(&scene, "one")), done());
    half.write_all(b"tus\n").expect("send");
    assert_eq!(read_replies(&half, 1), [Reply::Ok("running".to_owned())]);
    fs::write(scene.temp.path().join("go"), "").expect("write");
    assert_eq!(read_replies(&executing, 1), [Reply::Exited(3)]);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    assert_eq!(text, "out\n");
    assert_eq!(scene.ask(&Request::Reopen), done());
    assert_eq!(scene.ask(&Request::Signal(9)), done());
    assert_eq!(scene.exit().signal, Some(9), "it is still the program's parent");
    assert_eq!(read_replies(&watching, 1), [], "that is how a runtime learns of the end");
    eventually("capture's end", || {
        (scene.dir.liveness().expect("liveness") == Liveness::Ended).then_some(())
    });
    assert!(refused_or_gone(&scene), "nothing runs any more");
}

fn refused_or_gone(scene: &Scene) -> bool {
    scene.dir.connect_control().is_err()
}

#[test]
fn buffers_limits_and_terminals_lose_nothing() {
    let printing = "i=1; until [ -e stop ]; do echo $i; i=$((i + 1)); done; echo last";
    for kind in ["drop-newest", "drop-oldest", "terminal", "limit"] {
        let scene = Scene::script(printing);
        let cwd = scene.temp.path().to_owned();
        let scene = scene.with(|process| {
            process.cwd = Some(cwd.clone());
            match kind {
                "drop-newest" => process.log.back_pressure = BackPressure::DropNewest,
                "drop-oldest" => process.log.back_pressure = BackPressure::DropOldest,
                "terminal" => process.tty = true,
                _ => process.log.lines_per_second = 10_000_000,
            }
        });
        scene.start();
        let builds = ["one", "another"].map(|name| build(&scene, name));
        for round in 0..6 {
            assert_eq!(hand_over(&scene, &builds[round % 2]), done(), "{kind}");
            wait_for_program(&scene, &builds[round % 2]);
        }
        fs::write(cwd.join("stop"), "").expect("write");
        let exit = scene.exit();
        assert_eq!((exit.exit_code, exit.message.as_str()), (0, ""), "{kind}");
        let stdout = scene.stdout().replace("\r\n", "\n");
        let lines = stdout.strip_suffix("last\n").expect("the last line").lines();
        let count = lines.clone().zip(1..).filter(|(line, number)| *line == number.to_string()).count();
        assert_eq!(count, lines.count(), "{kind}: lines are missing, or marked");
    }
}
