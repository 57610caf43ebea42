use serde_json::{Value, json};

use super::*;
use crate::controllers::testing::World;

fn set(image: &str, replicas: i64, more: Value) -> Object {
    let mut spec = json!({
        "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Object::new(
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"}, "spec": spec}),
    )
}

fn settle(world: &mut World) {
    world.settle(&StatefulSets, "StatefulSet");
}

/// Lets pods become ready until nothing changes; the largest number of pods that were not ready at once.
fn run(world: &mut World) -> usize {
    let mut most = 0;
    loop {
        settle(world);
        let waiting = world.of_kind("Pod").iter().filter(|pod| !holds(pod, "Ready")).count();
        if waiting == 0 {
            return most;
        }
        most = most.max(waiting);
        world.run_pods();
    }
}

fn pods(world: &World) -> Vec<String> {
    let image = |pod: &Object| pod.0["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    let mut pods: Vec<String> =
        world.of_kind("Pod").iter().map(|pod| format!("{} {}", pod.name(), image(pod))).collect();
    pods.sort();
    pods
}

fn change(world: &mut World, set: &Object) {
    world.change("StatefulSet", "db", |known| known.0["spec"] = set.0["spec"].clone());
}

#[test]
fn pods_have_numbers_names_and_a_host_name() {
    let mut world = World::new(vec![set("v1", 2, json!({"ordinals": {"start": 5}}))]);
    assert_eq!(run(&mut world), 1, "one after the other");
    assert_eq!(pods(&world), ["db-5 v1", "db-6 v1"]);
    let pod = world.get("Pod", "db-6");
    assert_eq!((pod.text("/spec/hostname"), pod.text("/spec/subdomain")), ("db-6", "db"));
    assert_eq!((pod.label(POD_NAME), pod.label(POD_INDEX)), (Some("db-6"), Some("6")));
    let status = world.get("StatefulSet", "db").0["status"].clone();
    assert_eq!((&status["readyReplicas"], &status["currentReplicas"]), (&json!(2), &json!(2)));
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn scaling_goes_by_the_numbers() {
    let mut world = World::new(vec![set("v1", 3, json!({"podManagementPolicy": "Parallel"}))]);
    assert_eq!(run(&mut world), 3, "all at once when that is asked for");
    change(&mut world, &set("v1", 1, json!({})));
    run(&mut world);
    assert_eq!(pods(&world), ["db-0 v1"]);
    world.change("Pod", "db-0", |pod| pod.0["status"] = json!({"phase": "Failed"}));
    change(&mut world, &set("v1", 2, json!({})));
    run(&mut world);
    assert_eq!(pods(&world), ["db-0 v1", "db-1 v1"]);
    assert!(holds(world.get("Pod", "db-0"), "Ready"), "it was made anew");
}

#[test]
fn templates_change_from_the_end_down_to_the_partition() {
    let partition = |number: i64| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}});
    let mut world = World::new(vec![set("v1", 3, json!({}))]);
    run(&mut world);
    for (more, expected) in [
        (json!({"updateStrategy": {"type": "OnDelete"}}), ["db-0 v1", "db-1 v1", "db-2 v1"]),
        (partition(2), ["db-0 v1", "db-1 v1", "db-2 v2"]),
        (partition(0), ["db-0 v2", "db-1 v2", "db-2 v2"]),
    ] {
        change(&mut world, &set("v2", 3, more.clone()));
        assert!(run(&mut world) <= 1, "never two at once");
        assert_eq!(pods(&world), expected, "{more}");
    }
    let status = world.get("StatefulSet", "db").0["status"].clone();
    assert_eq!(
        (&status["updatedReplicas"], &status["currentRevision"]),
        (&json!(3), &status["updateRevision"])
    );
}

#[test]
fn a_template_that_never_works_is_replaced_by_the_next() {
    let mut world = World::new(vec![set("v1", 2, json!({}))]);
    run(&mut world);
    change(&mut world, &set("broken", 2, json!({})));
    settle(&mut world);
    assert_eq!(pods(&world), ["db-0 v1", "db-1 broken"], "it waits for the last one");
    change(&mut world, &set("v2", 2, json!({})));
    run(&mut world);
    assert_eq!(pods(&world), ["db-0 v2", "db-1 v2"]);
}

/// Number, image and name of every revision, by number.
fn revisions(world: &World) -> Vec<(i64, String)> {
    let image = |revision: &Object| revision.text("/data/spec/template/spec/containers/0/image").to_owned();
    let mut found: Vec<(i64, String)> = world
        .of_kind("ControllerRevision")
        .iter()
        .map(|revision| (revision.integer("/revision").unwrap(), image(revision)))
        .collect();
    found.sort();
    found
}

#[test]
fn every_template_has_a_revision_and_some_are_kept() {
    let more = json!({"revisionHistoryLimit": 1});
    let mut world = World::new(vec![set("v1", 2, more.clone())]);
    run(&mut world);
    let rows = [
        ("v1", vec![(1, "v1")]),
        ("v2", vec![(1, "v1"), (2, "v2")]),
        ("v1", vec![(2, "v2"), (3, "v1")]),
        ("v3", vec![(3, "v1"), (4, "v3")]),
    ];
    for (image, expected) in rows {
        change(&mut world, &set(image, 2, more.clone()));
        run(&mut world);
        let expected: Vec<(i64, String)> =
            expected.into_iter().map(|(n, image)| (n, image.to_owned())).collect();
        assert_eq!(revisions(&world), expected, "{image}");
    }
    let newest = world.get("StatefulSet", "db").text("/status/updateRevision").to_owned();
    let revision = world.get("ControllerRevision", &newest);
    assert_eq!(revision.text("/metadata/ownerReferences/0/kind"), "StatefulSet");
    assert_eq!(revision.label("app"), Some("db"));
    assert_eq!(revision.text("/data/spec/template/$patch"), "replace");
    assert_eq!(world.get("Pod", "db-0").label("controller-revision-hash"), Some(newest.as_str()));
}

#[test]
fn a_pod_below_the_partition_comes_back_as_it_was() {
    let partition = json!({"ordinals": {"start": 5}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}});
    let mut world = World::new(vec![set("v1", 2, json!({"ordinals": {"start": 5}}))]);
    run(&mut world);
    change(&mut world, &set("v2", 2, partition));
    run(&mut world);
    for number in ["db-5", "db-6"] {
        world.objects.retain(|object| object.name() != number);
        run(&mut world);
        assert_eq!(pods(&world), ["db-5 v1", "db-6 v2"], "{number} was gone");
    }
}

#[test]
fn pods_of_before_there_were_revisions_stay() {
    let mut world = World::new(vec![set("v1", 1, json!({}))]);
    run(&mut world);
    let hash =
        world.of_kind("ControllerRevision")[0].label("controller.kubernetes.io/hash").unwrap().to_owned();
    world.objects.retain(|object| object.kind() != "ControllerRevision");
    world.change("StatefulSet", "db", |set| set.0["status"]["currentRevision"] = json!(hash));
    let uid = world.get("Pod", "db-0").uid().to_owned();
    world.change("Pod", "db-0", |pod| pod.0["metadata"]["labels"]["controller-revision-hash"] = json!(hash));
    run(&mut world);
    assert_eq!((world.get("Pod", "db-0").uid(), revisions(&world).len()), (uid.as_str(), 1));
}
