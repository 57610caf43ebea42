//! What was prepared, until somebody comes for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podlog_container::ContainerDir;
use tokio::time::Instant;

use crate::runtime::process::record::ContainerRecord;
use crate::runtime::{RuntimeError, Streams};

/// How long it is kept (`CacheTTL`).
const TIME_TO_LIVE: Duration = Duration::from_secs(60);
/// How much is kept at a time (`MaxInFlight`).
const MAX_IN_FLIGHT: usize = 1000;

/// What somebody will come for.
pub(in crate::runtime::process) enum Ticket {
    /// A command that is to be run in a container.
    Exec { dir: ContainerDir, command: Vec<String>, streams: Streams },
    /// The streams of a container.
    Attach { record: Arc<ContainerRecord>, streams: Streams },
    /// Ports of a sandbox: those that WebSockets are for.
    Forward { sandbox: String, ports: Vec<u16> },
}

impl Ticket {
    /// The first part of its path.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Ticket::Exec { .. } => "exec",
            Ticket::Attach { .. } => "attach",
            Ticket::Forward { .. } => "portforward",
        }
    }
}

/// All that is kept.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<String, (Ticket, Instant)>>);

impl Tickets {
    /// Keeps it; returns its path.
    ///
    /// # Errors
    /// When there is too much already.
    pub(super) fn keep(&self, ticket: Ticket) -> Result<String, RuntimeError> {
        let now = Instant::now();
        let mut kept = self.0.lock();
        kept.retain(|_, (_, until)| *until > now);
        if kept.len() >= MAX_IN_FLIGHT {
            let message = "maximum number of in-flight requests exceeded".to_owned();
            return Err(RuntimeError::Rpc { code: "ResourceExhausted", message });
        }
        let path = format!("/{}/{}", ticket.kind(), uuid::Uuid::new_v4().simple());
        kept.insert(path.clone(), (ticket, now + TIME_TO_LIVE));
        Ok(path)
    }

    /// What lies at a path. Nobody else will find it there.
    pub(super) fn take(&self, path: &str) -> Option<Ticket> {
        let (ticket, until) = self.0.lock().remove(path)?;
        (until > Instant::now()).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket::Forward { sandbox: "s".into(), ports: vec![80] }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_found_once_and_not_for_long() {
        let tickets = Tickets::default();
        let (first, second) = (tickets.keep(ticket()).unwrap(), tickets.keep(ticket()).unwrap());
        assert!(first.starts_with("/portforward/") && first.len() > 40 && first != second, "{first}");
        assert!(tickets.take("/portforward/").is_none());
        assert!(tickets.take(&first).is_some());
        assert!(tickets.take(&first).is_none());
        tokio::time::advance(TIME_TO_LIVE).await;
        assert!(tickets.take(&second).is_none());
        for _ in 0..MAX_IN_FLIGHT {
            tickets.keep(ticket()).unwrap();
        }
        let refused = tickets.keep(ticket());
        assert!(matches!(refused, Err(RuntimeError::Rpc { code: "ResourceExhausted", .. })));
        tokio::time::advance(TIME_TO_LIVE).await;
        assert!(tickets.keep(ticket()).is_ok());
    }
}
