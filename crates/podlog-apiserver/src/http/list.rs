//! `get` and `list`.

use std::ops::ControlFlow;

use http::StatusCode;
use podlog_api::accept::{Endpoint, MetaVersion, Representation};
use podlog_api::query::Query;
use podlog_api::resource::Resource;
use podlog_api::table::{self, IncludeObject};
use podlog_api::{ApiError, Object, Reason, go, json};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Pieces};
use super::continuation::Continuation;
use super::list_options::{Asking, From, ListOptions};
use super::negotiation::Wanted;
use super::options::Selection;
use super::{Call, Target};
use crate::registry::codec::{self, too_large_version};
use crate::registry::{Place, Registry};
use crate::store::{KeyValue, Stored};

/// About what an object's resource version takes, and the newline after it.
const VERSION_BYTES: usize = 48;

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

/// One object as it is stored, in the representation that is wanted.
pub(crate) fn stored(
    call: &Call,
    resource: &'static Resource,
    stored: &KeyValue,
) -> Result<Answer, ApiError> {
    let wanted = call.wanted(Endpoint::Objects)?;
    if !wanted.is_compact_json() {
        let object = codec::decode(resource, &stored.value, stored.mod_revision)?;
        return one(call, resource, &object, StatusCode::OK);
    }
    let mut body = Vec::with_capacity(stored.value.len() + VERSION_BYTES);
    codec::document(&mut body, resource, &stored.value, stored.mod_revision)?;
    Ok(wanted.answer_text(StatusCode::OK, body.into()))
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
    let reading = Reading { registry, target, selection: &selection, asked: &asked };
    match wanted.representation {
        Representation::Object if wanted.is_compact_json() => reading.answer_text(&wanted),
        Representation::Object => {
            let mut items = Vec::new();
            let end = reading.each_object(|object| items.push(object))?;
            let metadata = asked.metadata(&end);
            Ok(wanted.answer(StatusCode::OK, &list_object(target.resource, items, metadata)))
        }
        Representation::Table(version) => {
            let include = include(&question.query)?;
            let (now, mut rows) = (jiff::Timestamp::now(), Vec::new());
            let end = reading
                .each_object(|object| rows.push(table::row(target.resource, &object, now, include)))?;
            let mut table = table_of(target.resource, &[], asked.metadata(&end), version, include);
            table["rows"] = Value::Array(rows);
            Ok(wanted.answer(StatusCode::OK, &table))
        }
        Representation::PartialObjectMetadata(version)
        | Representation::PartialObjectMetadataList(version) => {
            let mut items = Vec::new();
            let end = reading.each_object(|object| items.push(metadata_only(&object, version)))?;
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": version.api_version(),
                "metadata": asked.metadata(&end),
                "items": items,
            });
            Ok(wanted.answer(StatusCode::OK, &list))
        }
    }
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

/// `includeObject` of a request for a table (`optionsForTransform` of `k8s.io/apiserver/pkg/endpoints/handlers/response.go`).
pub(crate) fn include(query: &Query) -> Result<IncludeObject, ApiError> {
    let text = query.first("includeObject").unwrap_or_default();
    IncludeObject::parse(text).ok_or_else(|| {
        let why = "must be 'Metadata', 'Object', 'None', or empty";
        let invalid = format!("includeObject: Invalid value: {}: {why}", go::quote(text));
        ApiError::bad_request(format!("Unable to convert to Table as requested: {invalid}"))
    })
}

/// Which page of which version of a list is asked for.
struct Asked {
    /// 0 for all.
    limit: usize,
    place: Place,
    /// How the page before ended, if there was one.
    page: Option<Continuation>,
}

impl Asked {
    fn parse(registry: &Registry, query: &Query) -> Result<Self, ApiError> {
        let options = ListOptions::parse(query, Asking::List)?;
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        let known = |revision: u64| {
            let current = registry.store().revision();
            if revision > current { Err(too_large_version(revision, current)) } else { Ok(revision) }
        };
        let (at, page) = match options.from()? {
            From::Newest(revision) => known(revision).map(|_| (None, None))?,
            From::Exactly(revision) => (Some(known(revision)?), None),
            From::Page(token) => (token.revision(), Some(token)),
        };
        let after = page.as_ref().map(|page| page.key().to_owned());
        Ok(Asked { limit, place: Place { at, after }, page })
    }

