//! The API server: resources, storage, watch, admission, and the relay of log bytes from nodes.
//!
//! [`ApiServer::start`] opens the store and serves; [`Registry`] is what controllers in the same process work with.
//!
//! Left to others: what a request means (`podlog-api`), TLS and HTTP (`podlog-serving`), what a log line is: bytes of a log
//! pass through here unread.

mod access;
mod audit;
mod auth;
mod bootstrap;
mod config;
pub mod controllers;
mod deleted_pods;
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod http;
mod log_coding;
mod logs;
mod node_proxy;
pub mod registry;
mod reviews;
mod server;
pub mod store;
mod streams;

pub use audit::AuditError;
pub use auth::WebhookConfigError;
pub use config::{
    AccessWebhookConfig, AnonymousRequests, ApiServerConfig, AuditConfig, AuditLogConfig,
    AuthenticationConfig, AuthorizationConfig, AuthorizationMode, BootstrapTokens, OidcConfig,
    RequestHeaderConfig, RequestLimits, Storage, TokenWebhookConfig,
};
/// How an OpenID provider signs.
pub use jsonwebtoken::Algorithm as OidcAlgorithm;
pub use registry::Registry;
pub use server::{ApiServer, StartError};
pub use store::etcd::EtcdConfig;
