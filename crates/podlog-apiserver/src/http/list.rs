//! `get` and `list`.

use http::StatusCode;
use podlog_api::accept::{Endpoint, MetaVersion, Representation};
use podlog_api::query::Query;
use podlog_api::resource::Resource;
use podlog_api::table::{self, IncludeObject};
use podlog_api::{ApiError, Object, Reason, json};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::continuation::{self, Continuation};
use super::negotiation::Wanted;
use super::options::{self, Selection, Version, VersionMatch};
use super::{Call, Target};
use crate::registry::codec::{self, too_large_version};
use crate::registry::{ListOptions, ListPage, Page, Registry};

/// Objects that are read at a time when a selector may drop most of them.
const CHUNK: usize = 500;

/// About what an item's resource version takes.
const VERSION_BYTES: usize = 32;

/// What a list needs to know of its request.
pub(crate) struct Question {
    wanted: Result<Wanted, ApiError>,
    query: Query,
}

impl Question {
    pub(crate) fn of(call: &Call) -> Self {
        Question { wanted: call.wanted(Endpoint::Objects), query: call.query.clone() }
    }
}

/// One object in the representation that is wanted.
pub(crate) fn one(
    call: &Call,
    resource: &Resource,
    object: &Object,
    code: StatusCode,
) -> Result<Answer, ApiError> {
    let wanted = call.wanted(Endpoint::Objects)?;
    let value = match wanted.representation {
        Representation::Object => return Ok(wanted.answer(code, &object.0)),
        Representation::Table(version) => {
            let metadata = json!({"resourceVersion": object.resource_version()});
            table_of(resource, &[object], metadata, version, include(&call.query)?)
        }
        Representation::PartialObjectMetadata(version)
        | Representation::PartialObjectMetadataList(version) => metadata_only(object, version),
    };
    Ok(wanted.answer(code, &value))
}

/// An object that is not stored, in the format that is wanted.
pub(crate) fn value(call: &Call, code: StatusCode, value: &Value) -> Result<Answer, ApiError> {
    Ok(call.wanted(Endpoint::Plain)?.answer(code, value))
}

/// A list in the representation that is wanted. Works through many objects: not for async threads.
pub(crate) fn list(registry: &Registry, question: &Question, target: &Target) -> Result<Answer, ApiError> {
    let wanted = question.wanted.clone()?;
    let selection = Selection::parse(target, &question.query)?;
    let asked = Asked::parse(registry, &question.query)?;
    if wanted.is_compact_json() && selection.is_everything() {
        return asked.answer_stored(registry, target, &wanted);
    }
    let page = asked.read(registry, target, &selection)?;
    let metadata = asked.metadata(&page, selection.is_everything());
    let value = match wanted.representation {
        Representation::Object => list_object(target.resource, page.items, metadata),
        Representation::Table(version) => {
            let objects: Vec<&Object> = page.items.iter().collect();
            table_of(target.resource, &objects, metadata, version, include(&question.query)?)
        }
        Representation::PartialObjectMetadata(version)
        | Representation::PartialObjectMetadataList(version) => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": version.api_version(),
            "metadata": metadata,
            "items": page.items.iter().map(|object| metadata_only(object, version)).collect::<Vec<_>>(),
        }),
    };
    Ok(wanted.answer(StatusCode::OK, &value))
}

/// `<Kind>List`. Its items do not repeat what they are.
pub(crate) fn list_object(resource: &Resource, items: Vec<Object>, metadata: Value) -> Value {
    let items: Vec<Value> = items
        .into_iter()
        .map(|object| match object.0 {
            Value::Object(mut map) => {
                map.remove("kind");
                map.remove("apiVersion");
                Value::Object(map)
            }
            other => other,
        })
        .collect();
    json!({"kind": resource.list_kind(), "apiVersion": resource.api_version(), "metadata": metadata, "items": items})
}

/// A table; `version` is the one that the client knows.
pub(crate) fn table_of(
    resource: &Resource,
    objects: &[&Object],
    metadata: Value,
    version: MetaVersion,
    include: IncludeObject,
) -> Value {
    let mut table = table::render(resource, objects, metadata, jiff::Timestamp::now(), include);
    table["apiVersion"] = json!(version.api_version());
    table
}

