//! Containers from their start to their end.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, PROGRESS, condition, conditions, ended, once, shell, status, with};

pub(crate) async fn several_containers(cluster: &Cluster) {
    let script = |name: &str| {
        format!("echo {name} out; echo {name} err >&2; trap 'exit 0' TERM; while :; do sleep 0.1; done")
    };
    cluster.run("several", json!({"containers": [shell("b", &script("b")), shell("a", &script("a"))]})).await;
    let pod = cluster.wait_ready("several").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(conditions(&pod, PROGRESS), ["True", "True", "True", "True"]);
    let names: Vec<_> =
        pod["status"]["containerStatuses"].as_array().unwrap().iter().map(|s| s["name"].as_str()).collect();
    assert_eq!(names, [Some("a"), Some("b")], "sorted by name");
    for name in ["a", "b"] {
        let status = status(&pod, name);
        assert_eq!(
            (&status["ready"], &status["started"], &status["restartCount"]),
            (&json!(true), &json!(true), &json!(0))
        );
        assert!(status["state"]["running"]["startedAt"].is_string(), "{status}");
        let id = status["containerID"].as_str().unwrap();
        assert!(id.starts_with(&format!("{}://", cluster.column().runtime_name())), "{id}");
        // In whatever order: they are two pipes.
        for stream in ["out", "err"] {
            let query = format!("container={name}");
            cluster.wait_log("several", &query, &format!("{name} {stream}\n")).await;
        }
    }
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    cluster.remove("several").await;
}

/// A pod's directory of logs may have 255 bytes: its name is as long as leaves room for namespace and uid.
pub(crate) async fn many_containers_with_long_names(cluster: &Cluster) {
    const CONTAINERS: usize = 16;
    let pod_name = "p".repeat(255 - "default__".len() - 36);
    let name = |number: usize| format!("{number:02}{}", "c".repeat(61));
    let container = |number| shell(&name(number), &format!("echo I am {number}; sleep 1000"));
    let containers: Vec<_> = (0..CONTAINERS).map(container).collect();
    let spec = json!({"containers": containers, "hostNetwork": true, "terminationGracePeriodSeconds": 0});
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": pod_name}, "spec": spec});
    cluster.create("pods", pod).await;
    let pod = cluster.wait_ready(&pod_name).await;
    assert_eq!(pod["status"]["containerStatuses"].as_array().unwrap().len(), CONTAINERS);
    for number in 0..CONTAINERS {
        let query = format!("container={}", name(number));
        let log = cluster.wait_log(&pod_name, &query, "I am").await;
        assert_eq!(log, format!("I am {number}\n"));
    }
    cluster.remove(&pod_name).await;
}

pub(crate) async fn init_containers_take_turns(cluster: &Cluster) {
    let folder = cluster.path("turns");
    fs::create_dir(&folder).unwrap();
    let step = |name: &str, script: &str| {
        with(shell(name, script), "volumeMounts", json!([{"name": "work", "mountPath": "/work"}]))
    };
    let first = step(
        "first",
        "while ! test -e /work/go; do sleep 0.1; done; echo first >> /work/steps; echo first done",
    );
    let second = step("second", "echo second >> /work/steps");
    let spec = json!({"initContainers": [first, second], "containers": [step("main", "cat /work/steps")],
        "volumes": [{"name": "work", "hostPath": {"path": folder}}], "restartPolicy": "Never"});
    cluster.run("turns", spec).await;
    let early = cluster
        .wait("turns", "an init container", |pod| status(pod, "first")["state"]["running"].is_object())
        .await;
    assert_eq!(early["status"]["phase"], "Pending");
    assert_eq!(
        conditions(&early, PROGRESS),
        ["True", "False ContainersNotInitialized", "False ContainersNotReady", "False ContainersNotReady"]
    );
    assert_eq!(
        condition(&early, "Initialized")["message"],
        "containers with incomplete status: [first second]"
    );
    assert_eq!(status(&early, "main")["state"]["waiting"]["reason"], "PodInitializing");
    fs::write(folder.join("go"), "").unwrap();
    let pod = cluster
        .wait("turns", "its end", |pod| {
            pod["status"]["phase"] == "Succeeded"
                && condition(pod, "PodReadyToStartContainers")["status"] == "False"
        })
        .await;
    for name in ["first", "second", "main"] {
        assert_eq!(ended(&pod, name), (0, "Completed".to_owned()));
    }
    assert_eq!(
        conditions(&pod, PROGRESS),
        ["False", "True PodCompleted", "False PodCompleted", "False PodCompleted"]
    );
    assert_eq!(cluster.log("turns", "container=main").await.unwrap(), "first\nsecond\n");
    assert_eq!(cluster.log("turns", "container=first").await.unwrap(), "first done\n");
    cluster.remove("turns").await;
}

