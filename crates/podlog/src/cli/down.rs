//! `podlog down`: stops `podlog up` and every pod that it left running.

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;

/// Stop `podlog up` on a data directory, and the pods that it runs.
///
/// Every container gets SIGTERM, its pod's grace period, then SIGKILL. Objects and logs stay: the next `podlog up` on the
/// same data directory starts the pods again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  podlog down --data-dir ./data --grace-period 5")]
pub(super) struct DownArgs {
    /// Data directory of the `podlog up` to stop [default: /var/lib/podlog for root, else $XDG_STATE_HOME/podlog].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Seconds between SIGTERM and SIGKILL, in place of each pod's own `terminationGracePeriodSeconds`.
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
}

pub(super) fn run(args: &DownArgs) -> anyhow::Result<Exit> {
    let grace = args.grace_period.map(|seconds| Duration::from_secs(seconds.into()));
    crate::down::run(args.data_dir.clone(), grace)
}
