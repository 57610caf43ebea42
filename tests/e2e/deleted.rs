//! Logs of pods that are gone, and of instances that are.

use std::path::Path;
use std::process::Output;

use crate::harness::{Podlog, kubectl, text, wait_for};
use crate::nodes::Cluster;

fn pod(name: &str, namespace: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: web}}}}\n\
         spec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: none, command: [sh, -c, '{command}']}}\n"
    )
}

/// Runs a pod to its end and deletes it.
fn gone(podlog: &Podlog, kubectl: &Path, name: &str, namespace: &str, line: &str) {
    let manifest = podlog.path("pod.yaml");
    std::fs::write(&manifest, pod(name, namespace, &format!("echo {line}"))).unwrap();
    podlog.kubectl_ok(kubectl, &["apply", "-f", &manifest.display().to_string()]);
    let pod = format!("pod/{name}");
    let wait = ["wait", "-n", namespace, &pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"];
    podlog.kubectl_ok(kubectl, &wait);
    podlog.kubectl_ok(kubectl, &["delete", "-n", namespace, &pod]);
}

fn said(output: &Output) -> (String, String) {
    (text(&output.stdout), text(&output.stderr))
}

/// Rows of `podlog logs --deleted`, once there are so many.
fn rows(podlog: &Podlog, arguments: &[&str], count: usize) -> Vec<Vec<String>> {
    wait_for("the list of deleted pods", || {
        let output = podlog.podlog(&[&["logs", "--deleted"], arguments].concat());
        let table = text(&output.stdout);
        let rows: Vec<Vec<String>> =
            table.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect();
        (rows.len() == count).then_some(rows)
    })
}

#[test]
fn deleted_pods_are_listed_and_read() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    assert_eq!(said(&podlog.podlog(&["logs", "--deleted"])).1, "No logs of deleted pods found.\n");
    gone(&podlog, &kubectl, "web", "default", "first");
    let first = rows(&podlog, &[], 1)[0][2].clone();
    gone(&podlog, &kubectl, "web", "default", "second");
    let listed = rows(&podlog, &["-A"], 2);
    let second = listed[0][2].clone();
    assert_eq!((listed[0][3].as_str(), listed[0][4].as_str(), &listed[1][2]), ("c", "0", &first));

    let stock = podlog.kubectl(&kubectl, &["logs", "web"]);
    let not_found = "error: error from server (NotFound): pods \"web\" not found in namespace \"default\"\n";
    assert_eq!(said(&stock), (String::new(), not_found.to_owned()));
    assert_eq!(said(&podlog.podlog(&["logs", "web"])).1, not_found);
    let note = format!("Using the pod that was deleted last, --uid={second}; others: {first}\n");
    assert_eq!(said(&podlog.podlog(&["logs", "web", "--deleted"])), ("second\n".into(), note.clone()));
    assert_eq!(said(&podlog.podlog(&["logs", "web", "--deleted", "-f"])), ("second\n".into(), note));
    let one = ["logs", "web", "--deleted", "--uid", &first, "--match=fir"];
    assert_eq!(said(&podlog.podlog(&one)), ("first\n".into(), String::new()));
    let all = ["logs", "-l", "app=web", "--deleted", "--prefix"];
    assert_eq!(said(&podlog.podlog(&all)).0, "[pod/web/c] second\n[pod/web/c] first\n");
    let none = podlog.podlog(&["logs", "db", "--deleted"]);
    assert_eq!(said(&none).1, "error: no logs of such a deleted pod are in namespace \"default\"\n");
    // Stock kubectl reads them, too, by the path.
    let path = "/api/v1/namespaces/default/pods/web/log?deleted=true";
    assert_eq!(podlog.kubectl_ok(&kubectl, &["get", "--raw", path]), "second\n");
    let output =
        podlog.kubectl(&kubectl, &["get", "--raw", "/api/v1/namespaces/default/pods/db/log?deleted=true"]);
    let refusal = "Error from server (NotFound): no logs of a deleted pod \"db\" are on any node\n";
    assert_eq!(said(&output).1, refusal);
}

