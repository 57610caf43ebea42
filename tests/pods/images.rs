//! Images: those that are there, those that cannot be had, and those that ask for a secret.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, once, shell, status, with};
use crate::machine::MANIFEST;

/// What the tests' image is also called; a runtime that knows both names tells either of them.
pub(crate) const PRIVATE: &str = "/private/app:1";

pub(crate) async fn images_that_cannot_be_had(cluster: &Cluster) {
    let image = "127.0.0.1:1/no/such:1";
    cluster.run("no-image", once(with(shell("c", "true"), "image", json!(image)))).await;
    let failed = |reason: &'static str| {
        move |pod: &serde_json::Value| status(pod, "c")["state"]["waiting"]["reason"] == reason
    };
    let pod = cluster.wait("no-image", "ErrImagePull", failed("ErrImagePull")).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let message = status(&pod, "c")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("rpc error: code = ") && message.contains("connection refused"), "{message}");
    let pod = cluster.wait("no-image", "ImagePullBackOff", failed("ImagePullBackOff")).await;
    let waiting = &status(&pod, "c")["state"]["waiting"]["message"];
    assert!(
        waiting.as_str().unwrap().starts_with(&format!("Back-off pulling image \"{image}\"")),
        "{waiting}"
    );
    cluster.wait_event("no-image", "Failed: Error: ErrImagePull").await;
    cluster.wait_event("no-image", "Failed: Error: ImagePullBackOff").await;
    cluster.remove("no-image").await;

    let never = with(with(shell("c", "true"), "image", json!(image)), "imagePullPolicy", json!("Never"));
    cluster.run("never", once(never)).await;
    let pod = cluster.wait("never", "ErrImageNeverPull", failed("ErrImageNeverPull")).await;
    let message = format!("Container image \"{image}\" is not present with pull policy of Never");
    assert_eq!(status(&pod, "c")["state"]["waiting"]["message"], message);
    cluster.remove("never").await;
}

pub(crate) async fn secrets_open_registries(cluster: &Cluster) {
    let registry = Registry::start(cluster.machine_path().unwrap().join("image")).await;
    let image = format!("{}{PRIVATE}", registry.address);
    let auth = |password: &str| {
        let servers =
            json!({"auths": {registry.address.to_string(): {"username": "me", "password": password}}});
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": servers.to_string()}})
    };
    for (name, password) in [("right", PASSWORD), ("wrong", "guess")] {
        cluster.create("secrets", with(auth(password), "metadata", json!({"name": name}))).await;
    }
    let pod = |secrets: Value| {
        with(once(with(shell("c", "echo pulled"), "image", json!(image))), "imagePullSecrets", secrets)
    };
    cluster.run("closed", pod(json!([{"name": "wrong"}, {"name": "missing"}]))).await;
    cluster
        .wait("closed", "a refusal", |pod| status(pod, "c")["state"]["waiting"]["reason"] == "ErrImagePull")
        .await;
    let missing = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (missing)";
    cluster.wait_event("closed", missing).await;
    cluster.remove("closed").await;
    cluster.run("open", pod(json!([{"name": "wrong"}, {"name": "right"}]))).await;
    let pod = cluster.wait_phase("open", "Succeeded").await;
    assert_eq!(status(&pod, "c")["image"], image);
    assert!(status(&pod, "c")["imageID"].as_str().unwrap().contains("sha256:"), "{pod}");
    cluster.wait_event("open", &format!("Pulled: Successfully pulled image \"{image}\" in ")).await;
    assert_eq!(cluster.log("open", "").await.unwrap(), "pulled\n");
    cluster.remove("open").await;
}

const PASSWORD: &str = "open sesame";

/// An image registry with one image, for those who know the password.
struct Registry {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Registry {
    /// Serves the image that lies in `layout` as OCI lays images out.
    async fn start(layout: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let layout = layout.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&layout, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let serve =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(serve);
            }
        });
        Registry { address, _task: task }
    }
}

fn answer(layout: &Path, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let expected = format!("Basic {}", base64(&format!("me:{PASSWORD}")));
    let reply = |code: u16| Response::builder().status(code);
    if request.headers().get("authorization").is_none_or(|given| given.as_bytes() != expected.as_bytes()) {
        return reply(401).header("www-authenticate", "Basic realm=\"test\"").body(Full::default()).unwrap();
    }
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let digest = if last == "1" { manifest.as_str() } else { last };
    let media = if digest == manifest { MANIFEST } else { "application/octet-stream" };
    match fs::read(layout.join("blobs").join(digest.replace(':', "/"))) {
        Ok(blob) => {
            let head = reply(200).header("content-type", media).header("docker-content-digest", digest);
            head.header("content-length", blob.len()).body(Full::from(blob)).unwrap()
        }
        Err(_) => reply(404).body(Full::default()).unwrap(),
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
