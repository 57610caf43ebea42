//! `watch`: events as they happen, one JSON document a line.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use podlog_api::accept::{Endpoint, Representation};
use podlog_api::table::{self, IncludeObject};
use podlog_api::{ApiError, Object, json};
use podlog_serving::metrics::Held;
use podlog_serving::{BodySender, ReceiverGone, stream_body};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::list::{include, metadata_only, table_of};
use super::list_options::{Asking, ListOptions, Version};
use super::options::Selection;
use super::{App, Call, Target};
use crate::registry::codec::{self, too_large_version};
use crate::registry::{Place, Watch, WatchEvent};

/// How long a watch lasts that does not say (`--min-request-timeout`, and as much again at random).
const DURATION_SECONDS: std::ops::Range<u64> = 1800..3600;
/// Longer than any connection lives, and short enough to reckon with.
const MAX_SECONDS: u64 = 365 * 24 * 3600;
/// Bytes of stored text that a watch holds at its beginning, for a client that may not read.
const HELD_BYTES: usize = 32 << 10;
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Before the end of a watch, so that the next one starts where this one ends.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Starts a watch.
pub(crate) fn watch(app: &Arc<App>, call: &Call, target: &Target, held: Held) -> Result<Answer, ApiError> {
    let wanted = call.wanted(Endpoint::Watch)?;
    let selection = Selection::parse(target, &call.query)?;
    let asked = Asked::parse(app, call)?;
    let include = match wanted.representation {
        Representation::Table(_) => include(&call.query)?,
        _ => IncludeObject::None,
    };
    let encoder =
        Encoder { target: target.clone(), representation: wanted.representation, include, headed: false };
    let (sender, body) = stream_body();
    let watching = Watching { app: app.clone(), selection, asked, encoder, sender, _held: held };
    tokio::spawn(watching.run());
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// Where a watch starts and what it tells besides events.
struct Asked {
    start: Start,
    bookmarks: bool,
    duration: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// With what was there when the request came, as `ADDED` events; `mark_end` tells the client when that is through.
    WithObjects { revision: u64, mark_end: bool },
    /// After this revision.
    After(u64),
}

impl Asked {
    fn parse(app: &App, call: &Call) -> Result<Self, ApiError> {
        let query = &call.query;
        let options = ListOptions::parse(query, Asking::Watch)?;
        let version = Version::of(query)?;
        let bookmarks = query.flag("allowWatchBookmarks");
        let current = app.registry.store().revision();
        let start = match (version, options.initial_events) {
            (Version::At(revision), _) if revision > current => {
                return Err(too_large_version(revision, current));
            }
            (_, Some(true)) => Start::WithObjects { revision: current, mark_end: bookmarks },
            (Version::At(revision), _) => Start::After(revision),
            (_, Some(false)) => Start::After(current),
            (_, None) => Start::WithObjects { revision: current, mark_end: false },
        };
        let seconds = match options.timeout_seconds {
            0 => rand::rng().random_range(DURATION_SECONDS),
            seconds => seconds.min(MAX_SECONDS),
        };
        Ok(Asked { start, bookmarks, duration: Duration::from_secs(seconds) })
    }
}

/// Why a watch ends.
enum End {
    /// Its time is over, or the server's.
    Complete,
    /// The client has gone.
    Gone,
    /// It cannot go on; the client is told and starts anew.
    Failed(ApiError),
}

impl From<ReceiverGone> for End {
    fn from(_: ReceiverGone) -> Self {
        End::Gone
    }
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        End::Failed(error)
    }
}

struct Watching {
    app: Arc<App>,
    selection: Selection,
    asked: Asked,
    encoder: Encoder,
    sender: BodySender,
    _held: Held,
}

impl Watching {
    async fn run(mut self) {
        let Err(end) = self.follow().await;
        match end {
            End::Gone => return,
            End::Complete => {}
            End::Failed(error) => {
                let frame = json::watch_event("ERROR", &error.to_status());
                if self.sender.send(frame).await.is_err() {
                    return;
                }
            }
        }
        self.sender.finish().await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, End> {
        let deadline = Instant::now() + self.asked.duration;
        let from = match self.asked.start {
            Start::After(revision) => revision,
            Start::WithObjects { revision, mark_end } => {
                self.send_objects(revision, mark_end).await?;
                revision
            }
        };
        let target = &self.encoder.target;
        let namespace = Some(target.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let mut watch = self.app.registry.watch_in(target.resource, namespace.as_deref(), from);
        let shutdown = self.app.shutdown.clone();
        let mut bookmark = (Instant::now() + BOOKMARK_INTERVAL).min(last_bookmark(deadline));
        loop {
            tokio::select! {
                event = watch.next() => self.send_event(event?).await?,
                () = sleep_until(bookmark) => {
                    self.send_bookmark(&watch).await?;
                    bookmark = next_bookmark(deadline);
                }
                () = sleep_until(deadline) => return Err(End::Complete),
                () = shutdown.cancelled() => return Err(End::Complete),
                () = self.sender.closed() => return Err(End::Gone),
            }
        }
    }

    /// Everything that was there at a revision, a batch at a time.
    async fn send_objects(&mut self, revision: u64, mark_end: bool) -> Result<(), End> {
        let mut place = Place { at: Some(revision), after: None };
        loop {
            let (registry, target) = (self.app.registry.clone(), self.encoder.target.clone());
            let read = move || {
                let batch = registry.batch(target.resource, target.namespace(), &mut place, HELD_BYTES);
                batch.map(|(batch, _)| (batch, place))
            };
            let (batch, next) = tokio::task::spawn_blocking(read).await.map_err(ApiError::internal)??;
            place = next;
            if batch.is_empty() {
                break;
            }
            for stored in batch {
                let object = codec::decode(self.encoder.target.resource, &stored.value, stored.mod_revision)?;
                if self.selection.matches(&object) {
                    let frame = self.encoder.frame("ADDED", &object);
                    drop(object);
                    self.sender.send(frame).await?;
                }
            }
        }
        if mark_end {
            self.sender.send(self.encoder.bookmark(revision, true)).await?;
        }
        Ok(())
    }

    async fn send_event(&mut self, event: WatchEvent) -> Result<(), End> {
        let Some((kind, object)) = as_seen(&self.selection, event) else { return Ok(()) };
        let frame = self.encoder.frame(kind, &object);
        Ok(self.sender.send(frame).await?)
    }

    async fn send_bookmark(&mut self, watch: &Watch) -> Result<(), End> {
        if !self.asked.bookmarks {
            return Ok(());
        }
        Ok(self.sender.send(self.encoder.bookmark(watch.progress(), false)).await?)
    }
}

fn last_bookmark(deadline: Instant) -> Instant {
    deadline.checked_sub(LAST_BOOKMARK).unwrap_or(deadline)
}

fn next_bookmark(deadline: Instant) -> Instant {
    let now = Instant::now();
    let last = last_bookmark(deadline);
    if now >= last { deadline + BOOKMARK_INTERVAL } else { (now + BOOKMARK_INTERVAL).min(last) }
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

/// Events into frames.
struct Encoder {
    target: Target,
    representation: Representation,
    include: IncludeObject,
    /// The columns have been told.
    headed: bool,
}

impl Encoder {
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

    fn bookmark(&mut self, revision: u64, end_of_objects: bool) -> Vec<u8> {
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
}
