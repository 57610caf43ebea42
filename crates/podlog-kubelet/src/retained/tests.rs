use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

const ALL: Budget = Budget { max_bytes: u64::MAX, max_age: Duration::from_secs(3600), max_pods: 100 };

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        Node(tempfile::tempdir().unwrap())
    }

    fn open(&self, budget: Budget) -> RetainedLogs {
        let root = self.0.path();
        let layout = Layout::new(root.join("kubelet"), root.join("pods"), root.join("containers"));
        layout.create().unwrap();
        RetainedLogs::open(layout, budget)
    }

    fn directory(&self, uid: &str) -> PathBuf {
        self.0.path().join(format!("pods/prod_web_{uid}"))
    }

    /// A pod that has printed so many bytes.
    fn pod(&self, logs: &RetainedLogs, uid: &str, bytes: usize) -> PodId {
        let directory = self.directory(uid).join("c");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("0.log"), "x".repeat(bytes)).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "prod", "uid": uid, "labels": {"app": "web"},
                "annotations": {"secret": "s", DEFAULT: "c"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "12",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u"}],
            },
            "spec": {
                "nodeName": "n", "containers": [{"name": "c", "env": [{"name": "A", "value": "secret"}]}],
                "initContainers": [{"name": "i"}],
            },
        }))
        .unwrap();
        logs.begin(&pod);
        PodId::of(&pod)
    }

    fn uids(&self, logs: &RetainedLogs) -> Vec<String> {
        logs.list(&Wanted::default()).iter().map(|pod| pod.uid().to_owned()).collect()
    }
}

const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn whose_the_logs_are_survives_and_holds_no_more() {
    let node = Node::new();
    let logs = node.open(ALL);
    let id = node.pod(&logs, "u1", 3);
    assert!(node.uids(&logs).is_empty() && logs.uids().is_empty(), "it is not deleted");
    logs.keep(&id);
    let record = node.directory("u1").join("pod.json");
    assert_eq!(mode(&record), 0o600);
    assert!(!fs::read_to_string(&record).unwrap().contains("secret"));
    for logs in [logs, node.open(ALL)] {
        let found = logs.list(&Wanted { namespace: "prod".into(), name: "web".into() });
        let [pod] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((pod.label("app"), pod.annotation(DEFAULT)), (Some("web"), Some("c")));
        assert_eq!(pod.text("/metadata/ownerReferences/0/name"), "r");
        assert_eq!(pod.text("/metadata/creationTimestamp"), "2026-01-01T00:00:00Z");
        assert_eq!(pod.text("/metadata/resourceVersion"), "12");
        assert_eq!(pod.at("/spec/containers"), Some(&json!([{"name": "c"}])));
        assert_eq!(pod.at("/spec/initContainers"), Some(&json!([{"name": "i"}])));
        assert_eq!(pod.integer("/logs/bytes"), Some(3));
        assert_eq!(pod.at("/logs/containers/0/instances"), Some(&json!([0])));
        assert!(
            !pod.text("/logs/deletedAt").is_empty() && !pod.text("/logs/containers/0/endedAt").is_empty()
        );
        assert_eq!(logs.uids(), ["u1".to_owned()].into());
        assert_eq!(logs.find("prod", "web", None), Some(id.clone()));
        assert_eq!(logs.find("prod", "web", Some("u2")), None);
        assert_eq!(logs.find("dev", "web", None), None);
    }
}

#[test]
fn the_oldest_go_first_when_there_are_too_many_bytes_or_pods() {
    let check = |budget: Budget, expected: &[&str]| {
        let node = Node::new();
        let logs = node.open(budget);
        for uid in ["u1", "u2", "u3"] {
            let id = node.pod(&logs, uid, 10);
            logs.keep(&id);
        }
        assert_eq!(node.uids(&logs), expected, "{budget:?}");
        let left = fs::read_dir(node.0.path().join("pods")).unwrap().count();
        assert_eq!(left, expected.len(), "{budget:?}");
        assert_eq!(logs.shared.index.lock().bytes, 10 * expected.len() as u64);
    };
    check(ALL, &["u3", "u2", "u1"]);
    check(Budget { max_bytes: 20, ..ALL }, &["u3", "u2"]);
    check(Budget { max_bytes: 19, ..ALL }, &["u3"]);
    check(Budget { max_bytes: 5, ..ALL }, &[]);
    check(Budget { max_bytes: 0, ..ALL }, &[]);
    check(Budget { max_pods: 1, ..ALL }, &["u3"]);
    check(Budget { max_age: Duration::ZERO, ..ALL }, &[]);
}

