//! Tokens of service accounts: issuing them (`TokenRequest`), and the documents by which others can verify them.
//!
//! As `pkg/serviceaccount` and `pkg/registry/core/serviceaccount/storage/token.go`.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use podlog_api::resource::find;
use podlog_api::{ApiError, Object, validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::{Answer, Call, Target, json_answer};
use crate::registry::admission::node_restriction;
use crate::registry::{Registry, metadata};

const DEFAULT_SECONDS: i64 = 3600;
/// Length of the DER of a P-256 key; those of longer curves are longer.
const LONGEST_P256: usize = 91;
/// The last line of a public key in PEM (SPKI).
const END: &str = "-----END PUBLIC KEY-----";

/// An object that a token names: it is valid as long as the object lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
}

/// The part of the claims that is Kubernetes' own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Named>,
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    #[serde(default)]
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
    #[serde(default)]
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// Issues tokens, and holds what is needed to verify them.
pub(crate) struct TokenIssuer {
    issuer: String,
    encoding: EncodingKey,
    /// The first is the one that signs.
    keys: Vec<VerifyingKey>,
}

/// A public key that tokens are verified with.
struct VerifyingKey {
    id: String,
    algorithm: Algorithm,
    decoding: DecodingKey,
    /// As others are told.
    published: Value,
}

impl VerifyingKey {
    /// An ECDSA (P-256 or P-384) or RSA key.
    fn from_pem(pem: &str) -> Result<Self, String> {
        let der = spki(pem).ok_or("the public key is not PEM")?;
        let (algorithm, decoding) = match DecodingKey::from_ec_pem(pem.as_bytes()) {
            Ok(key) if der.len() > LONGEST_P256 => (Algorithm::ES384, key),
            Ok(key) => (Algorithm::ES256, key),
            Err(_) => {
                let key = DecodingKey::from_rsa_pem(pem.as_bytes());
                (Algorithm::RS256, key.map_err(|_| "the public key is neither ECDSA nor RSA")?)
            }
        };
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&der));
        let unusable = |error: &dyn std::fmt::Display| format!("the public key cannot be used: {error}");
        let mut jwk = Jwk::from_decoding_key(&decoding, Some(algorithm)).map_err(|error| unusable(&error))?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let published = serde_json::to_value(&jwk).map_err(|error| unusable(&error))?;
        Ok(VerifyingKey { id, algorithm, decoding, published })
    }
}

/// A private key of the kind that its public key is of.
fn signing_key(pem: &str, algorithm: Algorithm) -> Result<EncodingKey, String> {
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()),
    };
    key.map_err(|error| error.to_string())
}

impl TokenIssuer {
    /// With an ECDSA or RSA key pair in PEM.
    ///
    /// # Errors
    /// What is wrong with the keys.
    pub(crate) fn new(issuer: String, private_pem: &str, public_pem: &str) -> Result<Self, String> {
        let key = VerifyingKey::from_pem(public_pem)?;
        let encoding = signing_key(private_pem, key.algorithm)?;
        Ok(TokenIssuer { issuer, encoding, keys: vec![key] })
    }

    /// Believes tokens that other keys signed, too, e.g. the one of before a rotation: all public keys of a PEM file.
    ///
    /// # Errors
    /// What is wrong with a key; there has to be one.
    pub(crate) fn believe(&mut self, public_pem: &str) -> Result<(), String> {
        let blocks: Vec<&str> =
            public_pem.split_inclusive(END).filter(|block| block.ends_with(END)).collect();
        if blocks.is_empty() {
            return Err("there is no public key in PEM".into());
        }
        for block in blocks {
            let key = VerifyingKey::from_pem(block.trim_start())?;
            if self.keys.iter().all(|known| known.id != key.id) {
                self.keys.push(key);
            }
        }
        Ok(())
    }

    /// The `iss` of our tokens, and the audience of those that do not name one.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that may have signed a token with this `kid`.
    pub(crate) fn keys(&self, key_id: Option<&str>) -> impl Iterator<Item = (&DecodingKey, Algorithm)> {
        let named = move |key: &&VerifyingKey| key_id.is_none_or(|id| id == key.id);
        self.keys.iter().filter(named).map(|key| (&key.decoding, key.algorithm))
    }

    /// `POST …/serviceaccounts/<name>/token`.
    ///
    /// # Errors
    /// 404 without such an account or bound object, 422 for a bad request.
    pub(crate) async fn answer(
        &self,
        registry: &Registry,
        call: &Call,
        target: &Target,
    ) -> Result<Answer, ApiError> {
        let Some(subresource) = target.subresource else { return Err(ApiError::no_such_path()) };
        let what = podlog_api::strict::Target::of_subresource(target.resource, subresource);
        let mut request = crate::http::decode(call, what).await?.0;
        let causes = validation::subresource(what.schema, &request);
        if !causes.is_empty() {
            return Err(ApiError::invalid(what.group, what.kind, "", causes));
        }
        let account = registry.get(target.resource, &target.namespace, &target.name)?;
        node_restriction::token(registry, call.user(), &account, &request)?;
        let now = Timestamp::now();
        let (token, expires) = self.issue(registry, &account, &request, now)?;
        request.0["kind"] = json!("TokenRequest");
        request.0["apiVersion"] = json!("authentication.k8s.io/v1");
        request.0["metadata"] = json!({"name": account.name(), "namespace": account.namespace(),
            "creationTimestamp": metadata::time(now)});
        if request.array("/spec/audiences").is_empty() {
            request.map_mut("spec").insert("audiences".into(), json!([self.issuer]));
        }
        request.map_mut("spec").entry("expirationSeconds").or_insert(json!(DEFAULT_SECONDS));
        request.0["status"] = json!({"token": token, "expirationTimestamp": metadata::time(expires)});
        json_answer(call, StatusCode::CREATED, &request.0)
    }

