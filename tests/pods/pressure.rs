//! A node whose disk or memory really runs out.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{Backend, Cluster, Column, PATIENCE, condition, once, shell, with};
use crate::harness::{text, wait_for};
use crate::machine::{IMAGE, Machine};

const MIB: u64 = 1 << 20;
/// What must be left of the disk.
const THRESHOLD: u64 = 24 * MIB;

/// A small file system of the test's own.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None`, and says so, where nothing can be mounted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m", "podlog-test"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Disk(folder));
        }
        eprintln!("SKIPPED: nothing can be mounted here: nothing is shown about a full disk");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Bytes that are left.
    fn left(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.0.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// A folder for `podlog up` whose kubelet keeps everything on this disk.
    fn home(&self) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("data")).unwrap();
        std::fs::create_dir(self.path("kubelet")).unwrap();
        symlink(self.path("kubelet"), home.path().join("data/kubelet")).unwrap();
        home
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn node_condition(node: &Value, kind: &str) -> Value {
    condition(node, kind)["status"].clone()
}

async fn wait_node(cluster: &Cluster, kind: &str, expected: &str) {
    let begun = std::time::Instant::now();
    loop {
        let node = cluster.request("GET", "/api/v1/nodes/node-a", &Value::Null).await.unwrap();
        if node_condition(&node, kind) == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{kind} is not {expected}: {:#}", node["status"]);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A pod that sits there and writes `bytes` into a volume.
fn writer(bytes: u64, request: &str) -> Value {
    let script = format!("head -c {bytes} /dev/zero > /work/file; echo written; while :; do sleep 1; done");
    let mut container =
        with(shell("c", &script), "volumeMounts", json!([{"name": "work", "mountPath": "/work"}]));
    container["resources"] = json!({"requests": {"ephemeral-storage": request}});
    json!({"containers": [container], "volumes": [{"name": "work", "emptyDir": {}}]})
}

fn wait_left(disk: &Disk, what: &str, is_enough: impl Fn(u64) -> bool) {
    wait_for(what, || is_enough(disk.left()).then_some(()));
}

/// What is left of ended pods is given up first; then the pod has to go that took more than it asked for; meanwhile no other
/// pod starts.
pub(crate) async fn a_full_disk(column: Column, backend: Backend) {
    let Some(disk) = Disk::mount() else { return };
    let settings = json!({
        "evictionHard": {"nodefs.available": THRESHOLD.to_string()}, "evictionPressureTransitionPeriod": "5s",
        "podLogsDir": disk.path("pods"), "containerLogMaxSize": "100Mi",
    });
    let cluster = Cluster::start_in(disk.home(), column, backend, &settings).await;
    cluster.run("modest", writer(MIB, "10Mi")).await;
    cluster.wait_log("modest", "", "written").await;

    cluster.run("ended", once(shell("c", "head -c 16000000 /dev/zero | tr '\\0' x | fold -w 100"))).await;
    cluster.wait_phase("ended", "Succeeded").await;
    let logs = |name: &str| {
        let entries = std::fs::read_dir(disk.path("pods")).unwrap().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().contains(&format!("_{name}_")));
        own.map(|entry| files(&entry.path())).sum::<usize>()
    };
    assert_eq!(logs("ended"), 1);
    let spew = "head -c 8000000 /dev/zero | tr '\\0' x | fold -w 100";
    cluster.run("deleted", once(shell("c", spew))).await;
    cluster.wait_phase("deleted", "Succeeded").await;
    cluster.remove("deleted").await;
    assert_eq!(logs("deleted"), 1);
    std::fs::write(disk.path("filler"), vec![1; (disk.left() - THRESHOLD + MIB) as usize]).unwrap();
    wait_left(&disk, "logs of a deleted pod to be given up", |left| left > THRESHOLD);
    assert_eq!((logs("deleted"), logs("ended"), logs("modest")), (0, 1, 1));
    std::fs::remove_file(disk.path("filler")).unwrap();
    std::fs::write(disk.path("filler"), vec![1; (disk.left() - THRESHOLD + 4 * MIB) as usize]).unwrap();
    wait_left(&disk, "logs of an ended pod to be given up", |left| left > THRESHOLD);
    assert_eq!((logs("ended"), logs("modest")), (0, 1));
    std::fs::remove_file(disk.path("filler")).unwrap();
    cluster.wait_event("node-a", "EvictionThresholdMet: Attempting to reclaim ephemeral-storage").await;
    wait_node(&cluster, "DiskPressure", "False").await;

    let made = cluster.run("greedy", writer(disk.left() - THRESHOLD + 4 * MIB, "1Mi")).await;
    let pod = cluster.wait_phase("greedy", "Failed").await;
    let mut late = json!({"containers": [shell("c", "true")]});
    late["nodeName"] = json!("node-a");
    cluster.run("late", late).await;
    let refused = cluster.wait_phase("late", "Failed").await;

    let message = pod["status"]["message"].as_str().unwrap();
    let begin = "The node was low on resource: ephemeral-storage. Threshold quantity: 24Mi, available: ";
    assert!(message.starts_with(begin), "{message}");
    assert_eq!(pod["status"]["reason"], "Evicted");
    let target = condition(&pod, "DisruptionTarget");
    assert_eq!(
        (&target["status"], &target["reason"], target["message"].as_str()),
        (&json!("True"), &json!("TerminationByKubelet"), Some(message))
    );
    cluster.wait_event("greedy", &format!("Evicted: {message}")).await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    wait_for("its volumes to go", || {
        (!disk.path("kubelet/pods").join(uid).join("volumes").exists()).then_some(())
    });
    assert!(
        cluster.log("greedy", "").await.unwrap().contains("written"),
        "its log stays while there is room"
    );

    let status = &refused["status"];
    let text = "Pod was rejected: The node had condition: [DiskPressure]. ";
    assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!(text)));
    assert_eq!(status["containerStatuses"], Value::Null);
    cluster.wait_event("late", "Evicted: The node had condition: [DiskPressure]. ").await;

    assert_eq!(cluster.pod("modest").await.unwrap()["status"]["phase"], "Running");
    let metrics = cluster.node("metrics").await;
    assert!(metrics.contains("kubelet_evictions{eviction_signal=\"nodefs.available\"} 1\n"), "{metrics}");
    wait_node(&cluster, "DiskPressure", "False").await;
    for name in ["modest", "ended", "greedy", "late"] {
        cluster.remove(name).await;
    }
}

