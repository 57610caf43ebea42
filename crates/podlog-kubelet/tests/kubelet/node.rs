//! The node's object, its lease, and the endpoint's small routes.

use std::time::Duration;

use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn the_node_registers_and_stays_alive() {
    let bench = Bench::new().await;
    let node = bench.wait("the node", |bench| bench.api.get("nodes", "", "node-1")).await;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node-1");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
    let status = &node["status"];
    assert_eq!(
        status["addresses"],
        json!([{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "node-1"}])
    );
    assert!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap() > 0);
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
    assert_eq!(status["capacity"]["pods"], "110");
    let ready =
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("KubeletReady")));
    let lease = bench.wait("the lease", |bench| bench.api.get("leases", "kube-node-lease", "node-1")).await;
    assert_eq!(lease["spec"]["holderIdentity"], "node-1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    bench.wait_event("node-1", "Starting: Starting kubelet.").await;
}

#[tokio::test]
async fn a_node_registers_once_the_api_server_is_there() {
    let mut bench = Bench::idle().await;
    bench.api.set_down(true);
    bench.start().await;
    bench.api.set_down(false);
    bench.wait("the node", |bench| bench.api.get("nodes", "", "node-1")).await;
}

#[tokio::test]
async fn small_routes_answer() {
    let bench = Bench::new().await;
    bench.api.create_pod("web", json!({"containers": [{"name": "c", "image": "x", "command": ["run"]}]}));
    bench.wait_phase("web", "Running").await;
    for (path, code, part) in [
        ("/healthz", 200, "ok"),
        ("/pods", 200, r#""name":"web""#),
        ("/runningpods/", 200, r#""name":"web""#),
        ("/metrics", 200, "kubelet_http_requests_total"),
        ("/configz", 200, r#"{"kubeletconfig":{"#),
        ("/stats/summary", 200, r#""nodeName":"node-1""#),
        ("/logs/", 405, "logs endpoint is disabled."),
        ("/nothing", 404, "404"),
    ] {
        let (found, body) = bench.get(path).await;
        assert_eq!(found, code, "{path}: {body}");
        assert!(body.contains(part), "{path}: {body}");
    }
}

#[tokio::test]
async fn only_who_may_gets_in() {
    let bench = Bench::new().await;
    bench.wait("the node", |bench| bench.api.get("nodes", "", "node-1")).await;
    for (user, path, code, body) in [
        (None, "/containerLogs/default/web/c", 401, "Unauthorized"),
        (
            Some("eve"),
            "/containerLogs/default/web/c",
            403,
            "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[proxy])\n",
        ),
        (
            Some("eve"),
            "/pods",
            403,
            "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[pods proxy])\n",
        ),
        (Some("admin"), "/healthz", 200, "ok"),
    ] {
        assert_eq!(bench.get_as(user, path).await, (code, body.to_owned()), "{user:?} {path}");
    }
    let asked = bench.api.reviews().len();
    assert_eq!(bench.get("/healthz").await.0, 200);
    assert_eq!(bench.api.reviews().len(), asked, "answers are remembered");
    let review = &bench.api.reviews()[0];
    assert_eq!(
        review["resourceAttributes"],
        json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": "node-1"})
    );
}

#[tokio::test]
async fn nobody_gets_in_when_nobody_can_tell() {
    let bench = Bench::new().await;
    bench.wait("the node", |bench| bench.api.get("nodes", "", "node-1")).await;
    bench.api.set_down(true);
    assert_eq!(
        bench.get_as(Some("ann"), "/metrics").await,
        (500, "Authorization error (user=ann, verb=get, resource=nodes, subresource=metrics)".to_owned())
    );
}

#[tokio::test]
async fn a_node_is_as_ready_as_its_runtime() {
    let mut bench = Bench::idle().await;
    bench.config.node_status_update_frequency = Duration::from_millis(50);
    bench.start().await;
    let ready = |bench: &Bench, status: &str, reason: &str, message: &str| {
        let node = bench.api.get("nodes", "", "node-1")?;
        let conditions = node["status"]["conditions"].as_array()?.clone();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready")?;
        let is_so = ready["status"] == status && ready["reason"] == reason && ready["message"] == message;
        is_so.then_some(())
    };
    let well = "kubelet is posting ready status";
    bench.wait("a ready node", |bench| ready(bench, "True", "KubeletReady", well)).await;
    let not_ready = "container runtime not ready: RuntimeReady=false reason:Because message:busy";
    for (down, why, message) in [(false, Some("busy"), not_ready), (true, None, "container runtime is down")]
    {
        bench.runtime.set_health(down, why);
        bench.wait(message, |bench| ready(bench, "False", "KubeletNotReady", message)).await;
        bench.wait_event("node-1", "NodeNotReady: Node node-1 status is now: NodeNotReady").await;
        bench.runtime.set_health(false, None);
        bench.wait("a ready node again", |bench| ready(bench, "True", "KubeletReady", well)).await;
    }
    bench.wait_event("node-1", "NodeReady: Node node-1 status is now: NodeReady").await;
}