#[test]
fn what_is_too_old_goes_and_what_is_needed_is_given_up() {
    let node = Node::new();
    let logs = node.open(ALL);
    for uid in ["u1", "u2", "u3"] {
        let id = node.pod(&logs, uid, 10);
        logs.keep(&id);
    }
    assert_eq!((logs.give_up(0), logs.give_up(11)), (0, 20));
    assert_eq!(node.uids(&logs), ["u3"]);
    let in_a_minute = since_boot() + SignedDuration::from_secs(60);
    logs.sweep(in_a_minute);
    assert_eq!(node.uids(&logs), ["u3"]);
    logs.sweep(in_a_minute + SignedDuration::from_secs(3600));
    assert!(node.uids(&logs).is_empty() && !node.directory("u3").exists());
    assert_eq!(logs.give_up(u64::MAX), 0);
}

/// The clock may have been set since a pod was deleted, and again before the next one is.
#[test]
fn clocks_that_are_set_delete_nothing_and_keep_nothing_for_ever() {
    let node = Node::new();
    let logs = node.open(ALL);
    for uid in ["u1", "u2", "u3"] {
        let id = node.pod(&logs, uid, 10);
        logs.keep(&id);
    }
    drop(logs);
    let set = |uid: &str, deleted_at: &str| {
        let path = node.directory(uid).join("pod.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["deletedAt"] = json!(deleted_at);
        fs::write(path, record.to_string()).unwrap();
    };
    set("u1", "2999-01-01T00:00:00Z");
    set("u2", "2998-01-01T00:00:00Z");
    set("u3", "1970-01-01T00:00:00Z");
    let logs = node.open(Budget { max_pods: 2, ..ALL });
    assert_eq!(node.uids(&logs), ["u1", "u2"]);
    let id = node.pod(&logs, "u4", 10);
    logs.keep(&id);
    assert_eq!(node.uids(&logs), ["u4", "u1"], "what is deleted now is deleted last");
    assert_eq!(logs.find("prod", "web", None), Some(id));
    logs.sweep(since_boot() + SignedDuration::from_secs(3600));
    assert!(node.uids(&logs).is_empty());
}

#[test]
fn logs_are_kept_that_no_record_can_be_written_for() {
    let node = Node::new();
    let logs = node.open(ALL);
    let id = node.pod(&logs, "u1", 10);
    let record = node.directory("u1").join("pod.json");
    fs::remove_file(&record).unwrap();
    fs::create_dir(&record).unwrap();
    logs.keep(&id);
    let found = logs.list(&Wanted::default());
    let [pod] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((pod.name(), pod.integer("/logs/bytes")), ("web", Some(10)));
    assert!(!pod.text("/logs/deletedAt").is_empty());
    assert_eq!(pod.text("/metadata/creationTimestamp"), "", "nobody is told what is not known");
    assert_eq!(logs.give_up(1), 10);
}

#[test]
fn nothing_is_kept_of_a_pod_that_printed_nothing_and_what_comes_back_is_not_deleted() {
    let node = Node::new();
    let logs = node.open(ALL);
    let id = node.pod(&logs, "u1", 0);
    logs.keep(&id);
    assert!(!node.directory("u1").exists());
    let id = node.pod(&logs, "u2", 10);
    logs.keep(&id);
    node.pod(&logs, "u2", 10);
    assert!(node.uids(&logs).is_empty());
    assert_eq!(logs.give_up(u64::MAX), 0, "the logs are the pod's again");
    assert!(node.directory("u2").join("c/0.log").exists());
    assert!(node.uids(&node.open(ALL)).is_empty(), "also for the next kubelet");
}

#[test]
fn records_that_are_lost_or_lie_do_no_harm() {
    let node = Node::new();
    let logs = node.open(ALL);
    let lost = node.pod(&logs, "u1", 1);
    fs::write(node.directory("u1").join("pod.json"), "{").unwrap();
    logs.keep(&lost);
    let lies = node.pod(&logs, "u2", 1);
    logs.keep(&lies);
    let lie = json!({"metadata": {"name": "other", "namespace": "kube-system", "uid": "x"}, "spec": 5,
        "deletedAt": "2026-01-01T00:00:00Z"});
    fs::write(node.directory("u2").join("pod.json"), lie.to_string()).unwrap();
    let found = logs.list(&Wanted { namespace: "prod".into(), ..Wanted::default() });
    assert_eq!(found.len(), 2);
    for pod in &found {
        assert_eq!((pod.namespace(), pod.name()), ("prod", "web"));
        assert_eq!(pod.at("/spec/containers"), Some(&json!([{"name": "c"}])));
    }
}
