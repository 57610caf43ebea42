//! Bearer tokens: somebody has to know them.

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use podlog_api::{UserInfo, go};
use podlog_serving::{Authenticator, AuthnError, Peer, bearer_token};

/// Asks those who know tokens. A token that none of them knows is a wrong credential, not a missing one, as
/// `k8s.io/apiserver/pkg/authentication/request/bearertoken` has it: its bearer does not become anonymous.
pub(crate) struct BearerAuthenticator(pub(crate) Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for BearerAuthenticator {
    async fn authenticate(&self, request: &Parts, peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        if bearer_token(request).is_none() {
            return Ok(None);
        }
        let mut errors = vec!["invalid bearer token".to_owned()];
        for member in &self.0 {
            match member.authenticate(request, peer).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        Err(AuthnError(go::aggregate(errors.iter().map(String::as_str)).unwrap_or_default()))
    }
}
