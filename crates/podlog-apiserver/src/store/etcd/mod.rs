//! Storage beyond one machine: etcd v3, as Kubernetes' own API server lays its objects out there.
//!
//! A server keeps a mirror of all objects and of their recent history, made once from a snapshot and kept by one
//! watch. Reads and watches are answered from it; a request first asks etcd for its newest revision and waits until the
//! mirror has it, so that it sees whatever any server had acknowledged before (`k8s.io/apiserver` calls that a consistent
//! read from cache). Writes are transactions on the key's revision.

mod client;
mod compactor;
#[cfg(test)]
mod faults;
mod follower;
mod leases;
mod mirror;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use client::EtcdConfig;
pub use storage::{ConnectError, EtcdStore};
