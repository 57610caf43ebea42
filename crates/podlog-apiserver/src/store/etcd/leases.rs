//! Leases: what makes keys go by themselves.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{CallError, Client};

/// Keys written within this time share a lease, and so go up to this much later than asked for
/// (`--lease-reuse-duration-seconds` of kube-apiserver).
const SHARED_FOR: Duration = Duration::from_secs(60);
/// A lease has at most so many keys: they all go at once.
const MAX_KEYS: usize = 1000;

/// Hands out leases, the same one for a while.
#[derive(Default)]
pub(super) struct Leases {
    current: Mutex<Option<Lease>>,
}

struct Lease {
    id: i64,
    ttl: Duration,
    granted: Instant,
    keys: usize,
}

impl Leases {
    /// A lease that ends at least `ttl` from now.
    pub(super) async fn for_key(&self, client: &Client, ttl: Duration) -> Result<i64, CallError> {
        let mut current = self.current.lock().await;
        if let Some(lease) = current.as_mut().filter(|lease| lease.serves(ttl)) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted = Instant::now();
        let seconds = i64::try_from((ttl + SHARED_FOR).as_secs()).unwrap_or(i64::MAX);
        let id = client.grant(seconds).await?;
        *current = Some(Lease { id, ttl, granted, keys: 1 });
        Ok(id)
    }
}

impl Lease {
    fn serves(&self, ttl: Duration) -> bool {
        self.ttl == ttl && self.granted.elapsed() < SHARED_FOR && self.keys < MAX_KEYS
    }
}
