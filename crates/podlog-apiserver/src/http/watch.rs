//! `watch`: events as they happen, one JSON document a line.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use podlog_api::accept::{Endpoint, Representation};
use podlog_api::table::IncludeObject;
use podlog_api::{ApiError, json};
use podlog_serving::metrics::Held;
use podlog_serving::{BodySender, ReceiverGone, stream_body_of};
use rand::Rng;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::frames::Frames;
use super::list::include;
use super::list_options::{Asking, ListOptions, Version};
use super::options::Selection;
use super::{App, Call, Target};
use crate::registry::codec::too_large_version;
use crate::registry::{Place, Watch};

/// How long a watch lasts that does not say (`--min-request-timeout`, and as much again at random).
const DURATION_SECONDS: std::ops::Range<u64> = 1800..3600;
/// Longer than any connection lives, and short enough to reckon with.
const MAX_SECONDS: u64 = 365 * 24 * 3600;
/// Frames are sent together up to the one that makes so many bytes: what a client that does not read makes us hold is twice that, and
/// a page of the history.
const CHUNK: usize = 8 << 10;
/// Chunks that wait for the client.
const QUEUED_CHUNKS: usize = 1;
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
    let frames = Frames::new(target.clone(), selection, wanted.representation, include);
    let (sender, body) = stream_body_of(QUEUED_CHUNKS);
    let ends = Instant::now() + asked.duration;
    let watching = Watching { app: app.clone(), bookmarks: asked.bookmarks, ends, sender, _held: held };
    tokio::spawn(watching.run(asked.start, frames));
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
    /// They are wanted.
    bookmarks: bool,
    ends: Instant,
    sender: BodySender,
    _held: Held,
}

impl Watching {
    async fn run(self, start: Start, frames: Frames) {
        let Err(end) = self.follow(start, frames).await;
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

    async fn follow(&self, start: Start, mut frames: Frames) -> Result<std::convert::Infallible, End> {
        let from = match start {
            Start::After(revision) => revision,
            Start::WithObjects { revision, mark_end } => {
                frames = self.send_objects(revision, frames).await?;
                if mark_end {
                    self.sender.send(frames.bookmark(revision, true)).await?;
                }
                revision
            }
        };
        let mut watch = self.app.registry.watch_in(frames.target.resource, frames.target.namespace(), from);
        let mut bookmark = (Instant::now() + BOOKMARK_INTERVAL).min(last_bookmark(self.ends));
        loop {
            self.room().await?;
            tokio::select! {
                chunk = chunk(&mut watch, &mut frames) => self.sender.send(chunk?).await?,
                () = sleep_until(bookmark) => {
                    if self.bookmarks {
                        self.sender.send(frames.bookmark(watch.progress(), false)).await?;
                    }
                    bookmark = next_bookmark(self.ends);
                }
                end = self.over() => return Err(end),
            }
        }
    }

    /// Waits until the client can take something: until then, what happens lies in the store.
    async fn room(&self) -> Result<(), End> {
        tokio::select! {
            room = self.sender.ready() => Ok(room?),
            end = self.over() => Err(end),
        }
    }

    /// Resolves when it is of no use to go on.
    async fn over(&self) -> End {
        tokio::select! {
            () = sleep_until(self.ends) => End::Complete,
            () = self.app.shutdown.cancelled() => End::Complete,
            () = self.sender.closed() => End::Gone,
        }
    }

    /// Everything that was there at a revision, a chunk at a time.
    async fn send_objects(&self, revision: u64, mut frames: Frames) -> Result<Frames, End> {
        let mut place = Place { at: Some(revision), after: None };
        loop {
            self.room().await?;
            let app = self.app.clone();
            let read = spawn_blocking(move || objects(&app, &place, &mut frames).map(|read| (read, frames)));
            let (chunk, next);
            ((chunk, next), frames) = read.await.map_err(ApiError::internal)??;
            self.sender.send(chunk).await?;
            let Some(after) = next else { return Ok(frames) };
            place = Place { at: Some(revision), after: Some(after) };
        }
    }
}

/// Frames of the next objects, and the key of the last one unless there are no more.
fn objects(app: &App, place: &Place, frames: &mut Frames) -> Result<(Vec<u8>, Option<String>), ApiError> {
    let Target { resource, namespace, .. } = frames.target.clone();
    let namespace = Some(namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let (mut chunk, mut last, mut failed) = (Vec::new(), None, None);
    app.registry.scan(resource, namespace, place, &mut |stored| {
        failed = frames.object(&mut chunk, stored).err();
        if chunk.len() >= CHUNK {
            last = Some(app.registry.relative_key(resource, namespace, stored.key));
        }
        if last.is_some() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    chunk.shrink_to_fit();
    failed.map_or(Ok((chunk, last)), Err)
}

/// Frames of what happened next. Safe to cancel: nothing is lost.
async fn chunk(watch: &mut Watch, frames: &mut Frames) -> Result<Vec<u8>, ApiError> {
    let mut chunk = Vec::new();
    while chunk.is_empty() {
        let event = watch.next_event().await?;
        frames.event(&mut chunk, &event)?;
        if chunk.is_empty() {
            // There may be many that are not to be seen.
            yield_now().await;
        }
    }
    // What fails is to be had again.
    while chunk.len() < CHUNK
        && let Some(Ok(event)) = watch.next_event().now_or_never()
    {
        frames.event(&mut chunk, &event)?;
    }
    chunk.shrink_to_fit();
    Ok(chunk)
}

fn last_bookmark(deadline: Instant) -> Instant {
    deadline.checked_sub(LAST_BOOKMARK).unwrap_or(deadline)
}

fn next_bookmark(deadline: Instant) -> Instant {
    let now = Instant::now();
    let last = last_bookmark(deadline);
    if now >= last { deadline + BOOKMARK_INTERVAL } else { (now + BOOKMARK_INTERVAL).min(last) }
}
