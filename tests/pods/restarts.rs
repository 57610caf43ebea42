//! Neither a new kubelet nor a new runtime changes anything for pods that run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, shell, status};

const PATIENCE: Duration = Duration::from_secs(60);
/// Prints numbered lines, a hundred or so a second.
const COUNTER: &str = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.01; done";

/// For so many seconds the processes are killed in turn; without, each of them at least once.
const SECONDS: &str = "PODLOG_KILL_SECONDS";

/// API server and kubelet, then the runtime, and again: what runs is the same before and after, and no line is missing.
pub(crate) async fn all(mut cluster: Cluster) {
    cluster.run("counter", json!({"containers": [shell("c", COUNTER), shell("idle", "sleep 100000")]})).await;
    let before = cluster.wait_ready("counter").await;
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let begun = Instant::now();
    let mut kills = 0;
    while kills < 3 || begun.elapsed() < Duration::from_secs(seconds) {
        let seen = count(&cluster).await;
        let victim = if kills % 2 == 0 { "kubelet" } else { "runtime" };
        match victim {
            "runtime" => cluster.restart_runtime(),
            _ => cluster.restart_podlog().await,
        }
        kills += 1;
        let restarted = Instant::now();
        while count(&cluster).await < seen + 50 {
            assert!(restarted.elapsed() < PATIENCE, "the log does not go on after a new {victim}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let after = cluster.wait_ready("counter").await;
        for name in ["c", "idle"] {
            assert_eq!(same(&before, name), same(&after, name), "after a new {victim}");
        }
        assert_eq!(before["status"]["conditions"], after["status"]["conditions"], "after a new {victim}");
    }
    let total = count(&cluster).await;
    eprintln!("{:?}: {kills} kills, {total} lines, none missing", cluster.column());
    cluster.remove("counter").await;
}

/// What must not change about a container that runs on.
fn same<'a>(pod: &'a Value, name: &str) -> [&'a Value; 4] {
    let status = status(pod, name);
    [&status["containerID"], &status["restartCount"], &status["state"], &status["lastState"]]
}

/// How many lines the log has.
async fn count(cluster: &Cluster) -> usize {
    // The API server may be about to come back.
    cluster.log("counter", "container=c").await.map_or(0, |log| check(&log))
}

/// How many lines there are: 1 to the last, each once. The last one may still be on its way.
fn check(log: &str) -> usize {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers: Vec<usize> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "a line is missing or doubled: {numbers:?}");
    numbers.len()
}
