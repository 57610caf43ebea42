//! A kubelet with everything around it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podlog_api::Compatibility;
use podlog_kubelet::config::KubeletConfiguration;
use podlog_kubelet::runtime::ContainerRuntime;
use podlog_kubelet::{ApiConnection, Kubelet, KubeletOptions};
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{
    Dialer, NodeBody, NodeClient, NodeClientConfig, ServerTls, Verify, install_crypto_provider,
};
use serde_json::Value;

use crate::api::Api;
use crate::runtime::FakeRuntime;

pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) api: Api,
    pub(crate) runtime: Arc<FakeRuntime>,
    /// What the kubelet has in its place.
    pub(crate) seen: Option<Arc<dyn ContainerRuntime>>,
    pub(crate) config: KubeletConfiguration,
    pub(crate) compatibility: Compatibility,
    kubelet: Option<Kubelet>,
    pub(crate) authority: CertificateAuthority,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Bench {
    /// Everything but the kubelet.
    pub(crate) async fn idle() -> Self {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path(), "ca", "test-ca").unwrap();
        Bench {
            api: Api::start().await,
            runtime: FakeRuntime::new(),
            seen: None,
            config: KubeletConfiguration::default(),
            compatibility: Compatibility::default(),
            kubelet: None,
            directory,
            authority,
        }
    }

    pub(crate) async fn new() -> Self {
        Bench::with(Compatibility::Exact).await
    }

    pub(crate) async fn with(compatibility: Compatibility) -> Self {
        let mut bench = Bench::idle().await;
        bench.compatibility = compatibility;
        bench.start().await;
        bench
    }

    pub(crate) async fn start(&mut self) {
        let files = KeyPairFiles::in_folder(self.directory.path(), "kubelet");
        self.authority.ensure(&files, &CertificateRequest::serving("node-1", ["127.0.0.1"])).unwrap();
        let options = KubeletOptions {
            node_name: "node-1".into(),
            node_ip: None,
            node_labels: Default::default(),
            listen: "127.0.0.1:0".parse().unwrap(),
            healthz: None,
            root_dir: self.path("kubelet"),
            pod_logs_dir: self.path("pods"),
            container_links_dir: self.path("containers"),
            config: self.config.clone(),
            compatibility: self.compatibility,
            serving: ServerTls::load(files).unwrap(),
            client_ca: Some(self.authority.certificate_path().to_owned()),
            api_server: Some(ApiConnection { client: self.api.client(), address: self.api.address }),
        };
        let runtime = self.seen.clone().unwrap_or_else(|| self.runtime.clone());
        self.kubelet = Some(Kubelet::start(options, runtime).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.kubelet.take().unwrap().shutdown().await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client of the kubelet as `user`; `None` shows no certificate.
    pub(crate) fn client(&self, user: Option<&str>) -> NodeClient {
        let client = user.map(|user| {
            let files = KeyPairFiles::in_folder(self.directory.path(), user);
            self.authority.ensure(&files, &CertificateRequest::client(user, None)).unwrap();
            files
        });
        let ca = Some(self.authority.certificate_path().to_owned());
        NodeClient::new(NodeClientConfig { client, ca, ..NodeClientConfig::default() }).unwrap()
    }

    /// Where the kubelet listens.
    pub(crate) fn port(&self) -> u16 {
        self.kubelet.as_ref().unwrap().local_addr().port()
    }

    pub(crate) async fn request(&self, user: Option<&str>, path: &str) -> Response<NodeBody> {
        self.client(user).get("127.0.0.1", self.port(), path, Verify::Ca).await.unwrap()
    }

    /// Code and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(Some("admin"), path).await
    }

    /// The body of a success.
    pub(crate) async fn get_bytes(&self, path: &str) -> Vec<u8> {
        let response = self.request(Some("admin"), path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    pub(crate) async fn get_as(&self, user: Option<&str>, path: &str) -> (u16, String) {
        body_of(self.request(user, path).await).await
    }

    /// Makes connections as `user`; `None` shows no certificate.
    pub(crate) fn dialer(&self, user: Option<&str>) -> Dialer {
        let client = user.map(|user| {
            let files = KeyPairFiles::in_folder(self.directory.path(), user);
            self.authority.ensure(&files, &CertificateRequest::client(user, None)).unwrap();
            files
        });
        Dialer::tls(self.authority.certificate_path().to_owned(), client).unwrap()
    }

    /// The same, with a certificate of an authority that the kubelet does not know.
    pub(crate) fn stranger(&self, user: &str) -> Dialer {
        let other = CertificateAuthority::load_or_create(self.directory.path(), "other", "other").unwrap();
        let files = KeyPairFiles::in_folder(self.directory.path(), "stranger");
        other.ensure(&files, &CertificateRequest::client(user, None)).unwrap();
        Dialer::tls(self.authority.certificate_path().to_owned(), Some(files)).unwrap()
    }

    /// Any request: code and body.
    pub(crate) async fn send(
        &self,
        dialer: &Dialer,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> (u16, String) {
        let connection = dialer.dial("127.0.0.1", self.port()).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await;
        let (mut sender, driver) = handshake.unwrap();
        tokio::spawn(driver);
        let mut request = Request::builder().method(method).uri(format!("https://node-1{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(String::new()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until `check` finds something.
    pub(crate) async fn wait<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a pod has this phase, and returns it.
    pub(crate) async fn wait_phase(&self, pod: &str, phase: &str) -> Value {
        self.wait(&format!("{pod} to be {phase}"), |bench| {
            bench.api.pod(pod).filter(|pod| pod["status"]["phase"] == phase)
        })
        .await
    }

    pub(crate) async fn wait_event(&self, object: &str, text: &str) {
        self.wait(&format!("event {text:?} among {:?}", self.api.events(object)), |bench| {
            bench.api.events(object).iter().any(|event| event == text).then_some(())
        })
        .await;
    }
}

/// Code and body.
pub(crate) async fn body_of(response: Response<NodeBody>) -> (u16, String) {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}
