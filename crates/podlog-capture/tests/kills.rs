//! `kill -9` of capture's processes loses nothing.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::printer::{Endless, PRINTER, check, kill, pauses};
use common::{Scene, eventually, is_alive};
use podlog_container::control::{Reply, Request};
use podlog_container::{Liveness, ProcessStat, REASON_UNKNOWN};
use rustix::process::{Pid, Signal, kill_process};

/// Kills the copier again and again until the program has ended, which is told to after so many kills; returns how many lines it
/// has printed.
fn kill_copiers(
    scene: &Scene,
    printer: &Endless,
    kills: usize,
    mut pause: impl FnMut() -> Duration,
) -> usize {
    let (monitor, mut killed) = (monitor_of(scene), vec![0]);
    let deadline = Instant::now() + Duration::from_secs(120);
    while scene.dir.exit().expect("read exit").is_none() {
        assert!(Instant::now() < deadline, "the container does not end");
        let is_new = |(_, copier): &(i32, i32)| killed.last() != Some(copier);
        let Some((_, copier)) = scene.processes(monitor).filter(is_new) else { continue };
        std::thread::sleep(pause());
        kill(copier);
        killed.push(copier);
        if killed.len() == kills {
            printer.tell_to_stop();
        }
    }
    printer.lines()
}

fn monitor_of(scene: &Scene) -> i32 {
    scene.capture_pid().cast_signed()
}

#[test]
fn a_copier_that_is_killed_again_and_again_loses_nothing() {
    // With files this small it is killed while it rotates, too.
    for (kills, max_bytes, max_pause) in
        [(40, u64::MAX, 20_000), (30, 1 << 20, 30_000), (20, 1 << 16, 40_000)]
    {
        let printer = Endless::new();
        let scene = printer.scene().with(|process| {
            process.log.max_bytes = max_bytes;
            process.log.max_files = 10_000;
        });
        scene.start();
        let lines = kill_copiers(&scene, &printer, kills, pauses(max_pause));
        let exit = scene.exit();
        assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
        check(&scene, lines);
    }
}

#[test]
fn a_held_line_survives_its_copier() {
    let scene = Scene::script("printf 'begun'; until [ -e go ]; do sleep 0.01; done; echo ' and ended'");
    let cwd = scene.temp.path().to_owned();
    let scene = scene.with(|process| process.cwd = Some(cwd.clone()));
    scene.start();
    let monitor = monitor_of(&scene);
    for _ in 0..10 {
        let (_, copier) = eventually("a copier", || scene.processes(monitor));
        kill(copier);
        eventually("another copier", || scene.processes(monitor).filter(|(_, other)| *other != copier));
    }
    fs::write(cwd.join("go"), "").expect("write");
    assert_eq!(scene.exit().exit_code, 0);
    assert_eq!(scene.stdout(), "begun and ended\n");
}

/// What a terminal says while its copier is killed may be gone: then a marker stands there. Nothing else is missing, and nothing
/// comes twice.
#[test]
fn what_a_terminal_loses_with_its_copier_is_declared() {
    let scene = Scene::script("i=0; until [ -e stop ]; do echo $i; i=$((i + 1)); done; echo last");
    let cwd = scene.temp.path().to_owned();
    let scene = scene.with(|process| {
        process.cwd = Some(cwd.clone());
        process.tty = true;
    });
    scene.start();
    let (monitor, mut pause, mut last) = (monitor_of(&scene), pauses(10_000), 0);
    for _ in 0..40 {
        let new = || scene.processes(monitor).filter(|(_, copier)| *copier != last);
        let (_, copier) = eventually("another copier", new);
        std::thread::sleep(pause());
        kill(copier);
        last = copier;
    }
    fs::write(cwd.join("stop"), "").expect("write");
    let exit = scene.exit();
    assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (0, "", 0));
    let (mut next, mut is_torn, mut skips) = (0, false, false);
    let stdout = scene.stdout();
    let mut lines = stdout.strip_suffix("last\r\n").expect("the last line").split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let is_marker = |line: &str| line.starts_with("{\"podlog.gap\":");
        let is_cut = !line.ends_with("\r\n") && lines.peek().is_some_and(|next| is_marker(next));
        let was_torn = std::mem::replace(&mut is_torn, is_marker(line));
        if is_torn || was_torn || is_cut {
            // The rest of a line may look like another number.
            skips = true;
            continue;
        }
        let number: usize = line.trim_end().parse().expect("a number");
        assert!(number == next || (skips && number > next), "{number} instead of {next}");
        (next, skips) = (number + 1, false);
    }
    assert!(next > 1000, "only {next} lines");
}

#[test]
fn a_log_that_somebody_took_away_is_no_reason_to_stop() {
    let scene = Scene::script(
        "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i + 1)); done; until [ -e go ]; do sleep 0.01; done; echo last",
    );
    let cwd = scene.temp.path().to_owned();
    let scene = scene.with(|process| process.cwd = Some(cwd.clone()));
    scene.start();
    let monitor = monitor_of(&scene);
    for _ in 0..5 {
        let _ = fs::remove_file(&scene.process.log.path);
        let (_, copier) = eventually("a copier", || scene.processes(monitor));
        kill(copier);
        eventually("another copier", || scene.processes(monitor).filter(|(_, other)| *other != copier));
    }
    fs::write(cwd.join("go"), "").expect("write");
    assert_eq!(scene.exit().exit_code, 0);
    assert!(scene.stdout().ends_with("last\n"));
}

