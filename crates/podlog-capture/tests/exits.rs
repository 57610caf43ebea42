//! How containers start and end.

mod common;

use std::fs;
use std::process::Command;

use common::{Scene, eventually, is_alive};
use podlog_container::control::{Reply, Request};
use podlog_container::{Liveness, Process, ProcessStat};

#[test]
fn exit_codes_and_signals() {
    for (script, code, signal, reason) in [
        ("exit 0", 0, None, "Completed"),
        ("exit 3", 3, None, "Error"),
        ("exit 255", 255, None, "Error"),
        ("kill -9 $$", 137, Some(9), "Error"),
        ("kill -TERM $$", 143, Some(15), "Error"),
        ("kill -SEGV $$", 139, Some(11), "Error"),
        ("kill -PIPE $$", 141, Some(13), "Error"),
        ("kill -HUP $$", 129, Some(1), "Error"),
    ] {
        let exit = Scene::script(script).run();
        assert_eq!((exit.exit_code, exit.signal, exit.reason.as_str()), (code, signal, reason), "{script}");
        assert_eq!((exit.message.as_str(), exit.lost_bytes), ("", 0), "{script}");
    }
}

#[test]
fn start_errors_read_as_runc_has_them() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let plain = temp.path().join("plain").display().to_string();
    fs::write(&plain, "no program").expect("write");
    let text = temp.path().join("text").display().to_string();
    fs::write(&text, "no program").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&text, mode).expect("chmod");
    let rows: [(&[&str], String); 7] = [
        (
            &["podlog-no-such-program"],
            "exec: \"podlog-no-such-program\": executable file not found in $PATH".to_owned(),
        ),
        (
            &["/no/such/program"],
            "exec: \"/no/such/program\": stat /no/such/program: no such file or directory".to_owned(),
        ),
        (&["/etc"], "exec: \"/etc\": is a directory".to_owned()),
        (&[&plain], format!("exec: \"{plain}\": permission denied")),
        (&[&text], format!("exec {text}: exec format error")),
        (&["sh", "nul\0byte"], "exec: \"sh\": invalid argument".to_owned()),
        (&[], "no command specified".to_owned()),
    ];
    for (argv, message) in rows {
        assert_eq!(Scene::program(argv).start_error(), message, "{argv:?}");
    }
    let change_cwd = |process: &mut Process| process.cwd = Some("/no/such/dir".into());
    let message = Scene::script("true").with(change_cwd).start_error();
    assert_eq!(message, "chdir to cwd (\"/no/such/dir\") failed: no such file or directory");
    let lose_path = |process: &mut Process| process.env.clear();
    let message = Scene::program(&["sh"]).with(lose_path).start_error();
    assert_eq!(message, "exec: \"sh\": executable file not found in $PATH");
    let no_log = |process: &mut Process| process.log.path = "/proc/no/such/place/0.log".into();
    let message = Scene::script("true").with(no_log).start_error();
    assert!(
        message.contains("no such file or directory") || message.contains("No such file or directory"),
        "{message}"
    );
}

/// A container of which it can be told whether its program ever ran.
fn revealing_scene() -> (Scene, std::path::PathBuf) {
    let scene = Scene::script("touch ran; exec sleep 1000");
    let cwd = scene.temp.path().to_owned();
    let ran = cwd.join("ran");
    (scene.with(|process| process.cwd = Some(cwd)), ran)
}

#[test]
fn a_program_whose_start_cannot_be_written_down_never_runs() {
    let (scene, ran) = revealing_scene();
    fs::create_dir(scene.dir.path().join("state.json.new")).expect("mkdir");
    let why = scene.start_error();
    assert!(why.starts_with("cannot write ") && why.contains("state.json.new"), "{why}");
    assert!(!ran.exists());
}

#[test]
fn a_program_never_runs_when_its_monitor_is_killed_before_anybody_else_knows_of_it() {
    let (scene, ran) = revealing_scene();
    // Whoever opens this for writing waits.
    let fifo = scene.dir.path().join("state.json.new");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut capture = scene.spawn();
    let monitor = i32::try_from(capture.id()).expect("a process id");
    let children = eventually("copier and program", || {
        let all = ProcessStat::all().expect("processes");
        let children: Vec<_> = all.into_iter().filter(|process| process.parent == monitor).collect();
        (children.len() == 2).then_some(children)
    });
    capture.kill().expect("kill");
    capture.wait().expect("wait");
    eventually("the end of both", || {
        let is_over = scene.dir.liveness().expect("liveness") == Liveness::Ended;
        (is_over && !children.iter().any(|child| is_alive(child.pid))).then_some(())
    });
    assert!(!ran.exists());
    assert_eq!(scene.dir.state().expect("read state"), None);
}

