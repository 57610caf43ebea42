//! The process runtime: containers are process trees of the host. It needs nothing installed, and images are not used.
//!
//! Every container has a capture process of its own, which is its parent and its supervisor. This module decides what
//! captures run, starts them, talks to them and reads what they leave in their directories:
//!
//! ```text
//! <root>/<sandbox id>/sandbox.json
//! <root>/<sandbox id>/<container id>/      see the crate podlog-container
//! ```
//!
//! All state is on disk. A kubelet that was killed finds every sandbox and container again; captures never notice.

mod control;
mod error;
mod exec;
mod handover;
mod lifecycle;
mod record;
mod runtime;
mod spec;
mod status;
mod store;
pub(crate) mod streams;
mod usage;

pub(crate) use runtime::NAME;
pub use runtime::{ProcessRuntime, ProcessRuntimeConfig};
