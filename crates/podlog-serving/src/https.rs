//! Questions to HTTPS servers that are answered by small documents: webhooks, identity providers.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::Dialer;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The URL names no host.
    #[error("{0} is not an https URL")]
    Url(Uri),
    /// The server cannot be reached, or is not believed.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange with {host} failed")]
    Exchange {
        /// Host and port.
        host: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer broke off or is too long.
    #[error("the answer of {host} cannot be read: {reason}")]
    Answer {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{host} did not answer within {}s", .after.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// How long was waited.
        after: Duration,
    },
}

impl HttpsError {
    /// The text, with those of its causes.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Asks HTTPS servers, on a connection of its own each time.
#[derive(Debug)]
pub struct HttpsClient {
    dialer: Dialer,
    timeout: Duration,
}

impl HttpsClient {
    /// Connects by `dialer` (see [`Dialer::https`]); an exchange takes no longer than `timeout`.
    pub fn new(dialer: Dialer, timeout: Duration) -> Self {
        HttpsClient { dialer, timeout }
    }

    /// Sends a request, whose URI is the whole URL, and reads the answer, whatever its status.
    ///
    /// # Errors
    /// When there is none.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpsError> {
        let url = request.uri().clone();
        let host = match (url.scheme_str(), url.host()) {
            (Some("https"), Some(host)) => host.trim_matches(['[', ']']).to_owned(),
            _ => return Err(HttpsError::Url(url)),
        };
        let (port, shown) = (url.port_u16().unwrap_or(443), url.authority().map(ToString::to_string));
        let shown = shown.unwrap_or_default();
        let exchange = self.exchange(request, &host, port, &shown);
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or(Err(HttpsError::Timeout { host: shown.clone(), after: self.timeout }))
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        host: &str,
        port: u16,
        shown: &str,
    ) -> Result<Response<Bytes>, HttpsError> {
        let broken = |source| HttpsError::Exchange { host: shown.to_owned(), source };
        let connection = self.dialer.dial(host, port).await;
        let connection =
            connection.map_err(|source| HttpsError::Connect { host: shown.to_owned(), source })?;
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
        *request.uri_mut() = path.unwrap_or_default();
        if let Ok(name) = HeaderValue::try_from(shown) {
            request.headers_mut().insert(HOST, name);
        }
        let work = async {
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body
                .map_err(|error| HttpsError::Answer { host: shown.to_owned(), reason: error.to_string() })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // The connection is driven until the answer is there, and closed with it.
        tokio::pin!(work, driver);
        tokio::select! {
            answer = &mut work => answer,
            ended = &mut driver => match ended {
                Ok(()) => work.await,
                Err(source) => Err(broken(source)),
            },
        }
    }
}
