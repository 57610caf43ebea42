//! The types at which servers, authenticators and authorizers meet.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use podlog_api::{Attributes, Decision, UserInfo};

/// A response body. An error in it aborts the stream, so that the client sees that it is incomplete.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body could not be completed.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The other end of a connection, as TLS knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Remote address.
    pub address: SocketAddr,
    /// Certificates in DER that the peer presented, its own first; it proved to hold the key of that one. *Not* yet
    /// verified against a CA. Empty where it presented none.
    pub certificate_chain: Arc<[Vec<u8>]>,
}

/// What a server does with a request.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Failures are answers too.
    async fn handle(&self, request: Request<hyper::body::Incoming>, peer: Peer) -> Response<Body>;
}

/// Finds out who asks.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `Ok(None)` when the request carries no credential of this authenticator's kind.
    ///
    /// # Errors
    /// When it carries one that is wrong; the request is then refused unless another authenticator succeeds.
    async fn authenticate(&self, request: &Parts, peer: &Peer) -> Result<Option<UserInfo>, AuthnError>;
}

/// Decides whether somebody may do something.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Decides.
    ///
    /// # Errors
    /// When no decision could be reached, e.g. because the API server behind a webhook is down.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError>;
}

/// A credential was presented and is wrong. The text is for our own log; the client only sees 401.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthnError(pub String);

/// No decision could be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthzError(pub String);
