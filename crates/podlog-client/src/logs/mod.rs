//! `podlog logs`: kubectl's `logs` command, and nothing lost in silence.
//!
//! As `k8s.io/kubectl/pkg/cmd/logs` and `pkg/polymorphichelpers/logsforobject.go`, except that requests go out in a fixed order,
//! that a stream that breaks is an error, and that followed lines of several containers never mix.

mod by_frame;
mod by_time;
mod containers;
mod deleted;
mod first_pod;
#[cfg(test)]
mod kubectl_tests;
mod line_filter;
mod opening;
mod options;
mod resume;
#[cfg(test)]
mod resume_tests;
mod run;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod unpack;

pub(crate) use by_frame::ByFrame;
pub(crate) use by_time::ByTime;
pub use options::{LogsOptions, StreamChoice};
pub use run::{Streams, run};
pub(crate) use stream::{LogBody, Opened, request};
