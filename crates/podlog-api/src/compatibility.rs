//! Ours or Kubernetes' own, where the two differ on purpose.

use crate::StreamRules;

/// Whose behaviour is wanted where Kubernetes' log path hides or loses something.
///
/// ```
/// use podlog_api::{Compatibility, StreamRules};
///
/// assert_eq!(Compatibility::default().stream_rules(), StreamRules::Exact);
/// assert_eq!(Compatibility::Upstream.stream_rules(), StreamRules::Upstream);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compatibility {
    /// Nothing is lost or hidden: whole lines of all generations, streams that can be chosen, and a log that may be
    /// incomplete ends in an error.
    #[default]
    Exact,
    /// As Kubernetes 1.36 with its default feature gates, oddities included.
    Upstream,
}

impl Compatibility {
    /// Whether `stream` may be asked for.
    pub fn stream_rules(self) -> StreamRules {
        match self {
            Compatibility::Exact => StreamRules::Exact,
            Compatibility::Upstream => StreamRules::Upstream,
        }
    }
}
