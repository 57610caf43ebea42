//! What `podlog logs` can ask for beyond kubectl, and that kubectl sees nothing of it.

use std::path::Path;

use crate::harness::{Podlog, kubectl, text, wait_for};

/// A container that fails once: ten lines of its first life, ten of its second. All to stdout: two pipes
/// have no order.
const TWICE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  restartPolicy: OnFailure
  volumes: [{name: memory, emptyDir: {}}]
  containers:
    - name: twice
      image: host
      volumeMounts: [{name: memory, mountPath: /memory}]
      command: ["/bin/sh", "-c"]
      args:
        - |
          life=1; [ -e /memory/died ] && life=2
          for n in 0 1 2 3 4; do
            echo "life $life line $((2 * n))"
            echo "life $life line $((2 * n + 1)) [error]"
            sleep 0.05
          done
          touch /memory/died
          [ $life = 2 ]
"#;

fn line(life: usize, number: usize) -> String {
    let level = if number.is_multiple_of(2) { "" } else { " [error]" };
    format!("life {life} line {number}{level}\n")
}

fn life(life: usize) -> String {
    (0..10).map(|number| line(life, number)).collect()
}

/// `podlog logs` with these arguments, which must succeed.
fn logs(podlog: &Podlog, arguments: &[&str]) -> String {
    let output = podlog.podlog(&[&["logs", "twice"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stderr), podlog.messages());
    text(&output.stdout)
}

fn run_twice(podlog: &Podlog, kubectl: &Path) {
    let manifest = podlog.path("twice.yaml");
    std::fs::write(&manifest, TWICE).unwrap();
    podlog.kubectl_ok(kubectl, &["apply", "-f", manifest.to_str().unwrap()]);
    wait_for("the end of the second life", || {
        let phase = podlog.kubectl_ok(kubectl, &["get", "pod", "twice", "-o=jsonpath={.status.phase}"]);
        (phase == "Succeeded").then_some(())
    });
}

#[test]
fn logs_are_asked_for_by_content_time_place_and_instance() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    run_twice(&podlog, &kubectl);

    assert_eq!(podlog.kubectl_ok(&kubectl, &["logs", "twice"]), life(2));
    assert_eq!(podlog.kubectl_ok(&kubectl, &["logs", "twice", "--previous"]), life(1));
    let errors: String = [1, 3, 5, 7, 9].map(|number| line(2, number)).concat();
    for (arguments, expected) in [
        (&["--match=line [02]$"][..], line(2, 0) + &line(2, 2)),
        (&["--match=[error]", "--fixed-strings"], errors.clone()),
        (&["--match=life", "--exclude=line [02468]$"], errors.clone()),
        (&["--match=error", "--tail=1"], line(2, 9)),
        (&["--match=nothing of it"], String::new()),
        (&["--stream=stdout", "--match=error"], errors),
        (&["--stream=stderr"], String::new()),
        (&["--until=1h"], String::new()),
        (&["--all-instances"], life(1) + &life(2)),
        (&["--all-instances", "--tail=11"], line(1, 9) + &life(2)),
        (&["--all-instances", "--match=line 0$"], line(1, 0) + &line(2, 0)),
        (&["--follow"], life(2)),
    ] {
        assert_eq!(logs(&podlog, arguments), expected, "{arguments:?}");
    }
    check_until(&podlog);
    check_cursors(&podlog, &[], 10);
    check_cursors(&podlog, &["--all-instances"], 20);
}

/// `--until-time` of any line's time ends with that line, or with the last that was read at the same moment.
fn check_until(podlog: &Podlog) {
    let timed = logs(podlog, &["--timestamps", "--stream=stdout"]);
    let lines: Vec<(&str, &str)> = timed.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.len(), 10);
    for (time, _) in &lines {
        let is_wanted = |(at, _): &&(&str, &str)| at <= time;
        let expected: String = lines.iter().filter(is_wanted).map(|(_, line)| format!("{line}\n")).collect();
        let until = logs(podlog, &["--stream=stdout", &format!("--until-time={time}")]);
        assert_eq!(until, expected, "until {time}");
    }
}

/// The cursor of any line leads to the rest.
fn check_cursors(podlog: &Podlog, arguments: &[&str], count: usize) {
    let plain = logs(podlog, arguments);
    let marked = logs(podlog, &[arguments, &["--cursors"]].concat());
    let lines: Vec<(&str, &str)> = marked.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.len(), count);
    assert_eq!(lines.iter().map(|(_, line)| format!("{line}\n")).collect::<String>(), plain);
    for (index, (cursor, _)) in lines.iter().enumerate() {
        let rest: String = lines[index + 1..].iter().map(|(_, line)| format!("{line}\n")).collect();
        let resumed = logs(podlog, &[arguments, &[&format!("--cursor={cursor}")]].concat());
        assert_eq!(resumed, rest, "{arguments:?} after line {index}");
    }
}
