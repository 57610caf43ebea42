//! Statuses and events in full. What a client reads of a pod must not depend on whose kubelet runs it: the files in `statuses/` say what
//! Kubernetes 1.36 says of the same pods, by its source (`pkg/kubelet`, `pkg/scheduler`).
//!
//! `PODLOG_WRITE_STATUSES=1` writes the files anew; read the difference before believing it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, condition, once, shell, status, with};
use crate::images;
use crate::machine::IMAGE;

/// How long nothing may have changed when they are written down.
const WATCHED: Duration = Duration::from_secs(15);

/// Where a probe may find a container before it is said that it was started: each is told by a thread of its own, as upstream.
const UNORDERED: [&str; 2] = ["unready", "unstarted"];

struct Row {
    name: &'static str,
    /// Only where there are images.
    needs_images: bool,
    spec: Value,
    until: fn(&Value) -> bool,
}

fn rows() -> Vec<Row> {
    let row = |name, spec, until| Row { name, needs_images: false, spec, until };
    let image = |name, image: &str, until| Row {
        name,
        needs_images: true,
        spec: once(with(shell("c", "true"), "image", json!(image))),
        until,
    };
    let sleep = |name: &str| shell(name, "exec sleep 1000");
    let says_no = json!({"command": ["sh", "-c", "echo not yet; exit 1"]});
    let probe = json!({"exec": says_no, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 1});
    let resources = json!({"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"cpu": "1"}});
    let full = with(
        with(sleep("c"), "resources", resources),
        "volumeMounts",
        json!([{"name": "v", "mountPath": "/tmp/v", "readOnly": true}]),
    );
    let full = json!({"containers": [full], "volumes": [{"name": "v", "emptyDir": {}}]});
    let hook = "until test -e /v/up; do sleep 0.1; done; echo no; exit 2";
    let hook = json!({"postStart": {"exec": {"command": ["sh", "-c", hook]}}});
    let hooked = shell("c", "trap 'exit 5' TERM; touch /v/up; while :; do sleep 0.1; done");
    let hooked =
        with(with(hooked, "lifecycle", hook), "volumeMounts", json!([{"name": "v", "mountPath": "/v"}]));
    let hooked = with(once(hooked), "volumes", json!([{"name": "v", "emptyDir": {}}]));
    let secret = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]);
    let init = |script: &str| json!({"initContainers": [shell("i", script)], "containers": [sleep("c")], "restartPolicy": "Never"});
    let sidecar = with(sleep("s"), "restartPolicy", json!("Always"));
    vec![
        row("running", full, is_ready),
        row("two", json!({"containers": [sleep("b"), sleep("a")]}), is_ready),
        row("unready", json!({"containers": [with(sleep("c"), "readinessProbe", probe.clone())]}), runs),
        row(
            "unstarted",
            json!({"containers": [with(sleep("c"), "startupProbe", with(probe, "failureThreshold", json!(1000)))]}),
            runs,
        ),
        row("initializing", init("exec sleep 1000"), |pod| status(pod, "i")["state"]["running"].is_object()),
        row("uninitialized", init("exit 7"), has_ended),
        row("helped", json!({"initContainers": [sidecar], "containers": [sleep("c")]}), is_ready),
        row("completed", once(shell("c", "printf bye > /dev/termination-log")), has_ended),
        row("failed", once(shell("c", "exit 3")), has_ended),
        row("crashing", json!({"containers": [shell("c", "exit 3")]}), |pod| {
            status(pod, "c")["restartCount"] != 0 && waits(pod)
        }),
        row(
            "gated",
            with(
                json!({"containers": [sleep("c")]}),
                "readinessGates",
                json!([{"conditionType": "example.com/gate"}]),
            ),
            runs,
        ),
        row("hooked", with(hooked, "terminationGracePeriodSeconds", json!(60)), has_ended),
        row("unconfigured", json!({"containers": [with(sleep("c"), "env", secret)]}), waits),
        row(
            "homeless",
            with(json!({"containers": [sleep("c")]}), "nodeSelector", json!({"disk": "none"})),
            |pod| condition(pod, "PodScheduled")["status"] == "False",
        ),
        image("unpulled", "127.0.0.1:1/no/such:1", |pod| waiting_for(pod) == "ImagePullBackOff"),
        image("misnamed", "localhost/No/Such", waits),
    ]
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True"
}

