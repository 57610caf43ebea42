//! What the runtime cannot do now is tried again, less and less often, and said.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::Bench;

fn pod() -> Value {
    let hook = json!({"preStop": {"exec": {"command": ["farewell"]}}});
    json!({"terminationGracePeriodSeconds": 5, "containers": [
        {"name": "c", "image": "x", "command": ["run"], "lifecycle": hook}]})
}

#[tokio::test]
async fn sandboxes_that_cannot_be_made() {
    let bench = Bench::new().await;
    bench.runtime.set_failing("run_pod_sandbox", true);
    bench.api.create_pod("web", pod());
    let text = "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = run_pod_sandbox says \"no\"";
    bench.wait_event("web", text).await;
    let begun = Instant::now();
    let calls = |count| move |bench: &Bench| (bench.runtime.calls("run_pod_sandbox") >= count).then_some(());
    bench.wait("the third attempt", calls(3)).await;
    // A second after the first, and two after the second; but the first was some time ago.
    assert!(begun.elapsed() > Duration::from_secs(2), "after {:?}", begun.elapsed());
    bench.wait("the last that is left", |bench| (bench.runtime.count().0 == 1).then_some(())).await;
    // What cannot be taken back is not added to.
    bench.runtime.set_failing("stop_pod_sandbox", true);
    let [made, stops] = ["run_pod_sandbox", "stop_pod_sandbox"].map(|call| bench.runtime.calls(call));
    let tried = |bench: &Bench| (bench.runtime.calls("stop_pod_sandbox") > stops).then_some(());
    bench.wait("an attempt to stop it", tried).await;
    assert_eq!(bench.runtime.calls("run_pod_sandbox"), made);
    for call in ["run_pod_sandbox", "stop_pod_sandbox"] {
        bench.runtime.set_failing(call, false);
    }
    bench.wait_phase("web", "Running").await;
    bench.wait("nothing else to be left", |bench| (bench.runtime.count() == (1, 1)).then_some(())).await;
}

#[tokio::test]
async fn a_network_that_is_not_there() {
    let bench = Bench::new().await;
    bench.runtime.set_failing("network", true);
    bench.api.create_pod("own", pod());
    let text = "NetworkNotReady: network is not ready: container runtime network not ready: NetworkReady=false reason:Because message:no plugin";
    bench.wait_event("own", text).await;
    // Nothing is begun that could not be taken back.
    assert_eq!(bench.runtime.calls("run_pod_sandbox"), 0);
    let mut shared = pod();
    shared["hostNetwork"] = json!(true);
    bench.api.create_pod("shared", shared);
    bench.wait_phase("shared", "Running").await;
    bench.runtime.set_failing("network", false);
    bench.wait_phase("own", "Running").await;
}

#[tokio::test]
async fn what_cannot_be_ended() {
    let bench = Bench::new().await;
    let uid = bench.api.create_pod("web", pod());
    bench.wait_phase("web", "Running").await;
    for call in ["stop_container", "stop_pod_sandbox"] {
        bench.runtime.set_failing(call, true);
    }
    bench.api.delete_pod("web", 5);
    let text = |what: &str, whose: &str, call: &str| {
        let error = format!("\"rpc error: code = Unknown desc = {call} says \\\"no\\\"\"");
        format!(
            "FailedKillPod: error killing pod: failed to \"{what}\" for \"{whose}\" with {what}Error: {error}"
        )
    };
    bench.wait_event("web", &text("KillContainer", "c", "stop_container")).await;
    let calls = |bench: &Bench| (bench.runtime.calls("stop_container") >= 2).then_some(());
    bench.wait("another attempt", calls).await;
    bench.runtime.set_failing("stop_container", false);
    bench.wait_event("web", &text("KillPodSandbox", &uid, "stop_pod_sandbox")).await;
    assert!(bench.api.pod("web").is_some(), "it has not ended");
    bench.runtime.set_failing("stop_pod_sandbox", false);
    bench.wait("the pod to be gone", |bench| bench.api.pod("web").is_none().then_some(())).await;
    bench.wait("nothing to be left", |bench| (bench.runtime.count() == (0, 0)).then_some(())).await;
    assert_eq!(bench.runtime.execs(), ["farewell"], "a hook runs once");
    let killing = bench.api.events("web").into_iter().filter(|event| event.starts_with("Killing"));
    assert_eq!(killing.count(), 1);
}

#[tokio::test]
async fn a_runtime_that_does_not_answer() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", pod());
    bench.wait_phase("web", "Running").await;
    bench.runtime.set_failing("list_pod_sandboxes", true);
    bench.runtime.end("c", 1);
    let before = bench.runtime.calls("list_pod_sandboxes");
    let calls = |bench: &Bench| (bench.runtime.calls("list_pod_sandboxes") >= before + 3).then_some(());
    bench.wait("three attempts", calls).await;
    bench.runtime.set_failing("list_pod_sandboxes", false);
    let is_back = |bench: &Bench| bench.runtime.newest("c").filter(|c| c.container.attempt == 1);
    bench.wait("the container to be started again", is_back).await;
}
