//! The process runtime with real processes.

mod node;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use node::{Node, capture_command, eventually, is_alive, is_root};
use podlog_kubelet::runtime::{
    ContainerConfig, ContainerEvent, ContainerId, ContainerRuntime, ContainerState, EnvVar, Mount,
    PodSandboxConfig, Propagation, RuntimeError, SandboxState, SecurityContext,
};

const NO_GRACE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_life() {
    let node = Node::new();
    let mut events = node.runtime.events();
    let sandbox = node.sandbox().await;
    let id = node.create(&sandbox, |_| {}, "echo hello; echo $HOSTNAME >&2; exit 3").await;
    assert!(id.0.len() == 64 && id.0.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
    assert_eq!(node.status(&id).await.container.state, ContainerState::Created);
    node.runtime.start_container(&id).await.expect("start");
    let status = node.wait_exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str(), status.message.as_str()), (3, "Error", ""));
    assert!(status.container.created_at <= status.started_at.expect("started"));
    assert!(status.started_at <= status.finished_at);
    assert!(status.log_path.is_absolute());
    let log = fs::read_to_string(&status.log_path).expect("log");
    assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F pod-0\n"), "{log}");
    for state in [ContainerState::Created, ContainerState::Running, ContainerState::Exited] {
        let expected = ContainerEvent { id: id.clone(), sandbox: sandbox.clone(), state };
        assert_eq!(events.recv().await, Some(expected));
    }
    assert!(node.runtime.start_container(&id).await.is_err(), "a container is started once");
    node.runtime.remove_container(&id).await.expect("remove");
    node.runtime.remove_container(&id).await.expect("remove again");
    assert!(matches!(node.runtime.container_status(&id).await, Err(RuntimeError::NotFound { .. })));
    assert!(status.log_path.exists(), "logs stay");
}

#[tokio::test]
async fn authors_mistakes() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let config = node.config("no-command", |config| config.command.clear());
    let error = node.runtime.create_container(&sandbox, &config).await.expect_err("no command");
    assert!(matches!(error, RuntimeError::CreateContainer(_)));
    assert_eq!(
        error.to_string(),
        "container \"no-command\" has no command, and the process runtime uses no images: give the container a \
         command, or run it on a kubelet with a container runtime"
    );
    let missing = "exec: \"podlog-no-such\": executable file not found in $PATH";
    let cwd = "chdir to cwd (\"/no/such\") failed: no such file or directory";
    let volume = "error mounting \"/no/such\" at \"/mnt\": no such file or directory";
    type Change = fn(&mut ContainerConfig);
    let rows: [(&str, Change, &str); 3] = [
        ("program", |config| config.command = vec!["podlog-no-such".to_owned()], missing),
        ("cwd", |config| config.working_dir = Some("/no/such".into()), cwd),
        ("volume", |config| config.mounts.push(mount(Path::new("/no/such"), "/mnt")), volume),
    ];
    for (name, change, message) in rows {
        let config = node.config(name, change);
        let id = node.runtime.create_container(&sandbox, &config).await.expect("create");
        let error = node.runtime.start_container(&id).await.expect_err(name);
        assert!(matches!(error, RuntimeError::StartContainer(_)), "{error:?}");
        assert_eq!(error.to_string(), message);
        let status = node.status(&id).await;
        assert_eq!((status.container.state, status.exit_code), (ContainerState::Exited, 128));
        assert_eq!((status.reason.as_str(), status.message.as_str()), ("StartError", message));
        assert!(status.started_at.is_none() && status.finished_at.is_some());
    }
}

#[tokio::test]
async fn stopping() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let polite = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    for (script, grace, code) in [
        (polite, LONG, 0),
        ("echo up; exec sleep 1000", LONG, 143),
        (stubborn, Duration::from_millis(100), 137),
        (polite, NO_GRACE, 137),
    ] {
        let id = node.run(&sandbox, script).await;
        let log = node.status(&id).await.log_path;
        eventually("the script", || fs::read_to_string(&log).ok().filter(|log| log.contains("up"))).await;
        let begun = Instant::now();
        node.runtime.stop_container(&id, grace).await.expect("stop");
        assert!(begun.elapsed() < LONG, "stop returns when the container has ended");
        let status = node.status(&id).await;
        assert_eq!((status.container.state, status.exit_code), (ContainerState::Exited, code), "{script}");
        node.runtime.stop_container(&id, grace).await.expect("stop again");
    }
    let created = node.create(&sandbox, |_| {}, "true").await;
    node.runtime.stop_container(&created, LONG).await.expect("stop what never started");
    node.runtime.stop_container(&ContainerId("gone".to_owned()), LONG).await.expect("stop what is not there");
}

