//! The whole way, from outside: the real binary, real processes, real TLS, stock kubectl.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says why it was skipped"
)]

mod attacks;
mod harness;
mod queries;
mod shared_storage;
mod survival;
mod walk;
