//! Protocols that others defined, as generated code: messages, gRPC clients, and servers for what podlog serves; no behaviour.
//!
//! Made by `tools/protogen` from the files in `proto/`; a test there fails when they are not in step. Nothing here is
//! written by hand but this file.
//!
//! Left to others: connections, TLS, retries and meaning.

/// The Container Runtime Interface, version v1: how a kubelet speaks to containerd and CRI-O.
#[rustfmt::skip]
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the protocol file has names and numbers only"
)]
pub mod cri;

/// etcd v3: what the API server keeps objects in beyond one machine.
#[rustfmt::skip]
#[expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "generated; the comments are those of the protocol file"
)]
pub mod etcd;

/// gRPC's health checks: what probes ask containers.
#[rustfmt::skip]
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the protocol file has names and numbers only"
)]
pub mod health;
