//! Bad input, hostile output, and a machine that does not play along.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Podlog, kubectl, text, wait_for};
use crate::standalone::{Process, Site};

fn run_to_end(podlog: &Podlog, kubectl: &Path, name: &str, command: &[&str]) {
    let mut arguments = vec!["run", name, "--image=host", "--restart=Never", "--command", "--"];
    arguments.extend(command);
    podlog.kubectl_ok(kubectl, &arguments);
    wait_for("the end of the pod", || {
        let phase = podlog.kubectl_ok(kubectl, &["get", "pod", name, "-o=jsonpath={.status.phase}"]);
        matches!(phase.as_str(), "Succeeded" | "Failed").then_some(())
    });
}

#[test]
fn every_byte_comes_back() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    let file = podlog.path("soup");
    let mut soup: Vec<u8> = (0..=255).cycle().take(256 * 4096).collect();
    soup.extend(b"no newline at the end");
    std::fs::write(&file, &soup).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    run_to_end(&podlog, &kubectl, "soup", &["/bin/cat", file.to_str().unwrap()]);
    let log = podlog.kubectl(&kubectl, &["logs", "soup"]);
    assert!(
        log.stdout == soup,
        "the log is not what was written: {} of {} bytes",
        log.stdout.len(),
        soup.len()
    );
    assert!(podlog.podlog(&["logs", "soup"]).stdout == soup, "podlog logs does not print what was written");
}

#[test]
fn a_line_of_100_megabytes_is_one_line() {
    let Some(kubectl) = kubectl() else { return };
    let config =
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerLogMaxSize: 300Mi\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubelet.yaml");
    std::fs::write(&file, config).unwrap();
    let podlog = Podlog::start(&["--kubelet-config", file.to_str().unwrap()]);
    let command = "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo after";
    run_to_end(&podlog, &kubectl, "long", &["/bin/sh", "-c", command]);
    let log = podlog.kubectl(&kubectl, &["logs", "long"]).stdout;
    assert_eq!(log.len(), 100_000_000 + 1 + 6);
    assert!(log.ends_with(b"x\nafter\n"));
    assert_eq!(podlog.kubectl(&kubectl, &["logs", "long", "--tail=1"]).stdout, b"after\n");
}

#[test]
fn rotated_generations_are_one_log() {
    let Some(kubectl) = kubectl() else { return };
    let config = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerLogMaxSize: 256Ki\ncontainerLogMaxFiles: 50\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubelet.yaml");
    std::fs::write(&file, config).unwrap();
    let podlog = Podlog::start(&["--kubelet-config", file.to_str().unwrap()]);
    run_to_end(&podlog, &kubectl, "many", &["/usr/bin/seq", "1", "100000"]);
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(podlog.kubectl_ok(&kubectl, &["logs", "many"]) == expected, "a rotated line is missing");
    let tail: String = (40_001..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(
        podlog.kubectl_ok(&kubectl, &["logs", "many", "--tail=60000"]) == tail,
        "tail stops at a rotation"
    );
}

#[test]
fn a_command_that_does_not_exist_is_a_start_error() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    podlog.kubectl_ok(
        &kubectl,
        &["run", "gone", "--image=host", "--restart=Never", "--command", "--", "/no/such/program"],
    );
    let path = "-o=jsonpath={.status.containerStatuses[0].state.terminated}";
    let state = wait_for("the start error", || {
        let state = podlog.kubectl_ok(&kubectl, &["get", "pod", "gone", path]);
        (!state.is_empty()).then_some(state)
    });
    for part in ["\"exitCode\":128", "\"reason\":\"StartError\"", "/no/such/program"] {
        assert!(state.contains(part), "{part} is not in {state}");
    }
}

#[test]
fn a_container_without_a_command_says_why_it_cannot_run() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    podlog.kubectl_ok(&kubectl, &["run", "image-only", "--image=nginx"]);
    let path = "-o=jsonpath={.status.containerStatuses[0].state.waiting}";
    let state = wait_for("the reason", || {
        let state = podlog.kubectl_ok(&kubectl, &["get", "pod", "image-only", path]);
        state.contains("CreateContainerError").then_some(state)
    });
    assert!(state.contains("command") && state.contains("process runtime"), "{state}");
}

