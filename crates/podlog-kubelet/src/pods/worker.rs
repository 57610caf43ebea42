//! One task a pod: looks, decides, acts, reports, and waits for something to happen.

mod live_volumes;
mod reporting;
mod starting;
mod stopping;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::{self, Backoffs};
use super::context::Context;
use super::decide::{Action, Plan, Situation, decide};
use super::ending::{EVICTED, Ending};
use super::kill::Kill;
use super::retries::Retries;
use super::spec::{self, PodId};
use super::start::{Hooked, Outcome, full};
use super::view::PodView;
use crate::events::Level;
use crate::eviction;
use crate::probes::Probes;
use crate::runtime::{ContainerId, RuntimeError, SandboxId};
use crate::static_pods::is_static;
use crate::volumes::PodVolumes;
use live_volumes::LiveVolumes;

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const IMAGE_BACK_OFF_SHOWN: SignedDuration = SignedDuration::from_secs(3);
/// How often a pod is looked at that is to end.
const WHILE_STOPPING: Duration = Duration::from_secs(1);
/// Longest pause when the runtime does not answer: it may be back any time.
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(8);
/// Longest pause between attempts to make a sandbox or volumes, or to end or remove something.
const LONGEST_BETWEEN_ATTEMPTS: Duration = Duration::from_secs(30);

/// What is wanted of a pod.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) pod: Arc<Pod>,
    /// The API no longer has it.
    pub(crate) removed: bool,
    /// The kubelet wants it to end.
    pub(crate) ending: Option<Ending>,
}

/// One pod's state.
pub(crate) struct Worker {
    context: Arc<Context>,
    id: PodId,
    pod: Arc<Pod>,
    removed: bool,
    wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    probes: Probes,
    hooked: Hooked,
    volumes: Arc<tokio::sync::Mutex<PodVolumes>>,
    live_volumes: LiveVolumes,
    backoffs: Backoffs,
    image_backoffs: Backoffs,
    /// Of the runtime.
    looks: Retries,
    /// Of making volumes and sandbox.
    starts: Retries,
    /// Of ending and removing all that there is.
    ends: Retries,
    /// Of ending a container.
    failed_kills: HashMap<ContainerId, Retries>,
    /// Of removing what has been replaced.
    cleanups: Retries,
    held: BTreeMap<String, Timestamp>,
    reasons: BTreeMap<String, (String, String)>,
    /// When the images of containers could not be had, until that is known as a back-off.
    image_failures: BTreeMap<String, Timestamp>,
    messages: HashMap<ContainerId, String>,
    reported: Option<PodStatus>,
    starting: Option<JoinHandle<Outcome>>,
    /// Containers of that round.
    started: BTreeSet<String>,
    cancel_start: CancellationToken,
    kills: HashMap<ContainerId, Instant>,
    killing: JoinSet<(Kill, Result<(), RuntimeError>)>,
    /// The kubelet's own decision to end the pod.
    ending: Option<Ending>,
    cleaned: bool,
}