const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: team}
rules:
- {apiGroups: [''], resources: [pods, pods/log], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}]
";

#[test]
fn who_could_read_a_log_reads_it_afterwards_and_nobody_else() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    let roles = podlog.path("roles.yaml");
    std::fs::write(&roles, READER).unwrap();
    let roles = roles.display().to_string();
    podlog.kubectl_ok(&kubectl, &["create", "namespace", "team"]);
    gone(&podlog, &kubectl, "web", "team", "secret");
    rows(&podlog, &["-n", "team"], 1);
    let ask = |user: &str| {
        let output = podlog.podlog(&["logs", "web", "--deleted", "-n", "team", "--as", user]);
        (text(&output.stdout), text(&output.stderr))
    };
    let (out, err) = ask("jane");
    assert!(out.is_empty() && err.contains("Forbidden") && err.contains("pods/log"), "{out} {err}");
    podlog.kubectl_ok(&kubectl, &["apply", "-f", &roles]);
    assert_eq!(
        wait_for("jane's rights", || Some(ask("jane")).filter(|(out, _)| !out.is_empty())).0,
        "secret\n"
    );
    assert!(ask("eve").1.contains("Forbidden"));

    // Another namespace of the same name belongs to somebody else.
    podlog.kubectl_ok(&kubectl, &["delete", "namespace", "team"]);
    wait_for("the end of jane's rights", || {
        let (out, err) = ask("jane");
        assert_eq!(out, "", "rights that outlive a namespace show nothing of it");
        err.contains("Forbidden").then_some(())
    });
    podlog.kubectl_ok(&kubectl, &["create", "namespace", "team"]);
    podlog.kubectl_ok(&kubectl, &["apply", "-f", &roles]);
    let refusal = wait_for("jane's rights", || Some(ask("jane").1).filter(|err| !err.contains("Forbidden")));
    assert_eq!(refusal, "error: no logs of such a deleted pod are in namespace \"team\"\n");
    let admin = podlog.podlog(&["logs", "web", "--deleted", "-n", "team"]);
    assert_eq!(said(&admin).0, "secret\n", "who may read all namespaces still may");
}

#[test]
fn every_node_is_asked_and_silent_ones_are_named() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (first, second) = (cluster.kubelet("node-a", &[]), cluster.kubelet("node-b", &[]));
    let (mut a, _) = cluster.run(&first);
    let (_b, _) = cluster.run(&second);
    for node in ["node-a", "node-b"] {
        let name = format!("on-{node}");
        let manifest = pod(&name, "default", &format!("echo {node}"));
        cluster.apply(&manifest.replace("spec:\n", &format!("spec:\n  nodeName: {node}\n")));
        let phase = ["get", "pod", &name, "-o", "jsonpath={.status.phase}"];
        wait_for("the pod to end", || (cluster.kubectl(&phase).stdout == b"Succeeded").then_some(()));
        cluster.ok(&["delete", "pod", &name]);
    }
    let logs = |arguments: &[&str]| said(&cluster.podlog(&[&["logs"], arguments].concat()));
    let list = |count: usize| {
        wait_for("the list", || {
            Some(logs(&["--deleted"])).filter(|(table, _)| table.lines().count() == count)
        })
    };
    let (table, _) = list(3);
    assert!(table.contains("node-a") && table.contains("node-b"), "{table}");
    for node in ["node-a", "node-b"] {
        assert_eq!(logs(&[&format!("on-{node}"), "--deleted"]), (format!("{node}\n"), String::new()));
    }
    a.kill();
    assert_eq!(list(2).1, "nodes that did not answer: node-a\n");
    let gone = "error: no logs of such a deleted pod are in namespace \"default\"; nodes that did not answer: node-a\n";
    assert_eq!(logs(&["on-node-a", "--deleted"]).1, gone);
    let (_a, _) = cluster.run(&first);
    wait_for("the node to be back", || (logs(&["on-node-a", "--deleted"]).0 == "node-a\n").then_some(()));
}