pub(crate) async fn a_failed_init_container_fails_the_pod(cluster: &Cluster) {
    let spec = json!({"initContainers": [shell("broken", "echo no >&2; exit 7")], "containers": [shell("main", "true")],
        "restartPolicy": "Never"});
    cluster.run("broken", spec).await;
    let pod = cluster.wait_phase("broken", "Failed").await;
    assert_eq!(ended(&pod, "broken"), (7, "Error".to_owned()));
    assert_eq!(status(&pod, "main")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        conditions(&pod, PROGRESS)[1..],
        ["False ContainersNotInitialized", "False PodFailed", "False PodFailed"]
    );
    cluster.remove("broken").await;
}

pub(crate) async fn sidecars_outlive_the_others(cluster: &Cluster) {
    let work = json!([{"name": "work", "mountPath": "/work"}]);
    let sidecar = with(
        shell(
            "helper",
            "trap 'test -e /work/main && echo last; exit 0' TERM; sleep 0.3; touch /work/up; while :; do sleep 0.1; done",
        ),
        "restartPolicy",
        json!("Always"),
    );
    let sidecar = with(
        sidecar,
        "startupProbe",
        json!({"exec": {"command": ["/bin/sh", "-c", "test -e /work/up"]}, "periodSeconds": 1, "timeoutSeconds": 60}),
    );
    let main = with(shell("main", "test -e /work/up && touch /work/main"), "volumeMounts", work.clone());
    let spec = json!({"initContainers": [with(sidecar, "volumeMounts", work)], "containers": [main],
        "volumes": [{"name": "work", "emptyDir": {}}], "restartPolicy": "Never", "terminationGracePeriodSeconds": 60});
    cluster.run("sidecar", spec).await;
    let pod = cluster.wait_phase("sidecar", "Succeeded").await;
    assert_eq!(ended(&pod, "main"), (0, "Completed".to_owned()), "the sidecar had started before");
    assert_eq!(ended(&pod, "helper"), (0, "Completed".to_owned()));
    assert_eq!(cluster.log("sidecar", "container=helper").await.unwrap(), "last\n");
    cluster.remove("sidecar").await;
}

