//! Flags of `podlog apiserver` about what is noted of requests, and how many there may be.

use std::path::PathBuf;
use std::time::Duration;

use podlog_apiserver::{AuditConfig, AuditLogConfig, RequestLimits};

use super::apiserver::duration;

/// The audit log, and limits.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Audit log and limits")]
pub(super) struct AuditArgs {
    /// What is noted of which request: an audit.k8s.io/v1 Policy.
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Where it is noted, a line of JSON each; - for stdout.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// Begin a new file after so many MiB.
    #[arg(long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    audit_log_maxsize: u64,
    /// Files of before that are kept; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Days that files of before are kept; 0 for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u32,
    /// Requests that read at once, watches and logs apart; others get 429. 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = RequestLimits::default().max_in_flight)]
    max_requests_inflight: usize,
    /// Requests that write at once; others get 429. 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = RequestLimits::default().max_mutating_in_flight)]
    max_mutating_requests_inflight: usize,
    /// For a request and its body, watches and logs apart.
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = duration)]
    request_timeout: Duration,
}

impl AuditArgs {
    /// What is noted, if anything.
    pub(super) fn audit(&self) -> Option<AuditConfig> {
        let (policy, path) = self.audit_policy_file.clone().zip(self.audit_log_path.clone())?;
        let log = AuditLogConfig {
            path,
            max_bytes: self.audit_log_maxsize << 20,
            max_backups: Some(self.audit_log_maxbackup).filter(|count| *count > 0),
            max_age_days: Some(self.audit_log_maxage).filter(|days| *days > 0),
        };
        Some(AuditConfig { policy, log })
    }

    /// How much is done at once.
    pub(super) fn limits(&self) -> RequestLimits {
        RequestLimits {
            max_in_flight: self.max_requests_inflight,
            max_mutating_in_flight: self.max_mutating_requests_inflight,
            request_timeout: self.request_timeout,
        }
    }
}
