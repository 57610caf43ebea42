//! The life of a namespace, as stock kubectl sees it.

use crate::harness::{Podlog, kubectl, text, wait_for};

const CONTENT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: team, finalizers: [example.com/hold]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: team}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: none, command: [sleep, '1000']}]
";

#[test]
fn a_namespace_is_equipped_and_goes_when_its_contents_have_gone() {
    let Some(kubectl) = kubectl() else { return };
    let podlog = Podlog::start(&[]);
    let run = |command: &str| {
        let arguments: Vec<&str> = command.split(' ').collect();
        podlog.kubectl_ok(&kubectl, &arguments)
    };
    let manifest = podlog.path("team.yaml");
    std::fs::write(&manifest, CONTENT).unwrap();
    podlog.kubectl_ok(&kubectl, &["apply", "-f", manifest.to_str().unwrap()]);
    run("wait -n team pod/web --for=condition=Ready --timeout=60s");
    assert_eq!(run("get sa -n team -o name"), "serviceaccount/default\n");
    assert!(run("get cm -n team -o name").contains("configmap/kube-root-ca.crt"));

    run("delete ns team --wait=false");
    assert!(run("get ns team").contains("Terminating"));
    let refused = podlog.kubectl(&kubectl, &["create", "configmap", "late", "-n", "team"]);
    let why = text(&refused.stderr);
    let expected =
        "is forbidden: unable to create new content in namespace team because it is being terminated";
    assert!(!refused.status.success() && why.contains(expected), "{why}");

    // Everything goes but what somebody holds, and the namespace says so.
    let held = wait_for("what holds the namespace", || {
        let left = run("get ns team -o jsonpath={.status.conditions[*].message}");
        (left.contains("configmaps. has 1 resource instances") && !left.contains("pods.")).then_some(left)
    });
    assert!(held.contains("example.com/hold in 1 resource instances"), "{held}");
    assert!(held.starts_with("All resources successfully discovered"), "{held}");
    assert_eq!(run("get pods -n team -o name"), "");
    podlog.kubectl_ok(
        &kubectl,
        &[
            "patch",
            "cm",
            "held",
            "-n",
            "team",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
        ],
    );
    run("wait ns/team --for=delete --timeout=60s");
    run("create ns team");
    wait_for("a new account", || (run("get sa -n team -o name") == "serviceaccount/default\n").then_some(()));
}
