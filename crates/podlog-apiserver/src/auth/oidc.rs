//! Id tokens of an OpenID Connect provider (`k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`).

use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Request;
use http::request::Parts;
use http_body_util::Full;
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Header, Validation};
use podlog_api::UserInfo;
use podlog_serving::{Authenticator, AuthnError, Dialer, HttpsClient, Peer, TlsError, bearer_token};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::cache::Cache;
use crate::config::OidcConfig;

/// For one of the provider's documents.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are fetched again for a token that none of them signed, but not more often than this: anybody can make such tokens.
const BETWEEN_FETCHES: Duration = Duration::from_secs(1);
/// A token that was good is believed for so long without looking at it again.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Tokens may be made by a clock that is ahead so far (go-oidc's leeway for `nbf`).
const LEEWAY_SECONDS: i64 = 300;

/// Knows the tokens of one provider.
pub(crate) struct OidcAuthenticator {
    config: OidcConfig,
    client: HttpsClient,
    keys: ArcSwap<Vec<Jwk>>,
    /// When keys were asked for last.
    fetched: Mutex<Option<Instant>>,
    known: Cache<UserInfo>,
}

#[async_trait]
impl Authenticator for OidcAuthenticator {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = bearer_token(request).filter(|token| self.is_ours(token)) else { return Ok(None) };
        if let Some(user) = self.known.get(token.as_bytes(), Instant::now()) {
            return Ok(Some(user));
        }
        let claims = self.verify(token).await.map_err(|why| AuthnError(format!("oidc: {why}")))?;
        let now = Timestamp::now();
        let user = check(&claims, &self.config, now.as_second())
            .and_then(|()| user(&claims, &self.config))
            .map_err(|why| AuthnError(format!("oidc: {why}")))?;
        let left = claims.get("exp").and_then(seconds).map_or(0, |end| end - now.as_second());
        let ttl = REMEMBERED.min(Duration::from_secs(left.try_into().unwrap_or(0)));
        self.known.keep(token.as_bytes(), user.clone(), ttl, Instant::now());
        Ok(Some(user))
    }
}

impl OidcAuthenticator {
    /// The provider is asked when its first token comes.
    ///
    /// # Errors
    /// When the file of authorities cannot be used.
    pub(crate) fn new(config: OidcConfig) -> Result<Self, TlsError> {
        let client = HttpsClient::new(Dialer::https(config.ca.clone(), None)?, TIMEOUT);
        let keys = ArcSwap::from_pointee(Vec::new());
        Ok(OidcAuthenticator { config, client, keys, fetched: Mutex::new(None), known: Cache::new() })
    }

    fn is_ours(&self, token: &str) -> bool {
        jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(token)
            .is_ok_and(|token| token.claims.get("iss").is_some_and(|iss| *iss == self.config.issuer))
    }

    /// The claims of a token that one of the provider's keys signed.
    async fn verify(&self, token: &str) -> Result<Map<String, Value>, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "malformed jwt")?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(format!("id token signed with unsupported algorithm, got {:?}", header.alg));
        }
        if let Some(claims) = signed_by_one(token, &header, &self.keys.load()) {
            return Ok(claims);
        }
        self.fetch().await?;
        signed_by_one(token, &header, &self.keys.load())
            .ok_or_else(|| "failed to verify signature: no key of the provider made it".to_owned())
    }

    /// The provider's keys, anew; those who ask at the same time share the answer.
    async fn fetch(&self) -> Result<(), String> {
        let asked = Instant::now();
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at > asked || at.elapsed() < BETWEEN_FETCHES) {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        let issuer = self.config.issuer.trim_end_matches('/');
        let configuration = self.document(&format!("{issuer}/.well-known/openid-configuration")).await?;
        let keys = self.document(key_set_url(&configuration, &self.config)?).await?;
        let keys = keys_of(&keys);
        tracing::info!(issuer = self.config.issuer, keys = keys.len(), "keys of the OpenID provider");
        self.keys.store(keys.into());
        Ok(())
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let request = Request::get(url).header(http::header::ACCEPT, "application/json");
        let request = request.body(Full::default()).map_err(|_| format!("{url:?} is not a URL"))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| format!("{url}: {}", error.with_causes()))?;
        if !answer.status().is_success() {
            return Err(format!("{url}: {}", answer.status()));
        }
        serde_json::from_slice(answer.body()).map_err(|_| format!("{url}: the answer is not JSON"))
    }
}

