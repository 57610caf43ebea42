//! One probe of one container, again and again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::attempt::{Answer, attempt};
use super::{FailedProbe, Kind, Results};
use crate::events::Level;
use crate::pods::Context;
use crate::runtime::ContainerId;

pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    pub(super) started_at: Option<Timestamp>,
    pub(super) kind: Kind,
    pub(super) probe: Probe,
    pub(super) results: Results,
}

impl Task {
    /// Probes until the answer is final: a container that has started, or one that is to be restarted.
    pub(super) async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        let mut ticks = interval_at(Instant::now() + self.delay(), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        loop {
            ticks.tick().await;
            if self.kind != Kind::Startup && !self.results.is_started(&self.id) {
                continue;
            }
            let answer = attempt(&self.context, &self.pod, &self.container, &self.id, &self.probe).await;
            self.tell(&answer);
            if self.conclude(streak.add(&answer)) {
                return;
            }
        }
    }

    /// What is left of the initial delay, which counts from the start of the container.
    fn delay(&self) -> Duration {
        let initial = seconds(self.probe.initial_delay_seconds, 0);
        let running = self.started_at.map(|at| Timestamp::now().duration_since(at));
        let running = running.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        initial.saturating_sub(running)
    }

    fn tell(&self, answer: &Answer) {
        let title = self.kind.title();
        let message = match answer {
            Answer::Success => return,
            Answer::Failure(output) => format!("{title} probe failed: {output}"),
            Answer::Unknown(error) => format!("{title} probe errored and resulted in unknown state: {error}"),
        };
        self.context.events.container(&self.pod, &self.container.name, Level::Warning, "Unhealthy", message);
    }

    /// Notes the result once it is firm. Returns whether the probe is done.
    fn conclude(&self, (success, count): (Option<bool>, i32)) -> bool {
        let Some(success) = success else { return false };
        let threshold = if success {
            self.probe.success_threshold.unwrap_or(1)
        } else {
            self.probe.failure_threshold.unwrap_or(3)
        };
        if count < threshold {
            return false;
        }
        match (self.kind, success) {
            (Kind::Readiness, ready) => self.results.update(&self.id, |health| health.ready = ready),
            (Kind::Startup, true) => self.results.update(&self.id, |health| health.started = true),
            (Kind::Liveness, true) => {}
            (Kind::Startup, false) => self.fail(FailedProbe::Startup),
            (Kind::Liveness, false) => self.fail(FailedProbe::Liveness),
        }
        match self.kind {
            Kind::Startup => true,
            Kind::Liveness => !success,
            Kind::Readiness => false,
        }
    }

    fn fail(&self, probe: FailedProbe) {
        self.results.update(&self.id, |health| health.failed = Some(probe));
    }
}

/// Equal answers in a row.
#[derive(Default)]
struct Streak {
    last: Option<bool>,
    count: i32,
}

impl Streak {
    /// What has been answered last, and how often in a row. An unknown answer changes nothing.
    fn add(&mut self, answer: &Answer) -> (Option<bool>, i32) {
        let success = match answer {
            Answer::Success => true,
            Answer::Failure(_) => false,
            Answer::Unknown(_) => return (None, 0),
        };
        self.count = if self.last == Some(success) { self.count.saturating_add(1) } else { 1 };
        self.last = Some(success);
        (self.last, self.count)
    }
}

pub(super) fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|value| u64::try_from(value).ok()).filter(|v| *v > 0).unwrap_or(default),
    )
}
