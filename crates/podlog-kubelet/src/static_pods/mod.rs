//! Pods that files of this node ask for, and the mirrors that show them in the API.
//!
//! Follows `pkg/kubelet/config` and `pkg/kubelet/pod/mirror_client.go`.

mod directory;
mod manifest;
mod mirror;

pub(crate) use directory::Directory;
pub(crate) use manifest::{is_mirror, is_static};
pub(crate) use mirror::{MirrorPods, Mirrors};
