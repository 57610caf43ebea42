//! In front of a kubelet that runs pods on containerd, where API servers take it for that kubelet.

use std::process::Stdio;

use podlog_serving::pki::CertificateAuthority;

use crate::harness::{text, wait_for};
use crate::machine::{IMAGE, Machine};
use crate::nodes::{Cluster, podlog};

/// How many pods are followed to their end, one after the other.
const ROUNDS: &str = "PODLOG_FRONT_ROUNDS";

fn counter() -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: counter}}
spec:
  nodeName: node-a
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done']
"
    )
}

#[test]
fn logs_come_from_a_front_that_api_servers_take_for_the_kubelet() {
    let Some(mut cluster) = Cluster::start() else { return };
    let Some(machine) = Machine::start() else { return };
    let endpoint = format!("--container-runtime-endpoint=unix://{}", machine.socket().display());
    // The kubelet behind believes the front's authority alone.
    let pki = cluster.path("front-pki");
    let authority = CertificateAuthority::load_or_create(&pki, "podlog-front-ca", "podlog-front-ca").unwrap();
    let believed = format!("--client-ca-file={}", authority.certificate_path().display());
    let arguments = cluster.kubelet(
        "node-a",
        &[
            &believed,
            &endpoint,
            "--node-ip=127.0.0.9",
            "--authentication-token-webhook=false",
            "--authorization-mode=AlwaysAllow",
            // As Kubernetes' own: files go with their pod.
            "--deleted-pod-log-max-size=0",
        ],
    );
    let to_cri = |flag: String| flag.replace("--runtime=process", "--runtime=cri");
    let arguments: Vec<String> = arguments.into_iter().map(to_cri).collect();
    let (_kubelet, behind) = cluster.run(&arguments);
    // The same port on another address, where nobody else listens: the one that API servers dial.
    let port = behind.rsplit(':').next().unwrap().to_owned();
    let mut flags = vec!["kubelet".to_owned(), endpoint, format!("--front={behind}")];
    for (flag, value) in [
        ("--address", "127.0.0.9".to_owned()),
        ("--port", port),
        ("--cert-dir", pki.display().to_string()),
        ("--hostname-override", "node-a".into()),
        ("--config", cluster.path("node-a.yaml").display().to_string()),
        ("--kubeconfig", cluster.path("node-a.conf").display().to_string()),
    ] {
        flags.extend([flag.to_owned(), value]);
    }
    let said = cluster.path("kubelet.stderr");
    let (mut front, _) = podlog(&flags, &said);

    cluster.apply(&counter());
    let log = |cluster: &Cluster| text(&cluster.kubectl(&["logs", "counter"]).stdout);
    wait_for("the first lines", || log(&cluster).contains("line 3\n").then_some(()));
    let metrics = cluster.ok(&["get", "--raw", "/api/v1/nodes/node-a/proxy/podlog/metrics"]);
    assert!(metrics.contains("podlog_front_requests_total{by=\"front\"}"), "{metrics}");
    let pods = cluster.ok(&["get", "--raw", "/api/v1/nodes/node-a/proxy/pods"]);
    assert!(pods.contains("\"name\":\"counter\""), "passed on: {pods}");
    let refused = text(&cluster.kubectl(&["logs", "counter", "--previous"]).stderr);
    assert!(
        refused.contains("previous terminated container \"c\" in pod \"counter\" not found"),
        "{refused}"
    );

    // A front that is killed is away for a while; nothing else happens.
    front.kill();
    assert!(!cluster.kubectl(&["logs", "counter"]).status.success());
    let (_front, _) = podlog(&flags, &said);
    wait_for("the log again", || log(&cluster).contains("line 9\n").then_some(()));

    let rounds = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        if round > 0 {
            cluster.apply(&counter());
            wait_for("the log of the next one", || log(&cluster).contains("line 9\n").then_some(()));
        }
        follow_to_the_end(&cluster);
    }
}

/// A follower sees the end of its container, whoever ends it.
fn follow_to_the_end(cluster: &Cluster) {
    let mut follow = cluster.kubectl_command(&["logs", "-f", "counter"]);
    let follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    cluster.ok(&["delete", "pod", "counter"]);
    let followed = follow.wait_with_output().unwrap();
    let (lines, complaint) = (text(&followed.stdout), text(&followed.stderr));
    let expected: String = (0..lines.lines().count()).map(|i| format!("line {i}\n")).collect();
    assert!(followed.status.success() && complaint.is_empty(), "{complaint}\n{}", said(cluster));
    assert!(lines == expected && lines.contains("line 9\n"), "{lines}");
}

/// What kubelet and front have said.
fn said(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.path("kubelet.stderr")).unwrap_or_default()
}
