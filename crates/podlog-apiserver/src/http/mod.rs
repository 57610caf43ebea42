//! From an HTTP request to an answer: identity, permission, route, representation.

mod answer;
mod call;
mod continuation;
mod discovery;
mod dispatch;
mod frames;
mod handler;
mod health;
mod impersonation;
mod in_flight;
mod list;
mod list_options;
mod malformed;
mod metrics;
mod negotiation;
mod options;
mod sending;
#[cfg(test)]
mod tests;
mod watch;
mod write;
mod write_options;

pub(crate) use answer::{Answer, no_content, raw_json};
pub(crate) use call::{Call, ReadError, Target, read_limited};
pub(crate) use handler::{ApiHandler, App};
pub(crate) use impersonation::Impersonated;
pub(crate) use in_flight::InFlight;
pub(crate) use list::value as json_answer;
pub(crate) use metrics::Metrics;
pub(crate) use negotiation::first;
pub(crate) use options::Selection;
pub(crate) use write::decode;