#[tokio::test]
async fn ends_are_noticed_at_once() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let mut fastest = Duration::MAX;
    // The best of some attempts: the machine may be busy.
    for _ in 0..5 {
        let id = node.run(&sandbox, "exec sleep 1000").await;
        let mut events = node.runtime.events();
        let begun = Instant::now();
        node.kill(&id);
        let event = events.recv().await.expect("event");
        assert_eq!((event.id, event.state), (id, ContainerState::Exited));
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[tokio::test]
async fn a_new_kubelet_finds_everything() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let long = node
        .run(&sandbox, "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.005; done; exit 5")
        .await;
    let (idle, ended) = (node.run(&sandbox, "exec sleep 1000").await, node.run(&sandbox, "exit 4").await);
    let created = node.create(&sandbox, |_| {}, "true").await;
    node.wait_exited(&ended).await;
    let before = node.status(&ended).await;

    let node = node.restart();
    let listed = node.runtime.list_containers(None).await.expect("list");
    let found: BTreeMap<_, _> =
        listed.into_iter().map(|container| (container.id.0, container.state)).collect();
    for (id, state) in [
        (&long, ContainerState::Running),
        (&idle, ContainerState::Running),
        (&ended, ContainerState::Exited),
        (&created, ContainerState::Created),
    ] {
        assert_eq!(found.get(&id.0), Some(&state), "{found:?}");
    }
    let sandboxes = node.runtime.list_pod_sandboxes(None).await.expect("list");
    assert_eq!((sandboxes[0].id.clone(), sandboxes[0].state), (sandbox.clone(), SandboxState::Ready));
    assert_eq!(sandboxes[0].config, node.pod());
    assert_eq!(node.status(&ended).await, before);

    let mut events = node.runtime.events();
    let status = node.wait_exited(&long).await;
    assert_eq!(status.exit_code, 5);
    assert_eq!(events.recv().await.map(|event| event.id), Some(long));
    let log = fs::read_to_string(status.log_path).expect("log");
    let numbers: Vec<_> =
        log.lines().map(|line| line.rsplit(' ').next().expect("number").to_owned()).collect();
    assert_eq!(numbers, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    node.runtime.stop_container(&idle, LONG).await.expect("stop");
    assert_eq!(node.status(&idle).await.exit_code, 143);
    node.runtime.start_container(&created).await.expect("start");
    assert_eq!(node.wait_exited(&created).await.exit_code, 0);
}

#[tokio::test]
async fn a_new_build_takes_over_what_runs() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let container = node.run(&sandbox, "echo up; until [ -e /tmp/never ]; do sleep 0.01; done").await;
    let (main, capture) = (node.main_of(&container), node.captures_of(&container));
    let build = node.root().with_file_name("another-build");
    fs::copy(std::env::current_exe().expect("path of this program"), &build).expect("copy");
    let runs_it = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == build);
    let mut command = capture_command();
    *command.last_mut().expect("a program") = build.clone().into();
    let node = node.restart_with(command);
    eventually("the new build", || capture.iter().all(runs_it).then_some(())).await;
    assert_eq!(node.main_of(&container), main);
    assert_eq!(node.status(&container).await.container.state, ContainerState::Running);
    node.kill(&container);
    let status = node.wait_exited(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
}

