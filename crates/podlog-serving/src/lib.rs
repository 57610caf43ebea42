//! The network edge: TLS, HTTP servers and the client towards nodes, authentication, and the filter chain.
//!
//! This is the only crate that names rustls, and the only one that can make a [`Permit`]: whoever streams logs asks
//! for one, so nothing is served that was not authorized.
//!
//! Left to others: what a path means (`podlog-api`), logs and storage (the roles above).

mod authn;
mod authz;
mod body;
mod dialer;
mod forward;
mod https;
pub mod metrics;
mod node;
pub mod pki;
mod reload;
mod seam;
mod server;
mod sparse_buffers;
mod tls;
mod upgrade;
pub mod websocket;

pub use authn::{UnionAuthenticator, X509Authenticator, bearer_token};
pub use authz::{Permit, Refusal, authorize};
pub use body::{
    BodySender, ReceiverGone, empty_body, full_body, json_body, pieces_body, relay_body, stream_body,
    stream_body_of, text_body,
};
pub use dialer::{Connection, Dialer};
pub use forward::Forwarder;
pub use https::{HttpsClient, HttpsError};
pub use node::{DialCause, DialError, Liveness, NodeBody, NodeClient, NodeClientConfig, Verify};
pub use reload::Reloading;
pub use seam::{Authenticator, AuthnError, Authorizer, AuthzError, Body, BodyError, Handler, Peer};
pub use server::{Drained, Limits, ServeError, Server};
pub use sparse_buffers::SparseBuffers;
pub use tls::{ServerTls, TlsError, install_crypto_provider};
pub use upgrade::{Upgrade, UpgradeError};