fn runs(pod: &Value) -> bool {
    status(pod, "c")["state"]["running"].is_object()
}

fn has_ended(pod: &Value) -> bool {
    let is_final = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    is_final && condition(pod, "PodReadyToStartContainers")["status"] == "False"
}

fn waiting_for(pod: &Value) -> &Value {
    &status(pod, "c")["state"]["waiting"]["reason"]
}

fn waits(pod: &Value) -> bool {
    waiting_for(pod).is_string() && waiting_for(pod) != "ContainerCreating"
}

pub(crate) async fn statuses_and_events_in_full(cluster: &Cluster) {
    let rows = rows().into_iter().filter(|row| !row.needs_images || cluster.column().has_containers());
    let checks = rows.map(|row| async move {
        cluster.run(row.name, row.spec).await;
        cluster.wait(row.name, "its state", row.until).await;
        let wrong = check(cluster, row.name).await;
        cluster.remove(row.name).await;
        wrong
    });
    let wrong: Vec<String> = futures_util::future::join_all(checks).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is not as it is to be.
async fn check(cluster: &Cluster, name: &str) -> Option<String> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/pods/statuses/{name}.json"));
    if std::env::var_os("PODLOG_WRITE_STATUSES").is_some() {
        let (mut before, mut now) = (String::new(), shown(cluster, name).await);
        while before != now {
            tokio::time::sleep(WATCHED).await;
            (before, now) = (now, shown(cluster, name).await);
        }
        std::fs::write(path, now).unwrap();
        return None;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let begun = Instant::now();
    loop {
        let found = shown(cluster, name).await;
        if found == expected || UNORDERED.contains(&name) && sorted(&found) == sorted(&expected) {
            return None;
        }
        if begun.elapsed() > PATIENCE {
            return Some(format!("{name}:\n{}", difference(&expected, &found)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches(',')).collect();
    lines.sort_unstable();
    lines
}

/// Lines that are on one side only.
fn difference(expected: &str, found: &str) -> String {
    let only = |sign: &str, own: &str, other: &str| {
        let lines = own.lines().filter(|line| !other.lines().any(|known| known == *line));
        lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    only("-", expected, found) + &only("+", found, expected)
}

/// Status and events without what is different in each run.
async fn shown(cluster: &Cluster, name: &str) -> String {
    let Some(pod) = cluster.pod(name).await else { return String::new() };
    let mut shown = json!({"status": pod["status"], "events": cluster.events_in_full(name).await});
    mask(
        "",
        &mut shown,
        pod["metadata"]["uid"].as_str().unwrap_or_default(),
        cluster.column().runtime_name(),
    );
    serde_json::to_string_pretty(&shown).unwrap() + "\n"
}

fn mask(key: &str, value: &mut Value, uid: &str, runtime: &str) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| mask(key, value, uid, runtime)),
        Value::Array(list) => list.iter_mut().for_each(|value| mask("", value, uid, runtime)),
        Value::Number(count) if key == "restartCount" && count.as_u64() != Some(0) => *value = json!("COUNT"),
        Value::String(text) => match key {
            _ if text.parse::<jiff::Timestamp>().is_ok() => *text = "TIME".to_owned(),
            "image" if text.ends_with(images::PRIVATE) => *text = IMAGE.to_owned(),
            "ip" | "hostIP" | "podIP" => *text = "ADDRESS".to_owned(),
            "imageID" if !text.is_empty() => *text = "IMAGE".to_owned(),
            "containerID" if text.starts_with(&format!("{runtime}://")) => *text = "RUNTIME://ID".to_owned(),
            "name" if text.starts_with(TOKENS) => *text = format!("{TOKENS}NAME"),
            _ => *text = without_errors_of_runtimes(&text.replace(uid, "UID")),
        },
        _ => {}
    }
}

/// The volume that each pod has for its service account.
const TOKENS: &str = "kube-api-access-";

/// What a runtime says of an error is its own.
fn without_errors_of_runtimes(text: &str) -> String {
    const ERROR: &str = "rpc error: code = ";
    text.split_once(ERROR).map_or_else(|| text.to_owned(), |(before, _)| format!("{before}{ERROR}ANY"))
}
