//! A whole kubelet against a small API server and a container runtime without containers.

#![expect(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]
#![expect(clippy::print_stderr, reason = "a test that was skipped says so loudly")]

mod api;
mod bench;
mod cri_socket;
mod followers;
mod front;
mod journal;
#[path = "../../../../tests/support/journald.rs"]
mod journald;
mod logs;
mod node;
mod pods;
mod probes;
mod retained;
mod rotation;
mod runtime;
mod slow_runtime;
mod table;
mod troubles;
mod volumes;