    /// A page whose revision is forgotten says how to go on.
    fn explain(&self, error: ApiError) -> ApiError {
        match &self.page {
            Some(page) if error.reason == Reason::Expired => page.clone().expired(),
            _ => error,
        }
    }

    /// `metadata` of the list.
    fn metadata(&self, end: &End) -> Value {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), json!(end.revision.to_string()));
        if let Some(last) = &end.last {
            metadata.insert("continue".into(), json!(Continuation::after(end.revision, last).encode()));
            if let Some(remaining) = end.remaining {
                metadata.insert("remainingItemCount".into(), json!(remaining));
            }
        }
        Value::Object(metadata)
    }
}

/// How a page of a list ended.
struct End {
    /// The revision at which it was read.
    revision: u64,
    /// The key of its last object, relative to the list; `None` when nothing is left.
    last: Option<String>,
    /// Objects that the limit cut off, where that is known without looking at them.
    remaining: Option<usize>,
}

/// The reading of one page. No more of it is held than what is made of each object.
struct Reading<'a> {
    registry: &'a Registry,
    target: &'a Target,
    selection: &'a Selection,
    asked: &'a Asked,
}

impl Reading<'_> {
    /// Text that is stored, as text.
    fn answer_text(&self, wanted: &Wanted) -> Result<Answer, ApiError> {
        let resource = self.target.resource;
        let mut items = Pieces::default();
        let mut is_first = true;
        let end = self.each(|stored, _| {
            let out = items.end();
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            codec::item(out, resource, stored.value, stored.mod_revision)
        })?;
        let mut head = json::to_vec(&list_object(resource, Vec::new(), self.asked.metadata(&end)));
        // The items come before the two last brackets.
        head.truncate(head.len() - b"]}".len());
        items.end().extend_from_slice(b"]}\n");
        Ok(wanted.answer_text(StatusCode::OK, items.after(head)))
    }

    fn each_object(&self, mut work: impl FnMut(Object)) -> Result<End, ApiError> {
        let resource = self.target.resource;
        self.each(|stored, object| {
            let decoded =
                object.map_or_else(|| codec::decode(resource, stored.value, stored.mod_revision), Ok);
            decoded.map(&mut work)
        })
    }

    /// Shows what is selected, and the object where the selection had to look at it.
    fn each(
        &self,
        mut work: impl FnMut(Stored<'_>, Option<Object>) -> Result<(), ApiError>,
    ) -> Result<End, ApiError> {
        let Reading { registry, target, selection, asked } = self;
        let (mut count, mut last, mut remaining, mut failed) = (0, String::new(), 0, None);
        let is_everything = selection.is_everything();
        let revision = registry.scan(target.resource, target.namespace(), &asked.place, &mut |stored| {
            if asked.limit > 0 && count == asked.limit {
                remaining += 1;
                // Of those behind, nothing is known without a look: there is at least one, whether it matches or not.
                return if is_everything { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            }
            let looked_at = self.selected(stored).and_then(|selected| {
                let Some(object) = selected else { return Ok(()) };
                count += 1;
                if count == asked.limit {
                    stored.key.clone_into(&mut last);
                }
                work(stored, object)
            });
            match looked_at {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        let revision = revision.map_err(|error| asked.explain(error))?;
        if let Some(error) = failed {
            return Err(error);
        }
        let last = (remaining > 0).then(|| registry.relative_key(target.resource, target.namespace(), &last));
        Ok(End { revision, last, remaining: is_everything.then_some(remaining) })
    }

    /// `None` for what is not selected; the inner `None` where nobody had to look at the object for that.
    fn selected(&self, stored: Stored<'_>) -> Result<Option<Option<Object>>, ApiError> {
        if self.selection.is_everything() {
            return Ok(Some(None));
        }
        let object = codec::decode(self.target.resource, stored.value, stored.mod_revision)?;
        Ok(self.selection.matches(&object).then_some(Some(object)))
    }
}
