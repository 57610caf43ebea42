//! What probes find out, and what follows.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use podlog_proto::health::health_check_response::ServingStatus;
use podlog_proto::health::health_server::{Health, HealthServer};
use podlog_proto::health::{HealthCheckRequest, HealthCheckResponse};
use serde_json::json;
use tonic::Status;

use crate::cluster::{Cluster, PROGRESS, condition, conditions, shell, status, with};

/// Ports that the system gives nobody by itself.
const OWN_PORTS: std::ops::Range<u32> = 20_000..32_000;

/// A port of this machine that nobody listens on. Who wants any port gets another one, and so do others who ask here.
pub(crate) fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = OWN_PORTS.end - OWN_PORTS.start;
    loop {
        let number = std::process::id().wrapping_mul(97).wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(OWN_PORTS.start + number % count).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) async fn commands_decide(cluster: &Cluster) {
    let alive = json!({"exec": {"command": ["/bin/sh", "-c", "test ! -e /work/sick || { echo sick; exit 1; }"]},
        "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 2});
    let main =
        with(shell("c", "rm -f /work/sick; sleep 2; touch /work/sick; sleep 1000"), "livenessProbe", alive);
    let main = with(main, "volumeMounts", json!([{"name": "work", "mountPath": "/work"}]));
    cluster.run("sick", json!({"containers": [main], "volumes": [{"name": "work", "emptyDir": {}}]})).await;
    let pod = cluster
        .wait("sick", "a restart", |pod| {
            let c = status(pod, "c");
            c["restartCount"].as_i64() >= Some(1) && c["state"]["running"].is_object()
        })
        .await;
    // The shell, as first process, leaves SIGTERM alone in a container; as a process of this machine it obeys.
    let code = &status(&pod, "c")["lastState"]["terminated"]["exitCode"];
    assert!(*code == 137 || *code == 143, "{pod}");
    cluster.wait_event("sick", "Unhealthy: Liveness probe failed: sick").await;
    cluster.wait_event("sick", "Killing: Container c failed liveness probe, will be restarted").await;
    cluster.remove("sick").await;
}

pub(crate) async fn http_decides(cluster: &Cluster) {
    let port = free_port();
    let script = format!("echo ok > /www/ready; busybox httpd -f -p 127.0.0.1:{port} -h /www & sleep 1000");
    let ready = json!({"httpGet": {"path": "/ready", "port": "web", "host": "127.0.0.1"}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 1});
    let main = with(shell("c", &script), "readinessProbe", ready);
    let main = with(main, "ports", json!([{"name": "web", "containerPort": port}]));
    let main = with(main, "volumeMounts", json!([{"name": "www", "mountPath": "/www"}]));
    let folder = cluster.path("www");
    std::fs::create_dir(&folder).unwrap();
    let spec = json!({"containers": [main], "volumes": [{"name": "www", "hostPath": {"path": folder}}]});
    cluster.run("web", spec).await;
    cluster.wait_ready("web").await;
    std::fs::remove_file(folder.join("ready")).unwrap();
    let pod =
        cluster.wait("web", "the end of readiness", |pod| condition(pod, "Ready")["status"] == "False").await;
    assert_eq!(
        conditions(&pod, PROGRESS),
        ["True", "True", "False ContainersNotReady", "False ContainersNotReady"]
    );
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    assert_eq!((&status(&pod, "c")["ready"], &status(&pod, "c")["restartCount"]), (&json!(false), &json!(0)));
    cluster
        .wait_event("web", "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 404")
        .await;
    std::fs::write(folder.join("ready"), "ok").unwrap();
    cluster.wait_ready("web").await;
    cluster.remove("web").await;
}

pub(crate) async fn a_socket_ends_the_start(cluster: &Cluster) {
    let (port, folder) = (free_port(), cluster.path("socket"));
    std::fs::create_dir(&folder).unwrap();
    let script = format!(
        "while ! test -e /go/now; do sleep 0.1; done; busybox httpd -f -p 127.0.0.1:{port} -h /tmp & sleep 1000"
    );
    let start =
        json!({"tcpSocket": {"port": port, "host": "127.0.0.1"}, "periodSeconds": 1, "failureThreshold": 60});
    let main = with(shell("c", &script), "startupProbe", start);
    let main = with(main, "volumeMounts", json!([{"name": "go", "mountPath": "/go"}]));
    let volumes = json!([{"name": "go", "hostPath": {"path": folder}}]);
    cluster.run("socket", json!({"containers": [main], "volumes": volumes})).await;
    let early =
        cluster.wait("socket", "its container", |pod| status(pod, "c")["state"]["running"].is_object()).await;
    assert_eq!(
        (&status(&early, "c")["started"], &status(&early, "c")["ready"]),
        (&json!(false), &json!(false))
    );
    let refused = format!("Startup probe failed: dial tcp 127.0.0.1:{port}: connect: connection refused");
    cluster.wait_event("socket", &refused).await;
    std::fs::write(folder.join("now"), "").unwrap();
    let pod = cluster.wait_ready("socket").await;
    assert_eq!(status(&pod, "c")["started"], true);
    cluster.remove("socket").await;
}

/// A gRPC server that says of one service whether it is well.
#[derive(Clone, Default)]
struct Doctor(Arc<AtomicBool>);

#[tonic::async_trait]
impl Health for Doctor {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        if request.get_ref().service != "patient" {
            return Err(Status::not_found("unknown service"));
        }
        let is_well = self.0.load(Ordering::SeqCst);
        let status = if is_well { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(tonic::Response::new(HealthCheckResponse { status: status.into() }))
    }
}

/// The server is the test's own: with the host's network it is where the pod is.
pub(crate) async fn grpc_decides(cluster: &Cluster) {
    let doctor = Doctor::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = HealthServer::new(doctor.clone());
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(server.clone());
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let ask = |service: &str| json!({"grpc": {"port": port, "service": service}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 1});
    let main = with(shell("c", "sleep 1000"), "readinessProbe", ask("patient"));
    let other = with(shell("other", "sleep 1000"), "readinessProbe", ask("nobody"));
    let closed =
        with(shell("closed", "sleep 1000"), "readinessProbe", json!({"grpc": {"port": free_port()}}));
    cluster.run("grpc", json!({"containers": [main, other, closed]})).await;
    cluster
        .wait_event("grpc", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")
        .await;
    let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
    cluster.wait_event("grpc", unknown).await;
    cluster
        .wait_event("grpc", "Readiness probe failed: timeout: failed to connect service \"127.0.0.1:")
        .await;
    assert_eq!(status(&cluster.pod("grpc").await.unwrap(), "c")["ready"], false);
    doctor.0.store(true, Ordering::SeqCst);
    cluster.wait("grpc", "readiness", |pod| status(pod, "c")["ready"] == true).await;
    assert_eq!(status(&cluster.pod("grpc").await.unwrap(), "other")["ready"], false);
    cluster.remove("grpc").await;
    serving.abort();
}
