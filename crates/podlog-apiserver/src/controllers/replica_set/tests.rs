use super::*;
use crate::controllers::testing::World;

fn set(replicas: i64) -> Object {
    Object::new(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "ns"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
    }))
}

fn status(world: &World) -> Value {
    world.get("ReplicaSet", "web").0["status"].clone()
}

#[test]
fn pods_are_made_and_counted() {
    let mut world = World::new(vec![set(2)]);
    world.settle(&ReplicaSets, "ReplicaSet");
    let pods = world.of_kind("Pod");
    assert_eq!(pods.len(), 2);
    assert_eq!(pods[0].0["metadata"]["ownerReferences"][0]["uid"], world.get("ReplicaSet", "web").uid());
    assert_eq!(pods[0].0["spec"]["containers"][0]["name"], "c");
    assert!(pods[0].name().starts_with("web-"));
    assert_eq!(status(&world), json!({"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1}));

    world.run_pods();
    world.settle(&ReplicaSets, "ReplicaSet");
    let counted = json!({"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1,
        "readyReplicas": 2, "availableReplicas": 2});
    assert_eq!(status(&world), counted);

    // One fails: it no longer counts, and another takes its place.
    let failed = pods[0].name().to_owned();
    world.change("Pod", &failed, |pod| pod.0["status"]["phase"] = json!("Failed"));
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(world.of_kind("Pod").len(), 3);

    world.change("ReplicaSet", "web", |set| set.0["spec"]["replicas"] = json!(0));
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(world.of_kind("Pod").iter().map(Object::name).collect::<Vec<_>>(), [failed]);
    assert_eq!(status(&world), json!({"replicas": 0, "observedGeneration": 1}));
}

#[test]
fn pods_become_available_in_time() {
    let mut patient = set(1);
    patient.map_mut("spec").insert("minReadySeconds".into(), json!(10));
    let mut world = World::new(vec![patient]);
    world.settle(&ReplicaSets, "ReplicaSet");
    world.run_pods();
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(status(&world)["availableReplicas"], Value::Null);
    let set = world.get("ReplicaSet", "web").clone();
    let wait = reconcile(&set, &world.of_kind("Pod"), world.now);
    assert_eq!(wait, [Action::Requeue(std::time::Duration::from_secs(10))]);
    world.wait(10);
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(status(&world)["availableReplicas"], 1);
}

#[test]
fn pods_are_adopted_and_released() {
    let stray = |name: &str, label: &str| {
        Object::new(
            json!({"kind": "Pod", "metadata": {"name": name, "namespace": "ns", "labels": {"app": label}}, "spec": {}}),
        )
    };
    let mut world = World::new(vec![set(1), stray("mine", "web"), stray("other", "db")]);
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(world.of_kind("Pod").len(), 2);
    let uid = world.get("ReplicaSet", "web").uid().to_owned();
    assert_eq!(world.get("Pod", "mine").0["metadata"]["ownerReferences"][0]["uid"], uid);

    world.change("Pod", "mine", |pod| pod.0["metadata"]["labels"] = json!({"app": "gone"}));
    world.settle(&ReplicaSets, "ReplicaSet");
    assert_eq!(world.get("Pod", "mine").at("/metadata/ownerReferences"), None);
    assert_eq!(world.of_kind("Pod").len(), 3);
}

#[test]
fn expendable_pods_go_first() {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let pod = |name: &str, node: &str, phase: &str, ready: Option<&str>, extra: Value| {
        let conditions =
            ready.map(|time| json!([{"type": "Ready", "status": "True", "lastTransitionTime": time}]));
        Object::new(json!({
            "kind": "Pod",
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": extra["annotations"]},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": extra["restarts"]}]},
        }))
    };
    let long = Some("2026-01-01T00:00:00Z");
    let pods = [
        pod("solid", "b", "Running", long, json!({})),
        pod("crowded", "a", "Running", long, json!({})),
        pod("restarted", "a", "Running", long, json!({"restarts": 9})),
        pod("fresh", "a", "Running", Some("2026-01-01T11:59:00Z"), json!({})),
        pod(
            "cheap",
            "b",
            "Running",
            long,
            json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}),
        ),
        pod("unready", "b", "Running", None, json!({})),
        pod("pending", "b", "Pending", None, json!({})),
        pod("homeless", "", "Pending", None, json!({})),
    ];
    let ranked = ranking::by_expendability(&pods.iter().collect::<Vec<_>>(), now);
    let names: Vec<&str> = ranked.iter().map(|pod| pod.name()).collect();
    assert_eq!(names[..4], ["homeless", "pending", "unready", "cheap"]);
    // Both nodes are equally crowded here but for the homeless one.
    let solid = names.iter().position(|name| *name == "solid").unwrap();
    let restarted = names.iter().position(|name| *name == "restarted").unwrap();
    let fresh = names.iter().position(|name| *name == "fresh").unwrap();
    assert!(fresh < restarted && restarted != solid);
}
