//! Neither a new kubelet nor a new runtime changes anything for pods that run, nor for those who follow them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Column, setting, shell, status};
use crate::numbered::{Seen, script};

const PATIENCE: Duration = Duration::from_secs(60);
/// For so many seconds the processes are killed in turn; without, each of them at least once.
const SECONDS: &str = "PODLOG_KILL_SECONDS";
/// How many lines are printed at once, and how wide they are.
const BURST: u64 = 4000;
const WIDTH: usize = 100;
const FOLLOWERS: usize = 2;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// API server and kubelet.
    Podlog,
    Runtime,
    Both,
}

impl Victim {
    const ALL: [Victim; 3] = [Victim::Podlog, Victim::Runtime, Victim::Both];
}

/// API server and kubelet, the runtime, all of them, and again: what runs is the same before and after, and who follows gets every
/// line once, but for what a runtime had in its hands, and that is declared.
pub(crate) async fn all(mut cluster: Cluster) {
    let folder = cluster.path("signals");
    std::fs::create_dir(&folder).unwrap();
    let before = start(&cluster, &folder).await;
    let followers: Vec<Follower> = (0..FOLLOWERS).map(|_| Follower::start(&cluster)).collect();
    let (begun, mut kills) = (Instant::now(), 0);
    while kills < Victim::ALL.len() || begun.elapsed().as_secs() < setting(SECONDS, 0) {
        let victim = Victim::ALL[kills % Victim::ALL.len()];
        for follower in &followers {
            follower.wait_for_more(&format!("before the kill of {victim:?}"));
        }
        match victim {
            Victim::Podlog => cluster.restart_podlog().await,
            Victim::Runtime => cluster.restart_runtime(),
            Victim::Both => cluster.restart_both().await,
        }
        kills += 1;
        for follower in &followers {
            follower.wait_for_more(&format!("after the kill of {victim:?}"));
        }
        let after = cluster.wait_ready("counter").await;
        for name in ["c", "idle"] {
            assert_eq!(same(&before, name), same(&after, name), "after a new {victim:?}");
        }
        assert_eq!(before["status"]["conditions"], after["status"]["conditions"], "after a new {victim:?}");
    }
    std::fs::write(folder.join("stop"), "").unwrap();
    let seen: Vec<Seen> = followers.into_iter().map(Follower::end).collect();
    let runtimes = Victim::ALL.iter().cycle().take(kills).filter(|victim| **victim != Victim::Podlog).count();
    let both = Victim::ALL.iter().cycle().take(kills).filter(|victim| **victim == Victim::Both).count();
    for seen in &seen {
        eprintln!(
            "{:?}: {kills} kills, {} lines, {} missing at {} markers of which {} came late",
            cluster.column(),
            seen.last,
            seen.missing,
            seen.markers,
            seen.late
        );
        match cluster.column() {
            Column::Process | Column::CriServer => {
                assert_eq!(seen.markers, 0, "whoever is killed, nothing is lost")
            }
            Column::Containerd => assert_eq!(seen.markers, runtimes as u64, "containerd has ended so often"),
        }
        assert!(
            seen.late <= both as u64,
            "where a kubelet is there, the marker is where something is missing"
        );
    }
    cluster.remove("counter").await;
}

/// A container that prints bursts of numbered lines until it is told to stop, and one that does nothing.
async fn start(cluster: &Cluster, folder: &std::path::Path) -> Value {
    let burst = script("$((n + 1))", &format!("$((n + {BURST}))"), WIDTH);
    let print = format!(
        "n=0; until [ -e /signals/stop ]; do {burst}; n=$((n + {BURST})); sleep 0.1; done; echo end; sleep 100000"
    );
    let mut printer = shell("c", &print);
    printer["volumeMounts"] = json!([{"name": "signals", "mountPath": "/signals"}]);
    let containers = json!([printer, shell("idle", "sleep 100000")]);
    let volumes = json!([{"name": "signals", "hostPath": {"path": folder}}]);
    cluster.run("counter", json!({"containers": containers, "volumes": volumes})).await;
    cluster.wait_ready("counter").await
}

/// What must not change about a container that runs on.
fn same<'a>(pod: &'a Value, name: &str) -> [&'a Value; 4] {
    let status = status(pod, name);
    [&status["containerID"], &status["restartCount"], &status["state"], &status["lastState"]]
}

/// A `podlog logs -f`, and somebody who reads what it prints.
struct Follower {
    process: Child,
    reader: JoinHandle<Seen>,
    last: Arc<AtomicU64>,
}

impl Follower {
    fn start(cluster: &Cluster) -> Self {
        let mut command = cluster.follower("counter");
        let mut process =
            command.args(["-c", "c"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (lines, last) =
            (BufReader::new(process.stdout.take().unwrap()).lines(), Arc::new(AtomicU64::new(0)));
        let shared = last.clone();
        let read = move || {
            let mut seen = Seen::new(WIDTH);
            for line in lines.map(Result::unwrap).take_while(|line| line != "end") {
                seen.line(&line);
                shared.store(seen.last, Ordering::Relaxed);
            }
            seen.end();
            seen
        };
        Follower { process, reader: std::thread::spawn(read), last }
    }

    /// Waits for lines that were not there before.
    fn wait_for_more(&self, when: &str) {
        let (begun, before) = (Instant::now(), self.last.load(Ordering::Relaxed));
        while self.last.load(Ordering::Relaxed) < before + 2 * BURST {
            assert!(!self.reader.is_finished(), "a follower has ended {when}");
            assert!(begun.elapsed() < PATIENCE, "a follower gets no more lines {when}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything up to the last line.
    fn end(mut self) -> Seen {
        let seen = self.reader.join().expect("every line once, or declared");
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        seen
    }
}
