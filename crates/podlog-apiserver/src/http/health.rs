//! `/healthz`, `/livez` and `/readyz`, as `k8s.io/apiserver/pkg/server/healthz`.

use http::StatusCode;
use podlog_api::query::Query;

use super::App;
use super::answer::{self, Answer};

/// Checks of every endpoint, and those that only readiness has.
const CHECKS: &[&str] = &["ping", "log", "etcd"];
const READY_CHECKS: &[&str] = &["etcd-readiness", "informer-sync", "shutdown"];

/// The answer of a health path; `None` when it is none.
pub(crate) fn answer(app: &App, path: &str, query: &Query) -> Option<Answer> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let ready: &[&str] = if endpoint == "readyz" { READY_CHECKS } else { &[] };
    let checks: Vec<&str> = CHECKS.iter().chain(ready).copied().collect();
    let result = match parts.next() {
        None => summary(app, endpoint, &checks, query),
        Some(check) if checks.contains(&check) => single(app, check),
        Some(_) => answer::page_not_found(),
    };
    Some(result)
}

fn summary(app: &App, endpoint: &str, checks: &[&str], query: &Query) -> Answer {
    let excluded = |check: &str| query.first("exclude") == Some(check);
    let mut failed = Vec::new();
    let mut report = String::new();
    for check in checks {
        if excluded(check) {
            report += &format!("[+]{check} excluded: ok\n");
        } else if passes(app, check) {
            report += &format!("[+]{check} ok\n");
        } else {
            failed.push(*check);
            report += &format!("[-]{check} failed: reason withheld\n");
        }
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, ?failed, "health check failed");
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"));
    }
    if query.first("verbose").is_some() {
        return answer::text(StatusCode::OK, format!("{report}{endpoint} check passed\n"));
    }
    answer::text(StatusCode::OK, "ok")
}

fn single(app: &App, check: &str) -> Answer {
    if passes(app, check) {
        answer::text(StatusCode::OK, "ok")
    } else {
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n")
    }
}

fn passes(app: &App, check: &str) -> bool {
    match check {
        "etcd" | "etcd-readiness" => app.registry.store().health().is_ok(),
        "shutdown" => !app.shutdown.is_cancelled(),
        // Answering at all is what the others ask for; the policy is loaded before the first request.
        _ => true,
    }
}
