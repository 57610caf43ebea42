//! The server without a network: requests in, answers out.

mod accounts;
mod apply;
mod audit;
mod certificates;
mod contract;
mod limits;
mod rest;
mod routes;
mod subresources;
mod tokens;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use podlog_api::UserInfo;
use podlog_serving::pki::load_or_create_signing_key;
use podlog_serving::{
    Authenticator, AuthnError, NodeClient, NodeClientConfig, Peer, UnionAuthenticator, full_body,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{App, InFlight, Metrics};
use crate::auth::{
    BearerAuthenticator, ClusterAuthorizer, Member, PolicyKeeper, ServiceAccountAuthenticator, TokenIssuer,
};
use crate::config::RequestLimits;
use crate::registry::Registry;
use crate::store::RedbStore;

const ISSUER: &str = "https://issuer.test";

/// Believes the header `x-user`; groups follow after commas.
struct Believer;

#[async_trait]
impl Authenticator for Believer {
    async fn authenticate(&self, request: &Parts, _peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let Some(header) = request.headers.get("x-user") else { return Ok(None) };
        let mut words = header.to_str().unwrap().split(',').map(str::to_owned);
        let username = words.next().unwrap();
        Ok(Some(UserInfo { username, groups: words.collect(), ..UserInfo::default() }))
    }
}

/// An answer, read to its end.
struct Answered {
    code: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server with the default namespace, its service account, and default roles in force.
async fn server() -> Arc<App> {
    podlog_serving::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (private, public) =
        load_or_create_signing_key(&folder.path().join("k"), &folder.path().join("p")).unwrap();
    let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
    crate::bootstrap::ensure(&registry).await.unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(PolicyKeeper::start(registry.clone()).unwrap().run(shutdown.clone()));
    let issuer = Arc::new(TokenIssuer::new(ISSUER.into(), &private, &public).unwrap());
    let accounts = Arc::new(ServiceAccountAuthenticator {
        registry: registry.clone(),
        issuer: issuer.clone(),
        audiences: vec![ISSUER.into()],
    });
    let tokens: Arc<dyn Authenticator> = Arc::new(BearerAuthenticator(vec![accounts.clone()]));
    let authenticator = UnionAuthenticator::new(vec![Arc::new(Believer), tokens.clone()])
        .with_anonymous_on(&["/healthz", "/livez", "/readyz"]);
    let app = Arc::new(App {
        authenticator: Arc::new(authenticator),
        authorizer: Arc::new(ClusterAuthorizer::new(registry.clone(), vec![Member::Node, Member::Rbac])),
        token_authenticator: tokens,
        accounts,
        issuer,
        nodes: NodeClient::new(NodeClientConfig::default()).unwrap(),
        preferred_address_types: vec!["InternalIP".into()],
        stream_rules: podlog_api::StreamRules::Exact,
        metrics: Metrics::new(),
        auditor: None,
        in_flight: InFlight::new(&RequestLimits::default()),
        request_timeout: Duration::from_secs(60),
        version: json!({}),
        address: "127.0.0.1:6443".into(),
        shutdown,
        registry,
    });
    let made = app
        .post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    assert_eq!(made.code, 201, "{}", made.text());
    app
}

const ADMIN: (&str, &str) = ("x-user", "admin,system:masters");

impl App {
    async fn send(
        self: &Arc<Self>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answered {
        let answer = self.open(method, target, headers, body).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answered { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn open(
        self: &Arc<Self>,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> super::Answer {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
        // Tests that ask for much would not have it all on their stacks.
        Box::pin(self.serve(request.body(full_body(body.into())).unwrap(), peer)).await
    }

    async fn get(self: &Arc<Self>, target: &str) -> Answered {
        self.send("GET", target, &[ADMIN], "").await
    }

    async fn post(self: &Arc<Self>, target: &str, body: Value) -> Answered {
        self.send("POST", target, &[ADMIN, ("content-type", "application/json")], body.to_string()).await
    }
}
