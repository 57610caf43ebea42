//! What all pods of a kubelet share.

use std::sync::Arc;

use podlog_driver::LogWatcher;

use crate::config::KubeletConfiguration;
use crate::env::NodeFacts;
use crate::events::Events;
use crate::eviction::Pressures;
use crate::layout::Layout;
use crate::objects::ObjectSource;
use crate::retained::RetainedLogs;
use crate::runtime::ContainerRuntime;

use super::dead_containers::Surplus;
use super::status_writer::StatusWriter;

/// What all pods of a kubelet share.
pub(crate) struct Context {
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    /// `process`, `containerd`: the prefix of container ids.
    pub(crate) runtime_name: String,
    pub(crate) objects: Arc<dyn ObjectSource>,
    pub(crate) events: Events,
    pub(crate) statuses: StatusWriter,
    /// What presses on this node.
    pub(crate) pressures: Pressures,
    pub(crate) node: NodeFacts,
    pub(crate) layout: Layout,
    pub(crate) retained: RetainedLogs,
    pub(crate) config: KubeletConfiguration,
    /// Ended containers that are too many on this node.
    pub(crate) surplus: Surplus,
    /// The one watcher of log files; `None` where the system has none left.
    pub(crate) watcher: Option<LogWatcher>,
}
