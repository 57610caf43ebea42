//! Answers that take their time to be sent.

use http_body::Body as _;

use super::Answer;
use super::in_flight::Slot;
use crate::held;

/// A client that does not read what it has asked for has its place as long as it is being sent: what we hold for it is bounded by
/// how many places it can have.
pub(super) fn in_its_place(answer: Answer, slot: Option<Slot>) -> Answer {
    match slot {
        Some(slot) if !answer.body().is_end_stream() => answer.map(|body| held::with_body(slot, body)),
        _ => answer,
    }
}
