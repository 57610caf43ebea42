//! `podlog kubelet` by itself: another process than the API server, with stock kubectl in front.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::harness::wait_for;
use crate::nodes::Cluster;

const COUNTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  nodeName: node-a
  containers:
  - {name: c, image: none, command: [sh, -c, 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done']}
";

fn pid_of(cluster: &Cluster) -> String {
    let sandboxes = std::fs::read_dir(cluster.path("node-a/kubelet/run")).unwrap().flatten();
    let containers =
        sandboxes.flat_map(|sandbox| std::fs::read_dir(sandbox.path()).into_iter().flatten().flatten());
    let states =
        containers.filter_map(|container| std::fs::read_to_string(container.path().join("state.json")).ok());
    let state: serde_json::Value = serde_json::from_str(&states.last().unwrap()).unwrap();
    state["process"]["pid"].to_string()
}

#[test]
fn a_node_joins_serves_logs_and_survives_its_kubelet_and_its_server() {
    let Some(mut cluster) = Cluster::start() else { return };
    let arguments =
        cluster.kubelet("node-a", &["--node-labels=disk=fast", "--register-with-taints=a=b:NoSchedule"]);
    let (mut kubelet, _) = cluster.run(&arguments);
    wait_for("the node", || cluster.kubectl(&["get", "node", "node-a"]).status.success().then_some(()));
    let node = cluster.ok(&[
        "get",
        "node",
        "node-a",
        "-o",
        "jsonpath={.metadata.labels.disk} {.spec.taints[0].key}",
    ]);
    assert_eq!(node, "fast a");

    cluster.apply(COUNTER);
    let log = |cluster: &Cluster| String::from_utf8(cluster.kubectl(&["logs", "counter"]).stdout).unwrap();
    wait_for("the first line", || log(&cluster).contains("line 3\n").then_some(()));
    let mut follow =
        cluster.kubectl_command(&["logs", "-f", "counter"]).stdout(Stdio::piped()).spawn().unwrap();
    let followed: Vec<String> =
        BufReader::new(follow.stdout.take().unwrap()).lines().take(20).map(Result::unwrap).collect();
    assert_eq!(followed, (0..20).map(|i| format!("line {i}")).collect::<Vec<_>>());
    follow.kill().unwrap();
    follow.wait().unwrap();

    let pid = pid_of(&cluster);
    kubelet.kill();
    let (_kubelet, _) = cluster.run(&arguments);
    wait_for("the log after the restart", || log(&cluster).contains("line 50\n").then_some(()));
    assert_eq!(pid_of(&cluster), pid, "the container is the one from before");

    cluster.kill_server();
    cluster.start_server();
    let lines = wait_for("the log after the API server's restart", || {
        Some(log(&cluster)).filter(|log| log.contains("line 60\n"))
    });
    let expected: String = (0..lines.lines().count()).map(|i| format!("line {i}\n")).collect();
    assert_eq!(lines, expected, "nothing is missing and nothing twice");
    assert_eq!(pid_of(&cluster), pid);
    let restarts =
        cluster.ok(&["get", "pod", "counter", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
    assert_eq!(restarts, "0");
    cluster.ok(&["delete", "pod", "counter", "--grace-period=1"]);
}

#[test]
fn static_pods_run_without_a_server_and_are_mirrored_with_one() {
    let Some(mut cluster) = Cluster::start() else { return };
    let manifests = cluster.path("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let manifest = COUNTER.replace("  nodeName: node-a\n", "");
    std::fs::write(manifests.join("counter.yaml"), &manifest).unwrap();
    let flag = format!("--pod-manifest-path={}", manifests.display());
    let arguments = cluster.kubelet("node-a", &[&flag]);
    // Nobody answers there.
    cluster.kill_server();
    let (_kubelet, _) = cluster.run(&arguments);
    let logs = cluster.path("node-a/pods");
    wait_for("the static pod's log", || {
        let pods = std::fs::read_dir(&logs).ok()?.flatten();
        let mut logs =
            pods.map(|pod| std::fs::read_to_string(pod.path().join("c/0.log")).unwrap_or_default());
        logs.any(|log| log.contains("line 1\n")).then_some(())
    });

    cluster.start_server();
    wait_for("the mirror to say that it runs", || {
        let output = cluster.kubectl(&["get", "pod", "counter-node-a", "-o", "jsonpath={.status.phase}"]);
        (output.stdout == b"Running").then_some(())
    });
    let path = "jsonpath={.metadata.annotations.kubernetes\\.io/config\\.source} \
                {.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}";
    assert_eq!(cluster.ok(&["get", "pod", "counter-node-a", "-o", path]), "file Node/node-a");
    assert!(cluster.ok(&["logs", "counter-node-a"]).starts_with("line 0\n"));
    let uid = |cluster: &Cluster| {
        let output = cluster.kubectl(&["get", "pod", "counter-node-a", "-o", "jsonpath={.metadata.uid}"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, pid) = (uid(&cluster), pid_of(&cluster));
    cluster.ok(&["delete", "pod", "counter-node-a", "--wait=false"]);
    wait_for("the mirror to come back", || {
        let phase =
            cluster.kubectl(&["get", "pod", "counter-node-a", "-o", "jsonpath={.status.phase}"]).stdout;
        (phase == b"Running" && uid(&cluster) != first).then_some(())
    });
    assert_eq!(pid_of(&cluster), pid, "what is mirrored was not touched");

    std::fs::remove_file(manifests.join("counter.yaml")).unwrap();
    wait_for("the log of the deleted pod", || {
        let output =
            cluster.podlog(&["logs", "counter-node-a", "--deleted", "--until-time=2999-01-01T00:00:00Z"]);
        output.stdout.starts_with(b"line 0\n").then_some(())
    });
    wait_for("the mirror to go", || uid(&cluster).is_empty().then_some(()));
    wait_for("the container to end", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

const TOKEN: &str = "
apiVersion: v1
kind: Secret
type: bootstrap.kubernetes.io/token
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-authentication: 'true'}
";

#[test]
fn a_node_joins_with_a_token_and_has_its_certificates_signed() {
    let flags = &[
        ("--kubelet-certificate-authority", "ca.crt"),
        ("--cluster-signing-cert-file", "ca.crt"),
        ("--cluster-signing-key-file", "ca.key"),
        ("--enable-bootstrap-token-auth", ""),
    ];
    let Some(mut cluster) = Cluster::start_with(flags) else { return };
    cluster.apply(TOKEN);
    let bootstrap = cluster.kubeconfig("bootstrap.conf", json!({"token": "abcdef.0123456789abcdef"}));
    let joined = cluster.path("joined.conf").display().to_string();
    let mut arguments = cluster.kubelet(
        "node-a",
        &[
            &format!("--bootstrap-kubeconfig={bootstrap}"),
            "--rotate-certificates",
            "--rotate-server-certificates",
        ],
    );
    let kubeconfig = arguments.iter().position(|flag| flag == "--kubeconfig").unwrap();
    arguments[kubeconfig + 1].clone_from(&joined);
    let (mut kubelet, _) = cluster.run(&arguments);
    cluster.apply(COUNTER);
    let log = |cluster: &Cluster| String::from_utf8(cluster.kubectl(&["logs", "counter"]).stdout).unwrap();
    wait_for("a log from a kubelet that is verified", || log(&cluster).contains("line 1\n").then_some(()));
    for name in ["kubelet-client-current.pem", "kubelet-server-current.pem"] {
        let file = cluster.path("node-a/kubelet/pki").join(name);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("BEGIN CERTIFICATE") && text.contains("PRIVATE KEY"));
    }
    let requests = cluster.ok(&["get", "csr", "-o", "jsonpath={.items[*].spec.signerName}"]);
    assert!(
        requests.contains("kube-apiserver-client-kubelet") && requests.contains("kubelet-serving"),
        "{requests}"
    );

    // The token is needed once.
    kubelet.kill();
    cluster.ok(&["delete", "secret", "-n", "kube-system", "bootstrap-token-abcdef"]);
    let (_kubelet, _) = cluster.run(&arguments);
    let lines = log(&cluster).lines().count();
    wait_for("the log to go on", || (log(&cluster).lines().count() > lines).then_some(()));
    cluster.ok(&["delete", "pod", "counter", "--grace-period=1"]);
}

#[test]
fn labels_that_a_kubelet_may_not_set_are_refused_at_its_start() {
    let root_dir = tempfile::tempdir().unwrap();
    let kubelet = |labels: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podlog"));
        command
            .args(["kubelet", "--address=127.0.0.1", "--port=0", labels])
            .arg("--root-dir")
            .arg(root_dir.path());
        command.output().unwrap()
    };
    let refused = kubelet("--node-labels=disk=fast,node-role.kubernetes.io/worker=");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    let expected = "failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with \
                    --node-labels: [node-role.kubernetes.io/worker]\n";
    assert!(said.contains(expected), "{said}");
    assert!(std::fs::read_dir(root_dir.path()).unwrap().next().is_none(), "nothing was started");
}
