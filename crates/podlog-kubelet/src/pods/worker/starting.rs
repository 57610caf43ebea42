//! Rounds of starting, and what becomes of them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{IMAGE_BACK_OFF_SHOWN, Worker};
use crate::events::Level;
use crate::go;
use crate::pods::spec;
use crate::pods::start::{Failure, Outcome, Start};
use crate::pods::view::PodView;
use crate::runtime::ContainerState;

/// Pause after a container could not be started, before it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
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

    pub(super) fn create_sandbox(&mut self, view: &PodView, attempt: u32) {
        if self.starting.is_none() {
            if attempt > 0 {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                self.context.events.pod(&self.pod, Level::Normal, "SandboxChanged", text);
            }
            self.starting = Some(tokio::spawn(self.starter(view).sandbox(attempt)));
        }
    }

    pub(super) fn start(&mut self, view: &PodView, names: Vec<String>) {
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
    pub(super) fn note(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::Sandbox => self.starts.succeeded(),
            Outcome::PodFailed => {
                let pause = self.starts.failed(Instant::now());
                self.held.insert(String::new(), now.saturating_add(pause).unwrap_or(now));
            }
            Outcome::Containers(results) => {
                self.starts.succeeded();
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

    /// A while after its image could not be had, a container waits in `ImagePullBackOff`.
    pub(super) fn note_image_back_off(&mut self, now: Timestamp) {
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
}
