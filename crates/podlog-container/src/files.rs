//! The JSON files of a container's directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ProcessIdentity;

/// Reason of a container that ended with exit code 0.
pub const REASON_COMPLETED: &str = "Completed";
/// Reason of a container that ended with another exit code or by a signal.
pub const REASON_ERROR: &str = "Error";
/// Reason of a container whose program could not be started.
pub const REASON_START_ERROR: &str = "StartError";
/// Reason of a container whose end nobody saw.
pub const REASON_UNKNOWN: &str = "ContainerStatusUnknown";
/// Exit code that goes with [`REASON_START_ERROR`], as containerd's CRI service has it.
pub const START_ERROR_EXIT_CODE: i32 = 128;
/// Exit code that goes with [`REASON_UNKNOWN`], as the kubelet has it.
pub const UNKNOWN_EXIT_CODE: i32 = 137;

/// `config.json`. Holds environment values, hence mode 0600.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// What the runtime wants to know again later.
    pub metadata: Metadata,
    /// What capture runs.
    pub process: Process,
}

/// The runtime's own notes about a container; capture does not look at them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Container id, 64 hex digits.
    pub id: String,
    /// Id of its sandbox.
    pub sandbox: String,
    /// Name inside the pod.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// Image reference; recorded, not used.
    pub image: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The program of a container and everything it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Program and arguments, at least one. A name without `/` is looked up in the `PATH` of `env`, inside the view.
    pub argv: Vec<String>,
    /// The whole environment; of equal names the last one holds.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Working directory inside the view; `None` is `/`.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Who it runs as.
    #[serde(default)]
    pub user: User,
    /// Set `no_new_privs`.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// File mode creation mask; `None` is 0022.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Give it a terminal; its output is one stream, stdout.
    #[serde(default)]
    pub tty: bool,
    /// Keep stdin open for those who ask capture for it, instead of `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Close stdin when the first of those has gone. A terminal stays open.
    #[serde(default)]
    pub stdin_once: bool,
    /// Hostname in a UTS namespace of its own; `None` leaves the host's.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Make everything but the mounts, `/dev` and `/proc` read-only.
    #[serde(default)]
    pub readonly_rootfs: bool,
    /// Files and directories of the host that it sees elsewhere.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Where its output goes.
    pub log: Log,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// User and groups of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id; `None` leaves capture's.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group id; `None` is the group of `uid` in `/etc/passwd` of the view, or 0 when it has no entry.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Supplementary groups, besides those that `/etc/group` of the view gives the user.
    #[serde(default)]
    pub supplemental_groups: Vec<u32>,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path inside the view.
    pub target: PathBuf,
    /// Path on the host, a directory or any other file.
    pub source: PathBuf,
    /// Refuse writing.
    #[serde(default)]
    pub readonly: bool,
    /// Propagation.
    #[serde(default)]
    pub propagation: Propagation,
}

/// Whether mounts that the host makes later below a mount's source appear in the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// They do not.
    #[default]
    Private,
    /// They do.
    HostToContainer,
}

/// The log file of a container, when it is rotated, and what is kept of too much output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Absolute path of the current file.
    pub path: PathBuf,
    /// Size at which a new file is begun, in bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
    /// What happens when the program prints faster than the log can be written. Default [`BackPressure::Block`].
    #[serde(default)]
    pub back_pressure: BackPressure,
    /// What [`BackPressure::DropNewest`] and [`BackPressure::DropOldest`] keep in memory, in bytes. Default 1 MiB; at least
    /// 64 KiB are used.
    #[serde(default = "default_buffer_bytes")]
    pub buffer_bytes: u64,
    /// Lines that may be logged in a second, both streams together. Default 0: no limit.
    #[serde(default)]
    pub lines_per_second: u64,
    /// Bytes that may be logged in a second, both streams together. Default 0: no limit.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// Longest content of a record, in bytes; longer lines are split. Default 0: 16 KiB.
    #[serde(default)]
    pub max_record_bytes: u64,
}

/// [`Log::buffer_bytes`] when nothing is said.
pub const DEFAULT_BUFFER_BYTES: u64 = 1 << 20;

fn default_buffer_bytes() -> u64 {
    DEFAULT_BUFFER_BYTES
}

/// A log without a path, of no size.
impl Default for Log {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            max_bytes: 0,
            max_files: 0,
            back_pressure: BackPressure::Block,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
            lines_per_second: 0,
            bytes_per_second: 0,
            max_record_bytes: 0,
        }
    }
}

/// What happens when a program prints faster than its log can be written, or the disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackPressure {
    /// The program waits: nothing is lost.
    #[default]
    Block,
    /// The program goes on. What comes when the buffer is full is dropped and declared.
    DropNewest,
    /// The program goes on. What has waited longest is dropped and declared.
    DropOldest,
}

/// `state.json`: the program has been started, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The container's first process; also the id of its session.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// When it was started.
    pub started_at: Timestamp,
    /// How it has ended, noted for a capture's next monitor while the rest of the container ends; `exit.json` is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// `exit.json`: the container has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Exit code of the first process; 128 + signal number when a signal ended it.
    pub exit_code: i32,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError` or `ContainerStatusUnknown`.
    pub reason: String,
    /// Text for people; empty in the ordinary case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Bytes of output that could not be written to the log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Exit {
    /// The end of a container by exit code.
    pub fn exited(code: i32, finished_at: Timestamp) -> Self {
        let reason = if code == 0 { REASON_COMPLETED } else { REASON_ERROR };
        Self::because(reason, code, String::new(), finished_at)
    }

    /// The end of a container by signal.
    pub fn signaled(signal: i32, finished_at: Timestamp) -> Self {
        Self { signal: Some(signal), ..Self::exited(128 + signal, finished_at) }
    }

    /// A program that could not be started.
    pub fn start_error(message: String, finished_at: Timestamp) -> Self {
        Self::because(REASON_START_ERROR, START_ERROR_EXIT_CODE, message, finished_at)
    }

    /// An end that nobody saw.
    pub fn unknown(message: String, finished_at: Timestamp) -> Self {
        Self::because(REASON_UNKNOWN, UNKNOWN_EXIT_CODE, message, finished_at)
    }

    fn because(reason: &str, exit_code: i32, message: String, finished_at: Timestamp) -> Self {
        Self { exit_code, signal: None, reason: reason.to_owned(), message, finished_at, lost_bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_an_older_kubelet_waits_and_has_no_limits() {
        let old = r#"{"path":"/0.log","maxBytes":10,"maxFiles":5}"#;
        let log: Log = serde_json::from_str(old).expect("JSON");
        assert_eq!(log, Log { path: "/0.log".into(), max_bytes: 10, max_files: 5, ..Log::default() });
    }

    #[test]
    fn policies_have_the_names_of_their_gaps() {
        for (policy, name) in [
            (BackPressure::Block, "\"block\""),
            (BackPressure::DropNewest, "\"drop-newest\""),
            (BackPressure::DropOldest, "\"drop-oldest\""),
        ] {
            assert_eq!(serde_json::to_string(&policy).expect("JSON"), name);
        }
    }
}