/// Files of logs in a directory and below.
fn files(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let count = |path: PathBuf| {
        let is_log = path.to_string_lossy().contains(".log");
        if path.is_dir() { files(&path) } else { usize::from(is_log) }
    };
    entries.map(|entry| count(entry.path())).sum()
}

/// With more memory wanted than there is, the pod goes first that uses most beyond what it asked for, after its grace period;
/// pods that ask for nothing do not start.
pub(crate) async fn short_memory(column: Column, backend: Backend) {
    let settings = json!({
        "evictionHard": {"pid.available": "1"}, "evictionSoft": {"memory.available": "8000Ti"},
        "evictionSoftGracePeriod": {"memory.available": "4s"}, "evictionMaxPodGracePeriod": 60,
    });
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), column, backend, &settings).await;
    let holder = |bytes: u64, request: &str| {
        // tail keeps a line until it has ended.
        let script = format!(
            "trap 'echo ends; exit 0' TERM; {{ head -c {bytes} /dev/zero; sleep 1000; }} | tail -c {bytes} & \
             echo holds; while :; do sleep 0.1; done"
        );
        let mut container = shell("c", &script);
        container["resources"] = json!({"requests": {"memory": request}});
        json!({"containers": [container], "nodeName": "node-a", "terminationGracePeriodSeconds": 60})
    };
    wait_node(&cluster, "MemoryPressure", "True").await;
    cluster.run("nothing", json!({"containers": [shell("c", "true")], "nodeName": "node-a"})).await;
    cluster.run("asked", holder(40 * MIB, "1Gi")).await;
    cluster.run("small", holder(MIB, "1Ki")).await;
    cluster.run("large", holder(40 * MIB, "1Mi")).await;
    let refused = cluster.wait_phase("nothing", "Failed").await;
    let text = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(refused["status"]["message"], text);
    let pod = cluster.wait_phase("large", "Failed").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 8000Ti, "),
        "{message}"
    );
    assert!(message.contains("Container c was using "), "{message}");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0,
        "it had time to end"
    );
    assert_eq!(cluster.pod("asked").await.unwrap()["status"]["phase"], "Running");
    for name in ["nothing", "asked", "small", "large"] {
        cluster.remove(name).await;
    }
}

/// Images that no container is made from go when their disk is short; those of containers and of sandboxes stay.
pub(crate) async fn unused_images(machine: Machine) {
    machine.import_image("localhost/unused:1", "1");
    // So that an image which has just come stays until it is used.
    let settings = json!({"evictionHard": {"imagefs.available": "8000Ti"}, "imageMinimumGCAge": "10s"});
    let backend = Backend::Containerd(machine);
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_in(home, Column::Containerd, backend, &settings).await;
    wait_node(&cluster, "DiskPressure", "True").await;
    cluster.machine().import_image("localhost/used:1", "2");
    let container = json!({"name": "c", "image": "localhost/used:1"});
    // Nothing else starts under pressure, and nothing else stays.
    let critical = json!({"containers": [container], "nodeName": "node-a", "priority": 2_000_000_000});
    cluster.run("critical", critical).await;
    cluster.wait_phase("critical", "Running").await;
    let images = || text(&cluster.machine().ctr(&["images", "list", "--quiet"]).stdout);
    wait_for("the unused image to go", || (!images().contains("unused")).then_some(()));
    let left = images();
    assert!(left.contains("localhost/used:1") && left.contains(IMAGE), "{left}");
    assert_eq!(cluster.pod("critical").await.unwrap()["status"]["phase"], "Running");
    cluster.remove("critical").await;
}