/// `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Object, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": object.at("/metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// `includeObject` of the request.
pub(crate) fn include(query: &Query) -> Result<IncludeObject, ApiError> {
    let text = query.first("includeObject").unwrap_or_default();
    IncludeObject::parse(text)
        .ok_or_else(|| ApiError::bad_request(format!("unrecognized includeObject value: {text:?}")))
}

/// Key of an object relative to the list that it is in.
fn key_of(target: &Target, object: &Object) -> String {
    if target.resource.namespaced && target.namespace.is_empty() {
        format!("{}/{}", object.namespace(), object.name())
    } else {
        object.name().to_owned()
    }
}

/// Which page of which version of a list is asked for.
struct Asked {
    limit: usize,
    at: Option<u64>,
    after: Option<String>,
}

impl Asked {
    fn parse(registry: &Registry, query: &Query) -> Result<Self, ApiError> {
        let limit = usize::try_from(options::natural(query, "limit")?).unwrap_or(usize::MAX);
        let version = options::resource_version(query)?;
        let matching = options::version_match(query, version)?;
        if let Some(token) = query.first("continue").filter(|token| !token.is_empty()) {
            if matches!(version, Version::At(_)) {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Continuation::parse(token)?;
            return Ok(Asked { limit, at: Some(token.rv), after: Some(token.key().to_owned()) });
        }
        let at = match version {
            Version::At(revision) => {
                let current = registry.store().revision();
                if revision > current {
                    return Err(too_large_version(revision, current));
                }
                (matching == VersionMatch::Exact).then_some(revision)
            }
            Version::Newest | Version::Any => None,
        };
        Ok(Asked { limit, at, after: None })
    }

    fn read(
        &self,
        registry: &Registry,
        target: &Target,
        selection: &Selection,
    ) -> Result<ListPage, ApiError> {
        if selection.is_everything() {
            return self.read_page(registry, target, self.limit, self.at, self.after.clone());
        }
        let chunk = if self.limit == 0 { 0 } else { CHUNK.max(self.limit) };
        let mut found = ListPage::default();
        let (mut at, mut after) = (self.at, self.after.clone());
        loop {
            let page = self.read_page(registry, target, chunk, at, after.take())?;
            found.revision = page.revision;
            at = Some(page.revision);
            for object in page.items {
                if self.limit > 0 && found.items.len() == self.limit {
                    // There is at least one object left to look at, whether it matches or not.
                    found.last = found.items.last().map(|last| key_of(target, last));
                    return Ok(found);
                }
                if selection.matches(&object) {
                    found.items.push(object);
                }
            }
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok(found),
            }
        }
    }

    fn read_page(
        &self,
        registry: &Registry,
        target: &Target,
        limit: usize,
        at: Option<u64>,
        after: Option<String>,
    ) -> Result<ListPage, ApiError> {
        let options = ListOptions { limit, after, at };
        let page = registry.list_page(target.resource, target.namespace(), &options);
        page.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: ApiError) -> ApiError {
        let is_continued = self.after.is_some();
        if is_continued && error.reason == Reason::Expired { continuation::expired() } else { error }
    }

    /// Everything, from the text that is stored.
    fn answer_stored(
        &self,
        registry: &Registry,
        target: &Target,
        wanted: &Wanted,
    ) -> Result<Answer, ApiError> {
        let options = ListOptions { limit: self.limit, after: self.after.clone(), at: self.at };
        let page = registry.stored_page(target.resource, target.namespace(), &options);
        let page = page.map_err(|error| self.explain(error))?;
        let mut body = json::to_vec(&list_object(target.resource, Vec::new(), self.metadata(&page, true)));
        // The items come before the two last brackets.
        body.truncate(body.len() - b"]}".len());
        body.reserve(page.items.iter().map(|kv| kv.value.len() + VERSION_BYTES).sum());
        for (number, kv) in page.items.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            codec::item(&mut body, target.resource, &kv.value, kv.mod_revision)?;
        }
        body.extend_from_slice(b"]}\n");
        Ok(wanted.answer_text(StatusCode::OK, body))
    }

    /// `metadata` of the list.
    fn metadata<T>(&self, page: &Page<T>, is_everything: bool) -> Value {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), json!(page.revision.to_string()));
        if let Some(last) = &page.last {
            metadata.insert("continue".into(), json!(Continuation::after(page.revision, last).encode()));
            if is_everything {
                metadata.insert("remainingItemCount".into(), json!(page.remaining));
            }
        }
        Value::Object(metadata)
    }
}
