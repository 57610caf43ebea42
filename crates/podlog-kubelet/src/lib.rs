//! The node: runs pods on a container runtime, reports their status, and serves their logs.
//!
//! Left to others: log formats and files (`podlog-line`, `podlog-driver`), TLS and HTTP (`podlog-serving`), the
//! API server's storage (`podlog-apiserver`).

pub mod runtime;
