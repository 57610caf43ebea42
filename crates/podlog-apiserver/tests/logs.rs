//! The way of log bytes through the API server, from a kubelet that does what the test says.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use harness::Cluster;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use podlog_api::resource::find;
use podlog_api::{Compatibility, Object};
use podlog_apiserver::{AuditConfig, AuditLogConfig};
use podlog_serving::pki::{CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Body, Connection, Dialer, Handler, Limits, NodeBody, NodeClient, NodeClientConfig, Peer, Server,
    ServerTls, Verify, stream_body, text_body,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that are not UTF-8, and no newline at the end.
const LOG: &[u8] = b"one\n\xff\xfe two\nthree";

/// Answers by container name.
#[derive(Default)]
struct FakeKubelet {
    cancelled: Notify,
    /// Somebody waits for an answer that does not come.
    muted: Notify,
    sent: AtomicUsize,
}

struct Kubelet(Arc<FakeKubelet>);

#[async_trait]
impl Handler for Kubelet {
    async fn handle(&self, request: Request<hyper::body::Incoming>, peer: Peer) -> Response<Body> {
        let target = request.uri().path_and_query().unwrap().as_str().to_owned();
        let container = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let fake = self.0.clone();
        if let Some(code) = container.strip_prefix("code-") {
            let mut refused = Response::new(text_body("kubelet says no"));
            *refused.status_mut() = StatusCode::from_u16(code.parse().unwrap()).unwrap();
            return refused;
        }
        if container == "mirror" {
            return mirror(request, &peer).await;
        }
        if container == "mute" {
            self.0.muted.notify_one();
            return std::future::pending().await;
        }
        let matches = target.contains("match=");
        let (sender, body) = stream_body();
        tokio::spawn(async move {
            match container.as_str() {
                "echo" => sender.send(target).await.unwrap(),
                "log" => sender.send(LOG).await.unwrap(),
                "broken" => {
                    sender.send(LOG).await.unwrap();
                    return sender.fail("the disk is gone").await;
                }
                "endless" => {
                    sender.send(LOG).await.unwrap();
                    sender.closed().await;
                    return fake.cancelled.notify_one();
                }
                "flood" => {
                    while sender.send(vec![b'x'; 16 << 10]).await.is_ok() {
                        fake.sent.fetch_add(16 << 10, Ordering::SeqCst);
                    }
                    return fake.cancelled.notify_one();
                }
                "" => sender.send("nothing").await.unwrap(),
                other => panic!("no script for {other}"),
            }
            sender.finish().await;
        });
        let mut response = Response::new(body);
        if matches {
            response.headers_mut().insert("podlog-log-options", "match".parse().unwrap());
            response.headers_mut().insert("podlog-log-resumed", "gone; bytes=7".parse().unwrap());
        }
        response
    }
}

/// What was asked, back: method, target, some headers, body; and over which connection.
async fn mirror(request: Request<hyper::body::Incoming>, peer: &Peer) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let shown = ["authorization", "impersonate-user", "x-mine", "x-forwarded-for", "x-forwarded-uri"]
        .map(|name| parts.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    let said =
        format!("{} {} {} {}", parts.method, parts.uri, shown.join(" "), String::from_utf8_lossy(&body));
    let mut response = Response::new(text_body(said));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert("location", "/logs/".parse().unwrap());
    response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
    response.headers_mut().insert("x-connection", peer.address.port().to_string().parse().unwrap());
    response
}

struct Scene {
    cluster: Cluster,
    kubelet: Arc<FakeKubelet>,
    client: NodeClient,
    _shutdown: DropGuard,
}

impl Scene {
    async fn start() -> Scene {
        Self::start_with(Compatibility::Exact).await
    }

    async fn start_with(compatibility: Compatibility) -> Scene {
        Self::on(Cluster::start(compatibility).await).await
    }

    /// With a kubelet and pods on it.
    async fn on(cluster: Cluster) -> Scene {
        let folder = cluster.folder.path();
        let files = KeyPairFiles::in_folder(folder, "kubelet");
        cluster.authority.ensure(&files, &CertificateRequest::serving("n1", ["127.0.0.1"])).unwrap();
        let tls = ServerTls::load(files).unwrap();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await.unwrap();
        let port = server.local_addr().port();
        let (kubelet, shutdown) = (Arc::new(FakeKubelet::default()), CancellationToken::new());
        tokio::spawn(server.serve(Arc::new(Kubelet(kubelet.clone())), shutdown.clone()));
        let scene =
            Scene { client: client(&cluster, "admin"), cluster, kubelet, _shutdown: shutdown.drop_guard() };
        scene.node("n1", json!([{"type": "InternalIP", "address": "127.0.0.1"}]), port).await;
        scene
            .pod(
                "many",
                "n1",
                &["log", "echo", "broken", "endless", "flood", "mute", "code-401", "code-404", "code-500"],
            )
            .await;
        scene.pod("one", "n1", &["echo"]).await;
        scene
    }

    async fn create(&self, plural: &str, namespace: &str, value: Value) {
        let registry = self.cluster.server.registry();
        registry.create(find("", "v1", plural).unwrap(), namespace, Object::new(value)).await.unwrap();
    }

    async fn node(&self, name: &str, addresses: Value, port: u16) {
        let status = json!({"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
        self.create("nodes", "", json!({"metadata": {"name": name}, "status": status})).await;
    }

    async fn pod(&self, name: &str, node: &str, containers: &[&str]) {
        if self
            .cluster
            .server
            .registry()
            .find(find("", "v1", "serviceaccounts").unwrap(), "default", "default")
            .unwrap()
            .is_none()
        {
            self.create("serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await;
        }
        let containers: Vec<Value> = containers.iter().map(|c| json!({"name": c, "image": "i"})).collect();
        let mut spec = json!({"containers": containers});
        if !node.is_empty() {
            spec["nodeName"] = json!(node);
        }
        self.create("pods", "default", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// A connection on which the administrator has asked for a WebSocket.
    async fn websocket(&self, path: &str) -> Box<dyn Connection> {
        let pair = KeyPairFiles::in_folder(self.cluster.folder.path(), "admin");
        let ca = Some(self.cluster.authority.certificate_path().to_owned());
        let port = self.cluster.server.local_addr().port();
        let mut connection = Dialer::https(ca, Some(pair)).unwrap().dial("127.0.0.1", port).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection
    }

    async fn get(&self, path: &str) -> Response<NodeBody> {
        get(&self.client, &self.cluster, path).await
    }

    async fn log(&self, pod_and_query: &str) -> (u16, Vec<u8>) {
        let (pod, query) = pod_and_query.split_once('?').unwrap_or((pod_and_query, ""));
        let response = self.get(&format!("/api/v1/namespaces/default/pods/{pod}/log?{query}")).await;
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
}

fn client(cluster: &Cluster, name: &str) -> NodeClient {
    let pair = KeyPairFiles::in_folder(cluster.folder.path(), name);
    let ca = Some(cluster.authority.certificate_path().to_owned());
    NodeClient::new(NodeClientConfig { client: Some(pair), ca, ..NodeClientConfig::default() }).unwrap()
}

async fn get(client: &NodeClient, cluster: &Cluster, path: &str) -> Response<NodeBody> {
    let address = cluster.server.local_addr();
    client.get("127.0.0.1", address.port(), path, Verify::Ca).await.unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap_or_else(|_| panic!("no {what} within 10 s"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_as_they_are() {
    let scene = Scene::start().await;
    let response = scene.get("/api/v1/namespaces/default/pods/many/log?container=log").await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["cache-control"], "no-cache, private");
    assert!(response.headers().contains_key("audit-id"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), LOG);
    let asked =
        scene.log("one?tailLines=5&follow=true&pretty=1&sinceTime=2026-01-02T03:04:05.678Z&timestamps").await;
    let expected = "/containerLogs/default/one/echo?follow=true&sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=5&timestamps=true";
    assert_eq!(asked, (200, expected.as_bytes().to_vec()));
}

/// With an audit log of all that is asked.
async fn audited() -> Scene {
    let cluster = Cluster::start_with(|config, folder| {
        let policy = folder.join("policy.yaml");
        let rules = "{level: None, verbs: [list]}, {level: RequestResponse}";
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{rules}]\n");
        std::fs::write(&policy, text).unwrap();
        let path = folder.join("audit.log");
        let log = AuditLogConfig { path, max_bytes: 1 << 20, max_backups: None, max_age_days: None };
        config.audit = Some(AuditConfig { policy, log });
    })
    .await;
    Scene::on(cluster).await
}

impl Scene {
    /// What is noted of a URI once there are so many events of it: stages, codes and words.
    async fn noted(&self, uri: &str, count: usize) -> Vec<String> {
        let path = self.cluster.folder.path().join("audit.log");
        let events = || -> Vec<Value> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| event["requestURI"] == uri).collect()
        };
        let all = async {
            while events().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(&format!("{count} events of {uri}"), all).await;
        for event in events() {
            assert_eq!(event["responseObject"]["kind"].as_str().unwrap_or("Status"), "Status", "{event}");
        }
        let shown = |event: &Value| {
            let status = &event["responseStatus"];
            let words = [&event["stage"], &status["code"], &status["message"]].map(|part| match part {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            });
            words.join(" ").trim().to_owned()
        };
        events().iter().map(shown).collect()
    }
}

const BEGUN: [&str; 2] = ["RequestReceived", "ResponseStarted 200"];
const ENDED: [&str; 3] = ["RequestReceived", "ResponseStarted 200", "ResponseComplete 200"];

/// What lasts is noted when it is asked for, when its answer begins, and when it has ended, however it ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_lasts_is_noted_when_it_begins_and_when_it_ends() {
    let scene = audited().await;
    let logs = "/api/v1/namespaces/default/pods/many/log?container=";

    // The client leaves.
    for uri in [format!("{logs}endless&follow=true"), "/api/v1/pods?watch=true".to_owned()] {
        let mut body = scene.get(&uri).await.into_body();
        soon("first bytes", body.frame()).await.unwrap().unwrap();
        assert_eq!(scene.noted(&uri, 2).await, BEGUN, "{uri} goes on");
        drop(body);
        assert_eq!(scene.noted(&uri, 3).await, ENDED, "{uri}");
    }
    // The same over a WebSocket, which has no answer that lasts.
    let uri = format!("{logs}endless&follow=true&timestamps=true");
    let mut socket = scene.websocket(&uri).await;
    let mut read = [0; 12];
    soon("the answer's first bytes", socket.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"HTTP/1.1 101");
    assert_eq!(scene.noted(&uri, 2).await, ["RequestReceived", "ResponseStarted 101"], "{uri} goes on");
    drop(socket);
    assert_eq!(scene.noted(&uri, 3).await[2], "ResponseComplete 101", "{uri}");
    // The kubelet breaks off, or it ends as it should.
    for (uri, ends_well) in [
        (format!("{logs}broken&follow=true"), false),
        (format!("{logs}log"), true),
        ("/api/v1/nodes/n1/proxy/log".to_owned(), true),
        ("/api/v1/pods?watch=true&timeoutSeconds=1".to_owned(), true),
    ] {
        let read = scene.get(&uri).await.into_body().collect().await;
        assert_eq!(read.is_ok(), ends_well, "{uri}");
        assert_eq!(scene.noted(&uri, 3).await, ENDED, "{uri}");
    }
    // It is refused.
    let uri = "/api/v1/namespaces/default/pods/missing/log?";
    assert_eq!(scene.log("missing").await.0, 404);
    let said = |stage: &str| format!("{stage} 404 pods \"missing\" not found");
    let refused = ["RequestReceived".to_owned(), said("ResponseStarted"), said("ResponseComplete")];
    assert_eq!(scene.noted(uri, 3).await, refused);
    // Whoever asked has gone before there was an answer.
    let uri = format!("{logs}mute&follow=true");
    tokio::select! {
        _ = scene.get(&uri) => panic!("there is no answer"),
        () = soon("request", scene.kubelet.muted.notified()) => {}
    }
    let said = |stage: &str| format!("{stage} 500 context canceled");
    let left = ["RequestReceived".to_owned(), said("ResponseStarted"), said("ResponseComplete")];
    assert_eq!(scene.noted(&uri, 3).await, left);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_which_hop_failed() {
    let scene = Scene::start().await;
    scene.pod("homeless", "", &["a"]).await;
    scene.pod("orphan", "gone", &["a"]).await;
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let free = taken.local_addr().unwrap().port();
    scene.node("down", json!([{"type": "InternalIP", "address": "127.0.0.1"}]), free).await;
    scene.node("nowhere", json!([]), 1).await;
    scene.pod("unreachable", "down", &["a"]).await;
    scene.pod("unaddressed", "nowhere", &["a"]).await;
    let refused = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"Get \"https://127.0.0.1:{free}/containerLogs/default/unreachable/a\": dial tcp 127.0.0.1:{free}: connect: connection refused","code":500}}"#
    );
    let rows: &[(&str, u16, &str)] = &[
        (
            "missing?tailLines=-1",
            422,
            r#""message":"PodLogOptions \"missing\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0""#,
        ),
        ("missing?tailLines=x", 400, r#"strconv.ParseInt: parsing \"x\": invalid syntax"#),
        (
            "missing",
            404,
            r#""message":"pods \"missing\" not found","reason":"NotFound","details":{"name":"missing","kind":"pods"}"#,
        ),
        ("many", 400, "a container name must be specified for pod many, choose one of: [log echo "),
        ("many?container=zzz", 400, "container zzz is not valid for pod many"),
        ("homeless", 204, ""),
        ("orphan", 404, r#"nodes \"gone\" not found"#),
        ("unaddressed", 500, r#""message":"no preferred addresses found; known addresses: []","code":500"#),
        ("unreachable", 500, &refused),
        (
            "many?container=code-401",
            401,
            r#"the server has asked for the client to provide credentials ( pods/log many)"#,
        ),
        (
            "many?container=code-404",
            404,
            r#"the server could not find the requested resource ( pods/log many)"#,
        ),
        ("many?container=code-500", 500, r#"Internal error occurred: kubelet says no"#),
    ];
    for (target, code, text) in rows {
        let (found, body) = scene.log(target).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(found, *code, "{target}: {body}");
        assert!(body.contains(text), "{target}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_can_be_chosen_unless_upstreams_rules_are_wanted() {
    for (compatibility, code, text) in [
        (Compatibility::Exact, 200, "stream=Stdout&tailLines=1"),
        (Compatibility::Upstream, 422, "stream: Forbidden: may not be specified"),
    ] {
        let scene = Scene::start_with(compatibility).await;
        let (found, body) = scene.log("one?tailLines=1&stream=Stdout").await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(found, code, "{body}");
        assert!(body.contains(text), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_beyond_kubernetes_reach_the_kubelet_and_its_word_comes_back() {
    for (compatibility, query, honoured) in [
        (
            Compatibility::Exact,
            "?cursors=true&match=a&match=b+c&untilTime=2026-01-01T00%3A00%3A00.5Z",
            Some("match"),
        ),
        (Compatibility::Upstream, "", None),
    ] {
        let scene = Scene::start_with(compatibility).await;
        let query_asked = "untilTime=2026-01-01T00:00:00.5Z&match=a&match=b%20c&cursors=1";
        let response = scene.get(&format!("/api/v1/namespaces/default/pods/one/log?{query_asked}")).await;
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("podlog-log-options").as_deref(), honoured);
        assert_eq!(header("podlog-log-resumed").as_deref(), honoured.map(|_| "gone; bytes=7"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("/containerLogs/default/one/echo{query}").as_bytes());
    }
    let scene = Scene::start().await;
    let (code, body) = scene.log("one?untilSeconds=-1&tailLines=-1").await;
    let body = String::from_utf8(body).unwrap();
    let text = "[tailLines: Invalid value: -1: must be greater than or equal to 0, untilSeconds: Invalid value: -1: must be greater than or equal to 0]";
    assert_eq!(code, 422, "{body}");
    assert!(body.contains(text), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_never_ends_as_if_it_were_complete() {
    let scene = Scene::start().await;
    let mut body = scene.get("/api/v1/namespaces/default/pods/many/log?container=broken").await.into_body();
    let mut read = Vec::new();
    let end = loop {
        match soon("frame", body.frame()).await {
            Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap_or_default()),
            other => break other,
        }
    };
    assert_eq!(read, LOG, "what came before the failure arrives");
    assert!(matches!(end, Some(Err(_))), "the client has to see that the log is not complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_ends_the_kubelets_work_at_once() {
    let scene = Scene::start().await;
    let path = "/api/v1/namespaces/default/pods/many/log?container=endless&follow=true";
    let mut body = scene.get(path).await.into_body();
    soon("first bytes", body.frame()).await.unwrap().unwrap();
    drop(body);
    soon("cancellation", scene.kubelet.cancelled.notified()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_kubelet_back() {
    let scene = Scene::start().await;
    let mut body = scene.get("/api/v1/namespaces/default/pods/many/log?container=flood").await.into_body();
    soon("first bytes", body.frame()).await.unwrap().unwrap();
    let mut before = usize::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sent = scene.kubelet.sent.load(Ordering::SeqCst);
        if sent == before {
            break;
        }
        before = sent;
    }
    // Windows of two connections, and four chunks in each of two queues.
    assert!(before < 8 << 20, "{before} bytes were taken from the kubelet for a client that reads nothing");
    let left = std::time::Instant::now();
    drop(body);
    soon("cancellation", scene.kubelet.cancelled.notified()).await;
    assert!(left.elapsed() < Duration::from_secs(2), "a client that has gone is noticed at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_for_no_follower() {
    let scene = Scene::start().await;
    let mut open = Vec::new();
    for container in ["endless", "flood"] {
        let path = format!("/api/v1/namespaces/default/pods/many/log?container={container}&follow=true");
        let mut body = scene.get(&path).await.into_body();
        soon("first bytes", body.frame()).await.unwrap().unwrap();
        open.push(body);
    }
    let mut watch = scene.get("/api/v1/pods?watch=true").await.into_body();
    soon("first event", watch.frame()).await.unwrap().unwrap();
    let begin = std::time::Instant::now();
    let drained = soon("end", scene.cluster.server.shutdown()).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(drained.cut, 2, "followers are cut; the watch ends by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_only_for_those_who_may_read_them() {
    let scene = Scene::start().await;
    scene.cluster.write_kubeconfig("ann", "ann", None);
    let ann = client(&scene.cluster, "ann");
    let response = get(&ann, &scene.cluster, "/api/v1/namespaces/default/pods/one/log").await;
    assert_eq!(response.status(), 403);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body);
    let refusal = r#"pods \"one\" is forbidden: User \"ann\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""#;
    assert!(text.contains(refusal), "{text}");
    assert!(text.contains(r#""details":{"name":"one","kind":"pods"}"#), "{text}");

    let rbac = "rbac.authorization.k8s.io";
    let registry = scene.cluster.server.registry();
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]});
    registry.create(find(rbac, "v1", "roles").unwrap(), "default", Object::new(role)).await.unwrap();
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": rbac}]});
    registry
        .create(find(rbac, "v1", "rolebindings").unwrap(), "default", Object::new(binding))
        .await
        .unwrap();
    let allowed = async {
        while get(&ann, &scene.cluster, "/api/v1/namespaces/default/pods/one/log").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("effect of the new binding", allowed).await;
    let whole_pod = get(&ann, &scene.cluster, "/api/v1/namespaces/default/pods/one").await;
    assert_eq!(whole_pod.status(), 403, "pods/log is not pods");
}

/// Whatever the method, the kubelet gets it with its body, but without what says who asks.
async fn check_methods(scene: &Scene, port: u16) {
    let ask = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/nodes/n1/proxy{path}"))
            .header("x-mine", "kept")
            .header("x-remote-user", "root")
            .body(text_body("body"));
        scene.client.forward("127.0.0.1", port, request.unwrap()).await.unwrap()
    };
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let (parts, body) = ask(method, "/a/mirror?b=c").await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let expected =
            format!("{method} /a/mirror?b=c - - kept 127.0.0.1 /api/v1/nodes/n1/proxy/a/mirror body");
        assert_eq!((parts.status.as_u16(), body.as_ref()), (202, expected.as_bytes()), "{method}");
        assert_eq!(parts.headers["location"], "/api/v1/nodes/n1/proxy/logs/");
        assert_eq!(parts.headers.get("access-control-allow-origin"), None);
    }
    assert_eq!(ask("HEAD", "/mirror").await.status(), 202);
    assert_eq!(ask("POST", "").await.status(), 200, "only what reads is sent to where a slash is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_kubelet_goes_over_a_connection_that_is_there() {
    let scene = Scene::start().await;
    let asked_over = async || {
        let response = scene.get("/api/v1/nodes/n1/proxy/mirror").await;
        let connection = response.headers()["x-connection"].clone();
        response.into_body().collect().await.unwrap();
        connection
    };
    let first = asked_over().await;
    // It is free again a moment after its answer has been read.
    let again = async { while asked_over().await != first {} };
    soon("second request over the same connection", again).await;
    // An answer that is not read takes its connection with it.
    let mut endless = scene.get("/api/v1/nodes/n1/proxy/endless").await.into_body();
    soon("first bytes", endless.frame()).await.unwrap().unwrap();
    drop(endless);
    soon("end", scene.kubelet.cancelled.notified()).await;
    asked_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_kubelet_is_reached_by_those_who_may() {
    let scene = Scene::start().await;
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let free = taken.local_addr().unwrap().port();
    scene.node("down", json!([{"type": "InternalIP", "address": "127.0.0.1"}]), free).await;
    let refused =
        format!("error trying to reach service: dial tcp 127.0.0.1:{free}: connect: connection refused");
    for (path, code, text) in [
        ("n1/proxy/stats/echo?only=cpu", 200, "/stats/echo?only=cpu"),
        ("https:n1:/proxy/a%2Fb/echo", 200, "/a%2Fb/echo"),
        ("n1/proxy/code-500", 500, "kubelet says no"),
        ("down/proxy/healthz", 503, refused.as_str()),
        ("gone/proxy/healthz", 404, r#"nodes \"gone\" not found"#),
        ("n1:22/proxy/", 400, "only the kubelet of node n1 can be reached"),
    ] {
        let response = scene.get(&format!("/api/v1/nodes/{path}")).await;
        assert_eq!(response.status(), code, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(text), "{path}: {body:?}");
    }
    let address = scene.cluster.server.local_addr();
    let moved = scene.client.get("127.0.0.1", address.port(), "/api/v1/nodes/n1/proxy?a=b", Verify::Ca).await;
    let moved = moved.map(|response| response.status()).unwrap_err().url;
    assert_eq!(moved, "/api/v1/nodes/n1/proxy/?a=b", "what has no slash is sent to what has one");
    check_methods(&scene, address.port()).await;
    scene.cluster.write_kubeconfig("ann", "ann", None);
    let ann = client(&scene.cluster, "ann");
    let response = get(&ann, &scene.cluster, "/api/v1/nodes/n1/proxy/stats/echo").await;
    assert_eq!(response.status(), 403);
}
