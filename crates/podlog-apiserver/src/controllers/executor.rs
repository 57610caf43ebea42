//! Does what controllers decided, and tells about it in events.

use std::collections::BTreeMap;
use std::time::Duration;

use podlog_api::{ApiError, Object, Reason, resource::Resource};

use super::{
    action::{Action, Event, Severity, Told},
    recorder::Recorder,
};
use crate::registry::{DeleteOptions, Preconditions, Registry, WriteContext};

/// Carries out [`Action`]s.
pub(crate) struct Executor {
    registry: Registry,
    recorder: Recorder,
}

/// Resource versions of objects that one run has written: what it read and what is there now.
type Written = BTreeMap<String, (String, String)>;

impl Executor {
    pub(crate) fn new(registry: Registry) -> Self {
        Executor { recorder: Recorder::new(registry.clone()), registry }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Carries out the actions in order, up to the first failure; says when to look again.
    pub(crate) async fn run(&self, actions: Vec<Action>) -> Result<Option<Duration>, ApiError> {
        let mut again: Option<Duration> = None;
        let mut written = Written::new();
        for action in actions {
            match action {
                Action::Create { resource, object, told } => self.create(resource, object, told).await?,
                Action::Update { resource, part, object } => {
                    self.update(resource, part, object, &mut written).await?;
                }
                Action::Delete { resource, object, grace_period_seconds, propagation, told } => {
                    let preconditions = same(&object);
                    let options = DeleteOptions {
                        grace_period_seconds,
                        preconditions,
                        propagation_policy: propagation,
                    };
                    self.delete(resource, &object, options, told).await?;
                }
                Action::Bind { pod, node } => {
                    let context = WriteContext::default();
                    self.registry.bind(&context, pod.namespace(), pod.name(), &node, &same(&pod)).await?;
                }
                Action::Event(event) => self.recorder.record(event).await,
                Action::Requeue(delay) => again = Some(again.map_or(delay, |known| known.min(delay))),
            }
        }
        Ok(again)
    }

    async fn create(
        &self,
        resource: &'static Resource,
        object: Object,
        told: Option<Told>,
    ) -> Result<(), ApiError> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let created = self.registry.create(resource, &namespace, object).await;
        match created {
            Ok(created) => {
                let message = |told: &Told| told.of_success("create", resource.singular, created.name());
                self.tell(told, Severity::Normal, "SuccessfulCreate", message).await;
                Ok(())
            }
            // A namespace on its way out takes nothing new; its contents go anyway.
            Err(error) if error.reason == Reason::Forbidden && error.message.contains("being terminated") => {
                Ok(())
            }
            Err(error) => {
                let message = |told: &Told| told.of_failure("create", &name, &error);
                self.tell(told, Severity::Warning, "FailedCreate", message).await;
                Err(error)
            }
        }
    }

    async fn update(
        &self,
        resource: &'static Resource,
        part: crate::registry::Part,
        mut object: Object,
        written: &mut Written,
    ) -> Result<(), ApiError> {
        let identity = format!("{}/{}/{}", resource.plural, object.namespace(), object.name());
        let read = object.resource_version().to_owned();
        if let Some((before, now)) = written.get(&identity)
            && *before == read
        {
            object.metadata_mut().insert("resourceVersion".into(), now.clone().into());
        }
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let swap = |current: &mut Object| {
            *current = object.clone();
            Ok(())
        };
        let now = self.registry.update_with(resource, &namespace, &name, part, swap).await;
        match now {
            Ok(now) => {
                written.insert(identity, (read, now.resource_version().to_owned()));
                Ok(())
            }
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &self,
        resource: &'static Resource,
        object: &Object,
        options: DeleteOptions,
        told: Option<Told>,
    ) -> Result<(), ApiError> {
        let deleted = self.registry.delete(resource, object.namespace(), object.name(), options).await;
        match deleted {
            Ok(_) => {
                let message = |told: &Told| told.of_success("delete", resource.singular, object.name());
                self.tell(told, Severity::Normal, "SuccessfulDelete", message).await;
                Ok(())
            }
            // It, or the one that was meant, is gone already.
            Err(error) if matches!(error.reason, Reason::NotFound | Reason::Conflict) => Ok(()),
            Err(error) => {
                let message = |told: &Told| told.of_failure("delete", object.name(), &error);
                self.tell(told, Severity::Warning, "FailedDelete", message).await;
                Err(error)
            }
        }
    }

    async fn tell(
        &self,
        told: Option<Told>,
        severity: Severity,
        reason: &'static str,
        message: impl FnOnce(&Told) -> String,
    ) {
        let Some(told) = told else { return };
        let message = message(&told);
        let Told { regarding, component } = told;
        self.recorder.record(Event { regarding, severity, reason, message, component }).await;
    }
}

/// The object that was decided about, and not another one of its name.
fn same(object: &Object) -> Preconditions {
    Preconditions { uid: Some(object.uid().to_owned()), resource_version: None }
}