/// Where a provider's keys are, by its discovery document.
pub(crate) fn key_set_url<'a>(discovery: &'a Value, config: &OidcConfig) -> Result<&'a str, String> {
    if discovery["issuer"] != config.issuer {
        return Err(format!("the provider calls itself {}", discovery["issuer"]));
    }
    let url = discovery["jwks_uri"].as_str().filter(|url| url.starts_with("https://"));
    url.ok_or_else(|| format!("the provider has no keys at an https URL, but at {}", discovery["jwks_uri"]))
}

/// The keys of a set. Keys of a kind that nobody here knows are for others.
pub(crate) fn keys_of(set: &Value) -> Vec<Jwk> {
    let keys = set["keys"].as_array().into_iter().flatten();
    keys.filter_map(|key| serde_json::from_value(key.clone()).ok()).collect()
}

fn signed_by_one(token: &str, header: &Header, keys: &[Jwk]) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(header.alg);
    // Times and audiences are checked with upstream's rules.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let named = |key: &&Jwk| match (&header.kid, &key.common.key_id) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    keys.iter().filter(named).find_map(|key| {
        let key = DecodingKey::from_jwk(key).ok()?;
        Some(jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).ok()?.claims)
    })
}

/// Whether the token is for us, and good now.
pub(crate) fn check(claims: &Map<String, Value>, config: &OidcConfig, now: i64) -> Result<(), String> {
    let meant = match claims.get("aud") {
        Some(Value::String(audience)) => *audience == config.client_id,
        Some(Value::Array(list)) => list.iter().any(|audience| *audience == config.client_id),
        _ => false,
    };
    if !meant {
        return Err(format!("expected audience {:?}", config.client_id));
    }
    let end = claims.get("exp").and_then(seconds).ok_or("token has no expiry")?;
    if end < now {
        return Err("token is expired".into());
    }
    if claims.get("nbf").and_then(seconds).is_some_and(|begin| now + LEEWAY_SECONDS < begin) {
        return Err("token is not valid yet".into());
    }
    for (claim, wanted) in &config.required_claims {
        match claims.get(claim) {
            None => return Err(format!("required claim {claim} not present in ID token")),
            Some(Value::String(found)) if found == wanted => {}
            Some(_) => return Err(format!("required claim {claim} value does not match")),
        }
    }
    Ok(())
}

