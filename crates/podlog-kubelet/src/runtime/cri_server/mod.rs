//! A runtime of ours behind a socket that speaks the Container Runtime Interface, version v1: for Kubernetes' own kubelet, and for
//! tools such as `crictl`.
//!
//! Log files are rotated by who writes them, at the runtime's own limit; a kubelet whose limit is below it may rename them and
//! ask for new ones (`ReopenContainerLog`), as with every CRI runtime. Ours leaves a runtime of this kind alone. Not offered are
//! numbers about sandboxes; such calls are answered `Unimplemented`.

mod serve;
mod services;
mod words;

pub use serve::{CriServer, ListenError};
