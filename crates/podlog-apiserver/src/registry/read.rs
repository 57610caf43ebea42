//! Reading: one object, or a consistent list.

use std::ops::ControlFlow;

use memchr::memmem;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

use super::{Registry, codec, keys};
use crate::store::{KeyValue, Range, Stored};

/// Where a list begins, and when it was so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Where a page before ended: the key of its last object, relative to the list.
    pub(crate) after: Option<String>,
    /// As of this revision; `None` for the newest.
    pub(crate) at: Option<u64>,
}

impl Registry {
    /// One object.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Result<Object, ApiError> {
        self.find(resource, namespace, name)?
            .ok_or_else(|| ApiError::not_found(resource.group, resource.plural, name))
    }

    /// One object, or `None` when there is none.
    ///
    /// # Errors
    /// When the store failed.
    pub fn find(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ApiError> {
        let found = self.find_stored(resource, namespace, name)?;
        found.map(|kv| codec::decode(resource, &kv.value, kv.mod_revision)).transpose()
    }

    /// One object as it is stored, or `None` when there is none; [`codec::document`] makes an answer of it.
    ///
    /// # Errors
    /// When the store failed.
    pub(crate) fn find_stored(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<KeyValue>, ApiError> {
        self.store.get(&keys::object(resource, namespace, name)).map_err(codec::store_error)
    }

    /// All objects of a kind, or those of one namespace, and the resource version at which they were read.
    ///
    /// # Errors
    /// When the store failed.
    pub fn list(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
    ) -> Result<(Vec<Object>, u64), ApiError> {
        self.gather(resource, namespace, &|_| true, &Some)
    }

    /// Objects of a namespace in whose stored text all of `words` occur: a look that costs little, before one that decodes.
    pub(crate) fn mentioning(
        &self,
        resource: &'static Resource,
        namespace: &str,
        words: &[&str],
    ) -> Result<Vec<Object>, ApiError> {
        let holds = |text: &[u8]| words.iter().all(|word| memmem::find(text, word.as_bytes()).is_some());
        self.select(resource, Some(namespace), &holds, &Some)
    }

    /// What `keep` keeps of objects, of those whose stored text `may` be of one that matters: a look that costs little, before
    /// one that decodes. Never holds more than what is kept, whatever there is besides.
    ///
    /// # Errors
    /// When the store failed, or an object is damaged.
    pub(crate) fn select(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        may: &dyn Fn(&[u8]) -> bool,
        keep: &dyn Fn(Object) -> Option<Object>,
    ) -> Result<Vec<Object>, ApiError> {
        self.gather(resource, namespace, may, keep).map(|(objects, _)| objects)
    }

    fn gather(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        may: &dyn Fn(&[u8]) -> bool,
        keep: &dyn Fn(Object) -> Option<Object>,
    ) -> Result<(Vec<Object>, u64), ApiError> {
        let (mut found, mut damaged) = (Vec::new(), None);
        let revision = self.scan(resource, namespace, &Place::default(), &mut |stored| {
            if may(stored.value) {
                match codec::decode(resource, stored.value, stored.mod_revision) {
                    Ok(object) => found.extend(keep(object)),
                    Err(error) => damaged = Some(error),
                }
            }
            if damaged.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        damaged.map_or(Ok((found, revision)), Err)
    }

    /// Shows objects as they are stored, as [`Store::scan`](crate::store::Store::scan); [`codec::item`] makes items of them.
    ///
    /// # Errors
    /// 410 for a revision that is no longer kept.
    pub(crate) fn scan(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        from: &Place,
        look: &mut dyn FnMut(Stored<'_>) -> ControlFlow<()>,
    ) -> Result<u64, ApiError> {
        let prefix = keys::prefix(resource, namespace);
        let after = from.after.as_ref().map(|rest| format!("{prefix}{rest}"));
        let range = Range { prefix, after, at: from.at, limit: 0 };
        self.store.scan(&range, look).map_err(codec::store_error)
    }

    /// A key within its list, for [`Place::after`].
    pub(crate) fn relative_key(&self, resource: &Resource, namespace: Option<&str>, key: &str) -> String {
        key.strip_prefix(&keys::prefix(resource, namespace)).unwrap_or(key).to_owned()
    }

    /// The next objects of a list as they are stored, up to the one that makes `bytes` full, none at its end; and the revision of
    /// all. `from` moves on. Between batches others may write.
    ///
    /// # Errors
    /// 410 for a revision that is no longer kept.
    pub(crate) fn batch(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        from: &mut Place,
        bytes: usize,
    ) -> Result<(Vec<KeyValue>, u64), ApiError> {
        let (mut stored, mut length): (Vec<KeyValue>, usize) = (Vec::new(), 0);
        let revision = self.scan(resource, namespace, from, &mut |found| {
            stored.push(found.to_key_value());
            length += found.value.len();
            if length < bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        from.at = Some(revision);
        if let Some(last) = stored.last() {
            from.after = Some(self.relative_key(resource, namespace, &last.key));
        }
        Ok((stored, revision))
    }
}
