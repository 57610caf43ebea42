//! Log files inside containers, as far as their pod declares them.
//!
//! A file is read by a thread of its own, which has the rights of the container's first process on the container's files, and
//! no others. Bytes go out as they are: such a file has no times and no streams.

mod declared;
mod events;
mod follow;
mod generations;
mod root;
mod select;
mod tail;

use std::io;
use std::sync::Arc;
use std::thread;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podlog_api::PodLogOptions;
use podlog_line::{Gap, GapReason};
use podlog_serving::{Body, BodySender, Permit, ReceiverGone, stream_body};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::choose::container_id;
use super::desk::with_honoured;
use super::handler::LogServer;
use super::logs::{Refused, bad_request};
use super::selection::line_match;
use crate::go;
use crate::pods::PodId;
use crate::runtime::{ContainerId, ContainerRuntime};
use declared::Declared;
use follow::{Follow, Piece};
use root::ContainerRoot;
pub(super) use root::open_found;
use select::Lines;
use tail::Tail;

/// Files that are read at the same time: each takes a thread.
const MAX_READERS: usize = 100;

/// Reads files.
#[derive(Clone)]
pub(super) struct Files {
    slots: Arc<Semaphore>,
}

impl Default for Files {
    fn default() -> Self {
        Files { slots: Arc::new(Semaphore::new(MAX_READERS)) }
    }
}

/// Answers with a file of a container.
pub(super) async fn answer(
    server: &LogServer,
    pod: &Pod,
    container: &str,
    options: &PodLogOptions,
    permit: Permit,
) -> Result<Response<Body>, Refused> {
    let path = options.extensions.file.clone().unwrap_or_default();
    let declared = Declared::of(pod, container).map_err(bad_request)?;
    declared.check(container, &path).map_err(bad_request)?;
    let slot = server.files.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| {
        let text = format!("{MAX_READERS} files of containers are being read already: try again later");
        (StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let lines = Lines::new(
        line_match(&options.extensions).map_err(|error| bad_request(format!("invalid pattern: {error}")))?,
    )
    .limited_to(options.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()));
    let root = container_root(server, pod, container).await?;
    let tail = options.tail_lines.and_then(|lines| u64::try_from(lines).ok());
    let job = Job { root, path: path.clone(), tail, lines, follow: options.follow, _slot: slot, permit };
    let (sender, body) = stream_body();
    let (opened, is_open) = oneshot::channel();
    thread::Builder::new()
        .name("container-file".into())
        .spawn(move || job.run(opened, sender))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let refusal =
        |why: &str| format!("file {} in container {}: {why}", go::quote(&path), go::quote(container));
    match is_open.await {
        Ok(Ok(())) => Ok(with_honoured(Response::new(body), &options.extensions)),
        // API servers pass on the words of a 400, and none of a 404.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(bad_request(refusal("there is no such file")))
        }
        Ok(Err(error)) => Err(bad_request(refusal(&error.to_string()))),
        Err(_) => Err((StatusCode::INTERNAL_SERVER_ERROR, refusal("reading failed"))),
    }
}

/// The files of the container's running instance.
async fn container_root(server: &LogServer, pod: &Pod, container: &str) -> Result<ContainerRoot, Refused> {
    let id = PodId::of(pod);
    let own = server.context.statuses.get(&id);
    let status = own.or_else(|| pod.status.clone()).unwrap_or_default();
    let instance = container_id(&id.name, &status, container, false).map_err(bad_request)?;
    let instance = ContainerId(instance.split_once("://").map_or("", |(_, id)| id).to_owned());
    let ended = || {
        let (name, pod) = (go::quote(container), go::quote(&id.name));
        bad_request(format!(
            "container {name} in pod {pod} does not run: its files can be read while it does"
        ))
    };
    let runtime = &*server.context.runtime;
    let pid = first_process(runtime, &instance).await?.ok_or_else(ended)?;
    let root = tokio::task::spawn_blocking(move || ContainerRoot::open(pid)).await;
    let root = root.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let root = root.map_err(|error| {
        tracing::warn!(pod = %id, container, %error, "cannot enter a container's files");
        ended()
    })?;
    // Had the number gone to another process meanwhile, this would not be it.
    if first_process(runtime, &instance).await? != Some(pid) {
        return Err(ended());
    }
    Ok(root)
}

async fn first_process(runtime: &dyn ContainerRuntime, id: &ContainerId) -> Result<Option<i32>, Refused> {
    runtime.container_process(id).await.map_err(|error| bad_request(error.to_string()))
}

/// A file on its way to a client.
struct Job {
    root: ContainerRoot,
    path: String,
    tail: Option<u64>,
    lines: Lines,
    follow: bool,
    _slot: OwnedSemaphorePermit,
    /// Nobody streams a log without.
    permit: Permit,
}

/// Why a file is not sent to its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Gone(#[from] ReceiverGone),
}

impl Job {
    fn run(mut self, opened: oneshot::Sender<io::Result<()>>, sender: BodySender) {
        let file = match self.open() {
            Ok(file) => file,
            Err(error) => {
                // Whoever asked has gone.
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        match self.send_all(file, &sender) {
            Ok(()) => sender.blocking_finish(),
            Err(Stop::Gone(_)) => {}
            Err(Stop::Read(error)) => {
                let user = &self.permit.user().username;
                tracing::warn!(user, path = self.path, %error, "a file of a container was aborted");
                sender.blocking_fail(error);
            }
        }
    }

    fn open(&self) -> io::Result<Follow> {
        self.root.become_its_user()?;
        if self.follow {
            Follow::of_path(&self.root, &self.path)
        } else {
            self.root.open_file(&self.path).and_then(Tail::new).and_then(Follow::to_end)
        }
    }

    fn send_all(&mut self, mut file: Follow, sender: &BodySender) -> Result<(), Stop> {
        if let Some(count) = self.tail {
            file.file().seek_to_last(count, &mut self.lines)?;
        }
        loop {
            // Asked first: what it wrote before its end is then all there.
            let has_ended = !self.follow || !self.root.is_alive();
            file.look(&self.root)?;
            while !self.lines.is_full()
                && let Some(piece) = file.next()?
            {
                sender.blocking_send(self.chosen(piece))?;
            }
            if has_ended || self.lines.is_full() {
                break;
            }
            // Nothing to send: tells whether anybody is there.
            sender.blocking_send(Vec::new())?;
            file.wait();
        }
        sender.blocking_send(self.lines.finish())?;
        Ok(())
    }

    /// What goes out of a piece. Lines of one file never go on in another.
    fn chosen(&mut self, piece: Piece) -> Vec<u8> {
        match piece {
            Piece::Bytes(bytes) => self.lines.choose(bytes),
            Piece::NextFile => self.lines.end_of_file(),
            Piece::Late(bytes) => {
                let ended = self.lines.end_of_file();
                let chosen = self.lines.choose(bytes);
                [ended, chosen, self.lines.end_of_file()].concat()
            }
            Piece::Missing => {
                let mut gap = Vec::new();
                Gap::new(GapReason::Retention).append_content(&mut gap);
                gap.push(b'\n');
                [self.lines.end_of_file(), self.lines.insert(gap)].concat()
            }
        }
    }
}
