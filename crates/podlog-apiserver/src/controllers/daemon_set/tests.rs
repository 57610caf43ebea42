use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::World;

fn set(image: &str, more: Value) -> Object {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Object::new(
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "namespace": "default"}, "spec": spec}),
    )
}

fn node(name: &str, spec: Value) -> Object {
    Object::new(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"disk": name}}, "spec": spec}),
    )
}

fn tainted(key: &str) -> Value {
    json!({"taints": [{"key": key, "effect": "NoSchedule"}]})
}

fn settle(world: &mut World) {
    world.settle(&DaemonSets, "DaemonSet");
}

fn nodes_with_pods(world: &World) -> Vec<String> {
    let mut nodes: Vec<String> = world.of_kind("Pod").iter().map(|pod| node_of(pod).to_owned()).collect();
    nodes.sort();
    nodes
}

#[test]
fn every_node_that_may_gets_one_daemon() {
    let rows = [
        (json!({}), vec!["a", "b", "cordoned"]),
        (json!({"nodeSelector": {"disk": "b"}}), vec!["b"]),
        (json!({"tolerations": [{"operator": "Exists"}]}), vec!["a", "b", "cordoned", "reserved"]),
    ];
    for (more, expected) in rows {
        let mut set = set("v1", json!({}));
        set.0["spec"]["template"]["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut world = World::new(vec![
            set,
            node("a", json!({})),
            node("b", json!({})),
            node("cordoned", tainted("node.kubernetes.io/unschedulable")),
            node("reserved", tainted("team")),
        ]);
        settle(&mut world);
        assert_eq!(nodes_with_pods(&world), expected, "{more}");
        let wanted = i64::try_from(expected.len()).unwrap();
        assert_eq!(status_count(world.get("DaemonSet", "d"), "desiredNumberScheduled"), wanted);
    }
}

#[test]
fn nodes_come_and_go_and_failed_daemons_are_replaced() {
    let mut world = World::new(vec![set("v1", json!({})), node("a", json!({}))]);
    settle(&mut world);
    world.create(node("b", json!({})));
    settle(&mut world);
    assert_eq!(nodes_with_pods(&world), ["a", "b"]);
    world.change("Node", "a", |node| node.0["spec"] = tainted("team"));
    settle(&mut world);
    assert_eq!(nodes_with_pods(&world), ["a", "b"], "it would not be started there, and goes on");
    let status = world.get("DaemonSet", "d").0["status"].clone();
    assert_eq!((&status["desiredNumberScheduled"], &status["numberMisscheduled"]), (&json!(1), &json!(1)));
    world.change("Node", "a", |node| {
        node.0["spec"] = json!({"taints": [{"key": "team", "effect": "NoExecute"}]});
    });
    settle(&mut world);
    assert_eq!(nodes_with_pods(&world), ["b"]);
    let failed = world.of_kind("Pod").remove(0);
    world.change("Pod", failed.name(), |pod| pod.0["status"] = json!({"phase": "Failed"}));
    settle(&mut world);
    let pods = world.of_kind("Pod");
    assert_eq!((pods.len(), node_of(&pods[0])), (1, "b"));
    assert_ne!(pods[0].name(), failed.name());
    assert!(world.told[0].starts_with("Found failed daemon pod default/"), "{:?}", world.told);
}

#[test]
fn a_new_template_reaches_node_after_node() {
    let nodes: Vec<Object> = ["a", "b", "c", "d"].map(|name| node(name, json!({}))).into();
    for (strategy, at_once) in [
        (json!({}), 1),
        (json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}}), 2),
        (json!({"updateStrategy": {"type": "OnDelete"}}), 0),
    ] {
        let mut world = World::new([vec![set("v1", strategy.clone())], nodes.clone()].concat());
        settle(&mut world);
        world.run_pods();
        settle(&mut world);
        assert_eq!(status_count(world.get("DaemonSet", "d"), "numberAvailable"), 4);
        let next = set("v2", strategy.clone());
        world.change("DaemonSet", "d", |set| set.0["spec"] = next.0["spec"].clone());
        let mut rounds = 0;
        loop {
            settle(&mut world);
            let fresh = status_count(world.get("DaemonSet", "d"), "updatedNumberScheduled");
            let ready = status_count(world.get("DaemonSet", "d"), "numberReady");
            if fresh == 4 && ready == 4 || at_once == 0 {
                break;
            }
            assert!(ready >= 4 - at_once, "{strategy}: {ready} ready");
            world.run_pods();
            rounds += 1;
        }
        assert!(at_once == 0 || rounds >= 4 / at_once, "{strategy}: {rounds}");
        assert_eq!(nodes_with_pods(&world), ["a", "b", "c", "d"]);
    }
}

#[test]
fn every_template_has_a_revision_that_comes_back_with_it() {
    let mut world = World::new(vec![set("v1", json!({})), node("a", json!({}))]);
    for image in ["v1", "v2", "v1"] {
        let template = set(image, json!({})).0["spec"]["template"].clone();
        world.change("DaemonSet", "d", |set| set.0["spec"]["template"] = template);
        settle(&mut world);
        world.run_pods();
        settle(&mut world);
    }
    let mut revisions = world.of_kind("ControllerRevision");
    revisions.sort_by_key(|revision| revision.integer("/revision"));
    let image = |revision: &Object| revision.text("/data/spec/template/spec/containers/0/image").to_owned();
    let found: Vec<_> = revisions.iter().map(|r| (r.integer("/revision").unwrap(), image(r))).collect();
    assert_eq!(found, [(2, "v2".to_owned()), (3, "v1".to_owned())]);
    let hash = revisions[1].label("controller-revision-hash").unwrap();
    assert_eq!(revisions[1].name(), format!("d-{hash}"));
    assert!(world.of_kind("Pod").iter().all(|pod| pod.label("controller-revision-hash") == Some(hash)));
}
