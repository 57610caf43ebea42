//! The API server: resources, storage, watch, admission, and the relay of log bytes from nodes.
//!
//! [`ApiServer::start`] opens the store and serves; [`Registry`] is what controllers in the same process work with.
//!
//! Left to others: what a request means (`podlog-api`), TLS and HTTP (`podlog-serving`), what a log line is: bytes of a log
//! pass through here unread.

mod auth;
mod bootstrap;
mod config;
pub mod controllers;
mod http;
mod log_coding;
mod logs;
mod node_proxy;
pub mod registry;
mod reviews;
mod server;
pub mod store;

pub use config::{
    AnonymousRequests, ApiServerConfig, AuthenticationConfig, AuthorizationConfig, AuthorizationMode,
    BootstrapTokens, Storage,
};
pub use registry::Registry;
pub use server::{ApiServer, StartError};
pub use store::etcd::EtcdConfig;