#[test]
fn up_says_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let check = |arguments: &[&str], expected: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_podlog"))
            .arg("up")
            .args(arguments)
            .env("HOME", folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        for part in expected {
            assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
        }
    };
    let new = |name: &str| folder.path().join(name).to_string_lossy().into_owned();

    check(&["--data-dir", &new("a"), "--kubelet-port=0", "--secure-port", &port], &[&port, "--secure-port"]);
    check(&["--data-dir", &new("b"), "--secure-port=0", "--kubelet-port", &port], &[&port, "--kubelet-port"]);
    check(&["--data-dir", "/proc/podlog"], &["/proc/podlog", "--data-dir"]);

    let corrupt = new("c");
    std::fs::create_dir(&corrupt).unwrap();
    std::fs::write(Path::new(&corrupt).join("store.redb"), "this is no store").unwrap();
    check(&["--data-dir", &corrupt, "--secure-port=0", "--kubelet-port=0"], &["store.redb"]);

    let manifest = new("bad.yaml");
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ok}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i, comand: [x]}]}\n").unwrap();
    let data = new("d");
    check(
        &["--data-dir", &data, "--secure-port=0", "--kubelet-port=0", "-f", &manifest],
        &["bad.yaml", "unknown field \"spec.containers[0].comand\""],
    );
    check(&["--data-dir", &data, "-f", &new("missing.yaml")], &["missing.yaml"]);
}

/// Bytes of memory of a process.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn who_takes_his_time_keeps_nobody_waiting() {
    let Some(kubectl) = kubectl() else { return };
    let site = Site::prepare(kubectl);
    let (server, url) = site.server(&["--store", &site.file("store.redb"), "--request-timeout", "3s"], &[]);
    let before = resident(server.0.id());
    let (host, port) = url.trim_start_matches("https://").rsplit_once(':').unwrap();
    let output = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/loris.py"))
        .args([host, port, site.folder.path().to_str().unwrap(), "3"])
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED, NOT TESTED: no python3 in the PATH");
        return;
    };
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("is content"), "{said}{}", text(&output.stderr));
    let grown = resident(server.0.id()).saturating_sub(before);
    assert!(grown < 100 << 20, "1,700 connections took {} MiB", grown >> 20);
}

#[test]
fn crowds_that_say_nothing_keep_nobody_from_logs() {
    let Some(kubectl) = kubectl() else { return };
    // A quarter of them may be connections of clients, at either port.
    let podlog = Podlog::start_with_files(800);
    let count = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done";
    let run = ["run", "count", "--image=host", "--restart=Never", "--command", "--", "/bin/sh", "-c", count];
    podlog.kubectl_ok(&kubectl, &run);
    wait_for("the pod", || {
        let phase = podlog.kubectl_ok(&kubectl, &["get", "pod", "count", "-o=jsonpath={.status.phase}"]);
        (phase == "Running").then_some(())
    });
    let mut follow = podlog.kubectl_command(&kubectl, &["logs", "-f", "count"]);
    let mut follow = Process(follow.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follow.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "line 0");
    let node = ["get", "node", "node-a", "-o=jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}"];
    let kubelet: u16 = podlog.kubectl_ok(&kubectl, &node).parse().unwrap();
    let begun = std::time::Instant::now();
    let mut crowd = Vec::new();
    for port in [podlog.port(), kubelet] {
        crowd.extend((0..300).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()));
    }
    for raw in ["/metrics", "/api/v1/nodes/node-a/proxy/metrics"] {
        assert!(podlog.kubectl_ok(&kubectl, &["logs", "count", "--limit-bytes=6"]).starts_with("line 0"));
        let metrics = podlog.kubectl_ok(&kubectl, &["get", "--raw", raw]);
        let closed = metrics.lines().find_map(|line| {
            line.strip_prefix("podlog_connections_closed_total{caller=\"unknown\"} ")?.parse::<u32>().ok()
        });
        assert!(closed.is_some_and(|closed| (100..=301).contains(&closed)), "{raw}: {closed:?}");
    }
    let took = begun.elapsed().as_millis();
    let mut expected: u128 = 1;
    while expected < took / 100 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("line {expected}"), "the follow broke off");
        expected += 1;
    }
}
