//! The API server's connection to kubelets: pooled HTTP/2 over TLS, failing in the words of Kubernetes' own.
//!
//! Behaviour as `pkg/kubelet/client/kubelet_client.go` and `k8s.io/apiserver/pkg/registry/generic/rest/streamer.go`.

mod body;
mod client;
mod connection;
mod dial;
mod error;
#[cfg(test)]
mod tests;

pub use body::NodeBody;
pub(crate) use client::client_config;
pub use client::{NodeClient, NodeClientConfig, Verify};
pub use connection::Liveness;
pub(crate) use dial::{Dialled, Timeouts, dial, dial_plain};
pub(crate) use error::Ends;
pub use error::{DialCause, DialError};
