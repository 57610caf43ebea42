//! The plain health port: `/healthz` for supervisors of this machine.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at once; for a further one the oldest is closed, which has said nothing yet: every request is answered at once.
const MAX_CONNECTIONS: usize = 64;
/// After an accept that failed, e.g. for want of files.
const PAUSE: Duration = Duration::from_millis(50);
/// For a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// Serves until `shutdown`. A port that cannot be had is reported.
pub(crate) async fn serve(address: SocketAddr, shutdown: CancellationToken) {
    match TcpListener::bind(address).await {
        Ok(listener) => serve_on(listener, shutdown).await,
        Err(error) => tracing::error!(%address, %error, "cannot listen on the health port"),
    }
}

async fn serve_on(listener: TcpListener, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut oldest = VecDeque::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => oldest.retain(|connection: &AbortHandle| !connection.is_finished()),
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                if connections.len() >= MAX_CONNECTIONS && let Some(oldest) = oldest.pop_front() {
                    oldest.abort();
                }
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
                let connection = server.serve_connection(TokioIo::new(tcp), service_fn(answer));
                oldest.push_back(connections.spawn(async move { drop(connection.await) }));
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn crowds_that_say_nothing_keep_nobody_out() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve_on(listener, shutdown.clone()));
        let mut crowd = Vec::new();
        let asked = async {
            while crowd.len() < 2 * MAX_CONNECTIONS {
                crowd.push(TcpStream::connect(address).await.unwrap());
                tokio::task::yield_now().await;
            }
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(HEAD / 2, asked).await.expect("it has to wait");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        shutdown.cancel();
        serving.await.unwrap();
    }
}