    /// A token as requested, and when it expires.
    pub(crate) fn issue(
        &self,
        registry: &Registry,
        account: &Object,
        request: &Object,
        now: Timestamp,
    ) -> Result<(String, Timestamp), ApiError> {
        let seconds = request.integer("/spec/expirationSeconds").unwrap_or(DEFAULT_SECONDS);
        let audiences: Vec<String> =
            request.array("/spec/audiences").iter().filter_map(|a| Some(a.as_str()?.to_owned())).collect();
        let mut kubernetes = KubernetesClaims {
            namespace: account.namespace().into(),
            serviceaccount: named(account),
            ..KubernetesClaims::default()
        };
        bind(registry, &mut kubernetes, request)?;
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).map_err(ApiError::internal)?;
        let claims = Claims {
            aud: if audiences.is_empty() { vec![self.issuer.clone()] } else { audiences },
            exp: expires.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: podlog_api::UserInfo::service_account_name(account.namespace(), account.name()),
            kubernetes,
        };
        let signing = self.keys.first();
        let mut header = Header::new(signing.map_or(Algorithm::ES256, |key| key.algorithm));
        header.typ = None;
        header.kid = signing.map(|key| key.id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(|error| {
            tracing::error!(%error, "cannot sign a token");
            ApiError::internal("failed to generate token")
        })?;
        Ok((token, expires))
    }

    /// `GET /.well-known/openid-configuration`.
    pub(crate) fn configuration(&self) -> Answer {
        crate::http::raw_json(&json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.algorithms(),
        }))
    }

    /// `GET /openid/v1/jwks`.
    pub(crate) fn key_set(&self) -> Answer {
        let keys: Vec<&Value> = self.keys.iter().map(|key| &key.published).collect();
        crate::http::raw_json(&json!({"keys": keys}))
    }

    /// What our tokens may be signed by, each once, in order.
    fn algorithms(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.keys.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.into_iter().collect()
    }
}

fn spki(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    STANDARD.decode(body).ok()
}

fn named(object: &Object) -> Named {
    Named { name: object.name().into(), uid: object.uid().into() }
}

/// Binds the token to the object that the request names.
fn bind(registry: &Registry, claims: &mut KubernetesClaims, request: &Object) -> Result<(), ApiError> {
    let Some(reference) = request.at("/spec/boundObjectRef").filter(|r| r.is_object()) else { return Ok(()) };
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object {other:?}",
                claims.serviceaccount.name
            )));
        }
    };
    let resource = find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let namespace = if resource.namespaced { claims.namespace.as_str() } else { "" };
    let object = registry.get(resource, namespace, name)?;
    if !uid.is_empty() && uid != object.uid() {
        let why = format_args!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, why));
    }
    match kind {
        "Pod" => {
            if object.text("/spec/serviceAccountName") != claims.serviceaccount.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    claims.serviceaccount.name
                )));
            }
            claims.node = node_of(registry, &object);
            claims.pod = Some(named(&object));
        }
        "Secret" => claims.secret = Some(named(&object)),
        _ => claims.node = Some(named(&object)),
    }
    Ok(())
}

fn node_of(registry: &Registry, pod: &Object) -> Option<Named> {
    let name = pod.text("/spec/nodeName");
    if name.is_empty() {
        return None;
    }
    let node = registry.find(find("", "v1", "nodes")?, "", name).ok().flatten();
    Some(node.map_or_else(|| Named { name: name.into(), uid: String::new() }, |node| named(&node)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podlog_serving::pki::load_or_create_signing_key;

    use super::*;
    use crate::auth::ServiceAccountAuthenticator;
    use crate::store::RedbStore;

    #[tokio::test]
    async fn tokens_of_an_old_key_stay_valid() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| {
            let path = |extension: &str| folder.path().join(format!("{name}.{extension}"));
            load_or_create_signing_key(&path("key"), &path("pub")).unwrap()
        };
        let (old, new) = (key("old"), key("new"));
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let accounts = find("", "v1", "serviceaccounts").unwrap();
        let account = Object::new(json!({"metadata": {"name": "robot"}}));
        let account = registry.create(accounts, "default", account).await.unwrap();
        let issuer =
            |pair: &(String, String)| TokenIssuer::new("https://i.test".into(), &pair.0, &pair.1).unwrap();
        let request = Object::new(json!({}));
        let (token, _) = issuer(&old).issue(&registry, &account, &request, Timestamp::now()).unwrap();
        let knows = async |issuer: TokenIssuer| {
            let authenticator = ServiceAccountAuthenticator {
                registry: registry.clone(),
                issuer: Arc::new(issuer),
                audiences: vec!["https://i.test".into()],
            };
            let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
            let peer = podlog_serving::Peer {
                address: ([127, 0, 0, 1], 1).into(),
                certificate_chain: Vec::new().into(),
            };
            let parts = request.body(()).unwrap().into_parts().0;
            podlog_serving::Authenticator::authenticate(&authenticator, &parts, &peer).await.is_ok()
        };
        assert!(knows(issuer(&old)).await);
        assert!(!knows(issuer(&new)).await, "another key");
        let mut rotated = issuer(&new);
        rotated.believe(&old.1).unwrap();
        rotated.believe(&format!("{}\n{}", new.1, old.1)).unwrap();
        assert_eq!(rotated.keys.len(), 2, "each key once");
        assert!(knows(rotated).await);
        assert!(issuer(&new).believe("nonsense").is_err());
    }
}
