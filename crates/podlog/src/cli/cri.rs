//! `podlog cri`: the process runtime behind a socket.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context as _;
use podlog_api::quantity::Quantity;
use podlog_driver::FileLimits;
use podlog_kubelet::runtime::LogPolicy;
use podlog_kubelet::runtime::cri::Endpoint;
use podlog_kubelet::runtime::cri_server::CriServer;
use podlog_kubelet::runtime::process::{ProcessRuntime, ProcessRuntimeConfig};

use crate::exit::Exit;
use crate::memory;
use crate::up::{DataDir, allow_many_files, stop_signal};

/// Offer the process runtime as a CRI v1 server, to Kubernetes' kubelet or to tools such as crictl.
///
/// Containers are processes of this machine; images are names. They keep running when this ends, and the next one on the same
/// data directory takes them over; `podlog down` on it stops them. Log files are rotated by who writes them: a kubelet need not,
/// and does not where its own limit is above the one here.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  podlog cri --listen unix:///run/podlog/cri.sock\n  podlog up --runtime cri --container-runtime-endpoint unix:///run/podlog/cri.sock"
)]
pub(super) struct CriArgs {
    /// Socket to listen on. Only its owner may connect.
    #[arg(long, value_name = "unix:///PATH", default_value = "unix:///run/podlog/cri.sock")]
    listen: Endpoint,
    /// Where its state is kept; not that of a `podlog up`.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/podlog/cri")]
    data_dir: PathBuf,
    /// Address of pods that do not ask for the host's network, which all of them use.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into())]
    pod_ip: IpAddr,
    /// When a log file is rotated, in bytes or as a quantity.
    #[arg(long, value_name = "QUANTITY", default_value = "10Mi", value_parser = bytes)]
    container_log_max_size: u64,
    /// How many files a container's log may have.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    container_log_max_files: u32,
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = Quantity::parse(text).and_then(|quantity| u64::try_from(quantity.value()).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "is no quantity above zero, such as 10Mi".to_owned())
}

/// Runs until Ctrl-C or SIGTERM.
pub(super) fn run(args: CriArgs) -> anyhow::Result<Exit> {
    allow_many_files();
    memory::keep_small();
    let data_dir = DataDir::resolve(Some(args.data_dir))?;
    data_dir.create()?;
    let _lock = data_dir.lock()?;
    let config = ProcessRuntimeConfig {
        root: data_dir.run(),
        capture_command: ["/proc/self/exe", "capture"].map(OsString::from).into(),
        log_limits: FileLimits {
            max_bytes: args.container_log_max_size,
            max_files: args.container_log_max_files,
        },
        log_policy: LogPolicy::default(),
    };
    let tasks = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    tasks.block_on(async {
        let stop = stop_signal()?;
        let runtime = ProcessRuntime::open(config).context("cannot open the process runtime")?;
        let root = data_dir.root().to_owned();
        let server = CriServer::bind(&args.listen, runtime, args.pod_ip, root).await.context("--listen")?;
        anstream::eprintln!("podlog cri listens on unix://{}", args.listen.path().display());
        server.serve(stop).await;
        Ok(Exit::Success)
    })
}
