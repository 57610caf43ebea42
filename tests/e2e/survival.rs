//! What a kill at any moment must not lose.

use std::collections::BTreeMap;

use crate::harness::{Podlog, kubectl, text, wait_for};

/// A pod that prints numbered lines as fast as about 50,000 a second, and says when it is done.
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
    let manifest = podlog.path("counter.yaml");
    std::fs::write(&manifest, COUNTER).unwrap();
    podlog.kubectl_ok(&kubectl, &["apply", "-f", manifest.to_str().unwrap()]);
    wait_for("the first lines", || {
        let output = podlog.kubectl(&kubectl, &["logs", "counter", "--limit-bytes=10"]);
        (output.status.success() && !output.stdout.is_empty()).then_some(())
    });
    podlog.kill();
    podlog.up(&[]);
    podlog.kubectl_ok(
        &kubectl,
        &["wait", "pod/counter", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"],
    );
    let log = podlog.kubectl_ok(&kubectl, &["logs", "counter"]);
    let mut expected = 1;
    for line in log.lines() {
        assert_eq!(line.parse::<u64>().ok(), Some(expected), "a line is lost, doubled or out of order");
        expected += 1;
    }
    assert_eq!(expected - 1, LINES);
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