#[tokio::test]
async fn half_a_capture_that_is_killed() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, "echo up; trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done").await;
    let log = node.status(&id).await.log_path;
    eventually("output", || fs::read_to_string(&log).ok().filter(|log| log.contains("up"))).await;
    let captures = node.captures_of(&id);
    let [copier, monitor] = captures[..] else { panic!("{captures:?}") };
    node::kill(monitor);
    eventually("another copier", || {
        let processes = podlog_container::ProcessStat::all().ok()?;
        processes.iter().any(|process| process.parent == copier).then_some(())
    })
    .await;
    assert_eq!(node.status(&id).await.container.state, ContainerState::Running);
    node.runtime.stop_container(&id, LONG).await.expect("stop");
    let status = node.status(&id).await;
    // Kernels before 6.15 do not tell the exit code of another process' child.
    assert!(status.exit_code == 3 || status.reason == "ContainerStatusUnknown", "{status:?}");
    let log = fs::read_to_string(&log).expect("log");
    assert!(log.contains(" F up\n") && log.ends_with(" F bye\n") && !log.contains("podlog.gap"), "{log}");
}

#[tokio::test]
async fn a_capture_that_is_killed() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let script = "sleep 1000 & echo $!; sleep 1000 & echo $!; exec sleep 1000";
    let (watched, unwatched) = (node.run(&sandbox, script).await, node.run(&sandbox, script).await);
    let mut pids = Vec::new();
    for id in [&watched, &unwatched] {
        let log = node.status(id).await.log_path;
        let log =
            eventually("two pids", || fs::read_to_string(&log).ok().filter(|log| log.lines().count() == 2))
                .await;
        pids.extend(
            log.lines().map(|line| line.rsplit(' ').next().expect("pid").parse::<i32>().expect("pid")),
        );
    }
    let mut events = node.runtime.events();
    node::kill_together(&node.captures_of(&watched));
    assert_eq!(
        events.recv().await.map(|event| (event.id, event.state)),
        Some((watched.clone(), ContainerState::Exited))
    );
    let captures = node.captures_of(&unwatched);
    let node = node.restart_after(|| node::kill_together(&captures));
    for id in [&watched, &unwatched] {
        let status = node.wait_exited(id).await;
        assert_eq!((status.container.state, status.exit_code), (ContainerState::Exited, 137));
        assert_eq!(status.reason, "ContainerStatusUnknown");
        assert!(status.message.starts_with("capture ended without reporting; "), "{}", status.message);
        assert!(status.started_at.is_some() && status.finished_at.is_some());
        let log = fs::read_to_string(&status.log_path).expect("log");
        let marker = log.lines().last().expect("a marker");
        assert!(
            marker.ends_with(r#" stdout F:podlog-gap {"podlog.gap":{"reason":"capture-killed"}}"#),
            "{marker}"
        );
    }
    eventually("the end of all processes", || (!pids.iter().any(|&pid| is_alive(pid))).then_some(())).await;
}

#[tokio::test]
async fn sandboxes() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let running = node.run(&sandbox, "trap '' TERM; while :; do sleep 0.01; done").await;
    let created = node.create(&sandbox, |_| {}, "true").await;
    node.runtime.stop_pod_sandbox(&sandbox).await.expect("stop");
    node.runtime.stop_pod_sandbox(&sandbox).await.expect("stop again");
    assert_eq!(node.status(&running).await.exit_code, 137);
    assert!(node.runtime.start_container(&created).await.is_err(), "nothing starts in a stopped sandbox");
    let config = node.config("late", |_| {});
    assert!(node.runtime.create_container(&sandbox, &config).await.is_err());
    let node = node.restart();
    let listed = node.runtime.list_pod_sandboxes(None).await.expect("list");
    assert_eq!(listed.iter().map(|sandbox| sandbox.state).collect::<Vec<_>>(), [SandboxState::NotReady]);
    node.runtime.remove_pod_sandbox(&sandbox).await.expect("remove");
    node.runtime.remove_pod_sandbox(&sandbox).await.expect("remove again");
    assert!(node.runtime.list_containers(None).await.expect("list").is_empty());
    assert!(node.runtime.list_pod_sandboxes(None).await.expect("list").is_empty());
    assert_eq!(fs::read_dir(node.root()).expect("list").count(), 0);
    let removed = node.runtime.create_container(&sandbox, &config).await;
    assert!(matches!(removed, Err(RuntimeError::NotFound { what: "sandbox", .. })));
}

