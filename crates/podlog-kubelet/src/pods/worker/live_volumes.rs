//! Volumes whose files change after they were made.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::Context;
use crate::objects::Changes;
use crate::pods::retries::Retries;
use crate::pods::spec::PodId;
use crate::volumes::{PodVolumes, Sources};

/// When to bring them up to date: when an object has changed, when a token is to be renewed, and every now and then.
pub(super) struct LiveVolumes {
    volumes: Arc<Mutex<PodVolumes>>,
    changes: Vec<Changes>,
    regularly: Duration,
    due: Option<Instant>,
    retries: Retries,
    refresh: Option<JoinHandle<Refreshed>>,
}

/// Whether all is up to date, and when a token is to be renewed.
struct Refreshed {
    is_complete: bool,
    renewal: Option<Timestamp>,
}

impl LiveVolumes {
    /// Of a pod; `was_started` by another kubelet, which has told nobody when its tokens expire.
    pub(super) fn new(
        context: &Context,
        pod: &Pod,
        volumes: Arc<Mutex<PodVolumes>>,
        was_started: bool,
    ) -> Self {
        let regularly = context.config.sync_frequency;
        let references = PodVolumes::references(pod);
        LiveVolumes {
            volumes,
            changes: references.iter().filter_map(|object| context.objects.changes(object)).collect(),
            regularly,
            due: PodVolumes::are_live(pod)
                .then(|| Instant::now() + if was_started { Duration::ZERO } else { regularly }),
            retries: Retries::new(regularly),
            refresh: None,
        }
    }

    /// When to look at them; `None` when nothing in them changes, or something is being done.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.refresh.is_none())
    }

    /// Brings them up to date as soon as that may be.
    pub(super) fn hurry(&mut self) {
        self.due = self.due.map(|due| due.min(Instant::now()));
    }

    /// They have been made: their tokens are known.
    pub(super) fn made(&mut self) {
        if let Ok(volumes) = self.volumes.try_lock() {
            let renewal = volumes.renewal().map(moment);
            self.due = self.due.map(|due| renewal.map_or(due, |renewal| due.min(renewal)));
        }
    }

    /// Begins to bring them up to date if it is time.
    pub(super) fn refresh(&mut self, context: &Arc<Context>, pod: &Arc<Pod>) {
        let now = Instant::now();
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        self.due = Some(now + self.regularly);
        let (context, pod, volumes) = (context.clone(), pod.clone(), self.volumes.clone());
        self.refresh = Some(tokio::spawn(refresh(context, pod, volumes)));
    }

    /// Waits until something is known that says when to look again.
    pub(super) async fn news(&mut self) {
        tokio::select! {
            () = any_change(&mut self.changes) => self.hurry(),
            done = finished(&mut self.refresh) => {
                self.refresh = None;
                self.refreshed(done);
            }
        }
    }

    fn refreshed(&mut self, done: Result<Refreshed, JoinError>) {
        let now = Instant::now();
        let next = match done {
            // What should have been renewed by now could not be.
            Ok(Refreshed { is_complete: true, renewal })
                if renewal.is_none_or(|renewal| renewal > Timestamp::now()) =>
            {
                self.retries.succeeded();
                renewal.map_or(self.regularly, |renewal| (moment(renewal) - now).min(self.regularly))
            }
            _ => self.retries.failed(now),
        };
        // Unless something has changed meanwhile.
        self.due = self.due.map(|due| due.min(now + next));
    }
}

async fn refresh(context: Arc<Context>, pod: Arc<Pod>, volumes: Arc<Mutex<PodVolumes>>) -> Refreshed {
    let now = Timestamp::now();
    let sources = Sources { pod: &pod, node: &context.node, objects: &*context.objects, now };
    let mut volumes = volumes.lock().await;
    let done = volumes.set_up(&sources).await;
    if let Err((volume, error)) = &done {
        tracing::warn!(pod = %PodId::of(&pod), volume, error = error.full(), "cannot update a volume");
    }
    Refreshed { is_complete: done.is_ok(), renewal: volumes.renewal() }
}

/// The same moment for timers.
fn moment(at: Timestamp) -> Instant {
    Instant::now() + Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

async fn any_change(changes: &mut [Changes]) {
    if changes.is_empty() {
        pending::<()>().await;
    }
    let (changed, ..) = select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed()))).await;
    if changed.is_err() {
        // Nobody watches any more.
        pending::<()>().await;
    }
}

async fn finished(refresh: &mut Option<JoinHandle<Refreshed>>) -> Result<Refreshed, JoinError> {
    match refresh {
        Some(refresh) => refresh.await,
        None => pending().await,
    }
}
