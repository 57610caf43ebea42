//! Requests, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use podlog_api::accept::LogCoding;
use serde_json::Value;

use crate::error::{ServerStatus, Subject, io_text};
use crate::{ClientError, multiplexed};

/// Bytes of an answer that is not a stream.
const MAX_ANSWER: usize = 256 << 20;
/// `LOG_MEDIA_TYPE`, or whatever there is.
const LOG_ACCEPT: &str = "application/vnd.podlog.log, application/json, */*";
/// Bytes of an error's body.
const MAX_ERROR: usize = 1 << 20;

/// A server, whom we are to it, and our namespace.
#[derive(Clone)]
pub struct Connection {
    client: kube::Client,
    /// For more connections.
    config: Option<Arc<kube::Config>>,
    namespace: String,
    server: String,
    request_timeout: Option<Duration>,
}

impl Connection {
    /// A connection over a client that stands already; `server` is host and port, for messages.
    pub fn new(client: kube::Client, namespace: impl Into<String>, server: impl Into<String>) -> Self {
        let (namespace, server) = (namespace.into(), server.into());
        Connection { client, config: None, namespace, server, request_timeout: None }
    }

    /// The same, which knows how to make more connections.
    pub(crate) fn with_config(mut self, config: kube::Config) -> Self {
        self.config = Some(Arc::new(config));
        self
    }

    /// Connections for so many streams at once, [`multiplexed::STREAMS`] each: with HTTP/2 where the server speaks it.
    pub(crate) async fn for_streams(&self, streams: usize) -> Vec<Connection> {
        let mut connections = Vec::new();
        for _ in 0..streams.div_ceil(multiplexed::STREAMS) {
            let client = match &self.config {
                Some(config) => multiplexed::connect(config).await,
                None => None,
            };
            let client = client.unwrap_or_else(|| self.client.clone());
            connections.push(Connection { client, ..self.clone() });
        }
        connections
    }

    /// The same with a limit on how long an answer may take to begin.
    pub fn with_request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The client underneath.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The namespace of requests that name none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn get(&self, path: &str, subject: Subject<'_>) -> Result<Value, ClientError> {
        let response = self.send(request(Method::GET, path, None, Bytes::new())?, subject).await?;
        self.json(response).await
    }

    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
        subject: Subject<'_>,
    ) -> Result<Value, ClientError> {
        let response = self.send(request(method, path, Some(content_type), body.into())?, subject).await?;
        self.json(response).await
    }

    /// A log, which is read as it comes; see [`crate::logs`] for what its bytes are packed in.
    pub(crate) async fn stream(
        &self,
        path: &str,
        subject: Subject<'_>,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = request(Method::GET, path, None, Bytes::new())?;
        let headers = request.headers_mut();
        // Servers that do not know the type take what they know, and send the log as it is.
        headers.insert(header::ACCEPT, HeaderValue::from_static(LOG_ACCEPT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(LogCoding::Zstd.name()));
        self.send(request, subject).await
    }

    async fn send(
        &self,
        request: Request<Body>,
        subject: Subject<'_>,
    ) -> Result<Response<Body>, ClientError> {
        let sent = self.client.send(request);
        let response = match self.request_timeout {
            None => sent.await,
            Some(limit) => tokio::time::timeout(limit, sent).await.map_err(|_| self.timed_out())?,
        };
        let response = response.map_err(|error| self.unreachable(&error))?;
        let code = response.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(response);
        }
        // What could be read of an error's body is better than nothing.
        let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(ClientError::Status(Box::new(ServerStatus::read(code, &body, subject))))
    }

    async fn json(&self, response: Response<Body>) -> Result<Value, ClientError> {
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| broken(error.as_ref()))?.to_bytes();
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Broken(format!("the server's answer is not JSON: {error}")))
    }

    fn unreachable(&self, error: &kube::Error) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), cause: cause_of(error) }
    }

    fn timed_out(&self) -> ClientError {
        let cause = "net/http: request canceled (Client.Timeout exceeded while awaiting headers)".into();
        ClientError::Unreachable { server: self.server.clone(), cause }
    }
}

pub(crate) fn request(
    method: Method,
    path: &str,
    content_type: Option<&'static str>,
    body: Bytes,
) -> Result<Request<Body>, ClientError> {
    let mut builder =
        Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json, */*");
    if let Some(content_type) = content_type {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    builder.body(Body::from(body.to_vec())).map_err(|error| ClientError::Invalid(error.to_string()))
}

/// The innermost cause says most.
fn cause_of(error: &dyn std::error::Error) -> String {
    io_text(std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error))
}

/// An answer that broke off, in kubectl's words for one over HTTP/1.1 where it has some, whatever it came over.
pub(crate) fn broken(error: &(dyn std::error::Error + 'static)) -> ClientError {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let truncated = causes.any(|cause| {
        let is_eof = |io: &std::io::Error| io.kind() == std::io::ErrorKind::UnexpectedEof;
        let is_reset =
            |http2: &h2::Error| http2.is_reset() && http2.is_remote() || http2.get_io().is_some_and(is_eof);
        cause.downcast_ref::<std::io::Error>().is_some_and(is_eof)
            || cause.downcast_ref::<h2::Error>().is_some_and(is_reset)
    });
    ClientError::Broken(if truncated { "unexpected EOF".into() } else { cause_of(error) })
}
