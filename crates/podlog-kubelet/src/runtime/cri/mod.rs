//! Runtimes that speak the Container Runtime Interface, version v1: containerd and CRI-O.
//!
//! The runtime runs pods and writes their log files; the kubelet decides, and rotates the files (`crate::rotation`).
//! A runtime that restarts is reached again with the next call; containers do not notice either of the two restarting.
//!
//! Nothing is remembered here that the runtime does not hold: what a sandbox was made from goes with it as an annotation.

mod client;
mod containers;
mod endpoint;
mod error;
mod events;
mod images;
mod process;
mod runtime;
mod sandboxes;

pub use endpoint::{Endpoint, EndpointError};
pub(crate) use error::code_name;
pub use runtime::CriRuntime;
