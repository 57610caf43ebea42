//! What pods use of processor, memory and disks, and how much of it they may.

use serde_json::{Value, json};

use crate::cluster::{Cluster, condition, shell, with};

/// A pod that was evicted for what it did itself.
async fn evicted(cluster: &Cluster, name: &str, message: &str) {
    let pod = cluster.wait_phase(name, "Failed").await;
    let status = &pod["status"];
    assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!(message)));
    assert_eq!(condition(&pod, "DisruptionTarget"), Value::Null, "its own doing");
    assert_eq!(condition(&pod, "Ready")["reason"], "PodFailed");
    cluster.wait_event(name, &format!("Evicted: {message}")).await;
    cluster.remove(name).await;
}

pub(crate) async fn an_empty_dir_has_its_limit(cluster: &Cluster) {
    let mounts = json!([{"name": "small", "mountPath": "/small"}]);
    let script = "head -c 3000000 /dev/zero > /small/file; while :; do sleep 1; done";
    cluster
        .run(
            "dir-limit",
            json!({"containers": [with(shell("c", script), "volumeMounts", mounts)],
                "volumes": [{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}]}),
        )
        .await;
    evicted(cluster, "dir-limit", "Usage of EmptyDir volume \"small\" exceeds the limit \"1Mi\". ").await;
}

pub(crate) async fn logs_take_room_too(cluster: &Cluster) {
    let limits = json!({"limits": {"ephemeral-storage": "512Ki"}});
    let script = "seq 100000 200000; while :; do sleep 1; done";
    let pod = json!({"containers": [with(shell("c", script), "resources", limits)]});
    cluster.run("log-limit", pod).await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 512Ki. ";
    evicted(cluster, "log-limit", message).await;
}

pub(crate) async fn what_pods_use_is_told(cluster: &Cluster) {
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    let script = "seq 10000; head -c 100000 /dev/zero > /work/file; head -c 100000 /dev/zero > /tmp/podlog-used; \
        i=0; while test $i -lt 200000; do i=$((i+1)); done; echo used; while :; do sleep 1; done";
    let spec = json!({"containers": [with(shell("c", script), "volumeMounts", mounts)],
        "volumes": [{"name": "work", "emptyDir": {}}]});
    cluster.run("use", spec).await;
    cluster.wait_log("use", "tailLines=1", "used").await;
    let pod = loop {
        let summary: Value = serde_json::from_str(&cluster.node("stats/summary").await).unwrap();
        assert!(summary["node"]["fs"]["capacityBytes"].as_u64() > Some(0), "{summary}");
        let pods = summary["pods"].as_array().unwrap();
        let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "use").unwrap().clone();
        // containerd looks every ten seconds at what is in a root file system.
        let has_layer = !cluster.column().has_containers()
            || pod["containers"][0]["rootfs"]["usedBytes"].as_u64() >= Some(100_000);
        if has_layer && pod["containers"][0]["cpu"].is_object() {
            break pod;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let container = &pod["containers"][0];
    for (path, least) in [
        ("/cpu/usageCoreNanoSeconds", 10_000_000),
        ("/memory/workingSetBytes", 50_000),
        ("/memory/rssBytes", 10_000),
        ("/logs/usedBytes", 100_000),
        ("/logs/capacityBytes", 1),
    ] {
        assert!(container.pointer(path).and_then(Value::as_u64) >= Some(least), "{path} in {container}");
    }
    let volume = &pod["volume"][0];
    assert_eq!(volume["name"], "work", "{pod}");
    assert!(volume["usedBytes"].as_u64() >= Some(100_000), "{volume}");
    assert!(pod["ephemeral-storage"]["usedBytes"].as_u64() >= Some(200_000), "{pod}");
    let metrics = cluster.node("metrics/resource").await;
    for name in ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"] {
        let series = format!("{name}{{container=\"c\",namespace=\"default\",pod=\"use\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        let value: f64 = line.and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        assert!(value > 0.0, "{name} {value}");
    }
    assert!(
        metrics.contains("\npod_memory_working_set_bytes{namespace=\"default\",pod=\"use\"} "),
        "{metrics}"
    );
    assert!(metrics.contains("\nresource_scrape_error 0\n"), "{metrics}");
    cluster.remove("use").await;
    let _ = std::fs::remove_file("/tmp/podlog-used");
}
