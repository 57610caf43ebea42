//! The whole way, from outside: the real binary, real processes, real TLS, stock kubectl.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says why it was skipped"
)]

mod attacks;
mod clients;
mod deleted;
mod front;
mod harness;
mod kubelet;
mod kubelets;
#[expect(dead_code, reason = "only some of it is used here")]
#[path = "../support/containerd.rs"]
mod machine;
mod namespaces;
mod nodes;
mod queries;
mod relay;
mod scripted_kubelet;
mod shared_storage;
mod standalone;
mod survival;
mod walk;
mod wire;