#[tokio::test]
async fn removing_what_runs_ends_it() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, "trap '' TERM; exec sleep 1000").await;
    let pid = node.main_of(&id);
    assert!(is_alive(pid));
    node.runtime.remove_pod_sandbox(&sandbox).await.expect("remove");
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn half_made_directories_are_cleared() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, "exec sleep 1000").await;
    let dir = node.root().join(&sandbox.0);
    fs::create_dir(node.root().join("1".repeat(64))).expect("sandbox without a file");
    fs::create_dir(dir.join("2".repeat(64))).expect("container without a file");
    fs::create_dir(dir.join("3".repeat(64))).expect("container with a torn file");
    fs::write(dir.join("3".repeat(64)).join("config.json"), "{\"meta").expect("write");
    let node = node.restart();
    let containers = node.runtime.list_containers(None).await.expect("list");
    assert_eq!(containers.iter().map(|container| &container.id).collect::<Vec<_>>(), [&id]);
    let left: BTreeSet<_> =
        fs::read_dir(&dir).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(left, [id.0.as_str(), "sandbox.json"].map(Into::into).into());
    assert_eq!(fs::read_dir(node.root()).expect("list").count(), 1);
}

fn mount(source: &Path, target: &str) -> Mount {
    let (container_path, host_path) = (target.into(), source.to_owned());
    Mount { container_path, host_path, readonly: true, propagation: Propagation::Private }
}

#[tokio::test]
async fn everything_of_a_container_arrives() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let volume = node.root().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "content").expect("write");
    let change = |config: &mut ContainerConfig| {
        config.args = vec!["echo $A $0 $1; pwd; cat /podlog-volume/file; echo; id -u; exit 0".to_owned()];
        config.args.extend(["zero".to_owned(), "one".to_owned()]);
        config.envs = vec![EnvVar { name: "A".to_owned(), value: "a=b".to_owned() }];
        config.working_dir = Some("/usr".into());
        config.mounts.push(mount(&volume, "/podlog-volume"));
        if is_root() {
            config.security = SecurityContext { run_as_user: Some(4711), ..SecurityContext::default() };
        }
    };
    let id = node.create(&sandbox, change, "").await;
    node.runtime.start_container(&id).await.expect("start");
    assert_eq!(node.wait_exited(&id).await.exit_code, 0);
    let log = fs::read_to_string(node.status(&id).await.log_path).expect("log");
    let lines: Vec<_> = log.lines().map(|line| line.splitn(4, ' ').nth(3).expect("content")).collect();
    let user = if is_root() { "4711".to_owned() } else { rustix::process::geteuid().as_raw().to_string() };
    assert_eq!(lines, ["a=b zero one", "/usr", "content", &user]);
    assert!(!Path::new("/podlog-volume").exists());
}

#[tokio::test]
async fn secrets_stay_private() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let secret = "podlog-test-secret";
    let change = |config: &mut ContainerConfig| {
        config.envs = vec![EnvVar { name: "A".to_owned(), value: secret.to_owned() }];
    };
    let id = node.create(&sandbox, change, "exec sleep 1000").await;
    node.runtime.start_container(&id).await.expect("start");
    let dir = node.container_dir(&id);
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("config.json"))), (0o700, 0o600));
    for process in [node.capture_of(&id), node.main_of(&id)] {
        let argv = fs::read_to_string(format!("/proc/{process}/cmdline")).expect("argv");
        assert!(!argv.contains(secret), "{argv}");
    }
    let log = node.status(&id).await.log_path;
    assert_eq!((mode(&log), mode(log.parent().expect("directory")) & 0o755), (0o640, 0o755));
}

