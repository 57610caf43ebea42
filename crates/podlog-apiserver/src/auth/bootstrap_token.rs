//! Tokens by which kubelets join: secrets in `kube-system` (`plugin/pkg/auth/authenticator/token/bootstrap`).

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use jiff::Timestamp;
use podlog_api::bootstrap_roles::BOOTSTRAPPERS;
use podlog_api::resource::find;
use podlog_api::{Object, UserInfo};
use podlog_serving::{Authenticator, AuthnError, Peer, bearer_token};
use sha2::{Digest, Sha256};

use crate::registry::Registry;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Knows tokens of the form `<id>.<secret>`.
pub(crate) struct BootstrapTokenAuthenticator {
    pub(crate) registry: Registry,
}

#[async_trait]
impl Authenticator for BootstrapTokenAuthenticator {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some((id, secret)) = bearer_token(request).and_then(parts) else { return Ok(None) };
        let Some(secrets) = find("", "v1", "secrets") else { return Ok(None) };
        let stored = self.registry.find(secrets, NAMESPACE, &format!("bootstrap-token-{id}"));
        let stored = stored.map_err(|error| AuthnError(error.to_string()))?;
        Ok(stored.and_then(|stored| user(&stored, id, secret, Timestamp::now())))
    }
}

/// Id and secret of a token that has the form of these.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret))
        .then_some((id, secret))
}

/// Whom the stored token is for, if it is this one and still good.
pub(crate) fn user(stored: &Object, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let data = |key: &str| {
        let decoded = STANDARD.decode(stored.text(&format!("/data/{key}"))).unwrap_or_default();
        String::from_utf8(decoded).unwrap_or_default()
    };
    let expiration = data("expiration");
    let is_expired = !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |end| end <= now);
    let is_good = stored.text("/type") == TYPE
        && !stored.is_deleting()
        // By hash, so that how long it takes says nothing about the secret.
        && Sha256::digest(data("token-secret")) == Sha256::digest(secret)
        && data("token-id") == id
        && !is_expired
        && data("usage-bootstrap-authentication") == "true";
    if !is_good {
        return None;
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    for group in data("auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // One bad name, and the token is not believed: others may be meant to take something away.
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(UserInfo { username: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn tokens_have_a_form() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in
            ["", "abcdef", "abcdef.0123456789abcdeF", "abcde.0123456789abcdef", "abcdef.0123456789abcdef."]
        {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_is_believed_while_it_is_good() {
        let good = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-01T00:00:01Z"),
            ("auth-extra-groups", "system:bootstrappers:a, system:bootstrappers:b"),
        ];
        let rows = [
            ("", "", true),
            ("token-id", "ghijkl", false),
            ("token-secret", "0123456789abcdee", false),
            ("usage-bootstrap-authentication", "false", false),
            ("usage-bootstrap-authentication", "", false),
            ("expiration", NOW, false),
            ("expiration", "soon", false),
            ("expiration", "", true),
            ("auth-extra-groups", "system:masters", false),
            ("auth-extra-groups", "", true),
        ];
        for (key, value, expected) in rows {
            let data = good.iter().map(|(k, v)| ((*k).to_owned(), if *k == key { value } else { v }));
            let data: serde_json::Map<_, _> = data.map(|(k, v)| (k, json!(STANDARD.encode(v)))).collect();
            let stored = Object::new(json!({"type": TYPE, "data": data}));
            let found = user(&stored, "abcdef", "0123456789abcdef", NOW.parse().unwrap());
            assert_eq!(found.is_some(), expected, "{key}={value}");
            if key.is_empty() {
                let found = found.unwrap();
                assert_eq!(found.username, "system:bootstrap:abcdef");
                assert_eq!(found.groups, [BOOTSTRAPPERS, "system:bootstrappers:a", "system:bootstrappers:b"]);
            }
        }
        let other = Object::new(json!({"type": "Opaque"}));
        assert_eq!(user(&other, "", "", NOW.parse().unwrap()), None);
    }
}
