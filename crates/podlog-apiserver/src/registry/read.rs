//! Reading: one object, or a consistent list.

use memchr::memmem;
use podlog_api::resource::Resource;
use podlog_api::{ApiError, Object};

use super::{Registry, codec, keys};
use crate::store::{KeyValue, Range};

/// Which part of a list to read.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// At most so many objects; 0 for all.
    pub limit: usize,
    /// Where a page before ended: the key of its last object, relative to the list.
    pub after: Option<String>,
    /// As of this revision; `None` for the newest.
    pub at: Option<u64>,
}

/// A list, or one page of it.
pub type ListPage = Page<Object>;

/// The same as it is stored.
pub(crate) type StoredPage = Page<KeyValue>;

/// A list of something, or one page of it.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Ascending by namespace and name.
    pub items: Vec<T>,
    /// The revision at which they were read.
    pub revision: u64,
    /// Objects that the limit cut off.
    pub remaining: usize,
    /// Where the page ended, for [`ListOptions::after`]; `None` when nothing is left.
    pub last: Option<String>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Page { items: Vec::new(), revision: 0, remaining: 0, last: None }
    }
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
        let key = keys::object(resource, namespace, name);
        let found = self.store.get(&key).map_err(codec::store_error)?;
        found.map(|kv| codec::decode(resource, &kv.value, kv.mod_revision)).transpose()
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
        let page = self.list_page(resource, namespace, &ListOptions::default())?;
        Ok((page.items, page.revision))
    }

    /// Objects of a namespace in whose stored text all of `words` occur: a look that costs little, before one that decodes.
    pub(crate) fn mentioning(
        &self,
        resource: &'static Resource,
        namespace: &str,
        words: &[&str],
    ) -> Result<Vec<Object>, ApiError> {
        let range = Range { prefix: keys::prefix(resource, Some(namespace)), ..Range::default() };
        let page = self.store.range(&range).map_err(codec::store_error)?;
        let holds = |text: &[u8]| words.iter().all(|word| memmem::find(text, word.as_bytes()).is_some());
        let found = page.items.iter().filter(|kv| holds(&kv.value));
        found.map(|kv| codec::decode(resource, &kv.value, kv.mod_revision)).collect()
    }

    /// One page of a list.
    ///
    /// # Errors
    /// 410 for a revision that is no longer kept.
    pub fn list_page(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ListPage, ApiError> {
        let page = self.stored_page(resource, namespace, options)?;
        let items = page.items.iter().map(|kv| codec::decode(resource, &kv.value, kv.mod_revision));
        Ok(ListPage {
            items: items.collect::<Result<_, _>>()?,
            revision: page.revision,
            remaining: page.remaining,
            last: page.last,
        })
    }

    /// [`Registry::list_page`] as it is stored; [`codec::item`] makes items of it.
    pub(crate) fn stored_page(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<StoredPage, ApiError> {
        let prefix = keys::prefix(resource, namespace);
        let range = Range {
            after: options.after.as_ref().map(|rest| format!("{prefix}{rest}")),
            at: options.at,
            limit: options.limit,
            prefix: prefix.clone(),
        };
        let page = self.store.range(&range).map_err(codec::store_error)?;
        let last = match page.items.last() {
            Some(kv) if page.remaining > 0 => kv.key.strip_prefix(&prefix).map(str::to_owned),
            _ => None,
        };
        Ok(StoredPage { items: page.items, revision: page.revision, remaining: page.remaining, last })
    }
}
