//! One task a pod: looks, decides, acts, reports, and waits for something to happen.

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
use super::decide::{Action, FailedProbe, Plan, Situation, Why, decide};
use super::ending::{EVICTED, Ending};
use super::kill::{Kill, kill};
use super::spec::{self, PodId, Role};
use super::start::{Failure, Hooked, Outcome, Start, full};
use super::status::{Report, status};
use super::status_writer::End;
use super::termination;
use super::view::PodView;
use crate::events::Level;
use crate::eviction;
use crate::go;
use crate::probes::Probes;
use crate::runtime::{ContainerId, ContainerState, SandboxState};
use crate::static_pods::is_static;
use crate::volumes::{PodVolumes, remove_volumes};

/// Pause after a start that failed, before it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const IMAGE_BACK_OFF_SHOWN: SignedDuration = SignedDuration::from_secs(3);
/// Pause when the runtime does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// How much shorter a new grace period must be to count.
const SLACK: Duration = Duration::from_secs(1);

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
    volumes_due: Instant,
    backoffs: Backoffs,
    image_backoffs: Backoffs,
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
    killing: JoinSet<ContainerId>,
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
        let volumes = PodVolumes::new(context.layout.pod(&id.uid));
        if is_static(&pod) {
            context.statuses.mirrored(&id);
        }
        let reported = pod.status.clone().filter(|status| status.phase.is_some());
        if let Some(reported) = &reported {
            context.statuses.known(&id, reported);
        }
        Worker {
            probes: Probes::new(wake.clone()),
            backoffs: Backoffs::new(context.config.max_container_restart_period),
            image_backoffs: Backoffs::new(backoff::LONGEST_FOR_IMAGES),
            volumes: Arc::new(tokio::sync::Mutex::new(volumes)),
            volumes_due: Instant::now() + context.config.sync_frequency,
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
                    Ok(outcome) => self.note(outcome),
                    Err(error) => tracing::error!(pod = %self.id, %error, "start task failed"),
                }
            }
            Some(killed) = self.killing.join_next() => {
                if let Ok(id) = killed {
                    self.kills.remove(&id);
                }
            }
            changed = self.wanted.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let wanted = self.wanted.borrow_and_update().clone();
                self.want(wanted);
            }
            () = self.wake.notified() => {}
            () = sleep_until(until) => {}
        }
    }

    fn want(&mut self, Wanted { pod, removed, ending }: Wanted) {
        let (old, new) = (&self.pod.metadata, &pod.metadata);
        if old.labels != new.labels || old.annotations != new.annotations {
            // A downwardAPI volume may show them.
            self.volumes_due = Instant::now();
        }
        (self.pod, self.removed) = (pod, removed);
        self.ending = self.ending.take().or(ending);
    }

    async fn step(&mut self) -> Next {
        let mut view = match PodView::read(&*self.context.runtime, &self.id.uid).await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(pod = %self.id, error = full(&error), "cannot ask the runtime");
                return Next::Wait(Instant::now() + RUNTIME_RETRY);
            }
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
        self.refresh_volumes();
        Next::Wait(self.next_look(&plan, now))
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

    /// Reads the termination message of every container that has ended since the last look.
    async fn read_messages(&mut self, view: &mut PodView) {
        self.messages.retain(|id, _| view.by_id(id).is_some());
        for status in &view.containers {
            let id = &status.container.id;
            if status.container.state == ContainerState::Exited && !self.messages.contains_key(id) {
                let message = match self.reported_message(id) {
                    Some(message) => message,
                    None => {
                        let ended = status.clone();
                        let read = tokio::task::spawn_blocking(move || termination::message(&ended));
                        read.await.unwrap_or_default()
                    }
                };
                self.messages.insert(id.clone(), message);
            }
        }
    }

    /// The message that was reported for an instance before: its file may be gone by now.
    fn reported_message(&self, id: &ContainerId) -> Option<String> {
        let reported = self.reported.as_ref()?;
        let statuses = [
            &reported.container_statuses,
            &reported.init_container_statuses,
            &reported.ephemeral_container_statuses,
        ];
        let statuses = statuses.into_iter().flatten().flatten();
        let states = statuses.flat_map(|status| [&status.state, &status.last_state]).flatten();
        let ended = states.filter_map(|state| state.terminated.as_ref()).find(|ended| {
            let text = ended.container_id.as_deref().unwrap_or_default();
            text.split_once("://").is_some_and(|(_, own)| own == id.0)
        })?;
        Some(ended.message.clone().unwrap_or_default())
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

    /// Turns what the plan says about waiting into reasons of waiting states.
    fn note_waiting(&mut self, plan: &Plan, now: Timestamp) {
        for action in &plan.actions {
            let Action::BackOff { container, pause } = action else { continue };
            let message = format!(
                "back-off {} restarting failed container={container} pod={}",
                go::duration(*pause),
                self.id
            );
            let reason = ("CrashLoopBackOff".to_owned(), message);
            if self.reasons.get(container) != Some(&reason) {
                let text = format!("Back-off restarting failed container {container} in pod {}", self.id);
                self.context.events.container(&self.pod, container, Level::Warning, "BackOff", text);
                self.reasons.insert(container.clone(), reason);
            }
        }
        self.held.retain(|_, until| *until > now);
        self.note_image_back_off(now);
    }

    /// A while after its image could not be had, a container waits in `ImagePullBackOff`.
    fn note_image_back_off(&mut self, now: Timestamp) {
        let (due, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.image_failures)
            .into_iter()
            .partition(|(_, at)| now.duration_since(*at) >= IMAGE_BACK_OFF_SHOWN);
        self.image_failures = rest;
        for name in due.into_keys().filter(|name| self.held.contains_key(name)) {
            let image =
                spec::find_container(&self.pod, &name).and_then(|(container, _)| container.image.clone());
            let message = format!("Back-off pulling image {}", go::quote(&image.unwrap_or_default()));
            let events = &self.context.events;
            events.container(&self.pod, &name, Level::Normal, "BackOff", message.clone());
            events.container(&self.pod, &name, Level::Warning, "Failed", "Error: ImagePullBackOff");
            let cause = self.reasons.get(&name).map(|(reason, cause)| format!(": {reason}: {cause}"));
            let message = message + &cause.unwrap_or_default();
            self.reasons.insert(name, ("ImagePullBackOff".into(), message));
        }
    }

    fn status(&self, view: &PodView, now: Timestamp, over: bool) -> PodStatus {
        status(&Report {
            pod: &self.pod,
            view,
            now,
            old: self.reported.as_ref(),
            health: &self.probes.health(),
            reasons: &self.reasons,
            messages: &self.messages,
            runtime: &self.context.runtime_name,
            node_ip: self.context.node.ip,
            terminal: over,
            ending: self.ending.as_ref(),
        })
    }

    fn report(&mut self, status: PodStatus, over: bool) {
        if self.removed {
            return;
        }
        let end = if over && self.cleaned && spec::is_deleting(&self.pod) { End::Delete } else { End::Stays };
        self.context.statuses.set(&self.id, &status, end);
        self.reported = Some(status);
    }

    /// Cleans up after a pod of which nothing runs any more.
    async fn finish(&mut self, view: &PodView) -> Next {
        if !self.cleaned {
            let directory = self.context.layout.pod(&self.id.uid);
            let removed = tokio::task::spawn_blocking(move || remove_volumes(&directory)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(pod = %self.id, error = error.full(), "cannot remove the pod's volumes yet");
                return Next::Wait(Instant::now() + RUNTIME_RETRY);
            }
            self.cleaned = true;
            // Once more, with the deletion that had to wait for the volumes.
            return Next::Wait(Instant::now());
        }
        if !self.removed {
            return Next::Wait(Instant::now() + self.context.config.sync_frequency);
        }
        if self.remove_sandboxes(view).await.is_err() {
            return Next::Wait(Instant::now() + RUNTIME_RETRY);
        }
        let (context, id) = (self.context.clone(), self.id.clone());
        let remove = move || {
            context.layout.remove_pod(&id);
            context.retained.keep(&id);
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Err(error) = removed {
            tracing::error!(pod = %self.id, %error, "removal task failed");
        }
        self.context.statuses.forget(&self.id);
        Next::Done
    }

    async fn remove_sandboxes(&self, view: &PodView) -> Result<(), ()> {
        for sandbox in &view.sandboxes {
            if let Err(error) = self.context.runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.id, error = full(&error), "cannot remove the sandbox yet");
                return Err(());
            }
        }
        Ok(())
    }

    async fn act(&mut self, plan: &Plan, view: &PodView) {
        let mut starts = Vec::new();
        for action in &plan.actions {
            match action {
                Action::Start { container } => starts.push(container.clone()),
                Action::CreateSandbox { attempt } => self.create_sandbox(view, *attempt),
                Action::Kill { id, container, why } => self.kill_one(id, container, *why),
                Action::Remove { id, container } => self.remove(view, id, container).await,
                Action::StopPod => self.stop_pod(view).await,
                Action::BackOff { .. } => {}
            }
        }
        if !starts.is_empty() {
            self.start(view, starts);
        }
    }

    fn starter(&self, view: &PodView) -> Start {
        Start {
            context: self.context.clone(),
            pod: spec::with_ips(&self.pod, view.ips.as_deref()),
            view: view.clone(),
            volumes: self.volumes.clone(),
            hooked: self.hooked.clone(),
            cancel: self.cancel_start.clone(),
        }
    }

    fn create_sandbox(&mut self, view: &PodView, attempt: u32) {
        if self.starting.is_none() {
            if attempt > 0 {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                self.context.events.pod(&self.pod, Level::Normal, "SandboxChanged", text);
            }
            self.starting = Some(tokio::spawn(self.starter(view).sandbox(attempt)));
        }
    }

    fn start(&mut self, view: &PodView, names: Vec<String>) {
        let Some(sandbox) = view.ready_sandbox().filter(|_| self.starting.is_none()) else { return };
        let now = Timestamp::now();
        for name in &names {
            if let Some(previous) = view.newest(name).filter(|s| s.container.state == ContainerState::Exited)
            {
                let ended = previous.finished_at.unwrap_or(previous.container.created_at);
                self.backoffs.next(name, ended, now);
            }
        }
        self.started.extend(names.iter().cloned());
        let containers = self.starter(view).containers(sandbox.id.clone(), names);
        self.starting = Some(tokio::spawn(containers));
    }

    /// Takes in the result of a round of starting.
    fn note(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        let retry = now.saturating_add(RETRY).unwrap_or(now);
        match outcome {
            Outcome::Sandbox => {}
            Outcome::PodFailed => drop(self.held.insert(String::new(), retry)),
            Outcome::Containers(results) => {
                for (name, result) in results {
                    match result {
                        Ok(()) => drop(self.reasons.remove(&name)),
                        Err(failure) => self.hold(name, failure, now),
                    }
                }
            }
        }
    }

    fn hold(&mut self, name: String, failure: Failure, now: Timestamp) {
        let Failure { reason, message } = failure;
        let mut until = now.saturating_add(RETRY).unwrap_or(now);
        if reason == "ErrImagePull" {
            self.image_backoffs.next(&name, now, now);
            until = self.image_backoffs.pending(&name, now, now).map_or(until, |(_, until)| until);
            self.image_failures.insert(name.clone(), now);
        } else {
            self.image_backoffs.reset(&name);
        }
        self.reasons.insert(name.clone(), (reason.to_owned(), message));
        self.held.insert(name, until);
    }

    fn kill_one(&mut self, id: &ContainerId, name: &str, why: Why) {
        let Some((container, _)) = spec::find_container(&self.pod, name) else { return };
        if self.kills.contains_key(id) {
            return;
        }
        let restarted = |again: bool| if again { ", will be restarted" } else { "" };
        let message = match why {
            Why::DefinitionChanged => format!("Container {name} definition changed{}", restarted(true)),
            Why::Probe(FailedProbe::Liveness, again) => {
                format!("Container {name} failed liveness probe{}", restarted(again))
            }
            Why::Probe(FailedProbe::Startup, again) => {
                format!("Container {name} failed startup probe{}", restarted(again))
            }
            Why::SandboxChanged => format!("Stopping container {name}"),
        };
        let mut kill = Kill::new(&self.pod, &container, id.clone(), message);
        let probe = match why {
            Why::Probe(FailedProbe::Liveness, _) => container.liveness_probe.as_ref(),
            Why::Probe(FailedProbe::Startup, _) => container.startup_probe.as_ref(),
            _ => None,
        };
        if let Some(seconds) = probe.and_then(|probe| probe.termination_grace_period_seconds) {
            kill.grace = Duration::from_secs(seconds.max(1).unsigned_abs());
        }
        self.spawn_kill(kill);
    }

    fn spawn_kill(&mut self, order: Kill) {
        self.kills.insert(order.id.clone(), Instant::now() + order.grace);
        let context = self.context.clone();
        self.killing.spawn(async move {
            kill(&context, &order).await;
            order.id
        });
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

    /// Ends what runs: regular containers, then sidecars, then the sandbox. Called again and again until all is over.
    async fn stop_pod(&mut self, view: &PodView) {
        self.cancel_start.cancel();
        let own = spec::grace_period(&self.pod);
        let grace = self.ending.as_ref().and_then(|ending| ending.grace).map_or(own, |most| own.min(most));
        let is_sidecar =
            |name: &str| spec::find_container(&self.pod, name).is_some_and(|(_, role)| role == Role::Sidecar);
        let (sidecars, others): (Vec<_>, Vec<_>) =
            view.alive().partition(|status| is_sidecar(&status.container.name));
        let turn = if others.is_empty() { sidecars } else { others };
        for status in &turn {
            self.stop_container(&status.container.id, &status.container.name, grace);
        }
        if !turn.is_empty() || self.starting.is_some() || !self.killing.is_empty() {
            return;
        }
        for sandbox in view.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
            if let Err(error) = self.context.runtime.stop_pod_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %self.id, error = full(&error), "cannot stop the sandbox yet");
                return;
            }
        }
        self.wake.notify_one();
    }

    fn stop_container(&mut self, id: &ContainerId, name: &str, grace: Duration) {
        let again = match self.kills.get(id) {
            Some(deadline) if *deadline <= Instant::now() + grace + SLACK => return,
            Some(_) => true,
            None => false,
        };
        let known = spec::find_container(&self.pod, name).map(|(container, _)| container.into_owned());
        let container = known.unwrap_or_else(|| k8s_openapi::api::core::v1::Container {
            name: name.to_owned(),
            ..Default::default()
        });
        let message = (!again).then(|| format!("Stopping container {name}"));
        self.spawn_kill(Kill { pod: (*self.pod).clone(), container, id: id.clone(), message, grace });
    }

    /// Brings files of volumes up to date every now and then.
    fn refresh_volumes(&mut self) {
        if Instant::now() < self.volumes_due || self.starting.is_some() || self.is_stopping() {
            return;
        }
        self.volumes_due = Instant::now() + self.context.config.sync_frequency;
        if PodVolumes::are_live(&self.pod) {
            let (context, pod, volumes) = (self.context.clone(), self.pod.clone(), self.volumes.clone());
            tokio::spawn(async move {
                let sources = crate::volumes::Sources {
                    pod: &pod,
                    node: &context.node,
                    objects: &*context.objects,
                    now: Timestamp::now(),
                };
                if let Err((volume, error)) = volumes.lock().await.set_up(&sources).await {
                    tracing::warn!(pod = %PodId::of(&pod), volume, error = error.full(), "cannot update a volume");
                }
            });
        }
    }

    fn next_look(&self, plan: &Plan, now: Timestamp) -> Instant {
        let is_stopping = plan.actions.contains(&Action::StopPod);
        let pause = if is_stopping { RUNTIME_RETRY } else { self.context.config.sync_frequency };
        let regular = Instant::now() + pause;
        let image = self.image_failures.values().min();
        let image = image.and_then(|at| at.checked_add(IMAGE_BACK_OFF_SHOWN).ok());
        // Over once it is being acted on: there is nothing more to wait for.
        let deadline = self.deadline().filter(|_| !self.is_stopping());
        [plan.wake, deadline, image]
            .into_iter()
            .flatten()
            .map(|at| Instant::now() + Duration::try_from(at.duration_since(now)).unwrap_or_default())
            .fold(regular.min(self.volumes_due.max(Instant::now() + SLACK)), Instant::min)
    }
}

const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";
