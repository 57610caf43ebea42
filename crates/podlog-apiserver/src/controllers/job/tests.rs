use super::*;
use crate::controllers::testing::World;

fn job(spec: Value) -> Object {
    let mut job = Object::new(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": {"job": "j"}},
            "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
    }));
    for (key, value) in spec.as_object().unwrap() {
        job.map_mut("spec").insert(key.clone(), value.clone());
    }
    job
}

fn settle(world: &mut World) {
    world.settle(&Jobs, "Job");
}

/// Ends running pods of the job, up to `count`.
fn end(world: &mut World, count: usize, phase: &str) {
    let running: Vec<String> = world
        .of_kind("Pod")
        .iter()
        .filter(|pod| is_pod_active(pod))
        .map(|pod| pod.name().to_owned())
        .collect();
    let finished = time_text(world.now);
    for name in running.iter().take(count) {
        world.change("Pod", name, |pod| {
            pod.0["status"] = json!({"phase": phase, "containerStatuses": [{"state": {"terminated": {"finishedAt": finished}}}]});
        });
    }
}

fn active(world: &World) -> usize {
    world.of_kind("Pod").iter().filter(|pod| is_pod_active(pod)).count()
}

fn conditions(world: &World) -> Vec<String> {
    let job = world.get("Job", "j");
    let holding = job.array("/status/conditions").iter().filter(|condition| condition["status"] == "True");
    holding.map(|c| format!("{}:{}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap())).collect()
}

fn status(world: &World) -> Value {
    world.get("Job", "j").0["status"].clone()
}

#[test]
fn pods_run_to_completion() {
    let mut world = World::new(vec![job(json!({"parallelism": 2, "completions": 3}))]);
    settle(&mut world);
    assert_eq!(active(&world), 2);
    assert_eq!(world.of_kind("Pod")[0].array("/metadata/finalizers"), [json!(FINALIZER)]);
    assert_eq!(
        (&status(&world)["active"], &status(&world)["startTime"]),
        (&json!(2), &json!("2026-01-01T00:00:00Z"))
    );
    end(&mut world, 2, "Succeeded");
    settle(&mut world);
    assert_eq!(active(&world), 1);
    assert_eq!(status(&world)["succeeded"], 2);
    world.wait(30);
    end(&mut world, 1, "Succeeded");
    settle(&mut world);
    assert_eq!(conditions(&world), ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]);
    assert_eq!(status(&world)["completionTime"], "2026-01-01T00:00:30Z");
    assert_eq!((&status(&world)["succeeded"], &status(&world)["active"]), (&json!(3), &Value::Null));
    assert_eq!(status(&world)["uncountedTerminatedPods"], json!({}));
    assert!(world.of_kind("Pod").iter().all(|pod| pod.array("/metadata/finalizers").is_empty()));
    assert_eq!(world.told, ["Job completed"]);
}

#[test]
fn counted_pods_may_vanish() {
    let mut world = World::new(vec![job(json!({"completions": 2}))]);
    settle(&mut world);
    end(&mut world, 1, "Succeeded");
    settle(&mut world);
    world.objects.retain(|object| object.text("/status/phase") != "Succeeded");
    settle(&mut world);
    end(&mut world, 1, "Succeeded");
    settle(&mut world);
    assert_eq!(conditions(&world).last().unwrap(), "Complete:CompletionsReached");
    assert_eq!(status(&world)["succeeded"], 2);
}

#[test]
fn counting_survives_a_stop_at_any_step() {
    let mut world = World::new(vec![job(json!({"completions": 5, "parallelism": 5}))]);
    settle(&mut world);
    end(&mut world, 2, "Succeeded");
    end(&mut world, 1, "Failed");
    world.wait(60);
    // Only the first action of each look is carried out, as if we were killed after it.
    for _ in 0..60 {
        let listed = Listed(world.objects.clone());
        let actions = Jobs.reconcile(&Key::named("ns", "j"), &listed, world.now).unwrap();
        world.apply(actions.into_iter().take(1).collect());
    }
    settle(&mut world);
    assert_eq!((&status(&world)["succeeded"], &status(&world)["failed"]), (&json!(2), &json!(1)));
    assert_eq!(active(&world), 3);
}

#[test]
fn failures_are_retried_ever_slower_and_not_for_ever() {
    let mut world = World::new(vec![job(json!({"backoffLimit": 2}))]);
    for wait in [10, 20] {
        settle(&mut world);
        assert_eq!(active(&world), 1);
        end(&mut world, 1, "Failed");
        settle(&mut world);
        world.wait(wait - 1);
        settle(&mut world);
        assert_eq!(active(&world), 0, "waits {wait} s");
        world.wait(1);
    }
    settle(&mut world);
    end(&mut world, 1, "Failed");
    settle(&mut world);
    assert_eq!(conditions(&world), ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"]);
    assert_eq!(status(&world)["failed"], 3);
    assert_eq!(world.told, ["Job has reached the specified backoff limit"]);
}

#[test]
fn running_pods_end_with_a_failed_job() {
    let mut world =
        World::new(vec![job(json!({"activeDeadlineSeconds": 60, "parallelism": 2, "completions": 2}))]);
    settle(&mut world);
    assert_eq!(active(&world), 2);
    world.wait(60);
    settle(&mut world);
    assert_eq!(active(&world), 0);
    assert_eq!(conditions(&world), ["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"]);
    assert_eq!(status(&world)["failed"], Value::Null, "they were deleted, they did not fail");
}

#[test]
fn restarts_count_where_pods_do_not_fail() {
    let mut world = World::new(vec![job(json!({"backoffLimit": 2,
        "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "OnFailure", "containers": []}}}))]);
    settle(&mut world);
    let pod = world.of_kind("Pod")[0].name().to_owned();
    world.change("Pod", &pod, |pod| {
        pod.0["status"] = json!({"phase": "Running", "containerStatuses": [{"restartCount": 2}]});
    });
    settle(&mut world);
    assert_eq!(conditions(&world).last().unwrap(), "Failed:BackoffLimitExceeded");
}

#[test]
fn jobs_are_suspended_and_resumed() {
    let mut world = World::new(vec![job(json!({"suspend": true}))]);
    settle(&mut world);
    assert_eq!((active(&world), conditions(&world)), (0, vec!["Suspended:JobSuspended".to_owned()]));
    assert_eq!(status(&world)["startTime"], Value::Null);
    world.change("Job", "j", |job| job.0["spec"]["suspend"] = json!(false));
    settle(&mut world);
    assert_eq!(active(&world), 1);
    world.change("Job", "j", |job| job.0["spec"]["suspend"] = json!(true));
    settle(&mut world);
    assert_eq!((active(&world), status(&world)["failed"].clone()), (0, Value::Null));
    assert_eq!(world.told, ["Job suspended", "Job resumed", "Job suspended"]);
}

#[test]
fn numbered_pods_each_succeed_once() {
    let mut world =
        World::new(vec![job(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2}))]);
    settle(&mut world);
    let numbers = |world: &World| -> Vec<i64> {
        let mut numbers: Vec<i64> = world
            .of_kind("Pod")
            .iter()
            .filter(|pod| is_pod_active(pod))
            .filter_map(indexes::index_of)
            .collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&world), [0, 1]);
    let pod = &world.of_kind("Pod")[1];
    assert_eq!(pod.0["spec"]["hostname"], "j-1");
    assert_eq!(pod.0["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    end(&mut world, 1, "Succeeded");
    settle(&mut world);
    assert_eq!((numbers(&world), &status(&world)["completedIndexes"]), (vec![1, 2], &json!("0")));
    end(&mut world, 1, "Failed");
    world.wait(11);
    settle(&mut world);
    assert_eq!(numbers(&world), [1, 2]);
    for _ in 0..3 {
        end(&mut world, 1, "Succeeded");
        settle(&mut world);
    }
    assert_eq!(status(&world)["completedIndexes"], "0-3");
    assert_eq!(conditions(&world).last().unwrap(), "Complete:CompletionsReached");
}

#[test]
fn jobs_go_some_time_after_their_end() {
    let mut world = World::new(vec![job(json!({"ttlSecondsAfterFinished": 100}))]);
    settle(&mut world);
    end(&mut world, 1, "Succeeded");
    settle(&mut world);
    world.wait(99);
    settle(&mut world);
    assert_eq!(world.of_kind("Job").len(), 1);
    world.wait(1);
    settle(&mut world);
    assert_eq!(world.of_kind("Job").len(), 0);
}

#[test]
fn pods_of_vanished_jobs_are_let_go() {
    let mut world = World::new(vec![job(json!({}))]);
    settle(&mut world);
    world.objects.retain(|object| object.kind() != "Job");
    let listed = Listed(world.objects.clone());
    let actions = Jobs.reconcile(&Key::named("ns", "j"), &listed, world.now).unwrap();
    world.apply(actions);
    assert!(world.of_kind("Pod")[0].array("/metadata/finalizers").is_empty());
}
