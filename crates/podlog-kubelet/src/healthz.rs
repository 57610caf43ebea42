//! The plain health port: `/healthz` for supervisors of this machine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait. Nobody needs to ask more than now and then.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// Serves until `shutdown`. A port that cannot be had is reported.
pub(crate) async fn serve(address: SocketAddr, shutdown: CancellationToken) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%address, %error, "cannot listen on the health port"),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let Ok((tcp, _)) = accepted else { continue };
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
                let connection = server.serve_connection(TokioIo::new(tcp), service_fn(answer));
                connections.spawn(async move { drop(connection.await) });
            }
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (code, text) = match request.uri().path() {
        "/healthz" | "/healthz/ping" | "/healthz/log" | "/healthz/syncloop" => (StatusCode::OK, "ok"),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = code;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(response)
}
