//! `TokenReview`: somebody else knows the token.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::request::Parts;
use podlog_api::UserInfo;
use podlog_serving::{Authenticator, AuthnError, Peer, bearer_token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Remote, WebhookConfigError};
use crate::auth::cache::Cache;

/// Asks about bearer tokens.
pub(crate) struct TokenWebhook {
    remote: Remote,
    /// The server's: a token has to be meant for one of them.
    audiences: Vec<String>,
    ttl: Duration,
    known: Cache<Option<UserInfo>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl TokenWebhook {
    /// Asks where the file says; answers are believed for `ttl`.
    pub(crate) fn load(
        config: &Path,
        audiences: Vec<String>,
        ttl: Duration,
    ) -> Result<Self, WebhookConfigError> {
        Ok(TokenWebhook { remote: Remote::load(config)?, audiences, ttl, known: Cache::new() })
    }

    async fn ask(&self, token: &str) -> Result<Option<UserInfo>, AuthnError> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": self.audiences},
        });
        let mut answer = self.remote.review(&review).await.map_err(AuthnError)?;
        let status = answer.get_mut("status").map(Value::take).unwrap_or_default();
        let status: Status = serde_json::from_value(status)
            .map_err(|_| AuthnError("the webhook's answer is not a TokenReview".into()))?;
        user(status, &self.audiences)
    }
}

fn user(status: Status, audiences: &[String]) -> Result<Option<UserInfo>, AuthnError> {
    if !status.authenticated {
        return match status.error.as_str() {
            "" => Ok(None),
            error => Err(AuthnError(error.to_owned())),
        };
    }
    // A webhook that knows nothing of audiences says none.
    let meant = status.audiences.is_empty() || status.audiences.iter().any(|a| audiences.contains(a));
    if !meant {
        return Err(AuthnError("the token is not meant for this server".into()));
    }
    let User { username, uid, groups, extra } = status.user;
    Ok(Some(UserInfo { username, uid, groups, extra }))
}

#[async_trait]
impl Authenticator for TokenWebhook {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = bearer_token(request) else { return Ok(None) };
        if let Some(known) = self.known.get(token.as_bytes(), Instant::now()) {
            return Ok(known);
        }
        let user = self.ask(token).await?;
        self.known.keep(token.as_bytes(), user.clone(), self.ttl, Instant::now());
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_believed_as_far_as_they_go() {
        let rows = [
            (json!({}), "Ok(None)"),
            (json!({"error": "no"}), "Err(AuthnError(\"no\"))"),
            (json!({"authenticated": true, "user": {"username": "ann"}}), "ann"),
            (json!({"authenticated": true, "user": {"username": "ann"}, "audiences": ["b", "api"]}), "ann"),
            (
                json!({"authenticated": true, "user": {"username": "ann"}, "audiences": ["b"]}),
                "is not meant for",
            ),
        ];
        for (status, expected) in rows {
            let found = user(serde_json::from_value(status).unwrap(), &["api".into()]);
            assert!(format!("{found:?}").contains(expected), "{found:?}");
        }
    }
}
