//! Id tokens of an OpenID Connect provider, through kubectl.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use podlog_apiserver::OidcConfig;
use podlog_serving::pki::load_or_create_signing_key;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::kubectl;
use crate::outside::Outside;

/// A key of the provider.
struct Key {
    id: &'static str,
    private: String,
    public: String,
}

impl Key {
    fn new(folder: &Path, id: &'static str) -> Key {
        let files = (folder.join(format!("{id}.key")), folder.join(format!("{id}.pub")));
        let (private, public) = load_or_create_signing_key(&files.0, &files.1).unwrap();
        Key { id, private, public }
    }

    fn jwk(&self) -> Value {
        let body: String = self.public.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        let (x, y) = der[der.len() - 64..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.into());
        let key = EncodingKey::from_ec_pem(self.private.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_is_known_by_id_tokens_and_keys_rotate() {
    let Some(kubectl) = kubectl::any() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Key::new(folder.path(), "old"), Key::new(folder.path(), "new"));
    let stranger = Key::new(folder.path(), "stranger");
    let unknown_kind = json!({"kty": "quantum", "kid": "q"});
    let (issuer, keys) =
        (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(json!([unknown_kind, old.jwk()]))));
    let provider = Outside::start(folder.path(), {
        let (issuer, keys) = (issuer.clone(), keys.clone());
        move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let issuer = issuer.lock().clone();
                Some(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
            }
            "/keys" => Some(json!({"keys": *keys.lock()})),
            _ => None,
        }
    })
    .await;
    issuer.lock().clone_from(&provider.url);
    let cluster = Cluster::start_with(|config, _| {
        config.authentication.oidc = Some(OidcConfig {
            ca: Some(folder.path().join("outside-ca.crt")),
            username_claim: "email".into(),
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            algorithms: vec![Algorithm::ES256],
            ..OidcConfig::new(provider.url.clone(), "podlog")
        });
    })
    .await;
    let whoami = |name: &str, token: String| {
        let kubeconfig = cluster.kubeconfig_with_token(name, &token);
        kubectl::run(&kubectl, &kubeconfig, "auth whoami -o yaml")
    };
    let claims = |change: fn(&mut Value)| {
        let mut claims = json!({"iss": provider.url, "aud": ["podlog"], "email": "ann@example.com",
            "email_verified": true, "groups": ["devs", "ops"], "exp": now() + 600, "iat": now()});
        change(&mut claims);
        claims
    };
    let (exit, said) = whoami("ann", old.sign(&claims(|_| {})));
    assert_eq!(exit, 0, "{said}");
    for part in ["username: ann@example.com", "- oidc:devs", "- oidc:ops", "- system:authenticated"] {
        assert!(said.contains(part), "{said}");
    }
    let refused: [(&str, String); 6] = [
        ("expired", old.sign(&claims(|claims| claims["exp"] = json!(now() - 1)))),
        ("audience", old.sign(&claims(|claims| claims["aud"] = json!("other")))),
        ("unverified", old.sign(&claims(|claims| claims["email_verified"] = json!(false)))),
        ("issuer", old.sign(&claims(|claims| claims["iss"] = json!("https://other.test")))),
        ("stranger", stranger.sign(&claims(|_| {}))),
        ("changed", {
            let token = old.sign(&claims(|_| {}));
            let (head, signature) = token.rsplit_once('.').unwrap();
            format!("{}.{signature}", &head[..head.len() - 2])
        }),
    ];
    for (why, token) in refused {
        let (exit, said) = whoami(why, token);
        assert!(exit == 1 && said.contains("You must be logged in to the server"), "{why}: {said}");
    }
    let fetched = provider.count("/keys");
    assert!(fetched <= 3, "strange tokens make the server ask {fetched} times");

    // The provider changes its key: the first token of the new one makes us look.
    *keys.lock() = json!([new.jwk()]);
    let token = new.sign(&claims(|_| {}));
    let begin = Instant::now();
    while whoami("new", token.clone()).0 != 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the new key is not found");
    }
    cluster.server.shutdown().await.unwrap();
}
