//! The kubelet's HTTPS endpoint.
//!
//! Paths, codes and texts as `pkg/kubelet/server/server.go`.

mod access;
mod choose;
mod desk;
mod ending;
mod files;
mod framing;
mod front;
mod handler;
mod hints;
mod hub;
mod log;
mod logs;
mod reading;
mod resources;
mod review;
mod selection;
mod stream;
mod streams;
mod summary;
mod system_logs;

pub(crate) use access::Gate;
pub use access::GateError;
pub use front::{Front, FrontError, FrontOptions};
pub(crate) use handler::LogServer;
