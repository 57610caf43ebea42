//! Programs that run, heard and spoken to by `kubectl attach` and `kubectl run -i`.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cluster::{Cluster, ended, once, shell, status, with};
use crate::harness::text;
use crate::machine::IMAGE;
use crate::streams::{Running, apart, in_terminal, kubectls, told};

/// Tells what it reads, and when there is nothing more to read.
const LISTENER: &str = "while read line; do echo \"heard $line\"; done; echo over";
/// What kubectl says in a terminal once it is attached.
const ATTACHED: &str = "try pressing enter.";

/// The newest kubectl and the oldest, which speak differently.
fn two_kubectls() -> Vec<PathBuf> {
    let all = kubectls();
    let oldest = all.get(1).cloned();
    all.into_iter().take(1).chain(oldest).collect()
}

/// A container with a stdin, whose fields `more` are set.
fn reading(script: &str, more: &[&str]) -> Value {
    more.iter().fold(with(shell("c", script), "stdin", json!(true)), |container, field| {
        with(container, field, json!(true))
    })
}

pub(crate) async fn running_programs_are_heard(cluster: &Cluster) {
    let ticks = shell("c", "n=0; while sleep 0.1; do n=$((n + 1)); echo tick $n; echo tock $n >&2; done");
    cluster.run("clock", json!({"containers": [ticks]})).await;
    cluster.wait_ready("clock").await;
    for kubectl in kubectls() {
        let mut command = cluster.kubectl(&kubectl, &["attach", "clock"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running(child);
        let (stdout, stderr) = (running.0.stdout.take().unwrap(), running.0.stderr.take().unwrap());
        let ticks = apart(move || numbers(stdout, "tick ", 3)).await;
        let tocks = apart(move || numbers(stderr, "tock ", 3)).await;
        for found in [ticks, tocks] {
            assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}: {found:?}", kubectl.display());
        }
        drop(running);
    }
    cluster.remove("clock").await;
}

/// So many numbers behind a word at the beginnings of lines.
fn numbers(from: impl Read, word: &str, count: usize) -> Vec<u64> {
    let lines = std::io::BufRead::lines(std::io::BufReader::new(from)).map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix(word)?.trim_end().parse().ok()).take(count).collect()
}

pub(crate) async fn running_programs_are_spoken_to(cluster: &Cluster) {
    for kubectl in kubectls() {
        cluster.run("listener", once(reading(LISTENER, &["stdinOnce"]))).await;
        cluster.wait_ready("listener").await;
        let command = cluster.kubectl(&kubectl, &["attach", "-i", "listener"]);
        let output = apart(move || told(command, b"one\ntwo\n".to_vec())).await;
        assert_eq!(
            text(&output.stdout),
            "heard one\nheard two\nover\n",
            "{}: {}",
            kubectl.display(),
            text(&output.stderr)
        );
        cluster.wait_phase("listener", "Succeeded").await;
        cluster.remove("listener").await;
    }
}

pub(crate) async fn programs_hear_one_after_the_other(cluster: &Cluster) {
    cluster.run("patient", once(reading(LISTENER, &[]))).await;
    cluster.wait_ready("patient").await;
    for (number, kubectl) in two_kubectls().iter().cycle().take(3).enumerate() {
        let command = cluster.kubectl(kubectl, &["attach", "-i", "patient"]);
        // What it answers may come when kubectl has gone.
        let output = apart(move || told(command, format!("number {number}\n").into())).await;
        assert!(output.status.success(), "{}: {}", kubectl.display(), text(&output.stderr));
        cluster.wait_log("patient", "", &format!("heard number {number}\n")).await;
    }
    let pod = cluster.pod("patient").await.unwrap();
    assert!(status(&pod, "c")["state"]["running"].is_object(), "{pod}");
    assert!(!cluster.log("patient", "").await.unwrap().contains("over"));
    cluster.remove("patient").await;
}

pub(crate) async fn much_is_said_and_answered(cluster: &Cluster) {
    let lines: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    let Some(kubectl) = kubectls().into_iter().next() else { return };
    cluster.run("echo", once(reading("exec cat", &["stdinOnce"]))).await;
    cluster.wait_ready("echo").await;
    let (command, said) = (cluster.kubectl(&kubectl, &["attach", "-i", "echo"]), lines.clone());
    let output = apart(move || told(command, said.into())).await;
    cluster.wait_phase("echo", "Succeeded").await;
    for (who, has) in
        [("the client", text(&output.stdout)), ("the log", cluster.log("echo", "").await.unwrap())]
    {
        // containerd closes a stdin whether all of it was read or not, and lets a client go that has not heard all.
        let is_cut = cluster.column().has_containers() && lines.starts_with(&has);
        assert!(has == lines || is_cut, "{who} has {} bytes of {}", has.len(), lines.len());
    }
    cluster.remove("echo").await;
}

pub(crate) async fn terminals_are_typed_at(cluster: &Cluster) {
    for kubectl in two_kubectls() {
        let script = "while read line; do eval \"$line\"; done";
        cluster.run("typed-at", once(reading(script, &["tty"]))).await;
        cluster.wait_ready("typed-at").await;
        let command = cluster.kubectl(&kubectl, &["attach", "-it", "typed-at"]);
        let typed = "until test \"$(busybox stty size)\" = '31 97'; do sleep 0.1; done; echo $((6 * 7)); sleep 1; exit 5\n";
        let (_, said) = apart(move || in_terminal(command, &[ATTACHED], typed)).await;
        assert!(said.lines().any(|line| line.trim_end() == "42"), "{}: {said:?}", kubectl.display());
        let pod = cluster.wait_phase("typed-at", "Failed").await;
        assert_eq!(ended(&pod, "c"), (5, "Error".to_owned()));
        cluster.remove("typed-at").await;
    }
}

pub(crate) async fn pods_are_run_to_be_spoken_to(cluster: &Cluster) {
    for kubectl in two_kubectls() {
        let script = format!("{LISTENER}; exit 3");
        let image = format!("--image={IMAGE}");
        let arguments = [
            "run",
            "spoken",
            "-i",
            "--quiet",
            "--restart=Never",
            "--pod-running-timeout=5m",
            &image,
            "--command",
            "--",
        ];
        let command = cluster.kubectl(&kubectl, &[&arguments[..], &["sh", "-c", &script]].concat());
        let output = apart(move || told(command, b"one\n".to_vec())).await;
        let found = (output.status.code(), text(&output.stdout));
        let expected = (Some(3), "heard one\nover\n".to_owned());
        assert_eq!(found, expected, "{}: {}", kubectl.display(), text(&output.stderr));
        cluster.remove("spoken").await;
    }
}
