//! `podlog up`: its flags.

use std::path::PathBuf;

use podlog_api::Compatibility;
use podlog_kubelet::runtime::cri::Endpoint;

use crate::exit::Exit;

/// Start API server, scheduler, controllers and kubelet on this machine, and apply manifests.
///
/// Everything listens on loopback with TLS. Pods run as processes of this machine, or as containers of containerd or CRI-O;
/// they keep running when podlog ends, and the next `podlog up` on the same data directory takes them over. `podlog down`
/// stops processes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  podlog up -f examples/ --follow\n  podlog up --data-dir ./data --secure-port 0 --kubelet-port 0"
)]
pub(crate) struct UpArgs {
    /// Manifests to apply: a file, a directory (its *.yaml, *.yml and *.json), or - for stdin. May be repeated.
    #[arg(long = "filename", short = 'f', value_name = "FILE|DIR|-")]
    pub(crate) filenames: Vec<PathBuf>,
    /// Where objects, certificates, logs and the kubeconfig are kept [default: /var/lib/podlog for root, else
    /// $XDG_STATE_HOME/podlog].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Port of the API server on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 6443)]
    pub(crate) secure_port: u16,
    /// Port of the kubelet on 127.0.0.1; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// Name of this machine's Node [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// A KubeletConfiguration file, e.g. for containerLogMaxSize, containerLogMaxFiles and podLogsDir.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// What runs containers.
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    pub(crate) runtime: Runtime,
    /// Socket of the runtime, for --runtime cri.
    #[arg(long, value_name = "unix:///PATH", default_value = "unix:///run/containerd/containerd.sock")]
    pub(crate) container_runtime_endpoint: Endpoint,
    /// How logs are read and failures shown.
    #[arg(long, value_enum, default_value_t = CompatibilityName::Exact)]
    pub(crate) compatibility: CompatibilityName,
    /// Print the logs of all pods that the manifests made, each line with its pod and container, until Ctrl-C.
    #[arg(long)]
    pub(crate) follow: bool,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Runtime {
    /// Plain processes of this machine: needs nothing installed, uses no image.
    Process,
    /// Containers, by a runtime that speaks CRI v1: containerd or CRI-O.
    Cri,
}

/// How logs are read and failures shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CompatibilityName {
    /// Nothing is lost or hidden: whole lines, all generations, a stream that breaks off ends in an error.
    Exact,
    /// As Kubernetes 1.36, oddities included: only the newest file, late errors inside the log.
    Upstream,
}

impl From<CompatibilityName> for Compatibility {
    fn from(name: CompatibilityName) -> Self {
        match name {
            CompatibilityName::Exact => Compatibility::Exact,
            CompatibilityName::Upstream => Compatibility::Upstream,
        }
    }
}

pub(super) fn run(args: UpArgs) -> anyhow::Result<Exit> {
    crate::up::run(args)
}
