//! Which of several servers runs the controllers: whoever holds a Lease, as `k8s.io/client-go/tools/leaderelection`.
//!
//! A candidate trusts no clock but its own: a lease is over when it has seen it unchanged for as long as it says.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use podlog_api::{ApiError, Object, Reason};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ControllerConfig, kinds, spawn_all};
use crate::registry::{Part, Registry};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "podlog-controllers";
/// Defaults of upstream's components: how long others respect a leader that is silent, how long a leader tries to be heard
/// before it stops, and how often everybody looks.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Runs the controllers whenever `identity` leads, until `shutdown`. Needed where several servers share a storage.
pub async fn run_elected(
    registry: Registry,
    config: ControllerConfig,
    identity: String,
    shutdown: CancellationToken,
) {
    let mut candidate = Candidate { registry, identity, seen: None };
    while shutdown.run_until_cancelled(candidate.win()).await.is_some() {
        tracing::info!(identity = candidate.identity, "leading: the controllers run here");
        let term = shutdown.child_token();
        let controllers = spawn_all(&candidate.registry, config.clone(), &term);
        if shutdown.run_until_cancelled(candidate.hold()).await.is_some() {
            tracing::warn!(identity = candidate.identity, "no longer leading: the controllers stop here");
        }
        term.cancel();
        controllers.join_all().await;
    }
    candidate.resign().await;
}

/// One who wants to lead.
struct Candidate {
    registry: Registry,
    identity: String,
    /// The lease as it was seen last, and since when it has been so.
    seen: Option<(Object, Instant)>,
}

/// What there is to be done about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none.
    Create,
    /// It is ours.
    Renew,
    /// It was somebody else's, or nobody's.
    Take,
    /// It is somebody else's.
    Wait,
}

impl Candidate {
    /// Returns when the lease is ours.
    async fn win(&mut self) {
        while !self.attempt().await {
            tokio::time::sleep(RETRY_PERIOD).await;
        }
    }