/// What a step asks for.
enum Next {
    Wait(Instant),
    Done,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>, wake: Arc<Notify>) -> Self {
        let Wanted { pod, removed, ending } = wanted.borrow().clone();
        let id = PodId::of(&pod);
        let volumes = Arc::new(tokio::sync::Mutex::new(PodVolumes::new(context.layout.pod(&id.uid))));
        if is_static(&pod) {
            context.statuses.mirrored(&id);
        }
        let reported = pod.status.clone().filter(|status| status.phase.is_some());
        if let Some(reported) = &reported {
            context.statuses.known(&id, reported);
        }
        let was_started = reported.as_ref().is_some_and(|status| status.start_time.is_some());
        Worker {
            probes: Probes::new(wake.clone()),
            backoffs: Backoffs::new(context.config.max_container_restart_period),
            image_backoffs: Backoffs::new(backoff::LONGEST_FOR_IMAGES),
            looks: Retries::new(LONGEST_BETWEEN_LOOKS),
            starts: Retries::new(LONGEST_BETWEEN_ATTEMPTS),
            ends: Retries::new(LONGEST_BETWEEN_ATTEMPTS),
            failed_kills: HashMap::new(),
            cleanups: Retries::new(LONGEST_BETWEEN_ATTEMPTS),
            live_volumes: LiveVolumes::new(&context, &pod, volumes.clone(), was_started),
            volumes,
            reported,
            hooked: Hooked::default(),
            held: BTreeMap::new(),
            reasons: BTreeMap::new(),
            messages: HashMap::new(),
            starting: None,
            started: BTreeSet::new(),
            image_failures: BTreeMap::new(),
            cancel_start: CancellationToken::new(),
            kills: HashMap::new(),
            killing: JoinSet::new(),
            ending,
            cleaned: false,
            context,
            id,
            pod,
            removed,
            wanted,
            wake,
        }
    }

    /// Works until the pod is gone. On `shutdown` it stops working and leaves everything running.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let Next::Wait(until) = self.step().await else { return };
            if shutdown.run_until_cancelled(self.wait(until)).await.is_none() {
                return;
            }
        }
    }

    /// Waits for news, and takes in what finished.
    async fn wait(&mut self, until: Instant) {
        let started = async {
            match &mut self.starting {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = started => {
                self.starting = None;
                self.started.clear();
                match outcome {
                    Ok(outcome) => {
                        self.live_volumes.made();
                        self.note(outcome);
                    }
                    Err(error) => tracing::error!(pod = %self.id, %error, "start task failed"),
                }
            }
            Some(killed) = self.killing.join_next() => {
                if let Ok((order, result)) = killed {
                    self.killed(&order, result);
                }
            }
            changed = self.wanted.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let wanted = self.wanted.borrow_and_update().clone();
                self.want(wanted);
            }
            () = self.live_volumes.news() => {}
            () = self.wake.notified() => {}
            () = sleep_until(until) => {}
        }
    }

    fn want(&mut self, Wanted { pod, removed, ending }: Wanted) {
        let (old, new) = (&self.pod.metadata, &pod.metadata);
        if old.labels != new.labels || old.annotations != new.annotations {
            // A downwardAPI volume may show them.
            self.live_volumes.hurry();
        }
        (self.pod, self.removed) = (pod, removed);
        self.ending = self.ending.take().or(ending);
    }

    async fn step(&mut self) -> Next {
        let mut view = match self.look().await {
            Ok(view) => view,
            Err(due) => return Next::Wait(due),
        };
        self.read_messages(&mut view).await;
        let now = Timestamp::now();
        self.check_admission(&view);
        self.check_deadline(now);
        self.sync_probes(&view);
        let plan = self.decide(&view, now);
        let over = plan.ended && view.is_stopped() && self.starting.is_none() && self.killing.is_empty();
        self.note_waiting(&plan, now);
        let status = self.status(&view, now, over);
        self.report(status, over);
        if over {
            return self.finish(&view).await;
        }
        self.act(&plan, &view).await;
        if self.starting.is_none() && !self.is_stopping() {
            self.live_volumes.refresh(&self.context, &self.pod);
        }
        Next::Wait(self.next_look(&plan, now))
    }

    /// Asks the runtime what there is.
    ///
    /// # Errors
    /// When to ask again.
    async fn look(&mut self) -> Result<PodView, Instant> {
        let now = Instant::now();
        if let Some(due) = self.looks.pending(now) {
            return Err(due);
        }
        match PodView::read(&*self.context.runtime, &self.id.uid).await {
            Ok(view) => {
                self.looks.succeeded();
                Ok(view)
            }
            Err(error) => {
                if self.looks.is_failing() {
                    tracing::debug!(pod = %self.id, error = full(&error), "the runtime still does not answer");
                } else {
                    tracing::warn!(pod = %self.id, error = full(&error), "cannot ask the runtime");
                }
                let now = Instant::now();
                Err(now + self.looks.failed(now))
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.removed || spec::is_deleting(&self.pod) || spec::is_terminal(&self.pod) || self.ending.is_some()
    }

    fn decide(&self, view: &PodView, now: Timestamp) -> Plan {
        decide(&Situation {
            pod: &self.pod,
            view,
            now,
            health: &self.probes.health(),
            backoffs: &self.backoffs,
            held: &self.held,
            starting: &self.started,
            stopping: self.is_stopping(),
            dead: &self.context.config.dead_containers,
            surplus: &self.context.surplus.now(),
        })
    }

    fn sync_probes(&mut self, view: &PodView) {
        if self.is_stopping() {
            self.probes.stop();
            return;
        }
        let hooked: HashSet<ContainerId> = self.hooked.lock().clone();
        let pod = spec::with_ips(&self.pod, view.ips.as_deref());
        self.probes.sync(&self.context, &pod, view, &hooked, self.reported.as_ref());
    }

    /// Refuses a pod that has never been started, if this is no time to start it.
    fn check_admission(&mut self, view: &PodView) {
        let has_started = self.reported.as_ref().is_some_and(|status| status.start_time.is_some());
        if has_started || !view.sandboxes.is_empty() || self.is_stopping() {
            return;
        }
        if let Some(why) = eviction::refusal(&self.pod, self.context.pressures.now()) {
            tracing::warn!(pod = %self.id, why, "the pod is refused");
            self.context.events.pod(&self.pod, Level::Warning, EVICTED, why.clone());
            self.ending = Some(Ending::refused(EVICTED, &why));
        }
    }

    /// Ends a pod that was active for longer than it may be.
    fn check_deadline(&mut self, now: Timestamp) {
        let over = self.deadline().is_some_and(|deadline| now >= deadline);
        if over && !self.is_stopping() {
            self.ending = Some(Ending::new("DeadlineExceeded", DEADLINE_MESSAGE));
            let events = &self.context.events;
            events.pod(&self.pod, Level::Normal, "DeadlineExceeded", DEADLINE_MESSAGE);
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let start = self.reported.as_ref()?.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    async fn act(&mut self, plan: &Plan, view: &PodView) {
        let mut starts = Vec::new();
        for action in &plan.actions {
            match action {
                Action::Start { container } => starts.push(container.clone()),
                Action::CreateSandbox { attempt } => self.create_sandbox(view, *attempt),
                Action::Kill { id, container, why } => self.kill_one(id, container, *why),
                Action::Remove { id, container } => self.remove(view, id, container).await,
                Action::RemoveSandbox { id } => self.remove_sandbox(id).await,
                Action::StopPod => self.stop_pod(view).await,
                Action::BackOff { .. } => {}
            }
        }
        if !starts.is_empty() {
            self.start(view, starts);
        }
    }

    async fn remove(&mut self, view: &PodView, id: &ContainerId, name: &str) {
        let Some(status) = view.by_id(id) else { return };
        let attempt = status.container.attempt;
        if let Err(error) = self.context.runtime.remove_container(id).await {
            tracing::warn!(pod = %self.id, container = name, error = full(&error), "cannot remove a container");
            return;
        }
        let (context, pod, name, id) = (self.context.clone(), self.id.clone(), name.to_owned(), id.clone());
        let forget = move || {
            let max_files = usize::try_from(context.config.container_log_max_files).unwrap_or(usize::MAX);
            context.layout.forget_instance(&pod, &name, &id, attempt, max_files);
        };
        if let Err(error) = tokio::task::spawn_blocking(forget).await {
            tracing::error!(pod = %self.id, %error, "log removal task failed");
        }
    }

    /// Removes a sandbox that another one has taken the place of.
    async fn remove_sandbox(&mut self, id: &SandboxId) {
        let now = Instant::now();
        if self.cleanups.pending(now).is_some() {
            return;
        }
        let runtime = &self.context.runtime;
        let removed = match runtime.stop_pod_sandbox(id).await {
            Ok(()) => runtime.remove_pod_sandbox(id).await,
            error => error,
        };
        match removed {
            Ok(()) => self.cleanups.succeeded(),
            Err(error) => {
                tracing::warn!(pod = %self.id, error = full(&error), "cannot remove an old sandbox yet");
                self.cleanups.failed(now);
            }
        }
    }

    fn next_look(&self, plan: &Plan, now: Timestamp) -> Instant {
        let is_stopping = plan.actions.contains(&Action::StopPod);
        let pause = if is_stopping { WHILE_STOPPING } else { self.context.config.sync_frequency };
        let regular = Instant::now() + pause;
        let regular = self.ends.pending(Instant::now()).filter(|_| is_stopping).unwrap_or(regular);
        let image = self.image_failures.values().min();
        let image = image.and_then(|at| at.checked_add(IMAGE_BACK_OFF_SHOWN).ok());
        // Over once it is being acted on: there is nothing more to wait for.
        let deadline = self.deadline().filter(|_| !self.is_stopping());
        let volumes = self.live_volumes.due().filter(|_| self.starting.is_none() && !self.is_stopping());
        let kills = self.failed_kills.values().filter_map(|failed| failed.pending(Instant::now()));
        [plan.wake, deadline, image]
            .into_iter()
            .flatten()
            .map(|at| Instant::now() + Duration::try_from(at.duration_since(now)).unwrap_or_default())
            .chain(volumes)
            .chain(kills)
            .fold(regular, Instant::min)
    }
}

const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";
