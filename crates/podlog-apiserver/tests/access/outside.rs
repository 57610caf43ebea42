//! Servers that are not ours: what they are asked, and what they answer, over TLS.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{Body, Handler, Limits, Peer, Server, ServerTls, json_body};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Path and body of a request to its answer; `None` is 404.
type Answers = dyn Fn(&str, &Value) -> Option<Value> + Send + Sync;

/// A running server. It ends with the test.
pub(crate) struct Outside {
    pub(crate) url: String,
    /// Path and body of every request so far.
    pub(crate) asked: Arc<Mutex<Vec<(String, Value)>>>,
    stop: CancellationToken,
}

struct Answering {
    answers: Box<Answers>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

#[async_trait]
impl Handler for Answering {
    async fn handle(&self, request: Request<hyper::body::Incoming>, _: Peer) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let answer = (self.answers)(&path, &body);
        self.asked.lock().push((path, body));
        let code = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let mut response = Response::new(json_body(answer.unwrap_or_default().to_string().into_bytes()));
        *response.status_mut() = code;
        response
    }
}

impl Outside {
    /// Serves with a certificate of `<folder>/outside-ca.crt`, an authority of its own.
    pub(crate) async fn start(
        folder: &Path,
        answers: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Outside {
        podlog_serving::install_crypto_provider();
        let authority = CertificateAuthority::load_or_create(folder, "outside-ca", "outside").unwrap();
        let files = KeyPairFiles::in_folder(folder, "outside");
        authority.ensure(&files, &CertificateRequest::serving("outside", ["127.0.0.1"])).unwrap();
        let tls = ServerTls::load(files).unwrap();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await.unwrap();
        let (url, asked, stop) =
            (format!("https://{}", server.local_addr()), Arc::default(), CancellationToken::new());
        let handler = Answering { answers: Box::new(answers), asked: Arc::clone(&asked) };
        tokio::spawn(server.serve(Arc::new(handler), stop.clone()));
        Outside { url, asked, stop }
    }

    /// A file that says where this server is, in kubeconfig's form.
    pub(crate) fn webhook_file(&self, folder: &Path, name: &str) -> std::path::PathBuf {
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: '{}/{name}', certificate-authority: outside-ca.crt}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c}}}}]\ncurrent-context: x\n",
            self.url
        );
        let path = folder.join(format!("{name}.webhook"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// How often a path was asked.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked.lock().iter().filter(|(asked, _)| asked == path).count()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
