//! Others who know tokens or decide, asked over HTTPS with reviews (`k8s.io/apiserver/plugin/pkg/auth{enticator/token,orizer}/webhook`).

mod access;
pub(crate) mod kubeconfig;
mod tokens;

pub(crate) use access::AccessWebhook;
pub use kubeconfig::WebhookConfigError;
pub(crate) use tokens::TokenWebhook;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Uri};
use http_body_util::Full;
use podlog_serving::{Dialer, HttpsClient};
use serde_json::Value;

/// For one question (`DefaultRetryBackoff` apart, as upstream).
const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that could not be made or broke is worth another attempt.
const ATTEMPTS: usize = 2;

/// A server that answers reviews.
struct Remote {
    client: HttpsClient,
    url: Uri,
    token: Option<kubeconfig::Token>,
}

impl Remote {
    /// As a kubeconfig says.
    fn load(path: &Path) -> Result<Self, WebhookConfigError> {
        let target = kubeconfig::load(path)?;
        let dialer = Dialer::https(target.ca, target.client)
            .map_err(|error| WebhookConfigError::new(path, error.to_string()))?;
        Ok(Remote { client: HttpsClient::new(dialer, TIMEOUT), url: target.url, token: target.token })
    }

    /// The review with its status; the error says why there is none.
    async fn review(&self, review: &Value) -> Result<Value, String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.client.send(self.request(review)?).await {
                Ok(answer) if answer.status().is_success() => {
                    return serde_json::from_slice(answer.body())
                        .map_err(|_| format!("{}: the answer is not JSON", self.url));
                }
                Ok(answer) => last = format!("{}: {}", self.url, answer.status()),
                Err(error) => last = format!("{}: {}", self.url, error.with_causes()),
            }
        }
        Err(last)
    }

    fn request(&self, review: &Value) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.read()?));
        }
        request.body(Full::from(review.to_string())).map_err(|error| error.to_string())
    }
}