    /// Returns when it is ours no longer, or may not be.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY_PERIOD).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) if self.is_lost() => return,
                _ => {}
            }
        }
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    async fn resign(&mut self) {
        let Some((lease, _)) = self.seen.take().filter(|(lease, _)| holder(lease) == self.identity) else {
            return;
        };
        let mut spec = lease.at("/spec").cloned().unwrap_or_default();
        spec["holderIdentity"] = json!("");
        spec["leaseDurationSeconds"] = json!(1);
        if let Err(error) = self.write(lease, spec).await {
            tracing::debug!(%error, "cannot give the lease of the controllers back");
        }
    }

    /// Whether the lease is ours now.
    async fn attempt(&mut self) -> bool {
        match self.try_lease().await {
            Ok(is_ours) => is_ours,
            // Somebody else was faster: the next look says who.
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::AlreadyExists) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot have the lease of the controllers");
                false
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.seen.as_ref().is_some_and(|(lease, _)| holder(lease) != self.identity)
    }

    async fn try_lease(&mut self) -> Result<bool, ApiError> {
        self.registry.catch_up().await?;
        let lease = self.registry.find(kinds::leases(), NAMESPACE, NAME)?;
        let unchanged = self.observe(lease.as_ref());
        let step = decide(lease.as_ref(), unchanged, &self.identity);
        let written = match (step, lease) {
            (Step::Wait, _) => return Ok(false),
            (_, None) => {
                let lease = json!({"metadata": {"name": NAME}, "spec": self.spec(step, None)});
                self.registry.create(kinds::leases(), NAMESPACE, Object::new(lease)).await?
            }
            (step, Some(lease)) => {
                let spec = self.spec(step, Some(&lease));
                self.write(lease, spec).await?
            }
        };
        self.observe(Some(&written));
        Ok(true)
    }

    /// Remembers the lease; answers how long it has been as it is.
    fn observe(&mut self, lease: Option<&Object>) -> Duration {
        match (&self.seen, lease) {
            (Some((seen, since)), Some(lease)) if seen == lease => since.elapsed(),
            (_, lease) => {
                self.seen = lease.map(|lease| (lease.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn spec(&self, step: Step, lease: Option<&Object>) -> serde_json::Value {
        let now = micro_time(Timestamp::now());
        let acquired = lease.filter(|_| step == Step::Renew).map(|lease| lease.text("/spec/acquireTime"));
        let transitions = lease.and_then(|lease| lease.integer("/spec/leaseTransitions")).unwrap_or(0);
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_DURATION.as_secs(),
            "acquireTime": acquired.unwrap_or(&now),
            "renewTime": now,
            "leaseTransitions": transitions + i64::from(step == Step::Take),
        })
    }

    /// Stores another specification of the lease, unless somebody else has changed it since it was read.
    async fn write(&self, mut lease: Object, spec: serde_json::Value) -> Result<Object, ApiError> {
        lease.0["spec"] = spec;
        let swap = |current: &mut Object| {
            *current = lease.clone();
            Ok(())
        };
        self.registry.update_with(kinds::leases(), NAMESPACE, NAME, Part::Main, swap).await
    }
}

/// What to do about a lease that has been as it is for `unchanged`.
fn decide(lease: Option<&Object>, unchanged: Duration, identity: &str) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let seconds = lease.integer("/spec/leaseDurationSeconds").and_then(|seconds| u64::try_from(seconds).ok());
    let lasts = seconds.map_or(LEASE_DURATION, Duration::from_secs);
    match holder(lease) {
        holder if holder == identity => Step::Renew,
        "" => Step::Take,
        _ if unchanged > lasts => Step::Take,
        _ => Step::Wait,
    }
}

fn holder(lease: &Object) -> &str {
    lease.text("/spec/holderIdentity")
}

/// As Go's `MicroTime`: six digits, whatever they are.
fn micro_time(time: Timestamp) -> String {
    DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::RedbStore;

    #[test]
    fn a_lease_is_taken_when_it_is_over() {
        let lease = |holder: &str| {
            Object::new(json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}))
        };
        let rows = [
            (None, 0, Step::Create),
            (Some(lease("me")), 0, Step::Renew),
            (Some(lease("me")), 99, Step::Renew),
            (Some(lease("")), 0, Step::Take),
            (Some(lease("other")), 0, Step::Wait),
            (Some(lease("other")), 15, Step::Wait),
            (Some(lease("other")), 16, Step::Take),
        ];
        for (lease, seconds, expected) in rows {
            let step = decide(lease.as_ref(), Duration::from_secs(seconds), "me");
            assert_eq!(step, expected, "{lease:?} for {seconds} s");
        }
    }

    #[test]
    fn times_have_six_digits() {
        assert_eq!(micro_time(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }

    #[tokio::test]
    async fn one_leads_and_the_next_follows_at_once_when_it_resigns() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let candidate =
            |name: &str| Candidate { registry: registry.clone(), identity: name.into(), seen: None };
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        assert!(a.attempt().await);
        assert!(!b.attempt().await && b.is_lost());
        assert!(a.attempt().await, "renewed");
        a.resign().await;
        assert!(b.attempt().await);
        assert!(!a.attempt().await);
        let lease = registry.get(kinds::leases(), NAMESPACE, NAME).unwrap();
        assert_eq!(lease.text("/spec/holderIdentity"), "b");
        assert_eq!(lease.integer("/spec/leaseTransitions"), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_replaced_when_its_lease_is_over() {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        crate::bootstrap::ensure(&registry).await.unwrap();
        let candidate =
            |name: &str| Candidate { registry: registry.clone(), identity: name.into(), seen: None };
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        a.win().await;
        let begin = Instant::now();
        b.win().await;
        assert!(begin.elapsed() > LEASE_DURATION, "{:?}", begin.elapsed());
        let held = Instant::now();
        a.hold().await;
        assert!(held.elapsed() <= RENEW_DEADLINE && a.is_lost());
    }
}
