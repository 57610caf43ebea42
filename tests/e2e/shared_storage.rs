//! Two API servers on one etcd, one of them killed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{kubectl, text, wait_for};
use crate::kubelets::{good, node, pod, wait_for_account};
use crate::scripted_kubelet::{LINES, ScriptedKubelet};
use crate::standalone::{Process, Site, etcd, etcd_with};
use crate::wire::Wire;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none, command: [sleep, '1']}]}
";

/// Follows config maps after a resource version.
fn watch(
    site: &Site,
    server: &str,
    version: &str,
) -> (Process, impl Iterator<Item = (String, String)> + use<>) {
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let mut command = site.kubectl(server, &["get", "--raw", &path]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The line in which the connection broke is none.
    let events = lines.map_while(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
    let said = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let event = move |event: serde_json::Value| {
        let metadata = &event["object"]["metadata"];
        (format!("{} {}", said(&event["type"]), said(&metadata["name"])), said(&metadata["resourceVersion"]))
    };
    (Process(process), events.map(event))
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn one_of_two_servers_is_killed_and_nothing_is_missed() {
    let Some(kubectl) = kubectl() else { return };
    let cluster = Site::prepare(kubectl);
    let Some((_etcd, url)) = etcd(cluster.folder.path()) else { return };
    let storage = ["--etcd-servers", url.as_str()];
    let (mut first, a) = cluster.server(&storage, &[]);
    let (_second, b) = cluster.server(&storage, &[]);

    // What one server was told, the other shows.
    wait_for("kube-root-ca.crt", || {
        let names = cluster.run(&b, &["get", "configmaps", "-o", "name"]);
        names.contains("kube-root-ca.crt").then_some(())
    });
    cluster.run(&a, &["create", "configmap", "c0"]);
    let mut version =
        cluster.run(&b, &["get", "configmap", "c0", "-o", "jsonpath={.metadata.resourceVersion}"]);

    let (_watch, events) = watch(&cluster, &a, &version);
    for (server, name) in [(&a, "c1"), (&b, "c2"), (&a, "c3")] {
        cluster.run(server, &["create", "configmap", name]);
    }
    let mut events = events.peekable();
    assert!(events.peek().is_some(), "the watch has begun");
    first.kill();
    for name in ["c4", "c5"] {
        cluster.run(&b, &["create", "configmap", name]);
    }
    let mut seen = Vec::new();
    for (event, at) in events {
        seen.push(event);
        version = at;
    }
    let (_watch, events) = watch(&cluster, &b, &version);
    seen.extend(events.map(|(event, _)| event).take(5 - seen.len()));
    assert_eq!(seen, ["ADDED c1", "ADDED c2", "ADDED c3", "ADDED c4", "ADDED c5"]);

    // The controllers go on at the other server, wherever they were.
    let manifest = cluster.folder.path().join("deployment.yaml");
    std::fs::write(&manifest, DEPLOYMENT).unwrap();
    cluster.run(&b, &["apply", "-f", manifest.to_str().unwrap()]);
    wait_for("a pod of the deployment", || {
        let pods = cluster.run(&b, &["get", "pods", "-o", "name"]);
        pods.starts_with("pod/web-").then_some(())
    });
}

/// Type and name of each event, and what it says of a deletion or of the end of what was there at first.
fn told(line: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let metadata = &event["object"]["metadata"];
    let deleting = if metadata["deletionTimestamp"].is_string() { " deleting" } else { "" };
    let end =
        metadata["annotations"]["k8s.io/initial-events-end"].as_str().map_or("", |_| "initial events end");
    let name = metadata["name"].as_str().unwrap_or(end);
    format!("{} {name}{deleting}", event["type"].as_str().unwrap())
}

#[test]
fn a_pod_goes_gracefully_whichever_server_is_asked() {
    let Some(kubectl) = kubectl() else { return };
    let site = Site::prepare(kubectl);
    let Some((_etcd, etcd)) = etcd(site.folder.path()) else { return };
    let storage = ["--etcd-servers", etcd.as_str()];
    let (_first, a) = site.server(&storage, &[]);
    let (_second, b) = site.server(&storage, &[]);
    wait_for_account(&site, &b);
    site.create(&a, &[node("n", None), pod("web", "n", &["c"])]);
    let path = "/api/v1/namespaces/default/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut command = site.kubectl(&b, &["get", "--raw", path]);
    let mut process = Process(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut events = lines.map(|line| told(&line));
    assert_eq!(events.next().unwrap(), "ADDED web");
    assert_eq!(events.next().unwrap(), "BOOKMARK initial events end");

    let deletion = |server: &str| {
        let template = "jsonpath={.metadata.deletionTimestamp} {.metadata.deletionGracePeriodSeconds}";
        site.run(server, &["get", "pod", "web", "-o", template])
    };
    site.run(&a, &["delete", "pod", "web", "--grace-period=600", "--wait=false"]);
    let (here, there) = (deletion(&a), deletion(&b));
    assert!(here == there && here.ends_with("Z 600"), "{here} {there}");
    assert_eq!(events.next().unwrap(), "MODIFIED web deleting");
    // Less patience counts, more does not.
    site.run(&b, &["delete", "pod", "web", "--grace-period=900", "--wait=false"]);
    assert_eq!(deletion(&a), here);
    site.run(&b, &["delete", "pod", "web", "--grace-period=60", "--wait=false"]);
    assert!(deletion(&a).ends_with("Z 60"));
    assert_eq!(events.next().unwrap(), "MODIFIED web deleting");
    // The kubelet says that it has ended, at the other server.
    site.run(&a, &["delete", "pod", "web", "--grace-period=0", "--force"]);
    assert_eq!(events.next().unwrap(), "DELETED web deleting");
    assert_eq!(site.run(&b, &["get", "pods", "-o", "name"]), "");
}

#[test]
fn a_follow_goes_on_at_the_server_that_is_left() {
    let Some(kubectl) = kubectl() else { return };
    let site = Site::prepare(kubectl);
    let Some((_etcd, etcd)) = etcd(site.folder.path()) else { return };
    let storage = ["--etcd-servers", etcd.as_str()];
    let (mut first, a) = site.server(&storage, &[]);
    let (_second, b) = site.server(&storage, &[]);
    let kubelet = ScriptedKubelet::start([127, 0, 0, 2], good(&site), &[]);
    wait_for_account(&site, &b);
    site.create(&b, &[node("n", Some(kubelet.address)), pod("web", "n", &["counter"])]);
    let addresses = [&a, &b].map(|url| url.trim_start_matches("https://").parse().unwrap());
    let balancer = Wire::lay("127.0.0.1", addresses.to_vec());

    let mut follow = site.podlog_logs(&format!("https://{}", balancer.address), &["web", "-f"]);
    let mut follow = Process(follow.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follow.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen: Vec<String> = lines.by_ref().take(20).collect();
    first.kill();
    kubelet.release();
    seen.extend(lines);
    assert!(follow.0.wait().unwrap().success());
    let expected: Vec<String> = (0..LINES).map(|number| format!("line {number}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn etcd_is_spoken_to_over_tls_and_both_sides_show_who_they_are() {
    let Some(kubectl) = kubectl() else { return };
    let site = Site::prepare(kubectl);
    let flags = [
        format!("--cert-file={}", site.file("apiserver.crt")),
        format!("--key-file={}", site.file("apiserver.key")),
        format!("--trusted-ca-file={}", site.file("ca.crt")),
        "--client-cert-auth".to_owned(),
    ];
    let Some((_etcd, url)) = etcd_with(site.folder.path(), "https", &flags) else { return };
    let foreign =
        podlog_serving::pki::CertificateAuthority::load_or_create(site.folder.path(), "foreign", "foreign");
    assert!(foreign.is_ok());
    let (ca, foreign, certificate, key) =
        (site.file("ca.crt"), site.file("foreign.crt"), site.file("admin.crt"), site.file("admin.key"));
    let base = ["--etcd-servers", url.as_str()];
    let own = ["--etcd-certfile", certificate.as_str(), "--etcd-keyfile", key.as_str()];
    let good = [&base[..], &["--etcd-cafile", &ca], &own].concat();
    let (_server, server) = site.server(&good, &[]);
    site.run(&server, &["create", "configmap", "kept"]);
    assert!(site.run(&server, &["get", "configmaps", "-o", "name"]).contains("configmap/kept"));
    let refused = [
        ([&base[..], &["--etcd-cafile", &foreign], &own].concat(), "certificate signed by unknown authority"),
        ([&base[..], &["--etcd-cafile", &ca]].concat(), "etcd"),
        (base.to_vec(), "--etcd-cafile"),
    ];
    // Side by side: they try for a while before they give up.
    let running = refused.map(|(flags, words)| {
        let mut command = site.server_command(&flags);
        (words, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    });
    for (words, server) in running {
        let output = server.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}