#[tokio::test]
async fn commands_in_containers() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let id = node.run(&sandbox, "exec sleep 1000").await;
    let exec = async |script: &str, timeout| {
        let command = ["sh", "-c", script].map(str::to_owned);
        node.runtime.exec_sync(&id, &command, timeout).await
    };
    let result = exec("echo out; echo err >&2; exit 7", NO_GRACE).await.expect("exec");
    assert_eq!((result.exit_code, &result.stdout[..], &result.stderr[..]), (7, &b"out\n"[..], &b"err\n"[..]));
    let result = exec("head -c 20000000 /dev/zero; head -c 1000000 /dev/zero >&2", LONG).await.expect("exec");
    assert_eq!((result.exit_code, result.stdout.len(), result.stderr.len()), (0, 16 << 20, 1_000_000));
    // A daemon that keeps stdout open does not keep the caller.
    let result = exec("sleep 1000 & echo started", LONG).await.expect("exec");
    assert_eq!((result.exit_code, &result.stdout[..]), (0, &b"started\n"[..]));

    let pid_file = node.root().join("pid");
    let slow =
        exec(&format!("echo $$ > {}; sleep 1000; true", pid_file.display()), Duration::from_millis(300))
            .await;
    assert!(matches!(slow, Err(RuntimeError::ExecTimeout { .. })), "{slow:?}");
    let pid: i32 = fs::read_to_string(&pid_file).expect("pid file").trim().parse().expect("pid");
    eventually("the command's end", || (!is_alive(pid)).then_some(())).await;

    let command = ["podlog-no-such".to_owned()];
    let error = node.runtime.exec_sync(&id, &command, LONG).await.expect_err("no such program");
    let RuntimeError::Failed { step, source } = error else { panic!("{error:?}") };
    let missing = "exec: \"podlog-no-such\": executable file not found in $PATH";
    assert_eq!((step.as_str(), source.to_string().as_str()), ("cannot exec in container", missing));
    node.runtime.stop_container(&id, NO_GRACE).await.expect("stop");
    assert!(exec("true", LONG).await.is_err(), "not in a container that has ended");
}

#[tokio::test]
async fn logs_are_reopened() {
    let node = Node::new();
    let sandbox = node.sandbox().await;
    let script = "trap 'echo later; exit 0' TERM; echo first; while :; do sleep 0.01; done";
    let id = node.run(&sandbox, script).await;
    let log = node.status(&id).await.log_path;
    eventually("output", || fs::read_to_string(&log).ok().filter(|log| log.contains("first"))).await;
    fs::rename(&log, log.with_extension("old")).expect("rename");
    node.runtime.reopen_container_log(&id).await.expect("reopen");
    node.runtime.stop_container(&id, LONG).await.expect("stop");
    let new = fs::read_to_string(&log).expect("new log");
    assert!(new.contains("later") && !new.contains("first"), "{new}");
    assert!(node.runtime.reopen_container_log(&id).await.is_err(), "nobody writes any more");
}

#[tokio::test]
async fn annotations_of_a_pod_limit_its_logs() {
    let node = Node::new();
    let annotations =
        [("podlog.dev/log-policy", "drop-oldest"), ("podlog.dev/log-lines-per-second.c0", "10")];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pod = PodSandboxConfig { annotations: annotations.into(), ..node.pod() };
    let sandbox = node.runtime.run_pod_sandbox(&pod).await.expect("run sandbox");
    for (is_limited, lines) in [(true, 10), (false, 100)] {
        let id = node.run(&sandbox, "seq 100").await;
        let status = node.wait_exited(&id).await;
        assert_eq!((status.exit_code, status.message.as_str()), (0, ""));
        let log = fs::read_to_string(&status.log_path).expect("log");
        let gap =
            format!(r#"{{"podlog.gap":{{"reason":"rate-limit","stream":"stdout","lines":{}"#, 100 - lines);
        assert_eq!((log.matches(" stdout F ").count(), log.contains(&gap)), (lines, is_limited), "{log}");
    }
}

#[tokio::test]
async fn a_capture_command_that_does_not_work() {
    for (command, why) in [
        (vec!["/no/such/capture"], "/no/such/capture: No such file or directory (os error 2)"),
        (vec!["/bin/sh", "-c", "echo broken >&2; exit 3"], "exit status: 3: broken"),
        (vec![], "no capture command is configured"),
    ] {
        let node = Node::with_capture(command.into_iter().map(Into::into).collect());
        let sandbox = node.sandbox().await;
        let id = node.create(&sandbox, |_| {}, "true").await;
        let error = node.runtime.start_container(&id).await.expect_err("no capture");
        let RuntimeError::Failed { step, source } = error else { panic!("{error:?}") };
        assert_eq!((step.as_str(), source.to_string().as_str()), ("cannot start capture", why));
        assert_eq!(node.status(&id).await.container.state, ContainerState::Created);
    }
}
