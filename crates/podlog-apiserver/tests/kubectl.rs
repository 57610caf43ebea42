//! Stock kubectl against the API server: what users type, what they see, and with which exit code it ends.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::Cluster;
use podlog_api::Compatibility;
use tokio::io::AsyncWriteExt;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, image: busybox, command: [sh, -c, sleep 1]}
"#;
const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers: [{name: a, image: b, command: [x]}]
"#;
const TYPO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec:
  containers: [{name: a, image: b, comand: [x]}]
"#;
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";

/// One command: what is on its standard input, how it ends, what it says.
struct Row {
    command: &'static str,
    stdin: &'static str,
    exit: i32,
    says: &'static [&'static str],
}

const fn row(command: &'static str, exit: i32, says: &'static [&'static str]) -> Row {
    Row { command, stdin: "", exit, says }
}

const fn fed(command: &'static str, stdin: &'static str, exit: i32, says: &'static [&'static str]) -> Row {
    Row { command, stdin, exit, says }
}

const ROWS: &[Row] = &[
    row("version", 0, &["Server Version: v1.36.2+podlog-"]),
    row("get --raw /healthz", 0, &["ok"]),
    row("get --raw /readyz?verbose", 0, &["[+]etcd ok", "readyz check passed"]),
    row("get --raw /livez/ping", 0, &["ok"]),
    row("get --raw /livez/nope", 1, &["Error from server (NotFound)"]),
    row("get --raw /metrics", 0, &["# TYPE apiserver_request_total counter", "component=\"apiserver\""]),
    row(
        "get --raw /api/v1/nope",
        1,
        &["Error from server (NotFound): the server could not find the requested resource"],
    ),
    row("get --raw /openid/v1/jwks", 0, &["\"crv\": \"P-256\""]),
    row("get ns", 0, &["NAME", "kube-system", "Active"]),
    row("api-resources", 0, &["deployments", "apps/v1", "serviceaccounts"]),
    row("auth whoami", 0, &["Username", "admin", "[system:masters system:authenticated]"]),
    row("auth can-i get pods", 0, &["yes"]),
    row(
        "auth can-i get pods --subresource=log -n default --as=system:serviceaccount:default:ci-bot",
        1,
        &["no"],
    ),
    row("auth can-i --list --as=bob", 0, &["selfsubjectaccessreviews.authorization.k8s.io", "[/version"]),
    row(
        "get pods --as=bob",
        1,
        &[
            r#"pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default""#,
        ],
    ),
    row("create serviceaccount default", 0, &["serviceaccount/default created"]),
    fed("apply -f -", POD, 0, &["pod/web created"]),
    fed("apply -f -", POD, 0, &["pod/web unchanged"]),
    fed("create -f -", POD, 1, &[r#"Error from server (AlreadyExists)"#, r#"pods "web" already exists"#]),
    fed("apply -f -", DEPLOYMENT, 0, &["deployment.apps/d created"]),
    fed("apply -f -", TYPO, 1, &[r#"strict decoding error: unknown field "spec.containers[0].comand""#]),
    fed("apply -f -", NODE, 0, &["node/n1 created"]),
    row("get pods -o wide", 0, &["READY", "web", "0/1", "Pending", "<none>"]),
    row("get pods -o name -l app=web", 0, &["pod/web"]),
    row("get pods -A --field-selector metadata.name=other", 0, &["No resources found"]),
    row("get pods -A --field-selector spec.nope=1", 1, &["field label not supported: spec.nope"]),
    row("get nope", 1, &[r#"the server doesn't have a resource type "nope""#]),
    row("get pod nope", 1, &[r#"Error from server (NotFound): pods "nope" not found"#]),
    row("get pod web -n nowhere", 1, &["Error from server (NotFound)"]),
    row(
        "describe pod web",
        0,
        &["Service Account:  default", "QoS Class:", "BestEffort", "kube-api-access-"],
    ),
    row("describe node n1", 0, &["Name:               n1", "Non-terminated Pods:"]),
    row("describe deployment d", 0, &["Replicas:", "2 desired"]),
    row("label pod web tier=front", 0, &["pod/web labeled"]),
    row("annotate pod web note=x", 0, &["pod/web annotated"]),
    row("get pods -l tier=front -o name", 0, &["pod/web"]),
    row("scale deployment d --replicas=5", 0, &["deployment.apps/d scaled"]),
    row("get deployment d -o jsonpath={.spec.replicas}/{.metadata.generation}", 0, &["5/2"]),
    row(r#"patch deployment d --type=merge -p {"spec":{"replicas":1}}"#, 0, &["deployment.apps/d patched"]),
    row(
        r#"patch deployment d --type=json -p [{"op":"replace","path":"/spec/replicas","value":3}]"#,
        0,
        &["patched"],
    ),
    row(r#"patch deployment d -p {"spec":{"replicas":"x"}}"#, 1, &["Error from server"]),
    row("get deployment d -o jsonpath={.spec.replicas}", 0, &["3"]),
    row("explain pod.spec.nodeName", 0, &["FIELD: nodeName", "DESCRIPTION"]),
    row("create configmap c --from-literal=a=b", 0, &["configmap/c created"]),
    row("get configmap c -o yaml", 0, &["a: b", "kind: ConfigMap"]),
    row("create secret generic s --from-literal=a=b", 0, &["secret/s created"]),
    row("get secret s -o jsonpath={.data.a}", 0, &["Yg=="]),
    row(
        "create role r --verb=get,list --resource=pods,pods/log",
        0,
        &["role.rbac.authorization.k8s.io/r created"],
    ),
    row(
        "create rolebinding rb --role=r --serviceaccount=default:ci-bot",
        0,
        &["rolebinding.rbac.authorization.k8s.io/rb created"],
    ),
    row("auth can-i get pods --subresource=log --as=system:serviceaccount:default:ci-bot", 0, &["yes"]),
    row("auth can-i get pods/log --as=system:serviceaccount:default:ci-bot", 0, &["yes"]),
    row("auth can-i delete pods --as=system:serviceaccount:default:ci-bot", 1, &["no"]),
    row("create token default --duration=5m", 1, &["may not specify a duration less than 10 minutes"]),
    row("create token default", 0, &["ey"]),
    row("logs web", 0, &[]),
    row(
        "wait --for=condition=Ready pod/web --timeout=1s",
        1,
        &["timed out waiting for the condition on pods/web"],
    ),
    row("delete pod web --dry-run=server", 0, &["deleted (server dry run)"]),
    row("get pod web -o name", 0, &["pod/web"]),
    row("delete pod web", 0, &[r#"pod "web" deleted"#]),
    row("wait --for=delete pod/web --timeout=5s", 0, &[]),
    row("delete deployment d", 0, &[r#"deployment.apps "d" deleted"#]),
    row("delete namespace default", 1, &["this namespace may not be deleted"]),
    row("delete configmaps --all", 0, &[r#"configmap "c" deleted"#]),
    row("delete pod web", 1, &[r#"Error from server (NotFound): pods "web" not found"#]),
    row("get events", 0, &["No resources found in default namespace."]),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_of_the_oldest_supported_release() {
    run("1.28").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_of_the_newest_release_at_hand() {
    run("1.33").await;
}

async fn run(release: &str) {
    let Some(kubectl) = find(release) else {
        eprintln!(
            "SKIPPED: there is no kubectl {release}. Install kubectl, or kubectl.{release} beside it, and have it in PATH \
             (https://kubernetes.io/docs/tasks/tools)."
        );
        return;
    };
    let cluster = Cluster::start(Compatibility::Exact).await;
    let mut failures = String::new();
    for row in ROWS {
        let (exit, said) = execute(&kubectl, &cluster, row).await;
        let missing: Vec<_> = row.says.iter().filter(|text| !said.contains(**text)).collect();
        if exit != row.exit || !missing.is_empty() {
            failures += &format!(
                "\nkubectl {}\n  exit {exit}, expected {}\n  does not say {missing:?}\n{said}\n",
                row.command, row.exit
            );
        }
    }
    assert!(failures.is_empty(), "kubectl {release}:\n{failures}");
    cluster.server.shutdown().await.unwrap();
}

/// Exit code, and both outputs.
async fn execute(kubectl: &Path, cluster: &Cluster, row: &Row) -> (i32, String) {
    let mut child = tokio::process::Command::new(kubectl)
        .args(row.command.split(' '))
        .env_clear()
        .env("HOME", cluster.folder.path())
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(row.stdin.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
    let output = output.await.unwrap_or_else(|_| panic!("kubectl {} does not end", row.command)).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// `kubectl.<release>`, in PATH or beside the real `kubectl`.
fn find(release: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let name = format!("kubectl.{release}");
    std::env::split_paths(&path)
        .flat_map(|folder| {
            let real = folder.join("kubectl").canonicalize().ok();
            let beside = real.and_then(|real| Some(real.parent()?.join(&name)));
            [Some(folder.join(&name)), beside]
        })
        .flatten()
        .find(|candidate| candidate.is_file())
}
