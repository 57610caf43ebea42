//! Pods on this node: what they ask for, what there is, and the steps in between.

mod amounts;
mod backoff;
mod conditions;
mod container_config;
mod container_status;
mod context;
mod dead_containers;
mod decide;
mod ending;
mod hooks;
mod ignored;
mod image;
mod image_name;
mod kill;
pub(crate) mod labels;
mod manager;
mod pull_secrets;
mod resources;
mod retries;
mod security;
mod spec;
mod start;
mod status;
mod status_writer;
mod termination;
#[cfg(test)]
pub(crate) mod testing;
mod view;
mod worker;

pub(crate) use amounts::{Amount, is_critical, priority};
pub(crate) use context::Context;
pub(crate) use dead_containers::Surplus;
pub(crate) use decide::{FailedProbe, Health};
pub(crate) use ending::{EVICTED, Ending};
pub use labels::POD_TERMINATION_GRACE;
pub(crate) use manager::{PodManager, PodSources, Pods};
pub(crate) use spec::{
    PodId, Role, all_containers, find_container, grace_period, is_terminal, pod_ip, qos_class,
};
pub(crate) use start::full as error_text;
pub(crate) use status_writer::StatusWriter;
pub(crate) use view::PodView;
