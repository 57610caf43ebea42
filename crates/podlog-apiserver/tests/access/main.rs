//! Who is believed and who may do what, against a real server over TLS.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

mod account_keys;
mod audit;
mod certificates;
mod cluster;
#[path = "../harness/mod.rs"]
mod harness;
mod kubectl;
mod oidc;
mod outside;
mod reload;
mod webhooks;
