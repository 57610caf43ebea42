//! The node: runs pods on a container runtime, reports their status, and serves their logs.
//!
//! Left to others: log formats and files (`podlog-line`, `podlog-driver`), TLS and HTTP (`podlog-serving`), the
//! API server's storage (`podlog-apiserver`).

pub mod certificates;
pub mod config;
mod env;
mod events;
mod eviction;
#[doc(hidden)]
pub mod fuzzing;
mod go;
mod healthz;
mod images;
mod kubelet;
mod layout;
mod node;
mod objects;
mod pods;
mod probes;
mod retained;
mod rotation;
pub mod runtime;
mod server;
mod static_pods;
mod usage;
mod volumes;

pub use kubelet::{ApiConnection, Kubelet, KubeletError, KubeletOptions};
pub use node::internal_ip;
pub use pods::POD_TERMINATION_GRACE as GRACE_PERIOD_ANNOTATION;
pub use server::{Front, FrontError, FrontOptions, GateError};
