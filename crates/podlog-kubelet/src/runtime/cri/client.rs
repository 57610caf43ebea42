//! The connection to the runtime: one channel over a Unix socket, made anew when it breaks, and a deadline on every call.

use std::future::Future;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use podlog_proto::cri::image_service_client::ImageServiceClient;
use podlog_proto::cri::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Uri};
use tonic::{Response, Status};
use tower::service_fn;

use super::Endpoint;
use super::error::Failure;

/// The largest answer, as upstream has it: 16 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Clients of both services of a runtime. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    /// Connects with the first call. Must be called within a tokio runtime.
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let path = endpoint.path().to_owned();
        let connect = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // Servers refuse a socket's path as `:authority`.
        let channel = tonic::transport::Endpoint::from_static("http://localhost");
        Client { channel: channel.connect_with_connector_lazy(connect) }
    }

    pub(super) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(super) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// Waits for the answer to a call, for so long.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Failure::Status(status)),
        Err(_) => Err(Failure::Deadline(limit)),
    }
}
