//! What a kill at any moment must not lose.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crate::harness::{Podlog, kubectl, text, wait_for};
use crate::relay::Relay;

/// A pod that prints numbered lines as fast as about 50,000 a second; the last of them when a file says that it is enough.
const COUNTER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  restartPolicy: Never
  containers:
    - name: counter
      image: host
      command: ["/bin/sh", "-c"]
      args:
        - |
          n=0
          while [ $n -lt 20 ]; do
            [ $n -lt 19 ] || while [ ! -e ENOUGH ]; do sleep 0.1; done
            seq $((n * 10000 + 1)) $((n * 10000 + 10000))
            n=$((n + 1))
            sleep 0.2
          done
"#;
const LINES: u64 = 200_000;

#[test]
fn every_line_once_when_everything_but_capture_is_killed() {
    let Some(kubectl) = kubectl() else { return };
    let mut podlog = Podlog::start(&[]);
    let enough = count(&podlog, &kubectl);
    podlog.kill();
    podlog.up(&[]);
    std::fs::write(enough, "").unwrap();
    podlog.kubectl_ok(
        &kubectl,
        &["wait", "pod/counter", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"],
    );
    assert_counted("read afterwards", &podlog.kubectl_ok(&kubectl, &["logs", "counter"]));
}

/// Starts [`COUNTER`]; it ends when there is the file that is returned.
fn count(podlog: &Podlog, kubectl: &Path) -> std::path::PathBuf {
    let enough = podlog.path("enough");
    apply(podlog, kubectl, &COUNTER.replace("ENOUGH", enough.to_str().unwrap()));
    wait_for_output(podlog, kubectl, "counter");
    enough
}

/// Monitor and copier of the only container, while both are there.
fn capture_of(podlog: &Podlog) -> Option<(u32, u32)> {
    let processes: Vec<u32> = processes_below(podlog).into_keys().collect();
    match processes[..] {
        [one, other] if parent(other) == Some(one) => Some((one, other)),
        [one, other] if parent(one) == Some(other) => Some((other, one)),
        _ => None,
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[test]
fn every_line_once_while_capture_is_killed_and_kubectl_follows() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    let enough = count(&podlog, &kubectl);
    let followed = podlog.path("followed");
    let mut follower = podlog
        .kubectl_command(&kubectl, &["logs", "-f", "counter"])
        .stdout(std::fs::File::create(&followed).unwrap())
        .spawn()
        .unwrap();
    let mut kills = 0;
    let phase = wait_for("the end of the pod", || {
        if let Some((monitor, copier)) = capture_of(&podlog) {
            let victim = if kills % 2 == 0 { copier } else { monitor };
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", &victim.to_string()]).status();
            kills += 1;
            if kills == 4 {
                std::fs::write(&enough, "").unwrap();
            }
        }
        let phase = podlog.kubectl_ok(&kubectl, &["get", "pod", "counter", "-o=jsonpath={.status.phase}"]);
        (phase != "Running").then_some(phase)
    });
    assert!(kills >= 4, "only {kills} kills");
    // Kernels before 6.15 do not tell the exit code of another process' child.
    assert!(phase == "Succeeded" || phase == "Failed", "{phase}");
    assert!(follower.wait().unwrap().success());
    assert_counted("as followed", &std::fs::read_to_string(followed).unwrap());
    assert_counted("read afterwards", &podlog.kubectl_ok(&kubectl, &["logs", "counter"]));
}

/// A pod that asks, prints a line of 12 MB slowly, and says a last word.
const ASKS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  restartPolicy: Never
  containers:
    - name: asks
      image: host
      command: ["/bin/sh", "-c"]
      args:
        - |
          printf 'name? '
          while [ ! -e ANSWER ]; do sleep 0.1; done
          echo me
          n=0
          while [ $n -lt 12 ]; do
            head -c 1000000 /dev/zero | tr '\0' x
            n=$((n + 1))
            sleep 0.2
          done
          echo; printf end
"#;

#[test]
fn lines_that_go_on_are_followed_byte_by_byte_while_podlog_is_killed() {
    let Some(kubectl) = kubectl() else { return };
    let mut podlog = Podlog::start(&[]);
    let relay = Relay::to(podlog.port());
    apply(&podlog, &kubectl, &ASKS.replace("ANSWER", podlog.path("answer").to_str().unwrap()));
    let follow = |name: &str, arguments: &[&str]| {
        let out = std::fs::File::create(podlog.path(name)).unwrap();
        let server = format!("--server=https://127.0.0.1:{}", relay.port);
        let mut command = podlog.command(&["logs", "-f", "asks", &server]);
        let follower = command.args(arguments).stdout(out).stderr(Stdio::null()).spawn().unwrap();
        (name.to_owned(), podlog.path(name), follower)
    };
    let mut followers = [
        follow("plain", &[]),
        follow("with prefix", &["--prefix"]),
        follow("limited", &["--limit-bytes=7000000"]),
    ];
    let wait_for_length = |length: u64| {
        for (name, path, _) in &followers {
            wait_for(&format!("{length} bytes, {name}"), || {
                (std::fs::metadata(path).unwrap().len() >= length).then_some(())
            });
        }
    };
    // The prompt is there before its line has ended.
    wait_for_length("name? ".len() as u64);
    for length in [0, 3_000_000, 5_000_000] {
        wait_for_length(length);
        podlog.kill();
        podlog.up(&[]);
        relay.set_target(podlog.port());
        std::fs::write(podlog.path("answer"), "").unwrap();
    }
    let text = format!("name? me\n{}\nend", "x".repeat(12_000_000));
    let prefixed: String = text.split_inclusive('\n').map(|line| format!("[pod/asks/asks] {line}")).collect();
    for ((name, path, follower), expected) in followers.iter_mut().zip([&text, &prefixed, &text[..7_000_000]])
    {
        assert!(follower.wait().unwrap().success(), "{name}");
        let followed = std::fs::read_to_string(path).unwrap();
        assert!(followed == expected, "{name}: {} of {} bytes", followed.len(), expected.len());
    }
}

/// All lines of [`COUNTER`], once and in order.
fn assert_counted(what: &str, log: &str) {
    let mut expected = 1;
    for line in log.lines() {
        assert_eq!(
            line.parse::<u64>().ok(),
            Some(expected),
            "{what}: a line is lost, doubled or out of order"
        );
        expected += 1;
    }
    assert_eq!(expected - 1, LINES, "{what}");
}

fn apply(podlog: &Podlog, kubectl: &Path, manifest: &str) {
    let path = podlog.path("manifest.yaml");
    std::fs::write(&path, manifest).unwrap();
    podlog.kubectl_ok(kubectl, &["apply", "-f", path.to_str().unwrap()]);
}

fn wait_for_output(podlog: &Podlog, kubectl: &Path, pod: &str) {
    wait_for("the first lines", || {
        let output = podlog.kubectl(kubectl, &["logs", pod, "--limit-bytes=10"]);
        (output.status.success() && !output.stdout.is_empty()).then_some(())
    });
}

/// A pod that waits for a file and then prints 400,000 lines of 100 bytes at full speed.
const FLOOD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: flood}
spec:
  restartPolicy: Never
  containers:
    - name: flood
      image: host
      command: ["/bin/sh", "-c"]
      args: ["echo 0; until [ -e $GO ]; do sleep 0.05; done; seq -f %099.0f 400000"]
      env: [{name: GO, value: $GO}]
"#;

#[test]
fn a_follower_that_retention_overtakes_is_told_what_it_missed() {
    let Some(kubectl) = kubectl() else { return };
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("kubelet.yaml");
    std::fs::write(&config, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 2\n").unwrap();
    let go = home.path().join("go");
    let podlog = Podlog::start(&["--kubelet-config", config.to_str().unwrap()]);
    apply(&podlog, &kubectl, &FLOOD.replace("value: $GO", &format!("value: {}", go.display())));
    wait_for_output(&podlog, &kubectl, "flood");
    let mut follower =
        podlog.kubectl_command(&kubectl, &["logs", "-f", "flood"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("0"));
    std::fs::write(&go, "").unwrap();
    // Nobody reads meanwhile: what does not fit into the pipes on the way waits in files, and these are deleted.
    podlog.kubectl_ok(
        &kubectl,
        &["wait", "pod/flood", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"],
    );
    let (mut next, mut missing, mut is_declared) = (1, 0, false);
    for line in lines {
        if line.starts_with(r#"{"podlog.gap":{"reason":"retention""#) {
            is_declared = true;
            continue;
        }
        let number: u64 = line.parse().unwrap();
        assert!(number == next || (number > next && is_declared), "{number} instead of {next}");
        (missing, next, is_declared) = (missing + number - next, number + 1, false);
    }
    assert!(follower.wait().unwrap().success());
    assert_eq!(next, 400_001, "the last line arrives");
    assert!(missing > 0, "the follower was not slow enough to miss anything");
}

#[test]
fn running_pods_are_adopted_and_down_stops_them() {
    let Some(kubectl) = kubectl() else { return };
    let mut podlog = Podlog::start(&[]);
    podlog.kubectl_ok(&kubectl, &["run", "sleeper", "--image=host", "--command", "--", "/bin/sleep", "1000"]);
    podlog.kubectl_ok(&kubectl, &["wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s"]);
    let id = |podlog: &Podlog| {
        podlog.kubectl_ok(
            &kubectl,
            &["get", "pod", "sleeper", "-o=jsonpath={.status.containerStatuses[0].containerID}"],
        )
    };
    let before = id(&podlog);
    assert!(before.starts_with("process://"), "{before}");
    assert!(podlog.signal("-INT").success(), "Ctrl-C ends cleanly");
    podlog.up(&[]);
    podlog.kubectl_ok(&kubectl, &["wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(id(&podlog), before, "the container was started anew instead of being adopted");

    let sleeping = processes_below(&podlog);
    assert!(!sleeping.is_empty(), "no process of the pod is found");
    let down = podlog.podlog(&["down", "--grace-period=5"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    wait_for("the end of all processes of the pod", || processes_below(&podlog).is_empty().then_some(()));
}

/// Processes whose command line names this test's data directory: the captures, one per container.
fn processes_below(podlog: &Podlog) -> BTreeMap<u32, String> {
    let data_dir = podlog.data_dir().to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = text(&std::fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        (line.contains(" capture ") && line.contains(&data_dir)).then_some((pid, line))
    });
    processes.collect()
}

#[test]
fn a_second_up_is_refused_with_the_pid_of_the_first() {
    let podlog = Podlog::start(&[]);
    let second = podlog.podlog(&["up", "--secure-port=0", "--kubelet-port=0"]);
    assert_eq!(second.status.code(), Some(3));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("pid {}", podlog.pid())), "{said}");
}

#[test]
fn many_logs_are_followed_over_one_connection() {
    const CONTAINERS: usize = 25;
    let container = |number: usize| {
        format!(
            "    - {{name: c{number}, image: host, command: [/bin/sh, -c, 'echo from {number}; exec sleep 600']}}\n"
        )
    };
    let containers: String = (0..CONTAINERS).map(container).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.yaml");
    let manifest =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: many}}\nspec:\n  containers:\n{containers}");
    std::fs::write(&file, manifest).unwrap();
    let podlog = Podlog::start(&["-f", file.to_str().unwrap()]);
    let relay = Relay::to(podlog.port());
    let out = podlog.path("out");
    let server = format!("--server=https://127.0.0.1:{}", relay.port);
    let mut follower = podlog
        .command(&["logs", "many", "--all-containers", "-f", "--max-log-requests=100", &server])
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("a line of each", || {
        let text = std::fs::read_to_string(&out).unwrap();
        (text.lines().count() == CONTAINERS).then_some(())
    });
    let connections = relay.connections.load(Ordering::SeqCst);
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert!(connections <= 2, "one for what is asked first, one for all logs: {connections}");
}
