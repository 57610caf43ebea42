//! Pods from their creation to their end.

use std::fs;
use std::time::Duration;

use podlog_kubelet::runtime::ContainerState;
use serde_json::{Value, json};

use crate::bench::Bench;

fn one(command: &str) -> Value {
    let words: Vec<&str> = command.split(' ').collect();
    json!({"containers": [{"name": "c", "image": "x", "command": words}], "terminationGracePeriodSeconds": 5})
}

fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

fn container(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0].clone()
}

#[tokio::test]
async fn a_pod_runs_and_is_deleted() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", one("run"));
    let pod = bench.wait_phase("web", "Running").await;
    assert_eq!(container(&pod)["ready"], true);
    assert!(container(&pod)["containerID"].as_str().unwrap().starts_with("fake://"));
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    bench.wait_event("web", "Started: Container started").await;
    assert_eq!(
        bench.api.events("web"),
        [
            "Pulled: Container image \"x\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );
    assert_eq!(fs::read_dir(bench.path("containers")).unwrap().count(), 1);
    bench.api.delete_pod("web", 5);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
    bench.wait("everything to be removed", |bench| (bench.runtime.count() == (0, 0)).then_some(())).await;
    for directory in ["containers", "pods", "kubelet/pods"] {
        bench
            .wait(directory, |bench| {
                (fs::read_dir(bench.path(directory)).unwrap().count() == 0).then_some(())
            })
            .await;
    }
    assert_eq!(bench.runtime.stops(), [("c".to_owned(), 5)]);
    bench.wait_event("web", "Killing: Stopping container c").await;
}

#[tokio::test]
async fn pods_end_as_their_containers_do() {
    let bench = Bench::new().await;
    for (name, command, policy, phase) in [
        ("good", "exit 0", "Never", "Succeeded"),
        ("bad", "exit 3", "Never", "Failed"),
        ("done", "exit 0", "OnFailure", "Succeeded"),
    ] {
        bench.api.create_pod(name, with(one(command), "restartPolicy", json!(policy)));
        let pod = bench.wait_phase(name, phase).await;
        assert!(container(&pod)["state"]["terminated"].is_object(), "{pod}");
    }
}

#[tokio::test]
async fn a_crashing_container_backs_off() {
    let bench = Bench::new().await;
    let uid = bench.api.create_pod("web", one("exit 1"));
    let pod = bench
        .wait("CrashLoopBackOff", |bench| {
            bench.api.pod("web").filter(|pod| {
                container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                    && container(pod)["restartCount"] == 1
            })
        })
        .await;
    assert_eq!(
        container(&pod)["state"]["waiting"]["message"],
        format!("back-off 10s restarting failed container=c pod=web_default({uid})")
    );
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    let back_offs = bench.api.events("web").into_iter().filter(|event| event.starts_with("BackOff")).count();
    assert!(back_offs <= 1, "the first restart does not wait");
    bench
        .wait_event(
            "web",
            &format!("BackOff: Back-off restarting failed container c in pod web_default({uid})"),
        )
        .await;
    // In the loop, both requests are about the last instance that ran.
    for query in ["", "?previous=true"] {
        assert_eq!(bench.get(&format!("/containerLogs/default/web/c{query}")).await, (200, String::new()));
    }
}

#[tokio::test]
async fn starts_that_fail_say_why() {
    let bench = Bench::new().await;
    for (name, spec, reason, message) in [
        (
            "image",
            json!({"containers": [{"name": "c", "image": "unknown", "command": ["run"]}]}),
            "ErrImagePull",
            "no such image",
        ),
        (
            "create",
            json!({"containers": [{"name": "c", "image": "x"}]}),
            "CreateContainerError",
            "no command specified",
        ),
        ("start", one("missing"), "RunContainerError", "no such file or directory"),
        (
            "config",
            json!({"containers": [{"name": "c", "image": "x", "command": ["run"], "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}]}),
            "CreateContainerConfigError",
            "secret \"none\" not found",
        ),
    ] {
        bench.api.create_pod(name, spec);
        let pod = bench
            .wait(reason, |bench| {
                bench.api.pod(name).filter(|pod| container(pod)["state"]["waiting"]["reason"] == reason)
            })
            .await;
        assert_eq!(container(&pod)["state"]["waiting"]["message"], message, "{name}");
        let text = if name == "image" { "ErrImagePull" } else { message };
        bench.wait_event(name, &format!("Failed: Error: {text}")).await;
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_tried_again_later() {
    let bench = Bench::new().await;
    bench
        .api
        .create_pod("web", json!({"containers": [{"name": "c", "image": "unknown", "command": ["run"]}]}));
    let text = "BackOff: Back-off pulling image \"unknown\"";
    bench.wait_event("web", text).await;
    let waiting = bench
        .wait("ImagePullBackOff", |bench| {
            let waiting = container(&bench.api.pod("web")?)["state"]["waiting"].clone();
            (waiting["reason"] == "ImagePullBackOff").then_some(waiting)
        })
        .await;
    assert_eq!(waiting["message"], "Back-off pulling image \"unknown\": ErrImagePull: no such image");
}

#[tokio::test]
async fn what_has_no_effect_is_said_once() {
    let bench = Bench::new().await;
    let spec = json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}], "containers": [
        {"name": "c", "image": "x", "command": ["exit", "1"], "volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]}]});
    bench.api.create_pod("web", spec);
    bench.wait("a restart", |bench| bench.runtime.newest("c").filter(|c| c.container.attempt == 1)).await;
    let text = "FieldsIgnored: fields without effect on this node: spec: hostAliases, \
        container c: volumeDevices";
    bench.wait_event("web", text).await;
    let told = bench.api.events("web").into_iter().filter(|event| event.starts_with("FieldsIgnored"));
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn a_missing_volume_holds_the_pod_back() {
    let bench = Bench::new().await;
    let spec = with(one("run"), "volumes", json!([{"name": "v", "configMap": {"name": "none"}}]));
    bench.api.create_pod("web", spec);
    let text = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found";
    bench.wait_event("web", text).await;
    let pod = bench.api.pod("web").unwrap();
    assert_eq!(container(&pod)["state"]["waiting"]["reason"], "ContainerCreating");
}

#[tokio::test]
async fn containers_get_what_the_spec_says() {
    let bench = Bench::new().await;
    bench.api.put(
        "configmaps",
        "default",
        "cfg",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cfg", "namespace": "default"}, "data": {"k": "v1"}}),
    );
    bench.api.create_pod(
        "web",
        json!({
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "serviceAccountName": "default",
            "volumes": [
                {"name": "cfg", "configMap": {"name": "cfg"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "tmp", "emptyDir": {}},
            ],
            "containers": [{
                "name": "c", "image": "x", "command": ["run", "$(WHO)"], "args": ["$(NONE)"], "workingDir": "/w",
                "env": [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [
                    {"name": "cfg", "mountPath": "/cfg"}, {"name": "token", "mountPath": "/token"},
                    {"name": "tmp", "mountPath": "/tmp", "subPath": "sub"},
                ],
            }],
        }),
    );
    bench.wait_phase("web", "Running").await;
    let config = bench.runtime.config("c");
    assert_eq!((config.command, config.args), (vec!["run".into(), "web".into()], vec!["$(NONE)".to_owned()]));
    assert_eq!(config.working_dir, Some("/w".into()));
    assert_eq!((config.security.run_as_user, config.security.supplemental_groups), (Some(1000), vec![2000]));
    let mount =
        |path: &str| config.mounts.iter().find(|mount| mount.container_path.to_str() == Some(path)).unwrap();
    assert_eq!(fs::read_to_string(mount("/cfg").host_path.join("k")).unwrap(), "v1");
    assert_eq!(fs::read_to_string(mount("/token").host_path.join("token")).unwrap(), "a-token");
    assert!(mount("/cfg").readonly && !mount("/tmp").readonly);
    assert!(mount("/tmp").host_path.ends_with("tmp/sub"));
    assert!(mount("/dev/termination-log").host_path.ends_with("containers/c/0"));
    let env = |name: &str| config.envs.iter().find(|var| var.name == name).map(|var| var.value.clone());
    assert_eq!(env("KUBERNETES_SERVICE_PORT"), Some(bench.api.address.port().to_string()));
}

#[tokio::test]
async fn init_containers_and_sidecars_take_turns() {
    let bench = Bench::new().await;
    let c = |name: &str| json!({"name": name, "image": "x", "command": ["run"]});
    let mut sidecar = c("side");
    sidecar["restartPolicy"] = json!("Always");
    bench.api.create_pod(
        "web",
        json!({"restartPolicy": "Never", "initContainers": [sidecar, c("init")], "containers": [c("main")],
               "terminationGracePeriodSeconds": 1}),
    );
    bench.wait("init", |bench| bench.runtime.newest("init")).await;
    assert!(bench.runtime.newest("side").is_some() && bench.runtime.newest("main").is_none());
    assert_eq!(bench.api.pod("web").unwrap()["status"]["phase"], "Pending");
    bench.runtime.end("init", 0);
    bench.wait_phase("web", "Running").await;
    bench.runtime.end("main", 0);
    let pod = bench.wait_phase("web", "Succeeded").await;
    assert_eq!(bench.runtime.stops(), [("side".to_owned(), 1)]);
    assert_eq!(pod["status"]["initContainerStatuses"][1]["ready"], true);
}

#[tokio::test]
async fn ended_containers_stay_within_their_limits() {
    for (per_container, total, left) in [(Some(0), None, 1), (Some(1), None, 2), (None, Some(1), 2)] {
        let mut bench = Bench::idle().await;
        bench.config.dead_containers.per_container = per_container;
        bench.config.dead_containers.total = total;
        bench.config.max_container_restart_period = Duration::from_millis(100);
        bench.start().await;
        bench.api.create_pod("web", one("run"));
        for attempt in 0..4 {
            let runs = |bench: &Bench| {
                bench.runtime.newest("c").filter(|c| {
                    c.container.attempt == attempt && c.container.state == ContainerState::Running
                })
            };
            bench.wait("the next instance", runs).await;
            if attempt < 3 {
                bench.runtime.end("c", 1);
            }
        }
        let what = format!("{left} instances with {per_container:?} {total:?}");
        bench.wait(&what, |bench| (bench.runtime.count() == (1, left)).then_some(())).await;
        // Their logs stay.
        let logs = bench.path("pods");
        let pod = fs::read_dir(logs).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read_dir(pod.join("c")).unwrap().count(), 4, "{what}");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_pod() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", with(one("run"), "activeDeadlineSeconds", json!(1)));
    let pod = bench.wait_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    bench
        .wait_event("web", "DeadlineExceeded: Pod was active on the node longer than the specified deadline")
        .await;
}

#[tokio::test]
async fn a_shorter_grace_period_counts_at_once() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", with(one("stubborn"), "terminationGracePeriodSeconds", json!(600)));
    bench.wait_phase("web", "Running").await;
    bench.api.delete_pod("web", 600);
    bench.wait("the first stop", |bench| (!bench.runtime.stops().is_empty()).then_some(())).await;
    bench.api.delete_pod("web", 1);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
    assert_eq!(bench.runtime.stops(), [("c".to_owned(), 600), ("c".to_owned(), 1)]);
}

#[tokio::test]
async fn hooks_run_around_the_container() {
    let bench = Bench::new().await;
    let hook = |word: &str| json!({"exec": {"command": [word, "now"]}});
    let mut spec = one("run");
    spec["containers"][0]["lifecycle"] = json!({"postStart": hook("hello"), "preStop": hook("bye")});
    bench.api.create_pod("web", spec.clone());
    bench.wait_phase("web", "Running").await;
    bench.api.delete_pod("web", 5);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
    assert_eq!(bench.runtime.execs(), ["hello now", "bye now"]);
    bench.runtime.set_exec("hello", 1);
    bench.api.create_pod("unlucky", spec);
    bench.wait_event("unlucky", "FailedPostStartHook: PostStartHook failed").await;
    bench.wait_event("unlucky", "Killing: FailedPostStartHook").await;
}

#[tokio::test]
async fn last_words_become_the_message() {
    let bench = Bench::new().await;
    let mut spec = with(one("run"), "restartPolicy", json!("Never"));
    bench.api.create_pod("file", spec.clone());
    bench.wait_phase("file", "Running").await;
    let mounts = bench.runtime.config("c").mounts;
    fs::write(&mounts.last().unwrap().host_path, "written").unwrap();
    bench.runtime.end("c", 1);
    let pod = bench.wait_phase("file", "Failed").await;
    assert_eq!(container(&pod)["state"]["terminated"]["message"], "written");

    spec["containers"][0]["name"] = json!("d");
    spec["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    bench.api.create_pod("log", spec);
    bench.wait_phase("log", "Running").await;
    let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
    bench.runtime.log("d", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    bench.runtime.end("d", 1);
    let pod = bench.wait_phase("log", "Failed").await;
    let message = container(&pod)["state"]["terminated"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("line 20\n") && message.ends_with("line 99\n"), "{message}");
}

#[tokio::test]
async fn a_new_kubelet_adopts_what_runs_and_removes_what_is_gone() {
    let mut bench = Bench::new().await;
    bench.api.create_pod("stays", one("run"));
    bench.wait_phase("stays", "Running").await;
    let mut other = one("run");
    other["containers"][0]["name"] = json!("d");
    bench.api.create_pod("goes", other);
    bench.wait_phase("goes", "Running").await;
    let before = bench.runtime.newest("c").unwrap().container.id;
    bench.stop().await;
    assert_eq!(bench.runtime.count(), (2, 2), "pods keep running without a kubelet");
    bench.api.force_delete_pod("goes");
    bench.start().await;
    bench
        .wait("the deleted pod to be removed", |bench| (bench.runtime.count() == (1, 1)).then_some(()))
        .await;
    assert_eq!(bench.runtime.newest("c").unwrap().container.id, before);
    bench
        .wait("its logs to be removed", |bench| {
            (fs::read_dir(bench.path("pods")).unwrap().count() == 1).then_some(())
        })
        .await;
    bench.runtime.end("c", 1);
    bench
        .wait("the adopted container to be restarted", |bench| {
            bench.runtime.newest("c").filter(|status| status.container.attempt == 1)
        })
        .await;
}

#[tokio::test]
async fn an_api_outage_delays_statuses_and_loses_none() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", with(one("run"), "restartPolicy", json!("Never")));
    bench.wait_phase("web", "Running").await;
    bench.api.set_down(true);
    bench.runtime.end("c", 7);
    bench
        .wait("the sandbox to be stopped", |bench| (bench.runtime.newest("c")?.exit_code == 7).then_some(()))
        .await;
    bench.api.set_down(false);
    let pod = bench.wait_phase("web", "Failed").await;
    assert_eq!(container(&pod)["state"]["terminated"]["exitCode"], 7);
}
