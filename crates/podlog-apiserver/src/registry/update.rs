//! Changing objects: read, change, compare and swap, again when somebody else was faster.

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, defaults, ownership, validation};
use serde_json::json;

use super::{Ownership, Registry, WriteContext, admission, certificates, codec, keys, metadata, strategy};
use crate::store::{Change, Expected, KeyValue, StoreError, Write};

/// Attempts before a change that others keep overtaking is given up.
const ATTEMPTS: usize = 32;

/// Which part of an object a change is about; the others stay as they are, whatever the change did to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status of kinds that have a status subresource.
    Main,
    /// The status.
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// A pod's node, and the condition that says so.
    Binding,
    /// The conditions of a certificate signing request.
    Approval,
}

impl Registry {
    /// Changes an object on behalf of the control plane: `change` is called on the newest state, again whenever somebody else
    /// wrote in between. Nothing is written when nothing changed.
    ///
    /// # Errors
    /// 404 when there is none, 422 when the result is not valid, or what `change` returns.
    pub async fn update_with(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        part: Part,
        change: impl FnMut(&mut Object) -> Result<(), ApiError> + Send,
    ) -> Result<Object, ApiError> {
        self.update_as(&WriteContext::default(), resource, namespace, name, part, change).await
    }

    /// Changes an object on behalf of somebody.
    ///
    /// # Errors
    /// As [`Registry::update_with`], and 409 when `change` left another resource version or uid than the newest.
    pub async fn update_as(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        part: Part,
        mut change: impl FnMut(&mut Object) -> Result<(), ApiError> + Send,
    ) -> Result<Object, ApiError> {
        let key = keys::object(resource, namespace, name);
        for _ in 0..ATTEMPTS {
            let stored = self.store.get(&key).map_err(codec::store_error)?;
            let stored = stored.ok_or_else(|| ApiError::not_found(resource.group, resource.plural, name))?;
            let old = codec::decode(resource, &stored.value, stored.mod_revision)?;
            let mut new = old.clone();
            change(&mut new)?;
            self.prepare(context, resource, part, &mut new, &old).await?;
            if new == old {
                return Ok(old);
            }
            if context.ownership == Ownership::Tracked {
                ownership::track(resource, Some(&old), &mut new, &context.writer(part, Timestamp::now()));
            }
            match self.swap(context, resource, &stored, &mut new, &old).await {
                Ok(()) => return Ok(new),
                Err(StoreError::Conflict(_)) => {}
                Err(other) => return Err(codec::store_error(other)),
            }
        }
        Err(ApiError::modified(resource.group, resource.plural, name))
    }

    async fn prepare(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        part: Part,
        new: &mut Object,
        old: &Object,
    ) -> Result<(), ApiError> {
        admission::decide(context, resource, part, old).await?;
        metadata::prepare_update(resource, new, old)?;
        strategy::prepare_update(resource, part, new, old);
        if matches!(part, Part::Main | Part::EphemeralContainers) {
            defaults::apply(resource, new);
        }
        if new == old {
            return Ok(());
        }
        admission::update(self, context, resource, part, new, old).await?;
        let mut causes = match part {
            Part::Main => validation::update(resource, new, old),
            Part::Status => validation::update_status(resource, new, old),
            Part::Approval => validation::update_approval(new, old),
            Part::EphemeralContainers => validation::update_ephemeral_containers(new, old),
            Part::Finalize | Part::Binding => Vec::new(),
        };
        if certificates::is_request(resource) {
            causes.extend(certificates::causes(new));
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(resource.group, resource.kind, new.name(), causes))
    }

    /// Stores the new state, or removes the object when nothing keeps it any more.
    async fn swap(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        stored: &KeyValue,
        new: &mut Object,
        old: &Object,
    ) -> Result<(), StoreError> {
        if context.dry_run {
            return Ok(());
        }
        let change = if strategy::is_finished(resource, new, old) {
            Change::Delete
        } else {
            Change::Put(codec::encode(resource, new))
        };
        let expected = Expected::ModRevision(stored.mod_revision);
        let ttl = strategy::ttl(resource);
        let write = Write { key: stored.key.clone(), expected, beside: None, change, ttl };
        let revision = self.store.write(write).await?;
        new.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
        Ok(())
    }
}
