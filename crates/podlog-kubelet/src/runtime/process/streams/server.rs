//! The server.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use podlog_driver::LogWatcher;
use podlog_serving::Body;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::negotiate::{Protocol, agree, refusal};
use super::remote::Remote;
use super::tickets::{Ticket, Tickets};
use super::{attach, exec, forward, spdy, websocket};
use crate::runtime::process::error::failed;
use crate::runtime::{RuntimeError, StreamUrl};

/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves streams, from the first time that somebody wants some.
#[derive(Default)]
pub(in crate::runtime::process) struct StreamServer {
    address: OnceCell<SocketAddr>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tickets: Tickets,
    /// Made when it is first needed; `None` where the system has none left.
    watcher: OnceLock<Option<LogWatcher>>,
}

impl StreamServer {
    /// Where a client finds what is prepared for it.
    ///
    /// # Errors
    /// When too much is prepared already, or loopback cannot be listened on.
    pub(in crate::runtime::process) async fn prepare(
        &self,
        ticket: Ticket,
        shutdown: &CancellationToken,
    ) -> Result<StreamUrl, RuntimeError> {
        let address = *self.address.get_or_try_init(|| self.start(shutdown.clone())).await?;
        let path = self.shared.tickets.keep(ticket)?;
        Ok(StreamUrl { host: address.ip().to_string(), port: address.port(), path })
    }

    async fn start(&self, shutdown: CancellationToken) -> Result<SocketAddr, RuntimeError> {
        let cannot = || failed("cannot listen for streams");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot())?;
        let address = listener.local_addr().map_err(cannot())?;
        let serving = serve(listener, self.shared.clone(), shutdown.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(serving).await });
        Ok(address)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = tcp.set_nodelay(true);
        let (shared, shutdown) = (shared.clone(), shutdown.clone());
        let answer = service_fn(move |request| {
            let answer = answer(request, &shared, shutdown.clone());
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(tcp), answer).with_upgrades().await {
                tracing::debug!(%error, "a client of streams has gone");
            }
        });
    }
}

fn answer(
    mut request: Request<Incoming>,
    shared: &Arc<Shared>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let Some(ticket) = shared.tickets.take(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    };
    let (answer, protocol) = agree(&ticket, request.headers());
    if let Some(protocol) = protocol {
        let upgraded = hyper::upgrade::on(&mut request);
        let shared = shared.clone();
        tokio::spawn(async move {
            shutdown.run_until_cancelled(go_on(ticket, protocol, upgraded, &shared)).await
        });
    }
    answer
}

async fn go_on(ticket: Ticket, protocol: Protocol, upgraded: OnUpgrade, shared: &Shared) {
    let connection = match upgraded.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!(%error, "a client of streams has gone"),
    };
    match ticket {
        Ticket::Exec { dir, command, streams } => {
            if let Some(remote) = Remote::open(connection, protocol, streams).await {
                exec::serve(&dir, &command, streams, remote).await;
            }
        }
        Ticket::Attach { record, streams } => {
            if let Some(remote) = Remote::open(connection, protocol, streams).await {
                let watcher = shared.watcher.get_or_init(|| LogWatcher::new().ok()).clone();
                attach::serve(&record, streams, watcher, remote).await;
            }
        }
        Ticket::Forward { sandbox, ports } => forward_ports(connection, protocol, &sandbox, &ports).await,
    }
}

async fn forward_ports(connection: TokioIo<Upgraded>, protocol: Protocol, sandbox: &str, ports: &[u16]) {
    match protocol {
        Protocol::Spdy => {
            let (connection, streams) = spdy::open(connection);
            forward::over_spdy(connection, streams, sandbox).await;
        }
        Protocol::Tunnel => {
            let (connection, streams) = spdy::open(websocket::tunnel(connection).await);
            forward::over_spdy(connection, streams, sandbox).await;
        }
        Protocol::Channels(framing) => {
            let channels = u8::try_from(2 * ports.len()).unwrap_or(u8::MAX);
            let (connection, channels) = websocket::open(connection, framing, channels).await;
            forward::over_channels(connection, channels, sandbox, ports).await;
        }
    }
}
