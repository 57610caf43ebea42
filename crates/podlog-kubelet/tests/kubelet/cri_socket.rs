//! A CRI socket in front of the fake runtime, which answers `ContainerStatus` as the test says.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podlog_kubelet::runtime::ContainerRuntime;
use podlog_kubelet::runtime::cri::{CriRuntime, Endpoint};
use podlog_kubelet::runtime::cri_server::CriServer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bench::Bench;

/// What becomes of a question for a container's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statuses {
    Told,
    /// They wait.
    Held,
    /// As containerd refuses while it starts.
    Refused,
}

pub(crate) struct CriSocket {
    path: PathBuf,
    script: Arc<Script>,
    listening: Option<JoinHandle<()>>,
    _behind: DropGuard,
}

struct Script {
    behind: PathBuf,
    statuses: watch::Sender<Statuses>,
    /// Questions that were not answered.
    unanswered: AtomicUsize,
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

impl CriSocket {
    pub(crate) async fn listen(bench: &Bench) -> Self {
        let (path, behind) = (bench.path("cri.sock"), bench.path("behind.sock"));
        let endpoint: Endpoint = behind.to_str().unwrap().parse().unwrap();
        let server =
            CriServer::bind(&endpoint, bench.runtime.clone(), [127, 0, 0, 1].into(), bench.path("")).await;
        let (server, shutdown) = (server.unwrap(), CancellationToken::new());
        tokio::spawn(server.serve(shutdown.clone()));
        let script = Script { behind, statuses: watch::Sender::new(Statuses::Told), unanswered: 0.into() };
        let mut socket =
            CriSocket { path, script: script.into(), listening: None, _behind: shutdown.drop_guard() };
        socket.open();
        socket
    }

    /// The runtime behind the socket.
    pub(crate) fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        let endpoint: Endpoint = self.path.to_str().unwrap().parse().unwrap();
        CriRuntime::open(&endpoint)
    }

    pub(crate) fn set(&self, statuses: Statuses) {
        self.script.statuses.send_replace(statuses);
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.script.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let script = self.script.clone();
        self.listening = Some(tokio::spawn(async move {
            // Ended with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(script.clone(), stream));
            }
        }));
    }

    /// Nobody listens any more, and whoever was connected is not.
    pub(crate) async fn close(&mut self) {
        let listening = self.listening.take().unwrap();
        listening.abort();
        let _ = listening.await;
        std::fs::remove_file(&self.path).unwrap();
    }
}

async fn connection(script: Arc<Script>, stream: UnixStream) {
    let behind = TokioIo::new(UnixStream::connect(&script.behind).await.unwrap());
    let (sender, driver) = http2::handshake(TokioExecutor::new(), behind).await.unwrap();
    let answer = service_fn(|request| script.clone().answer(sender.clone(), request));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = tokio::join!(server.serve_connection(TokioIo::new(stream), answer), driver);
}

impl Script {
    async fn answer(
        self: Arc<Self>,
        mut behind: SendRequest<Incoming>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if request.uri().path().ends_with("/ContainerStatus") {
            let mut statuses = self.statuses.subscribe();
            let now = *statuses.borrow_and_update();
            if now != Statuses::Told {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            if now == Statuses::Refused {
                let refusal = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "2")
                    .header("grpc-message", "server is not initialized yet");
                return Ok(refusal
                    .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
                    .unwrap());
            }
            statuses.wait_for(|statuses| *statuses != Statuses::Held).await.unwrap();
        }
        Ok(behind.send_request(request).await.unwrap().map(BodyExt::boxed_unsync))
    }
}
