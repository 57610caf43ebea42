//! What a container sees of itself: user, rights, limits, network, environment.

use serde_json::json;

use crate::cluster::{Cluster, once, shell, status, with};

pub(crate) async fn users_and_rights(cluster: &Cluster) {
    let script = "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; touch /x 2>/dev/null && echo writable; \
        touch /v/x && stat -c %g /v/x";
    let main = with(
        shell("c", script),
        "securityContext",
        json!({"runAsUser": 1234, "runAsGroup": 2345, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true}),
    );
    let main = with(main, "volumeMounts", json!([{"name": "v", "mountPath": "/v"}]));
    let spec = with(
        once(main),
        "securityContext",
        json!({"runAsUser": 1, "supplementalGroups": [77], "fsGroup": 88, "runAsNonRoot": true}),
    );
    cluster.run("user", with(spec, "volumes", json!([{"name": "v", "emptyDir": {}}]))).await;
    cluster.wait_phase("user", "Succeeded").await;
    let log = cluster.log("user", "").await.unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let mut groups: Vec<&str> = lines[2].split(' ').collect();
    groups.sort_unstable();
    assert_eq!((lines[0], lines[1], groups), ("1234", "2345", vec!["2345", "77", "88"]), "{log}");
    assert_eq!(lines[3..], ["NoNewPrivs:\t1", "88"], "{log}");
    cluster.remove("user").await;
}

pub(crate) async fn capabilities(cluster: &Cluster) {
    let show = "grep CapEff /proc/self/status";
    let rights = |name: &str, rights: serde_json::Value| {
        with(shell(name, show), "securityContext", json!({"capabilities": rights}))
    };
    let containers = [
        rights("none", json!({"drop": ["ALL"]})),
        rights("one", json!({"drop": ["ALL"], "add": ["CHOWN"]})),
        shell("usual", show),
    ];
    cluster.run("rights", json!({"containers": containers, "restartPolicy": "Never"})).await;
    cluster.wait_phase("rights", "Succeeded").await;
    for (name, expected) in
        [("none", "0000000000000000"), ("one", "0000000000000001"), ("usual", "00000000a80425fb")]
    {
        let log = cluster.log("rights", &format!("container={name}")).await.unwrap();
        assert_eq!(log, format!("CapEff:\t{expected}\n"), "{name}");
    }
    cluster.remove("rights").await;
}

pub(crate) async fn root_is_refused(cluster: &Cluster) {
    let main = with(shell("c", "true"), "securityContext", json!({"runAsNonRoot": true}));
    cluster.run("rootless", once(main)).await;
    let pod = cluster
        .wait("rootless", "a refusal", |pod| {
            status(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let message = format!(
        "container has runAsNonRoot and image will run as root (pod: \"rootless_default({uid})\", container: c)"
    );
    assert_eq!(status(&pod, "c")["state"]["waiting"]["message"], message);
    assert_eq!(pod["status"]["phase"], "Pending");
    cluster.remove("rootless").await;
}

/// As the kernel has them: version 1 of cgroups, or version 2.
pub(crate) async fn limits_of_the_cgroup(cluster: &Cluster) {
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max; \
        { cat cpu/cpu.cfs_quota_us cpu/cpu.shares 2>/dev/null || cat cpu.max cpu.weight; } | tr '\\n' ' '; cat /proc/self/oom_score_adj";
    let main = with(
        shell("c", script),
        "resources",
        json!({"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"memory": "32Mi", "cpu": "250m"}}),
    );
    cluster.run("limits", once(main)).await;
    let pod = cluster.wait_phase("limits", "Succeeded").await;
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let log = cluster.log("limits", "").await.unwrap();
    let words: Vec<&str> = log.split_whitespace().collect();
    assert_eq!(words[0], "67108864", "{log}");
    assert!(words[1..3] == ["50000", "256"] || words[1..3] == ["50000", "100000"], "{log}");
    let oom: i64 = words.last().unwrap().parse().unwrap();
    assert!((2..1000).contains(&oom), "{log}");
    cluster.remove("limits").await;
}

pub(crate) async fn the_network_of_the_host(cluster: &Cluster) {
    cluster.run("host-net", once(shell("c", "readlink /proc/self/ns/net"))).await;
    let pod = cluster.wait_phase("host-net", "Succeeded").await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(cluster.log("host-net", "").await.unwrap(), format!("{}\n", own.display()));
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": pod["status"]["hostIP"]}]));
    cluster.remove("host-net").await;
}

pub(crate) async fn environment(cluster: &Cluster) {
    cluster
        .create("configmaps", json!({"metadata": {"name": "env"}, "data": {"COLOUR": "blue", "one": "1"}}))
        .await;
    cluster.create("secrets", json!({"metadata": {"name": "env"}, "stringData": {"WORD": "hush"}})).await;
    let script = "echo $COLOUR $P_one $WORD $NAME $IP $GREETING $CPU; echo \"$0 $1\"";
    let main = with(
        shell("c", script),
        "envFrom",
        json!([
        {"configMapRef": {"name": "env"}}, {"prefix": "P_", "configMapRef": {"name": "env"}},
        {"secretRef": {"name": "env"}}, {"configMapRef": {"name": "none", "optional": true}}]),
    );
    let main = with(
        main,
        "env",
        json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "GREETING", "value": "hello-$(NAME)-$$(NAME)-$(NOBODY)"},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}}]),
    );
    let main = with(
        with(main, "args", json!(["$(COLOUR)", "$(WORD)"])),
        "resources",
        json!({"requests": {"cpu": "250m"}}),
    );
    cluster.run("env", once(main)).await;
    let pod = cluster.wait_phase("env", "Succeeded").await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let expected = format!("blue 1 hush env {ip} hello-env-$(NAME)-$(NOBODY) 250\nblue hush\n");
    assert_eq!(cluster.log("env", "").await.unwrap(), expected);
    cluster.remove("env").await;
}
