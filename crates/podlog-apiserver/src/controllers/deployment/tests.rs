use super::*;
use crate::controllers::{replica_set::ReplicaSets, testing::World};

fn deployment(replicas: i64, strategy: Value) -> Object {
    Object::new(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "annotations": {"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}}},
        "status": {},
    }))
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// Looks with both controllers until neither has anything to do.
fn settle(world: &mut World) {
    for _ in 0..3 {
        world.settle(&Deployments, "Deployment");
        world.settle(&ReplicaSets, "ReplicaSet");
    }
}

/// Rolls out until pods and sets rest; between looks, pods become ready.
fn roll_out(world: &mut World) {
    for _ in 0..30 {
        settle(world);
        world.run_pods();
    }
    settle(world);
}

fn set_image(world: &mut World, image: &str) {
    world.change("Deployment", "web", |deployment| {
        deployment.0["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let generation = deployment.integer("/metadata/generation").unwrap();
        deployment.metadata_mut().insert("generation".into(), json!(generation + 1));
    });
}

/// Image, size and revision of each set, oldest first.
fn sets(world: &World) -> Vec<(String, i64, String)> {
    let row = |set: &Object| {
        let image = set.text("/spec/template/spec/containers/0/image").to_owned();
        (image, replicas(set), set.annotation(REVISION).unwrap_or_default().to_owned())
    };
    world.of_kind("ReplicaSet").iter().map(row).collect()
}

fn row(image: &str, size: i64, revision: &str) -> (String, i64, String) {
    (image.into(), size, revision.into())
}

fn reason(world: &World, name: &str) -> String {
    condition(world.get("Deployment", "web"), name)
        .map(|c| c["reason"].as_str().unwrap().to_owned())
        .unwrap_or_default()
}

#[test]
fn a_first_rollout() {
    let mut world = World::new(vec![deployment(3, rolling(json!("25%"), json!("25%")))]);
    settle(&mut world);
    assert_eq!(sets(&world), [row("1", 3, "1")]);
    let set = &world.of_kind("ReplicaSet")[0];
    let hash = set.label(HASH_LABEL).unwrap();
    assert_eq!(set.name(), format!("web-{hash}"));
    assert_eq!(set.0["spec"]["selector"]["matchLabels"], json!({"app": "web", HASH_LABEL: hash}));
    assert_eq!(set.0["spec"]["template"]["metadata"]["labels"], json!({"app": "web", HASH_LABEL: hash}));
    assert_eq!(
        set.0["metadata"]["annotations"],
        json!({"note": "n", REVISION: "1", DESIRED_REPLICAS: "3", MAX_REPLICAS: "4"})
    );
    assert_eq!(world.told, [format!("Scaled up replica set {} from 0 to 3", set.name())]);
    assert_eq!(world.get("Deployment", "web").annotation(REVISION), Some("1"));
    assert_eq!(reason(&world, "Available"), "MinimumReplicasUnavailable");
    assert_eq!(reason(&world, "Progressing"), "ReplicaSetUpdated");

    roll_out(&mut world);
    let status = world.get("Deployment", "web").0["status"].clone();
    for key in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status[key], 3, "{key}");
    }
    assert_eq!((&status["observedGeneration"], &status["unavailableReplicas"]), (&json!(1), &Value::Null));
    assert_eq!(reason(&world, "Available"), "MinimumReplicasAvailable");
    assert_eq!(reason(&world, "Progressing"), "NewReplicaSetAvailable");
}

