//! Startup, liveness and readiness probes: one task a probe, results by container.
//!
//! Follows `pkg/kubelet/prober`.

mod attempt;
mod grpc;
pub(crate) mod http;
mod task;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus as ApiStatus, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::pods::{Context, FailedProbe, Health, PodView, all_containers};
use crate::runtime::{ContainerId, ContainerState, ContainerStatus};

/// Which question a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As events name it.
    fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What is known about the containers of one pod.
pub(crate) struct Probes {
    results: Results,
    tasks: HashMap<ContainerId, JoinSet<()>>,
}

/// Results by container, written by probe tasks.
#[derive(Clone)]
pub(crate) struct Results {
    known: Arc<Mutex<HashMap<ContainerId, Health>>>,
    changed: Arc<Notify>,
}

impl Results {
    fn update(&self, id: &ContainerId, change: impl FnOnce(&mut Health)) {
        let mut known = self.known.lock();
        let Some(health) = known.get_mut(id) else { return };
        let before = *health;
        change(health);
        if *health != before {
            self.changed.notify_one();
        }
    }

    fn is_started(&self, id: &ContainerId) -> bool {
        self.known.lock().get(id).is_some_and(|health| health.started)
    }
}

impl Probes {
    /// `changed` is notified when a result changes.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Probes { results: Results { known: Arc::default(), changed }, tasks: HashMap::new() }
    }

    /// What is known now.
    pub(crate) fn health(&self) -> HashMap<ContainerId, Health> {
        self.results.known.lock().clone()
    }

    /// Starts probes of containers that run, ends those of containers that do not. Containers in `hooked` have not
    /// started yet, whatever their probes say.
    pub(crate) fn sync(
        &mut self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        view: &PodView,
        hooked: &HashSet<ContainerId>,
        reported: Option<&PodStatus>,
    ) {
        let running: HashMap<&ContainerId, &ContainerStatus> = view
            .containers
            .iter()
            .filter(|status| status.container.state == ContainerState::Running)
            .map(|status| (&status.container.id, status))
            .collect();
        self.tasks.retain(|id, _| running.contains_key(id));
        self.results.known.lock().retain(|id, _| running.contains_key(id));
        for (id, status) in running {
            if self.tasks.contains_key(id) || hooked.contains(id) {
                continue;
            }
            let found = all_containers(pod).find(|(container, _)| container.name == status.container.name);
            if let Some((container, _)) = found {
                let before = reported.and_then(|reported| find(reported, id));
                self.begin(context, pod, container, status, before);
            }
        }
    }

    /// Ends all probes: the pod is to end, and its containers may answer as they like.
    pub(crate) fn stop(&mut self) {
        self.tasks.values_mut().for_each(JoinSet::abort_all);
    }

    fn begin(
        &mut self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        container: &Container,
        status: &ContainerStatus,
        before: Option<&ApiStatus>,
    ) {
        let id = status.container.id.clone();
        let was_started = before.is_some_and(|status| status.started == Some(true));
        let was_ready = before.is_some_and(|status| status.ready);
        let health = Health {
            started: container.startup_probe.is_none() || was_started,
            ready: container.readiness_probe.is_none() || was_ready,
            failed: None,
        };
        self.results.known.lock().insert(id.clone(), health);
        let mut tasks = JoinSet::new();
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let Some(probe) = kind.of(container) else { continue };
            if kind == Kind::Startup && health.started {
                continue;
            }
            let task = task::Task {
                context: context.clone(),
                pod: pod.clone(),
                container: container.clone(),
                id: id.clone(),
                started_at: status.started_at,
                kind,
                probe: probe.clone(),
                results: self.results.clone(),
            };
            tasks.spawn(task.run());
        }
        self.tasks.insert(id, tasks);
    }
}

/// What was reported last about the same instance of a container.
fn find<'a>(reported: &'a PodStatus, id: &ContainerId) -> Option<&'a ApiStatus> {
    let regular = reported.container_statuses.iter().flatten();
    let init = reported.init_container_statuses.iter().flatten();
    regular.chain(init).find(|status| {
        status
            .container_id
            .as_deref()
            .and_then(|text| text.split_once("://"))
            .is_some_and(|(_, own)| own == id.0)
    })
}
