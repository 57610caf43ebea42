//! Containers that are added to a pod that runs, as `kubectl debug` does.

use serde_json::{Value, json};

use crate::cluster::{Cluster, condition, ended, shell, status, with};

pub(crate) async fn somebody_looks_around(cluster: &Cluster) {
    cluster.run("visited", json!({"containers": [shell("main", "echo main; exec sleep 98765")]})).await;
    cluster.wait_ready("visited").await;
    // Sees the processes of the other: its command line is in one of them.
    let script =
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 98765' && echo seen; exit 3";
    let debug = with(shell("debug", script), "targetContainerName", json!("main"));
    add(cluster, debug).await;
    let pod = cluster
        .wait("visited", "the end of its visitor", |pod| {
            status(pod, "debug")["state"]["terminated"].is_object()
        })
        .await;
    assert_eq!(ended(&pod, "debug"), (3, "Error".to_owned()));
    assert_eq!(cluster.log("visited", "container=debug").await.unwrap(), "seen\n");
    cluster.wait_event("visited", "Started: Container started").await;
    // Whatever becomes of it, the pod is as it was, and it does not run again.
    assert_eq!(
        (condition(&pod, "Ready")["status"].clone(), pod["status"]["phase"].clone()),
        (json!("True"), json!("Running"))
    );
    assert_eq!(status(&pod, "main")["restartCount"], 0);
    add(cluster, shell("second", "echo hello; sleep 1000")).await;
    let pod = cluster
        .wait("visited", "another visitor", |pod| status(pod, "second")["state"]["running"].is_object())
        .await;
    assert_eq!(status(&pod, "debug")["restartCount"], 0);
    assert_eq!(ended(&pod, "debug").0, 3);
    cluster.remove("visited").await;
}

async fn add(cluster: &Cluster, container: Value) {
    let path = "/api/v1/namespaces/default/pods/visited/ephemeralcontainers";
    let patch = json!({"spec": {"ephemeralContainers": [container]}});
    cluster.request("PATCH", path, &patch).await.unwrap();
}
