//! Volumes of every kind, as a container sees them.

use serde_json::{Value, json};

use crate::cluster::{Cluster, once, shell, with};

pub(crate) async fn volumes_of_every_kind(cluster: &Cluster) {
    cluster
        .create(
            "configmaps",
            json!({"metadata": {"name": "files"}, "data": {"a.txt": "from the map", "b": "b"}}),
        )
        .await;
    cluster
        .create("secrets", json!({"metadata": {"name": "files"}, "stringData": {"key": "from the secret"}}))
        .await;
    let folder = cluster.path("host-path");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "from the host").unwrap();
    let script = "show() { echo \"$1: $(cat $1)\"; }; show /map/a.txt; show /some/renamed; ls /some; show /secret/key; \
        stat -Lc %a /secret/key; show /host/file; echo new > /host/new; show /down/labels; show /down/cpu; \
        show /all/map/b; show /all/name; echo token of $(cut -d. -f1 /all/token | wc -w) word; show /all/ca.crt | head -1; \
        echo x > /empty/x && show /empty/x; stat -f -c %T /memory; { echo y > /map/y; } 2>/dev/null || echo read-only";
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let mounts = ["map", "some", "secret", "host", "down", "all", "empty", "memory"].map(mount);
    let volumes = json!([
        {"name": "map", "configMap": {"name": "files"}},
        {"name": "some", "configMap": {"name": "files", "items": [{"key": "b", "path": "renamed"}]}},
        {"name": "secret", "secret": {"secretName": "files", "defaultMode": 0o400}},
        {"name": "host", "hostPath": {"path": folder, "type": "Directory"}},
        {"name": "down", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "requests.cpu", "divisor": "1m"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "files", "items": [{"key": "b", "path": "map/b"}]}},
            {"configMap": {"name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}},
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let main = with(shell("c", script), "volumeMounts", json!(mounts));
    let main = with(main, "resources", json!({"requests": {"cpu": "100m"}}));
    cluster.run("volumes", with(once(main), "volumes", volumes)).await;
    cluster.wait_phase("volumes", "Succeeded").await;
    let expected = "/map/a.txt: from the map\n/some/renamed: b\nrenamed\n/secret/key: from the secret\n400\n\
        /host/file: from the host\n/down/labels: app=\"volumes\"\n/down/cpu: 100\n/all/map/b: b\n/all/name: volumes\n\
        token of 1 word\n/all/ca.crt: -----BEGIN CERTIFICATE-----\n/empty/x: x\ntmpfs\nread-only\n";
    assert_eq!(cluster.log("volumes", "").await.unwrap(), expected);
    assert_eq!(std::fs::read_to_string(folder.join("new")).unwrap(), "new\n");
    cluster.remove("volumes").await;
}

pub(crate) async fn a_part_of_a_volume(cluster: &Cluster) {
    let mount = |path: &str, part: Value| {
        let mut mount = json!({"name": "v", "mountPath": path});
        mount.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        mount
    };
    let write = with(
        shell("write", "echo deep > /part/file"),
        "volumeMounts",
        json!([mount("/part", json!({"subPath": "deep/er"}))]),
    );
    let read = with(
        shell("read", "cat /all/deep/er/file /named/file"),
        "volumeMounts",
        json!([mount("/all", json!({})), mount("/named", json!({"subPathExpr": "deep/$(WHERE)"}))]),
    );
    let read = with(read, "env", json!([{"name": "WHERE", "value": "er"}]));
    let spec = with(
        with(once(read), "initContainers", json!([write])),
        "volumes",
        json!([{"name": "v", "emptyDir": {}}]),
    );
    cluster.run("part", spec).await;
    cluster.wait_phase("part", "Succeeded").await;
    assert_eq!(cluster.log("part", "container=read").await.unwrap(), "deep\ndeep\n");
    cluster.remove("part").await;
}

pub(crate) async fn files_follow_their_objects(cluster: &Cluster) {
    cluster.create("configmaps", json!({"metadata": {"name": "live"}, "data": {"word": "old"}})).await;
    let main = with(
        shell("c", "while ! grep -q new /map/word; do sleep 0.1; done; grep . /map/word /down/labels"),
        "volumeMounts",
        json!([{"name": "map", "mountPath": "/map"}, {"name": "down", "mountPath": "/down"}]),
    );
    let volumes = json!([{"name": "map", "configMap": {"name": "live"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}}]);
    cluster.run("live", with(once(main), "volumes", volumes)).await;
    cluster.wait_ready("live").await;
    let change = json!({"data": {"word": "new"}});
    cluster.request("PATCH", "/api/v1/namespaces/default/configmaps/live", &change).await.unwrap();
    cluster.wait_phase("live", "Succeeded").await;
    assert_eq!(cluster.log("live", "").await.unwrap(), "/map/word:new\n/down/labels:live\n");
    cluster.remove("live").await;
}
