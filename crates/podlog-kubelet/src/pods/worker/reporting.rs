//! What is said about a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;

use super::Worker;
use crate::events::Level;
use crate::go;
use crate::pods::decide::{Action, Plan};
use crate::pods::spec;
use crate::pods::status::{Report, status};
use crate::pods::status_writer::End;
use crate::pods::termination;
use crate::pods::view::PodView;
use crate::runtime::{ContainerId, ContainerState};

impl Worker {
    /// Reads the termination message of every container that has ended since the last look.
    pub(super) async fn read_messages(&mut self, view: &mut PodView) {
        self.messages.retain(|id, _| view.by_id(id).is_some());
        self.failed_kills.retain(|id, _| view.by_id(id).is_some());
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

    /// Turns what the plan says about waiting into reasons of waiting states.
    pub(super) fn note_waiting(&mut self, plan: &Plan, now: Timestamp) {
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

    pub(super) fn status(&self, view: &PodView, now: Timestamp, over: bool) -> PodStatus {
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

    pub(super) fn report(&mut self, status: PodStatus, over: bool) {
        if self.removed {
            return;
        }
        let end = if over && self.cleaned && spec::is_deleting(&self.pod) { End::Delete } else { End::Stays };
        self.context.statuses.set(&self.id, &status, end);
        self.reported = Some(status);
    }
}
