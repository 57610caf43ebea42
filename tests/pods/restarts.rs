//! Neither a new kubelet nor a new runtime changes anything for pods that run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, shell, status};

/// Prints numbered lines, a hundred or so a second.
const COUNTER: &str = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.01; done";

/// In turn: what runs is the same before and after, and no line is missing.
pub(crate) async fn all(mut cluster: Cluster) {
    cluster.run("counter", json!({"containers": [shell("c", COUNTER), shell("idle", "sleep 100000")]})).await;
    let before = cluster.wait_ready("counter").await;
    for step in ["kubelet", "runtime", "kubelet again"] {
        let seen = count(&cluster).await;
        match step {
            "runtime" => cluster.restart_runtime(),
            _ => cluster.restart_podlog().await,
        }
        let begun = std::time::Instant::now();
        while count(&cluster).await < seen + 50 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the log does not go on after a new {step}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let after = cluster.wait_ready("counter").await;
        for name in ["c", "idle"] {
            assert_eq!(same(&before, name), same(&after, name), "after a new {step}");
        }
        assert_eq!(before["status"]["conditions"], after["status"]["conditions"], "after a new {step}");
    }
    cluster.remove("counter").await;
}

/// What must not change about a container that runs on.
fn same<'a>(pod: &'a Value, name: &str) -> [&'a Value; 4] {
    let status = status(pod, name);
    [&status["containerID"], &status["restartCount"], &status["state"], &status["lastState"]]
}

/// How many lines the log has: 1 to the last, each once.
async fn count(cluster: &Cluster) -> usize {
    let Ok(log) = cluster.log("counter", "container=c").await else { return 0 };
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "a line is missing or doubled: {numbers:?}");
    numbers.len()
}
