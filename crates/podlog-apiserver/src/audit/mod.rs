//! Who did what and when: the audit log (`k8s.io/apiserver/pkg/audit`).
//!
//! A policy says of each request how much is noted. Bodies that hold secrets or tokens are never noted, whatever it says.

mod log;
mod policy;
mod record;

use std::path::PathBuf;
use std::sync::Arc;

use http::request::Parts;
use podlog_api::{RequestInfo, UserInfo};
use podlog_serving::Peer;
use podlog_serving::metrics::Registry;

pub(crate) use log::AuditLog;
pub(crate) use policy::Policy;
pub(crate) use record::{EndsWith, Record};

use crate::config::AuditConfig;
use policy::{Level, Stage};

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for auditing: {reason}", .path.display())]
pub struct AuditError {
    path: PathBuf,
    reason: String,
}

/// Notes requests as a policy says.
pub(crate) struct Auditor {
    policy: Policy,
    log: AuditLog,
}

impl Auditor {
    /// # Errors
    /// When the policy cannot be used, or the log's file cannot be opened.
    pub(crate) fn start(config: &AuditConfig, metrics: &Registry) -> Result<Arc<Self>, AuditError> {
        let wrong = |path: &PathBuf, reason: String| AuditError { path: path.clone(), reason };
        let text = std::fs::read_to_string(&config.policy);
        let text = text.map_err(|error| wrong(&config.policy, error.to_string()))?;
        let policy = Policy::parse(&text).map_err(|reason| wrong(&config.policy, reason))?;
        let log = AuditLog::start(&config.log, metrics);
        let log = log.map_err(|error| wrong(&config.log.path, error.to_string()))?;
        Ok(Arc::new(Auditor { policy, log }))
    }

    /// Begins to note a request of somebody who is known; `None` where the policy wants nothing.
    pub(crate) fn begin(
        self: &Arc<Self>,
        user: &UserInfo,
        info: &RequestInfo,
        parts: &Parts,
        peer: &Peer,
        audit_id: &str,
    ) -> Option<Arc<Record>> {
        let verdict = self.policy.judge(Some(user), &info.attributes);
        if verdict.level == Level::None {
            return None;
        }
        let record = Record::new(self.clone(), verdict, Some(user), info, parts, peer, audit_id);
        record.emit(Stage::RequestReceived, None);
        Some(Arc::new(record))
    }

    /// Begins to note a request of nobody who is known.
    pub(crate) fn begin_refused(
        self: &Arc<Self>,
        info: &RequestInfo,
        parts: &Parts,
        peer: &Peer,
        audit_id: &str,
    ) -> Option<Arc<Record>> {
        let verdict = self.policy.judge(None, &info.attributes);
        let wanted = verdict.level != Level::None;
        wanted.then(|| Arc::new(Record::new(self.clone(), verdict, None, info, parts, peer, audit_id)))
    }

    /// Writes what is still to be written; nothing is noted afterwards.
    pub(crate) fn close(&self) {
        self.log.close();
    }
}