#[test]
fn requests_outlive_a_copier() {
    let scene = Scene::script("echo up; exec sleep 1000");
    scene.start();
    scene.wait_for("up");
    let (monitor, log, mut last) = (monitor_of(&scene), &scene.process.log.path, 0);
    for number in 0..10 {
        let new = || scene.processes(monitor).filter(|(_, copier)| *copier != last);
        (_, last) = eventually("a copier", new);
        fs::rename(log, log.with_extension(number.to_string())).expect("rename");
        kill(last);
        assert_eq!(scene.ask(&Request::Reopen), Reply::Ok(String::new()));
        assert!(log.exists(), "what is said is done");
    }
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    assert_eq!(scene.ask(&Request::Signal(15)), Reply::Ok(String::new()));
    assert_eq!(scene.exit().signal, Some(15));
}

#[test]
fn a_copier_takes_the_place_of_its_monitor() {
    const LINES: usize = 200_000;
    for code in [0, 7] {
        let script = PRINTER.replace("$LINES", &LINES.to_string()).replace("exec ", "") + "; exit $CODE";
        let scene = Scene::script(&script.replace("$CODE", &code.to_string()));
        scene.start();
        let first = monitor_of(&scene);
        let (_, second) = eventually("a copier", || scene.processes(first));
        kill(first);
        eventually("a new monitor", || scene.processes(second));
        assert_eq!(scene.dir.liveness().expect("liveness"), Liveness::Alive);
        let exit = scene.exit();
        check(&scene, LINES);
        if exit.reason == REASON_UNKNOWN {
            skipped("this kernel does not tell the exit code of another process' child");
        } else {
            assert_eq!(exit.exit_code, code);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that does less must say so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[test]
fn a_new_monitor_does_everything_the_old_one_did() {
    let scene = Scene::script("setsid sleep 1000 & sleep 1000 & echo up; exec sleep 1000");
    let state = scene.start();
    scene.wait_for("up");
    let first = monitor_of(&scene);
    let (_, second) = eventually("a copier", || scene.processes(first));
    kill(first);
    let (_, third) = eventually("a new monitor", || scene.processes(second));
    kill(third);
    eventually("a new copier", || scene.processes(second).filter(|(_, copier)| *copier != third));
    eventually("an answer", || {
        let socket = scene.dir.connect_control();
        socket
            .is_ok()
            .then(|| scene.ask(&Request::Status))
            .filter(|reply| *reply == Reply::Ok("running".into()))
    });
    assert_eq!(scene.ask(&Request::Reopen), Reply::Ok(String::new()));
    assert_eq!(scene.ask(&Request::Signal(15)), Reply::Ok(String::new()));
    let exit = scene.exit();
    assert!(exit.signal == Some(15) || exit.reason == REASON_UNKNOWN, "{exit:?}");
    let left = ProcessStat::all().expect("processes");
    assert!(left.iter().all(|process| process.session != state.process.pid), "some process is left");
}

#[test]
fn the_exit_code_is_not_lost_with_a_monitor_that_is_killed_at_the_end() {
    let scene = Scene::script("trap 'echo last words; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    scene.start();
    scene.wait_for("up");
    let monitor = monitor_of(&scene);
    let (_, copier) = eventually("a copier", || scene.processes(monitor));
    let stopped = Pid::from_raw(copier).expect("pid");
    kill_process(stopped, Signal::STOP).expect("stop");
    assert_eq!(scene.ask(&Request::Signal(15)), Reply::Ok(String::new()));
    eventually("the program's end", || scene.dir.state().ok()??.exit);
    // The order to write the last words waits for the copier by now, or it never comes.
    kill(monitor);
    kill_process(stopped, Signal::CONT).expect("continue");
    let exit = scene.exit();
    assert_eq!((exit.exit_code, exit.message.as_str(), exit.lost_bytes), (7, "", 0));
    assert!(scene.stdout().contains("last words"));
    eventually("capture's end", || {
        (scene.dir.liveness().expect("liveness") == Liveness::Ended).then_some(())
    });
}

#[test]
fn when_both_are_killed_the_container_is_lost() {
    let scene = Scene::script("echo $$; exec sleep 1000");
    let state = scene.start();
    scene.wait_for("\n");
    let monitor = monitor_of(&scene);
    let (_, copier) = eventually("a copier", || scene.processes(monitor));
    let stopped = [monitor, copier].map(|pid| Pid::from_raw(pid).expect("pid"));
    for pid in stopped {
        kill_process(pid, Signal::STOP).expect("stop");
    }
    [monitor, copier].into_iter().for_each(kill);
    eventually("capture's end", || {
        (scene.dir.liveness().expect("liveness") == Liveness::Ended).then_some(())
    });
    assert_eq!(scene.dir.exit().expect("read exit"), None);
    assert!(is_alive(state.process.pid), "the runtime ends what is left");
    kill(state.process.pid);
}
