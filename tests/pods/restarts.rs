//! Neither a new kubelet nor a new runtime changes anything for pods that run, nor for those who follow them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Column, PATIENCE, setting, shell, status};
use crate::numbered::{Seen, script};
use crate::standalone::Process;

/// For so many seconds the processes are killed in turn; without, each of them at least once.
const SECONDS: &str = "PODLOG_KILL_SECONDS";
/// How many lines are printed at once, and how wide they are.
const BURST: u64 = 4000;
const WIDTH: usize = 100;
const FOLLOWERS: usize = 2;
/// The pod that prints.
const POD: &str = "counter";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    ApiServer,
    Kubelet,
    /// API server and kubelet in one process.
    Podlog,
    Runtime,
    /// `Podlog` and the runtime.
    Both,
}

/// What runs pods, in parts that can be killed.
pub(crate) trait Parts {
    fn column(&self) -> Column;

    /// Who is there to be killed, in turn.
    fn victims(&self) -> Vec<Victim>;

    /// Kills somebody, and starts somebody new in his place.
    async fn kill(&mut self, victim: Victim);

    /// `podlog logs -f` for a pod, in a process of its own.
    fn follower(&self, pod: &str) -> Command;

    /// A folder of the test's own.
    fn folder(&self) -> PathBuf;

    async fn run(&self, pod: &str, spec: Value);

    /// The pod when it is ready.
    async fn ready(&self, pod: &str) -> Value;

    /// Deletes the pod and waits for its end.
    async fn remove(&self, pod: &str);
}

impl Parts for Cluster {
    fn column(&self) -> Column {
        Cluster::column(self)
    }

    fn victims(&self) -> Vec<Victim> {
        vec![Victim::Podlog, Victim::Runtime, Victim::Both]
    }

    async fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Runtime => self.restart_runtime(),
            Victim::Both => self.restart_both().await,
            Victim::ApiServer | Victim::Kubelet | Victim::Podlog => self.restart_podlog().await,
        }
    }

    fn follower(&self, pod: &str) -> Command {
        Cluster::follower(self, pod)
    }

    fn folder(&self) -> PathBuf {
        self.path("")
    }

    async fn run(&self, pod: &str, spec: Value) {
        Cluster::run(self, pod, spec).await;
    }

    async fn ready(&self, pod: &str) -> Value {
        self.wait_ready(pod).await
    }

    async fn remove(&self, pod: &str) {
        Cluster::remove(self, pod).await;
    }
}

/// One after the other, and again: what runs is the same before and after, and who follows gets every line once, but for what a
/// runtime had in its hands, and that is declared.
pub(crate) async fn in_turn<P: Parts>(mut parts: P) -> P {
    let signals = parts.folder().join("signals");
    std::fs::create_dir(&signals).unwrap();
    let before = start(&parts, &signals).await;
    let followers: Vec<Follower> = (0..FOLLOWERS).map(|_| Follower::start(&parts)).collect();
    let victims = parts.victims();
    let (begun, mut killed) = (Instant::now(), Vec::new());
    while killed.len() < victims.len() || begun.elapsed().as_secs() < setting(SECONDS, 0) {
        let victim = victims[killed.len() % victims.len()];
        for follower in &followers {
            follower.wait_for_more(&format!("before the kill of {victim:?}"));
        }
        parts.kill(victim).await;
        killed.push(victim);
        for follower in &followers {
            follower.wait_for_more(&format!("after the kill of {victim:?}"));
        }
        let after = parts.ready(POD).await;
        for name in ["c", "idle"] {
            assert_eq!(same(&before, name), same(&after, name), "after a new {victim:?}");
        }
        assert_eq!(before["status"]["conditions"], after["status"]["conditions"], "after a new {victim:?}");
    }
    std::fs::write(signals.join("stop"), "").unwrap();
    let seen: Vec<Seen> = followers.into_iter().map(Follower::end).collect();
    let count = |of: &[Victim]| killed.iter().filter(|victim| of.contains(victim)).count() as u64;
    for seen in &seen {
        eprintln!(
            "{:?}: {} kills of {victims:?} in turn, {} lines, {} missing at {} markers of which {} came late",
            parts.column(),
            killed.len(),
            seen.last,
            seen.missing,
            seen.markers,
            seen.late
        );
        match parts.column() {
            Column::Process | Column::CriServer => {
                assert_eq!(seen.markers, 0, "whoever is killed, nothing is lost")
            }
            Column::Containerd => {
                let ends = count(&[Victim::Runtime, Victim::Both]);
                assert_eq!(seen.markers, ends, "containerd has ended so often");
            }
        }
        let both = count(&[Victim::Both]);
        assert!(seen.late <= both, "where a kubelet is there, the marker is where something is missing");
    }
    parts.remove(POD).await;
    parts
}

/// A container that prints bursts of numbered lines until it is told to stop, and one that does nothing.
async fn start(parts: &impl Parts, folder: &Path) -> Value {
    let burst = script("$((n + 1))", &format!("$((n + {BURST}))"), WIDTH);
    let print = format!(
        "n=0; until [ -e /signals/stop ]; do {burst}; n=$((n + {BURST})); sleep 0.1; done; echo end; sleep 100000"
    );
    let mut printer = shell("c", &print);
    printer["volumeMounts"] = json!([{"name": "signals", "mountPath": "/signals"}]);
    let containers = json!([printer, shell("idle", "sleep 100000")]);
    let volumes = json!([{"name": "signals", "hostPath": {"path": folder}}]);
    parts.run(POD, json!({"containers": containers, "volumes": volumes})).await;
    parts.ready(POD).await
}

/// What must not change about a container that runs on.
fn same<'a>(pod: &'a Value, name: &str) -> [&'a Value; 4] {
    let status = status(pod, name);
    [&status["containerID"], &status["restartCount"], &status["state"], &status["lastState"]]
}

/// A `podlog logs -f`, and somebody who reads what it prints.
struct Follower {
    process: Process,
    reader: JoinHandle<Seen>,
    last: Arc<AtomicU64>,
}

impl Follower {
    fn start(parts: &impl Parts) -> Self {
        let mut command = parts.follower(POD);
        command.args(["-c", "c"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process(command.spawn().unwrap());
        let (lines, last) =
            (BufReader::new(process.0.stdout.take().unwrap()).lines(), Arc::new(AtomicU64::new(0)));
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
        self.process.kill();
        seen
    }
}
