//! Tokens of service accounts, verified (`pkg/serviceaccount/{jwt,claims}.go`).

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use podlog_api::resource::find;
use podlog_api::{UserInfo, go};
use podlog_serving::{Authenticator, AuthnError, Peer, bearer_token};

use super::TokenIssuer;
use super::issuer::{Claims, Named};
use crate::registry::Registry;

/// Clocks may differ by so much, and deletions be so fresh.
const LEEWAY_SECONDS: i64 = 60;
/// Said of a token whose account, or what it is bound to, is not there.
const INVALIDATED: &str = "service account token has been invalidated";
const EXTRA: &str = "authentication.kubernetes.io/";

/// Knows tokens that our issuer signed.
pub(crate) struct ServiceAccountAuthenticator {
    pub(crate) registry: Registry,
    pub(crate) issuer: Arc<TokenIssuer>,
    /// A token must be meant for one of them.
    pub(crate) audiences: Vec<String>,
}

#[async_trait]
impl Authenticator for ServiceAccountAuthenticator {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = bearer_token(request) else { return Ok(None) };
        if !self.is_ours(token) {
            return Ok(None);
        }
        let mut known = self.review(token, &self.audiences);
        // What another server has just made may not have been heard of here.
        if known.as_ref().is_err_and(|error| error.0 == INVALIDATED) && self.registry.catch_up().await.is_ok()
        {
            known = self.review(token, &self.audiences);
        }
        known.map(|(user, _)| Some(user))
    }
}

impl ServiceAccountAuthenticator {
    /// Whose token of ours it is, and for which of the wanted audiences.
    ///
    /// # Errors
    /// When it is not good, or for none of them.
    pub(crate) fn review(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<(UserInfo, Vec<String>), AuthnError> {
        self.verify(token, wanted, Timestamp::now()).map_err(AuthnError)
    }

    /// Whether it says that it is from our issuer; other tokens are for other authenticators.
    pub(crate) fn is_ours(&self, token: &str) -> bool {
        jsonwebtoken::dangerous::insecure_decode::<Claims>(token)
            .is_ok_and(|token| token.claims.iss == self.issuer.issuer())
    }

    fn verify(
        &self,
        token: &str,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), String> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "malformed token")?;
        let mut keys = self.issuer.keys(header.kid.as_deref()).peekable();
        if keys.peek().is_none() {
            return Err("invalid signature, no keys found".into());
        }
        let claims = keys
            .find_map(|(key, algorithm)| {
                jsonwebtoken::decode::<Claims>(token, key, &signature_only(algorithm)).ok()
            })
            .ok_or("invalid signature")?
            .claims;
        check_times(&claims, now.as_second())?;
        let meant: Vec<String> =
            wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if meant.is_empty() {
            let quoted = |list: &[String]| go::quote_all(list.iter().map(String::as_str));
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(&claims.aud),
                quoted(wanted)
            ));
        }
        self.check_objects(&claims, now)?;
        Ok((user(claims), meant))
    }

    fn check_objects(&self, claims: &Claims, now: Timestamp) -> Result<(), &'static str> {
        let namespace = claims.kubernetes.namespace.as_str();
        let lives = |plural: &str, namespace: &str, named: &Named| {
            let object = find("", "v1", plural)
                .and_then(|resource| self.registry.find(resource, namespace, &named.name).ok().flatten());
            object.is_some_and(|object| object.uid() == named.uid && !is_long_gone(&object, now))
        };
        if !lives("serviceaccounts", namespace, &claims.kubernetes.serviceaccount) {
            return Err(INVALIDATED);
        }
        let bound = [("pods", &claims.kubernetes.pod), ("secrets", &claims.kubernetes.secret)];
        for (plural, named) in bound {
            if named.as_ref().is_some_and(|named| !lives(plural, namespace, named)) {
                return Err(INVALIDATED);
            }
        }
        // The node of a pod is told, not checked; a token bound to a node alone lives and dies with it.
        let node = claims.kubernetes.node.as_ref().filter(|_| claims.kubernetes.pod.is_none());
        if node.is_some_and(|node| !lives("nodes", "", node)) {
            return Err(INVALIDATED);
        }
        Ok(())
    }
}

/// Times and audiences are checked with Kubernetes' leeway and words.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

fn check_times(claims: &Claims, now: i64) -> Result<(), &'static str> {
    if now > claims.exp + LEEWAY_SECONDS {
        return Err("service account token has expired");
    }
    if now < claims.nbf - LEEWAY_SECONDS {
        return Err("service account token is not valid yet");
    }
    Ok(())
}

fn is_long_gone(object: &podlog_api::Object, now: Timestamp) -> bool {
    let deleted: Option<Timestamp> = object.text("/metadata/deletionTimestamp").parse().ok();
    deleted.is_some_and(|at| now.as_second() > at.as_second() + LEEWAY_SECONDS)
}

fn user(claims: Claims) -> UserInfo {
    let kubernetes = claims.kubernetes;
    let mut user = UserInfo {
        username: UserInfo::service_account_name(&kubernetes.namespace, &kubernetes.serviceaccount.name),
        uid: kubernetes.serviceaccount.uid,
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", kubernetes.namespace),
        ],
        ..UserInfo::default()
    };
    let mut extra = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("{EXTRA}{key}"), vec![value]);
        }
    };
    for (kind, named) in [("pod", kubernetes.pod), ("node", kubernetes.node)] {
        if let Some(named) = named {
            extra(&format!("{kind}-name"), named.name);
            extra(&format!("{kind}-uid"), named.uid);
        }
    }
    if !claims.jti.is_empty() {
        extra("credential-id", format!("JTI={}", claims.jti));
    }
    user
}

#[cfg(test)]
mod tests {
    use podlog_api::Object;
    use podlog_serving::pki::load_or_create_signing_key;
    use serde_json::json;

    use super::*;
    use crate::store::etcd::testing::Etcd;

    #[tokio::test]
    async fn a_token_is_good_at_every_server_as_soon_as_it_is_there() {
        let Some(etcd) = Etcd::start(1) else { return };
        let (here, there) = (etcd.store("/registry").await, etcd.store("/registry").await);
        let [here, there] = [here, there].map(|store| Registry::new(Arc::new(store)));
        crate::bootstrap::ensure(&here).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| folder.path().join(name);
        let (private, public) = load_or_create_signing_key(&key("sa.key"), &key("sa.pub")).unwrap();
        let issuer = Arc::new(TokenIssuer::new("https://i.test".into(), &private, &public).unwrap());
        let audiences = vec!["https://i.test".into()];
        let authenticator =
            ServiceAccountAuthenticator { registry: there, issuer: issuer.clone(), audiences };
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
        let accounts = find("", "v1", "serviceaccounts").unwrap();
        for number in 0..50 {
            let account = Object::new(json!({"metadata": {"name": format!("robot-{number}")}}));
            let account = here.create(accounts, "default", account).await.unwrap();
            let (token, _) =
                issuer.issue(&here, &account, &Object::new(json!({})), Timestamp::now()).unwrap();
            let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
            let parts = request.body(()).unwrap().into_parts().0;
            let user = authenticator.authenticate(&parts, &peer).await.unwrap().unwrap();
            assert_eq!(user.uid, account.uid(), "{number}");
        }
    }
}