#[test]
fn nothing_of_the_process_tree_is_left() {
    // A child, a daemon in a session of its own, one that ignores signals, and one that is stopped.
    let script = "sleep 1000 & echo $!
        setsid sh -c 'sleep 1000 & echo $!; echo $$; exec sleep 1000' &
        sh -c 'trap \"\" TERM HUP INT; echo $$; while :; do sleep 0.1; done' &
        sh -c 'echo $$; kill -STOP $$' &
        until [ $(ps -o stat= -p $! | cut -c1) = T ]; do sleep 0.01; done
        sleep 0.1; exit 7";
    let scene = Scene::script(script);
    assert_eq!(scene.run().exit_code, 7);
    let pids: Vec<i32> = scene.stdout().lines().map(|line| line.parse().expect("pid")).collect();
    assert_eq!(pids.len(), 5, "{pids:?}");
    for pid in pids {
        assert!(!is_alive(pid), "{pid} is alive");
    }
}

#[test]
fn a_forking_tree_dies_out() {
    let script = "breed() { while :; do (sleep 0.01; sleep 0.01) & sleep 0.005; done; }; breed & breed & breed & sleep 0.3; exit 1";
    let scene = Scene::script(script);
    let state = scene.start();
    assert_eq!(scene.exit().exit_code, 1);
    let sessions = podlog_container::ProcessStat::all().expect("processes");
    assert!(sessions.iter().all(|process| process.session != state.process.pid), "some process is left");
}

#[test]
fn orphans_are_reaped_while_the_container_runs() {
    let scene = Scene::script("for i in 1 2 3 4 5; do (sh -c 'exit 3' & ) ; done; echo done; sleep 1000");
    let state = scene.start();
    scene.wait_for("done");
    let capture = podlog_container::ProcessStat::read(state.process.pid).expect("process").parent;
    eventually("only the program and the copier", || {
        let processes = podlog_container::ProcessStat::all().expect("processes");
        let children = processes.iter().filter(|process| process.parent == capture).count();
        (children == 2).then_some(())
    });
}

#[test]
fn a_second_capture_is_refused() {
    let scene = Scene::script("echo once; sleep 1000");
    scene.start();
    scene.wait_for("once");
    for _ in 0..2 {
        let text = scene.capture().expect_err("taken");
        assert!(text.contains("has been started for this container before"), "{text}");
    }
    assert_eq!(scene.dir.exit().expect("read exit"), None, "the first one is not disturbed");
    assert_eq!(scene.ask(&Request::Signal(15)), Reply::Ok(String::new()));
    assert_eq!(scene.exit().exit_code, 143);
    scene.capture().expect_err("not even after its end");
}

#[test]
fn signals_to_capture_are_ignored() {
    let scene = Scene::script("echo up; sleep 0.3; echo last words; exit 5");
    let state = scene.start();
    let capture = podlog_container::ProcessStat::read(state.process.pid).expect("process").parent;
    let pid = rustix::process::Pid::from_raw(capture).expect("pid");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        rustix::process::kill_process(pid, signal).expect("signal capture");
    }
    assert_eq!(scene.exit().exit_code, 5);
    assert!(scene.stdout().ends_with("last words\n"));
}

#[test]
fn the_program_gets_a_clean_process() {
    let script = "echo \"$A|$B|$HOME|$#|$0|$1\"; env | sort | cut -d= -f1 | tr '\\n' ' '; echo; pwd; umask
        grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo; readlink /proc/self/fd/0
        test $(ps -o sid= -p $$) = $$ && echo leads a session";
    let scene = Scene::program(&["sh", "-c", script, "zero", "one"]).with(|process| {
        let var =
            |name: &str, value: &str| podlog_container::EnvVar { name: name.into(), value: value.into() };
        process.env.extend([var("A", "first"), var("B", "with\nnewline = ü"), var("A", "second")]);
        process.env.push(var("HOME", "/elsewhere"));
        process.cwd = Some("/usr".into());
        process.umask = Some(0o027);
    });
    assert_eq!(scene.run().exit_code, 0);
    let expected = "second|with\nnewline = ü|/elsewhere|1|zero|one\nA B HOME PATH PWD \n/usr\n0027\n\
        SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0 1 2 3 \n/dev/null\nleads a session\n";
    // The value with a line feed is one variable but two lines of `env`.
    assert_eq!(scene.stdout().replace("newline  ", ""), expected);
}
