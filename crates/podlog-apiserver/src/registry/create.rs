//! Creating objects.

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, defaults, ownership, validation};
use serde_json::json;

use super::{
    Ownership, Part, Registry, WriteContext, admission, certificates, codec, keys, metadata, strategy,
};
use crate::store::{Change, Expected, StoreError, Write};

/// Names that are tried when a generated one is taken.
const GENERATED_NAMES: usize = 8;

impl Registry {
    /// Creates an object on behalf of the control plane.
    ///
    /// # Errors
    /// 409 when there is one of that name, 422 when it is not valid, 403 or 404 when admission refuses it.
    pub async fn create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
    ) -> Result<Object, ApiError> {
        self.create_as(&WriteContext::default(), resource, namespace, object).await
    }

    /// Creates an object on behalf of somebody.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn create_as(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
    ) -> Result<Object, ApiError> {
        let generated = object.name().is_empty();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.create_once(context, resource, namespace, object.clone()).await {
                Err(e)
                    if generated
                        && attempts < GENERATED_NAMES
                        && e.reason == podlog_api::Reason::AlreadyExists => {}
                result => return result,
            }
        }
    }

    async fn create_once(
        &self,
        context: &WriteContext,
        resource: &'static Resource,
        namespace: &str,
        mut object: Object,
    ) -> Result<Object, ApiError> {
        let now = Timestamp::now();
        let owners = object.metadata_mut().remove("managedFields");
        metadata::prepare_create(resource, namespace, &mut object, now)?;
        defaults::apply(resource, &mut object);
        admission::create(self, context, resource, &mut object).await?;
        strategy::prepare_create(resource, &mut object);
        if certificates::is_request(resource) {
            certificates::prepare_create(context.user.as_ref(), &mut object);
        }
        if let Some(owners) = owners {
            object.metadata_mut().insert("managedFields".into(), owners);
        }
        if context.ownership == Ownership::Tracked {
            ownership::track(resource, None, &mut object, &context.writer(Part::Main, now));
        }
        let mut causes = validation::create(resource, &object);
        if certificates::is_request(resource) {
            causes.extend(certificates::causes(&object));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid(resource.group, resource.kind, object.name(), causes));
        }
        let key = keys::object(resource, namespace, object.name());
        let change = Change::Put(codec::encode(resource, &object));
        let revision = self.write_new(context, resource, key, change).await.map_err(|e| match e {
            StoreError::Conflict(_) => {
                ApiError::already_exists(resource.group, resource.plural, object.name())
            }
            other => codec::store_error(other),
        })?;
        if let Some(revision) = revision {
            object.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
        }
        Ok(object)
    }

    async fn write_new(
        &self,
        context: &WriteContext,
        resource: &Resource,
        key: String,
        change: Change,
    ) -> Result<Option<u64>, StoreError> {
        if context.dry_run {
            return match self.store.get(&key)? {
                Some(found) => Err(StoreError::Conflict(Some(found))),
                None => Ok(None),
            };
        }
        let ttl = strategy::ttl(resource);
        self.store.write(Write { key, expected: Expected::Absent, change, ttl }).await.map(Some)
    }
}
