//! What a watch tells: events as one JSON document a line.

use podlog_api::accept::Representation;
use podlog_api::table::{self, IncludeObject};
use podlog_api::{ApiError, Object, json};
use serde_json::{Value, json};

use super::Target;
use super::list::{metadata_only, table_of};
use super::options::Selection;
use crate::registry::{WatchEvent, codec};
use crate::store::{Event, Stored};

/// Makes frames of what happens, for a client that wants to see some objects, in some form.
pub(super) struct Frames {
    pub(super) target: Target,
    pub(super) selection: Selection,
    pub(super) representation: Representation,
    pub(super) include: IncludeObject,
    /// The columns have been told.
    headed: bool,
}

impl Frames {
    pub(super) fn new(
        target: Target,
        selection: Selection,
        representation: Representation,
        include: IncludeObject,
    ) -> Self {
        Frames { target, selection, representation, include, headed: false }
    }

    /// Whether what is stored is told as it lies there.
    fn are_text(&self) -> bool {
        self.selection.is_everything() && matches!(self.representation, Representation::Object)
    }

    /// Appends the frame of an object that is there, if it is to be seen.
    pub(super) fn object(&mut self, out: &mut Vec<u8>, stored: Stored<'_>) -> Result<(), ApiError> {
        if self.are_text() {
            return self.text(out, "ADDED", stored.value, stored.mod_revision);
        }
        let object = codec::decode(self.target.resource, stored.value, stored.mod_revision)?;
        if self.selection.matches(&object) {
            out.append(&mut self.frame("ADDED", &object));
        }
        Ok(())
    }

    /// Appends the frame of something that happened, if it is to be seen.
    pub(super) fn event(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), ApiError> {
        if self.are_text() {
            return match (&event.value, &event.previous) {
                (Some(value), None) => self.text(out, "ADDED", value, event.revision),
                (Some(value), Some(_)) => self.text(out, "MODIFIED", value, event.revision),
                (None, previous) => {
                    self.text(out, "DELETED", previous.as_deref().unwrap_or_default(), event.revision)
                }
            };
        }
        if let Some((kind, object)) = as_seen(&self.selection, WatchEvent::of(self.target.resource, event)?) {
            out.append(&mut self.frame(kind, &object));
        }
        Ok(())
    }

    /// The frame that says how far everything has been told.
    pub(super) fn bookmark(&mut self, revision: u64, end_of_objects: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_objects {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = self.target.resource;
        let object: Value =
            json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        match self.representation {
            Representation::Object => json::watch_event("BOOKMARK", &object),
            Representation::PartialObjectMetadata(version)
            | Representation::PartialObjectMetadataList(version) => {
                json::watch_event("BOOKMARK", &metadata_only(&Object::new(object), version))
            }
            Representation::Table(_) => self.frame("BOOKMARK", &Object::new(object)),
        }
    }

    /// As [`json::watch_event`] of what is stored.
    fn text(&self, out: &mut Vec<u8>, kind: &str, value: &[u8], revision: u64) -> Result<(), ApiError> {
        let begin = out.len();
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        let written = codec::document(out, self.target.resource, value, revision);
        match written {
            Ok(()) => {
                // It is a line of its own.
                out.pop();
                out.extend_from_slice(b"}\n");
            }
            Err(_) => out.truncate(begin),
        }
        written
    }

    fn frame(&mut self, kind: &str, object: &Object) -> Vec<u8> {
        match self.representation {
            Representation::Object => json::watch_event(kind, &object.0),
            Representation::PartialObjectMetadata(version)
            | Representation::PartialObjectMetadataList(version) => {
                json::watch_event(kind, &metadata_only(object, version))
            }
            Representation::Table(version) => {
                let metadata = json!({"resourceVersion": object.resource_version()});
                let mut value = table_of(self.target.resource, &[object], metadata, version, self.include);
                if self.headed {
                    table::drop_columns(&mut value);
                }
                self.headed = true;
                json::watch_event(kind, &value)
            }
        }
    }
}

/// What a watcher sees that only wants some objects: one that starts to match is new to it, one that stops to match is gone.
fn as_seen(selection: &Selection, event: WatchEvent) -> Option<(&'static str, Object)> {
    match event {
        WatchEvent::Added(object) => selection.matches(&object).then_some(("ADDED", object)),
        WatchEvent::Deleted(object) => selection.matches(&object).then_some(("DELETED", object)),
        WatchEvent::Modified { object, previous } => {
            match (selection.matches(&previous), selection.matches(&object)) {
                (true, true) => Some(("MODIFIED", object)),
                (false, true) => Some(("ADDED", object)),
                (true, false) => {
                    let version = object.resource_version().to_owned();
                    let mut last = *previous;
                    last.metadata_mut().insert("resourceVersion".into(), json!(version));
                    Some(("DELETED", last))
                }
                (false, false) => None,
            }
        }
    }
}
