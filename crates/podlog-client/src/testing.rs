//! An API server that answers as a test says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use podlog_serving::{Body, Handler, Limits, Peer, Server, ServerTls, json_body, stream_body, text_body};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Connection, ConnectionOptions};

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// Text, and the options beyond Kubernetes that were honoured.
    Honours(&'static str, String),
    /// Some text, then an error.
    Breaks(String),
    /// Text, the options beyond Kubernetes that were honoured, then an error.
    HonoursAndBreaks(&'static str, String),
    /// As [`Answer::Honours`], to a request with a cursor whose place is gone.
    Gone(&'static str, String),
    /// Some text, then nothing, and no end.
    Hangs(String),
    /// As [`Answer::Hangs`], and the options beyond Kubernetes that were honoured.
    HonoursAndHangs(&'static str, String),
}

/// Answers by method, path and query, e.g. `GET /api/v1/pods?x=y`; one answer after the other where there are several, the last of
/// them again and again.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<String, Vec<Answer>>>,
    requests: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Value>>,
    headers: Mutex<Vec<http::HeaderMap>>,
}

impl Script {
    pub(crate) fn on(self: &Arc<Self>, request: &str, answer: Answer) -> &Arc<Self> {
        self.answers.lock().unwrap().entry(request.to_owned()).or_default().push(answer);
        self
    }

    pub(crate) fn on_json(self: &Arc<Self>, request: &str, answer: Value) -> &Arc<Self> {
        self.on(request, Answer::Json(200, answer))
    }

    pub(crate) fn on_text(self: &Arc<Self>, request: &str, answer: &str) -> &Arc<Self> {
        self.on(request, Answer::Text(200, answer.to_owned()))
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The bodies of requests that had one.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }

    pub(crate) fn headers(&self) -> Vec<http::HeaderMap> {
        self.headers.lock().unwrap().clone()
    }

    fn answer(&self, request: &str) -> Answer {
        let mut answers = self.answers.lock().unwrap();
        match answers.get_mut(request) {
            Some(several) if several.len() > 1 => several.remove(0),
            Some(one) => one[0].clone(),
            None => Answer::Json(404, not_found(request)),
        }
    }
}

pub(crate) fn not_found(what: &str) -> Value {
    let name = what.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    status(404, "NotFound", &format!("pods \"{name}\" not found"))
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
}

#[async_trait]
impl Handler for Script {
    async fn handle(&self, request: Request<Incoming>, _: Peer) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri().path_and_query().unwrap());
        self.requests.lock().unwrap().push(line.clone());
        self.headers.lock().unwrap().push(request.headers().clone());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if let Ok(body) = serde_json::from_slice(&body) {
            self.bodies.lock().unwrap().push(body);
        }
        let (mut honoured, mut resumed) = (None, None);
        let (code, content_type, body) = match self.answer(&line) {
            Answer::Honours(options, text) => {
                honoured = Some(options);
                (200, "text/plain", text_body(text))
            }
            Answer::HonoursAndBreaks(options, text) => {
                honoured = Some(options);
                (200, "text/plain", broken(text))
            }
            Answer::Gone(options, text) => {
                (honoured, resumed) = (Some(options), Some("gone; bytes=7"));
                (200, "text/plain", text_body(text))
            }
            Answer::Json(code, value) => (code, "application/json", json_body(value.to_string())),
            Answer::Text(code, text) => (code, "text/plain", text_body(text)),
            Answer::Breaks(text) => (200, "text/plain", broken(text)),
            Answer::HonoursAndHangs(options, text) => {
                honoured = Some(options);
                (200, "text/plain", endless(text))
            }
            Answer::Hangs(text) => (200, "application/json", endless(text)),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert("content-type", content_type.parse().unwrap());
        if let Some(honoured) = honoured {
            response.headers_mut().insert("podlog-log-options", honoured.parse().unwrap());
        }
        if let Some(resumed) = resumed {
            response.headers_mut().insert("podlog-log-resumed", resumed.parse().unwrap());
        }
        *response.status_mut() = code.try_into().unwrap();
        response
    }
}

fn broken(text: String) -> Body {
    let (sender, body) = stream_body();
    tokio::spawn(async move {
        sender.send(text).await.unwrap();
        sender.fail("as asked").await;
    });
    body
}

fn endless(text: String) -> Body {
    let (sender, body) = stream_body();
    tokio::spawn(async move {
        sender.send(text).await.unwrap();
        sender.closed().await;
    });
    body
}

/// A server that stands, and a kubeconfig for it.
pub(crate) struct FakeApi {
    pub(crate) script: Arc<Script>,
    pub(crate) options: ConnectionOptions,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl FakeApi {
    pub(crate) async fn start() -> Self {
        let script = Arc::<Script>::default();
        FakeApi::start_with(script.clone(), script).await
    }

    /// One that `handler` answers for.
    pub(crate) async fn start_with(handler: Arc<dyn Handler>, script: Arc<Script>) -> Self {
        podlog_serving::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::load_or_create(folder.path(), "ca", "test").unwrap();
        let files = KeyPairFiles::in_folder(folder.path(), "server");
        ca.ensure(&files, &CertificateRequest::serving("server", ["127.0.0.1"])).unwrap();
        let tls = ServerTls::load(files).unwrap();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), tls, Limits::default()).await.unwrap();
        let port = server.local_addr().port();
        let shutdown = CancellationToken::new();
        tokio::spawn(server.serve(handler, shutdown.clone()));
        let kubeconfig = folder.path().join("kubeconfig");
        let authority = ca.certificate_path().display();
        std::fs::write(
            &kubeconfig,
            format!(
                "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{authority}\"}}}}], users: [{{name: u, user: {{token: secret}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}]}}"
            ),
        )
        .unwrap();
        let options = ConnectionOptions { kubeconfig: Some(kubeconfig), ..ConnectionOptions::default() };
        FakeApi { script, options, port, _folder: folder, shutdown }
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.options.connect().await.unwrap()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
