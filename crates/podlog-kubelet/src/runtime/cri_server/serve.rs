//! The socket, and which service a call is for.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podlog_proto::cri::image_service_server::{ImageServiceServer, SERVICE_NAME as IMAGES};
use podlog_proto::cri::runtime_service_server::{RuntimeServiceServer, SERVICE_NAME as RUNTIME};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::services::Services;
use crate::runtime::ContainerRuntime;
use crate::runtime::cri::Endpoint;

/// The largest question, as for answers: 16 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process listens there.
    #[error("{} is in use: stop what listens there, or choose another socket", .0.display())]
    InUse(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A runtime behind a socket.
pub struct CriServer {
    listener: UnixListener,
    services: Services,
}

impl CriServer {
    /// Listens on a socket that only its owner may connect to; its directory is made (0755). A socket that nobody listens on
    /// any more is replaced. `pod_ip` is the address of pods that do not ask for the host's network, which all of them use;
    /// `root` is the directory whose disk is told as that of images.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(
        endpoint: &Endpoint,
        runtime: Arc<dyn ContainerRuntime>,
        pod_ip: IpAddr,
        root: PathBuf,
    ) -> Result<CriServer, ListenError> {
        let path = endpoint.path();
        if UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        let listener =
            listen(path).map_err(|source| ListenError::Socket { path: path.to_owned(), source })?;
        Ok(CriServer { listener, services: Services::new(runtime, pod_ip, root) })
    }

    /// Serves until `shutdown`. Containers keep running.
    pub async fn serve(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        let runtime =
            RuntimeServiceServer::new(self.services.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let images = ImageServiceServer::new(self.services).max_decoding_message_size(MAX_MESSAGE_BYTES);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(stream, runtime.clone(), images.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        connections.shutdown().await;
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn connection(
    stream: UnixStream,
    runtime: RuntimeServiceServer<Services>,
    images: ImageServiceServer<Services>,
) {
    let answer = service_fn(move |request| answer(request, runtime.clone(), images.clone()));
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client's connection ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    mut runtime: RuntimeServiceServer<Services>,
    mut images: ImageServiceServer<Services>,
) -> Result<Response<Body>, Infallible> {
    match request.uri().path().split('/').nth(1) {
        Some(RUNTIME) => runtime.call(request).await,
        Some(IMAGES) => images.call(request).await,
        _ => Ok(Status::unimplemented("unknown service").into_http()),
    }
}
