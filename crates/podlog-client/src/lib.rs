//! The client's side: kubeconfig, requests, log streams of one pod or many, manifests and `apply`.
//!
//! Whoever knows kubectl knows this: the same arguments, texts and exit codes. Where kubectl is silent about an
//! incomplete log, this is not: a stream that breaks is an error.
//!
//! Left to others: flags of the program as a whole and process exit (`podlog`), what an API server does (`podlog-apiserver`).

mod api;
pub mod apply;
mod config;
mod error;
pub mod follow;
pub mod logs;
pub mod manifest;
mod multiplexed;
mod output;
#[cfg(test)]
mod testing;

pub use api::Connection;
pub use config::ConnectionOptions;
pub use error::{ClientError, ServerStatus};
pub use output::Colour;
pub use podlog_api::go::GoDuration;