/// The steps of rolling updates: sizes of the old and the new set after each look, until they rest.
#[test]
fn rolling_updates_step_by_step() {
    type Steps = &'static [(i64, i64)];
    let rows: [(i64, Value, Steps); 6] = [
        (3, rolling(json!("25%"), json!("25%")), &[(3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]),
        (4, rolling(json!(1), json!(0)), &[(4, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 4), (0, 4)]),
        (4, rolling(json!(0), json!(1)), &[(3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3), (0, 4)]),
        (4, rolling(json!("100%"), json!(0)), &[(4, 4), (0, 4)]),
        (2, rolling(json!(0), json!("100%")), &[(0, 0), (0, 2)]),
        // Nothing may move, so one pod may be missing after all.
        (1, rolling(json!(0), json!("0%")), &[(0, 0), (0, 1)]),
    ];
    for (size, strategy, expected) in rows {
        let mut world = World::new(vec![deployment(size, strategy.clone())]);
        roll_out(&mut world);
        set_image(&mut world, "2");
        let mut steps: Vec<(i64, i64)> = Vec::new();
        for _ in 0..40 {
            // One look of the deployment, then the pods catch up.
            let listed = Listed(world.objects.clone());
            let actions = Deployments.reconcile(&Key::named("ns", "web"), &listed, world.now).unwrap();
            world.apply(actions);
            let sizes: Vec<i64> = sets(&world).iter().map(|(_, size, _)| *size).collect();
            let step = (sizes[0], sizes.get(1).copied().unwrap_or(0));
            if steps.last() != Some(&step) && step != (size, 0) {
                steps.push(step);
            }
            world.settle(&ReplicaSets, "ReplicaSet");
            world.run_pods();
            world.settle(&ReplicaSets, "ReplicaSet");
        }
        let available = size - rolling::max_unavailable(world.get("Deployment", "web"));
        assert!(steps.iter().all(|(old, new)| old + new >= available), "{strategy}: {steps:?}");
        assert_eq!(steps, expected, "{strategy}");
    }
}

#[test]
fn broken_pods_do_not_replace_working_ones() {
    let mut world = World::new(vec![deployment(4, rolling(json!(1), json!(1)))]);
    roll_out(&mut world);
    set_image(&mut world, "broken");
    // No new pod ever becomes ready.
    for _ in 0..10 {
        settle(&mut world);
    }
    assert_eq!(sets(&world), [row("1", 3, "1"), row("broken", 2, "2")]);
    assert_eq!(reason(&world, "Progressing"), "ReplicaSetUpdated");
    world.wait(601);
    settle(&mut world);
    assert_eq!(reason(&world, "Progressing"), "ProgressDeadlineExceeded");
    assert_eq!(condition(world.get("Deployment", "web"), "Progressing").unwrap()["status"], "False");

    // Undone: the old set is the newest again, with a new revision.
    set_image(&mut world, "1");
    roll_out(&mut world);
    assert_eq!(sets(&world), [row("1", 4, "3"), row("broken", 0, "2")]);
    let set = &world.of_kind("ReplicaSet")[0];
    assert_eq!(set.annotation(REVISION_HISTORY), Some("1"));
    assert_eq!(world.get("Deployment", "web").annotation(REVISION), Some("3"));
    assert_eq!(reason(&world, "Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn recreating_waits_for_the_last_old_pod() {
    let mut world = World::new(vec![deployment(2, json!({"type": "Recreate"}))]);
    roll_out(&mut world);
    set_image(&mut world, "2");
    world.settle(&Deployments, "Deployment");
    assert_eq!(sets(&world), [row("1", 0, "1")]);
    world.settle(&Deployments, "Deployment");
    assert_eq!(sets(&world), [row("1", 0, "1")], "old pods still run");
    roll_out(&mut world);
    assert_eq!(sets(&world), [row("1", 0, "1"), row("2", 2, "2")]);
    assert_eq!(reason(&world, "Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn sizes_follow_in_and_out_of_rollouts() {
    let resize = |world: &mut World, size: i64| {
        world.change("Deployment", "web", |deployment| deployment.0["spec"]["replicas"] = json!(size));
    };
    let mut world = World::new(vec![deployment(2, rolling(json!(0), json!(1)))]);
    roll_out(&mut world);
    resize(&mut world, 5);
    settle(&mut world);
    assert_eq!(sets(&world), [row("1", 5, "1")]);
    resize(&mut world, 0);
    settle(&mut world);
    assert_eq!(sets(&world), [row("1", 0, "1")]);

    // In the middle of a rollout, both sets grow in proportion.
    let mut world = World::new(vec![deployment(10, rolling(json!(2), json!(2)))]);
    roll_out(&mut world);
    set_image(&mut world, "broken");
    settle(&mut world);
    assert_eq!(sets(&world), [row("1", 8, "1"), row("broken", 4, "2")]);
    resize(&mut world, 22);
    world.change("Deployment", "web", |deployment| deployment.0["spec"]["paused"] = json!(true));
    settle(&mut world);
    assert_eq!(sets(&world), [row("1", 16, "1"), row("broken", 8, "2")]);
    assert_eq!(reason(&world, "Progressing"), "DeploymentPaused");
}

#[test]
fn paused_deployments_do_not_roll() {
    let mut world = World::new(vec![deployment(2, rolling(json!(1), json!(0)))]);
    roll_out(&mut world);
    world.change("Deployment", "web", |deployment| deployment.0["spec"]["paused"] = json!(true));
    set_image(&mut world, "2");
    roll_out(&mut world);
    assert_eq!(sets(&world), [row("1", 2, "1")]);
    world.change("Deployment", "web", |deployment| deployment.0["spec"]["paused"] = json!(false));
    roll_out(&mut world);
    assert_eq!(sets(&world), [row("1", 0, "1"), row("2", 2, "2")]);
}

#[test]
fn history_is_limited() {
    let mut short = deployment(1, rolling(json!(1), json!(0)));
    short.map_mut("spec").insert("revisionHistoryLimit".into(), json!(2));
    let mut world = World::new(vec![short]);
    for image in ["1", "2", "3", "4", "5"] {
        set_image(&mut world, image);
        roll_out(&mut world);
    }
    assert_eq!(sets(&world), [row("3", 0, "3"), row("4", 0, "4"), row("5", 1, "5")]);
}

#[test]
fn names_that_are_taken_are_avoided() {
    let wanted = history::new_set(&deployment(1, json!({})), 1, 0);
    let mut taken = wanted.clone();
    taken.metadata_mut().remove("ownerReferences");
    taken.0["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    taken.0["metadata"]["labels"] = json!({"app": "other"});
    taken.0["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let mut world = World::new(vec![taken, deployment(1, json!({}))]);
    settle(&mut world);
    let sets = world.of_kind("ReplicaSet");
    assert_eq!(sets.len(), 2);
    assert_ne!(sets[1].name(), wanted.name());
    assert_eq!(world.get("Deployment", "web").0["status"]["collisionCount"], 1);
}
