//! Creating objects.

use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object, defaults, ownership, validation};
use serde_json::json;

use super::{
    Ownership, Part, Registry, WriteContext, admission, certificates, codec, keys, metadata, strategy,
};
use crate::store::{Change, Expected, KeyValue, StoreError, Unchanged, Write};

/// Names that are tried when a generated one is taken.
const GENERATED_NAMES: usize = 8;
/// Attempts before a namespace that changes all the time is given up.
const ATTEMPTS: usize = 32;

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
        let namespace = admission::namespace_of(self, resource, &object)?;
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
        if let Some(revision) = self.write_new(context, resource, &object, namespace).await? {
            object.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
        }
        Ok(object)
    }

    /// Writes the object, unless its namespace has begun to go meanwhile, or is another one: what is written into a namespace that
    /// has been emptied would stay behind, for the next of the name.
    async fn write_new(
        &self,
        context: &WriteContext,
        resource: &Resource,
        object: &Object,
        namespace: Option<KeyValue>,
    ) -> Result<Option<u64>, ApiError> {
        let key = keys::object(resource, object.namespace(), object.name());
        let taken = || ApiError::already_exists(resource.group, resource.plural, object.name());
        if context.dry_run {
            let found = self.store.get(&key).map_err(codec::store_error)?;
            return found.map_or(Ok(None), |_| Err(taken()));
        }
        let change = Change::Put(codec::encode(resource, object));
        let (mut there, expected, ttl) = (namespace.clone(), Expected::Absent, strategy::ttl(resource));
        for _ in 0..ATTEMPTS {
            let beside = there.map(|kv| Unchanged { key: kv.key, mod_revision: kv.mod_revision });
            let write = Write { key: key.clone(), expected, beside, change: change.clone(), ttl };
            match self.store.write(write).await {
                Ok(revision) => return Ok(Some(revision)),
                Err(StoreError::Conflict(_)) => return Err(taken()),
                Err(StoreError::Overtaken) => there = admission::namespace_of(self, resource, object)?,
                Err(other) => return Err(codec::store_error(other)),
            }
            let made = |namespace: &Option<KeyValue>| namespace.as_ref().map(|kv| kv.create_revision);
            if made(&there) != made(&namespace) {
                return Err(ApiError::not_found("", "namespaces", object.namespace()));
            }
        }
        Err(ApiError::modified("", "namespaces", object.namespace()))
    }
}