pub(crate) async fn a_crash_loop_backs_off(cluster: &Cluster) {
    let made = cluster.run("loop", json!({"containers": [shell("c", "echo try; exit 3")]})).await;
    let pod = cluster
        .wait("loop", "CrashLoopBackOff", |pod| {
            let c = status(pod, "c");
            c["state"]["waiting"]["reason"] == "CrashLoopBackOff" && c["restartCount"].as_i64() >= Some(1)
        })
        .await;
    let c = status(&pod, "c");
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let expected = format!("back-off 2s restarting failed container=c pod=loop_default({uid})");
    assert_eq!(c["state"]["waiting"]["message"], expected);
    let last = &c["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
    assert_eq!((&pod["status"]["phase"], &c["ready"]), (&json!("Running"), &json!(false)));
    assert_eq!(
        conditions(&pod, PROGRESS),
        ["True", "True", "False ContainersNotReady", "False ContainersNotReady"]
    );
    assert_eq!(cluster.log("loop", "previous=true").await.unwrap(), "try\n");
    cluster.wait_event("loop", "BackOff: Back-off restarting failed container c in pod loop_default").await;
    cluster.remove("loop").await;
}

/// Of the dead, the last but one is kept. The logs of all stay as long as they fit, and longer than their pod.
pub(crate) async fn dead_containers_are_collected(cluster: &Cluster) {
    cluster.run("many", json!({"containers": [shell("c", "echo life; exit 1")]})).await;
    cluster.wait("many", "four restarts", |pod| status(pod, "c")["restartCount"].as_i64() >= Some(4)).await;
    let begun = Instant::now();
    let links = || {
        let links = fs::read_dir(cluster.data_dir().join("containers")).unwrap().flatten();
        links.filter(|link| link.file_name().to_string_lossy().starts_with("many_")).count()
    };
    while links() > 3 {
        assert!(begun.elapsed() < PATIENCE, "too many are kept: {}", links());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.log("many", "instance=0").await.unwrap(), "life\n");
    cluster.remove("many").await;
    for query in ["deleted=true&instance=0", "deleted=true&instance=-1", "deleted=true"] {
        assert_eq!(cluster.wait_log("many", query, "life\n").await, "life\n", "{query}");
    }
    assert!(cluster.log("many", "").await.is_err());
}

pub(crate) async fn hooks_run_around_a_container(cluster: &Cluster) {
    let folder = cluster.path("hooks");
    fs::create_dir(&folder).unwrap();
    let say =
        |word: &str| json!({"exec": {"command": ["/bin/sh", "-c", format!("echo {word} >> /out/steps")]}});
    let main = with(
        shell("c", "trap 'echo term >> /out/steps; exit 0' TERM; while :; do sleep 0.05; done"),
        "lifecycle",
        json!({"postStart": say("after-start"), "preStop": say("before-stop")}),
    );
    let main = with(main, "volumeMounts", json!([{"name": "out", "mountPath": "/out"}]));
    let spec = json!({"containers": [main], "volumes": [{"name": "out", "hostPath": {"path": folder}}], "terminationGracePeriodSeconds": 60});
    cluster.run("hooks", spec).await;
    cluster.wait_ready("hooks").await;
    cluster.remove("hooks").await;
    assert_eq!(fs::read_to_string(folder.join("steps")).unwrap(), "after-start\nbefore-stop\nterm\n");
}

pub(crate) async fn a_stubborn_container_is_killed_after_its_grace_period(cluster: &Cluster) {
    let folder = cluster.path("stubborn");
    fs::create_dir(&folder).unwrap();
    let main = with(
        shell("c", "trap 'echo term >> /out/said' TERM; echo up >> /out/said; while :; do sleep 0.05; done"),
        "volumeMounts",
        json!([{"name": "out", "mountPath": "/out"}]),
    );
    let spec = json!({"containers": [main], "volumes": [{"name": "out", "hostPath": {"path": folder}}], "terminationGracePeriodSeconds": 2});
    cluster.run("stubborn", spec).await;
    cluster.wait_ready("stubborn").await;
    while fs::read_to_string(folder.join("said")).unwrap_or_default() != "up\n" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    cluster.remove("stubborn").await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "it had two seconds, and got {:?}", begun.elapsed());
    assert_eq!(fs::read_to_string(folder.join("said")).unwrap(), "up\nterm\n");
}

/// Whoever has started is ended; its time begins with the pod's, so that it is over at once.
pub(crate) async fn time_is_up(cluster: &Cluster) {
    cluster.run("late", once(shell("c", "sleep 1000"))).await;
    cluster.wait_ready("late").await;
    let limit = json!({"spec": {"activeDeadlineSeconds": 1}});
    cluster.request("PATCH", "/api/v1/namespaces/default/pods/late", &limit).await.unwrap();
    let pod = cluster.wait_phase("late", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(pod["status"]["message"], message);
    assert_eq!(conditions(&pod, PROGRESS)[1..], ["True", "False PodFailed", "False PodFailed"]);
    cluster.wait_event("late", &format!("DeadlineExceeded: {message}")).await;
    cluster.wait_event("late", "Killing: Stopping container c").await;
    cluster.wait("late", "the end of its container", |pod| ended(pod, "c").0 > 128).await;
    cluster.remove("late").await;
}

pub(crate) async fn nothing_is_left_of_a_deleted_pod(cluster: &Cluster) {
    let spec = json!({"containers": [shell("c", "while :; do sleep 0.1; done")], "volumes": [{"name": "v", "emptyDir": {}}]});
    cluster.run("gone", spec).await;
    let pod = cluster.wait_ready("gone").await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let own = [
        cluster.data_dir().join(format!("pods/default_gone_{uid}")),
        cluster.data_dir().join(format!("kubelet/pods/{uid}")),
    ];
    assert!(own.iter().all(|path| path.is_dir()), "{own:?}");
    cluster.remove("gone").await;
    let begun = Instant::now();
    while own.iter().any(|path| path.exists()) {
        assert!(begun.elapsed() < PATIENCE, "still there: {own:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let links = fs::read_dir(cluster.data_dir().join("containers")).unwrap();
    assert!(links.flatten().all(|link| !link.file_name().to_string_lossy().starts_with("gone_")));
}