/// Times are numbers, in some providers' tokens with a fraction.
fn seconds(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 are whole numbers below 2^53")]
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

/// Whom the claims name.
pub(crate) fn user(claims: &Map<String, Value>, config: &OidcConfig) -> Result<UserInfo, String> {
    let claim = config.username_claim.as_str();
    let name = claims
        .get(claim)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("parse username claims {claim:?}"))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(_) => return Err("email not verified".into()),
        }
    }
    if name.is_empty() {
        return Err("username must not be empty".into());
    }
    let prefix = match config.username_prefix.as_deref() {
        Some("-") => String::new(),
        Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
        _ if claim == "email" => String::new(),
        _ => format!("{}#", config.issuer),
    };
    let groups = match config.groups_claim.as_ref().and_then(|claim| claims.get(claim)) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(group)) => vec![group.clone()],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(_) => return Err("parse groups claim: neither a text nor a list of them".into()),
    };
    let mut user = UserInfo {
        username: format!("{prefix}{name}"),
        groups: groups.into_iter().map(|group| format!("{}{group}", config.groups_prefix)).collect(),
        ..UserInfo::default()
    };
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(change: impl FnOnce(&mut OidcConfig)) -> OidcConfig {
        let mut config = OidcConfig::new("https://id.test", "podlog");
        change(&mut config);
        config
    }

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn keys_are_where_the_provider_says_if_it_is_the_one() {
        let config = OidcConfig::new("https://i.test", "podlog");
        for (discovery, expected) in [
            (
                json!({"issuer": "https://i.test", "jwks_uri": "https://k.test/keys"}),
                Ok("https://k.test/keys"),
            ),
            (
                json!({"issuer": "https://i.test/", "jwks_uri": "https://k.test/keys"}),
                Err("the provider calls itself \"https://i.test/\""),
            ),
            (
                json!({"issuer": "https://i.test"}),
                Err("the provider has no keys at an https URL, but at null"),
            ),
            (
                json!({"issuer": "https://i.test", "jwks_uri": "http://k.test/keys"}),
                Err("the provider has no keys at an https URL, but at \"http://k.test/keys\""),
            ),
            (json!([]), Err("the provider calls itself null")),
        ] {
            let url = key_set_url(&discovery, &config);
            assert_eq!(url.as_ref().map(|url| *url).map_err(String::as_str), expected);
        }
    }

    #[test]
    fn tokens_are_for_us_and_for_now() {
        let strict = config(|config| config.required_claims = [("org".into(), "x".into())].into());
        let plain = config(|_| {});
        let rows = [
            (&plain, json!({"aud": "podlog", "exp": 100}), ""),
            (&plain, json!({"aud": ["a", "podlog"], "exp": 100.5, "nbf": 399}), ""),
            (&plain, json!({"aud": ["a"], "exp": 100}), "expected audience \"podlog\""),
            (&plain, json!({"exp": 100}), "expected audience"),
            (&plain, json!({"aud": "podlog", "exp": 98}), "token is expired"),
            (&plain, json!({"aud": "podlog"}), "token has no expiry"),
            (&plain, json!({"aud": "podlog", "exp": 1000, "nbf": 400}), "token is not valid yet"),
            (&strict, json!({"aud": "podlog", "exp": 100, "org": "x"}), ""),
            (
                &strict,
                json!({"aud": "podlog", "exp": 100, "org": "y"}),
                "required claim org value does not match",
            ),
            (&strict, json!({"aud": "podlog", "exp": 100}), "required claim org not present"),
        ];
        for (config, value, expected) in rows {
            let found = check(&claims(value), config, 99).err().unwrap_or_default();
            assert!(
                found.contains(expected) && expected.is_empty() == found.is_empty(),
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn claims_become_users_and_groups() {
        let plain = config(|_| {});
        let email = config(|config| config.username_claim = "email".into());
        let bare = config(|config| config.username_prefix = Some("-".into()));
        let groups = config(|config| {
            config.username_prefix = Some("u:".into());
            config.groups_claim = Some("roles".into());
            config.groups_prefix = "g:".into();
        });
        let rows = [
            (&plain, json!({"sub": "ann"}), Ok(("https://id.test#ann", vec![]))),
            (&bare, json!({"sub": "ann"}), Ok(("ann", vec![]))),
            (&email, json!({"email": "a@b", "email_verified": true}), Ok(("a@b", vec![]))),
            (&email, json!({"email": "a@b"}), Ok(("a@b", vec![]))),
            (&email, json!({"email": "a@b", "email_verified": false}), Err("email not verified")),
            (&plain, json!({"email": "a@b"}), Err("parse username claims \"sub\"")),
            (&plain, json!({"sub": ""}), Err("username must not be empty")),
            (&groups, json!({"sub": "ann", "roles": ["a", "b"]}), Ok(("u:ann", vec!["g:a", "g:b"]))),
            (&groups, json!({"sub": "ann", "roles": "a"}), Ok(("u:ann", vec!["g:a"]))),
            (&groups, json!({"sub": "ann"}), Ok(("u:ann", vec![]))),
            (
                &groups,
                json!({"sub": "ann", "roles": [1]}),
                Err("parse groups claim: neither a text nor a list of them"),
            ),
        ];
        for (config, value, expected) in rows {
            let found = user(&claims(value), config);
            let found = found.as_ref().map(|user| {
                (user.username.as_str(), user.groups.iter().map(String::as_str).collect::<Vec<_>>())
            });
            assert_eq!(found.map_err(String::as_str), expected);
        }
    }
}
