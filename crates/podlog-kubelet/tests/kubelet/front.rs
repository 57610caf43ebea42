//! In front of a kubelet: logs are answered there, all else comes from behind.

use std::net::SocketAddr;

use podlog_kubelet::{ApiConnection, Front, FrontOptions};
use podlog_serving::pki::{CertificateRequest, KeyPairFiles};
use podlog_serving::{Forwarder, NodeClient, ServerTls, Verify};
use serde_json::json;

use crate::bench::{Bench, body_of};

/// A front before the bench's kubelet.
async fn front(bench: &Bench) -> Front {
    let files = KeyPairFiles::in_folder(bench.directory.path(), "front-serving");
    bench.authority.ensure(&files, &CertificateRequest::serving("node-1", ["127.0.0.1"])).unwrap();
    let client = KeyPairFiles::in_folder(bench.directory.path(), "podlog-front");
    bench.authority.ensure(&client, &CertificateRequest::client("podlog-front", None)).unwrap();
    let ca = bench.authority.certificate_path().to_owned();
    let options = FrontOptions {
        node_name: "node-1".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        config: bench.config.clone(),
        client_ca: Some(ca.clone()),
        serving: ServerTls::load(files).unwrap(),
        compatibility: bench.compatibility,
        api_server: ApiConnection { client: bench.api.client(), address: bench.api.address },
        behind: Forwarder::new("127.0.0.1".into(), bench.port(), Some(ca), Some(client)).unwrap(),
    };
    Front::start(options, bench.runtime.clone()).await.unwrap()
}

async fn get(client: &NodeClient, address: SocketAddr, path: &str) -> (u16, String) {
    body_of(client.get("127.0.0.1", address.port(), path, Verify::Ca).await.unwrap()).await
}

/// How many requests were answered by whom.
async fn counted(client: &NodeClient, address: SocketAddr, by: &str) -> u64 {
    let (_, text) = get(client, address, "/podlog/metrics").await;
    let prefix = format!("podlog_front_requests_total{{by=\"{by}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn logs_come_from_the_front_and_all_else_from_behind() {
    let bench = Bench::new().await;
    let front = front(&bench).await;
    let (client, address) = (bench.client(Some("admin")), front.local_addr());
    bench.api.create_pod("web", json!({"containers": [{"name": "c", "image": "x", "command": ["run"]}]}));
    bench.wait_phase("web", "Running").await;
    bench.runtime.log("c", &["one", "two"]);
    let log = bench.get("/containerLogs/default/web/c").await;
    assert_eq!(log.0, 200);

    assert_eq!(get(&client, address, "/containerLogs/default/web/c").await, log);
    assert_eq!(counted(&client, address, "front").await, 1);
    // Errors that only the kubelet behind can put into words, and everything that is no log.
    for path in [
        "/containerLogs/default/web/none",
        "/containerLogs/default/none/c",
        "/containerLogs/default/web/c?previous=true",
        "/containerLogs/default/web/c?tailLines=x",
        "/containerLogs/default/web",
        "/pods",
        "/healthz",
        "/exec/default/web/c",
        "/nothing",
    ] {
        let before = counted(&client, address, "behind").await;
        assert_eq!(get(&client, address, path).await, bench.get(path).await, "{path}");
        assert_eq!(counted(&client, address, "behind").await, before + 1, "{path}");
    }
    // The kubelet behind knows one caller only; who may do what was decided before.
    for (user, code, part) in [(Some("eve"), 403, "user=eve"), (None, 401, "Unauthorized")] {
        for path in ["/containerLogs/default/web/c", "/pods"] {
            let (found, text) = get(&bench.client(user), address, path).await;
            assert_eq!(found, code, "{path}: {text}");
            assert!(text.contains(part), "{text}");
        }
    }
    let behind = bench.api.reviews().iter().any(|review| review["user"] == "podlog-front");
    assert!(behind, "the kubelet behind asked about its caller");
    front.shutdown().await;
}

/// Its name may be all that they have in common: the namespace may be another one of that name, too.
#[tokio::test]
async fn what_is_left_of_a_pod_is_not_its_successors() {
    let mut bench = Bench::new().await;
    let front = front(&bench).await;
    let (client, address) = (bench.client(Some("admin")), front.local_addr());
    let spec =
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "x", "command": ["run"]}]});
    bench.api.create_pod("web", spec.clone());
    bench.wait_phase("web", "Running").await;
    bench.runtime.log("c", &["one"]);
    bench.runtime.end("c", 0);
    bench.wait_phase("web", "Succeeded").await;
    let path = "/containerLogs/default/web/c";
    assert_eq!(get(&client, address, path).await, (200, "one\n".to_owned()));
    assert_eq!(counted(&client, address, "front").await, 1);
    bench.stop().await;
    assert_eq!(
        get(&client, address, path).await,
        (200, "one\n".to_owned()),
        "it does not depend on the kubelet"
    );
    bench.api.force_delete_pod("web");
    bench.api.create_pod("web", spec);
    let (code, text) = get(&client, address, path).await;
    assert!(code == 502 && text.contains("cannot reach the kubelet behind"), "{code} {text}");
    front.shutdown().await;
}
