//! What happens when memory, disk or processes run out: something is given back, or a pod has to go.
//!
//! Follows `pkg/kubelet/eviction`.

mod admission;
mod limits;
mod manager;
mod message;
mod observe;
mod pressure;
mod rank;
mod reclaim;

pub(crate) use admission::refusal;
pub(crate) use manager::EvictionManager;
pub(crate) use pressure::{Pressure, Pressures};
