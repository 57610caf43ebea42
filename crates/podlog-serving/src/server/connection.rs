//! One connection: handshake, protocol, requests, and its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Limits;
use super::passage::{Noted, Passage, hold_little};
use super::protocol;
use super::requests::{Counted, CountedBody, Idleness, Leaving, Requests};
use super::room::{Guest, Seat};
use crate::tls::ServerStream;
use crate::{Body, Handler, Peer, ServerTls, SparseBuffers, text_body};

/// For a client that is not busy to leave; then its connection is closed.
const PARTING: Duration = Duration::from_millis(50);

/// What the connections of a server share.
pub(super) struct Connections {
    handler: Arc<dyn Handler>,
    tls: ServerTls,
    limits: Limits,
    requests: Arc<Requests>,
    shutdown: CancellationToken,
    cut: CancellationToken,
    abort: CancellationToken,
}

impl Connections {
    pub(super) fn new(
        handler: Arc<dyn Handler>,
        tls: &ServerTls,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Self {
        Connections {
            handler,
            tls: tls.clone(),
            limits,
            requests: Arc::default(),
            shutdown,
            cut: CancellationToken::new(),
            abort: CancellationToken::new(),
        }
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Ends every stream in an error.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Closes every connection.
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(self: &Arc<Self>, tcp: TcpStream, address: SocketAddr, seat: Seat) {
        if let Err(error) = tune(&tcp, &self.limits) {
            tracing::debug!(%address, %error, "cannot set the options of a socket");
        }
        // What is large lies apart: a task has room for all that it ever holds, as long as it lives.
        let handshake = Box::pin(self.tls.handshake(tcp));
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, handshake);
        let shaken = tokio::select! {
            shaken = self.shutdown.run_until_cancelled(handshake) => shaken,
            () = seat.guest.asked_to_leave() => None,
        };
        match shaken {
            Some(Ok(Ok(tls))) => self.serve_http(Box::new(tls), address, seat).await,
            Some(Ok(Err(error))) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Some(Err(_)) => tracing::debug!(%address, "TLS handshake took too long"),
            None => {}
        }
    }

    async fn serve_http(
        self: &Arc<Self>,
        tls: Box<ServerStream<TcpStream>>,
        address: SocketAddr,
        seat: Seat,
    ) {
        let is_http2 = tls.state().alpn_protocol() == Some(b"h2");
        let client = Arc::new(Client {
            connections: self.clone(),
            peer: Peer { address, certificate_chain: certificates(&tls) },
            seat,
            upgraded: Arc::default(),
            passage: Arc::default(),
        });
        let io = TokioIo::new(Noted::new(tls, client.passage.clone()));
        let service = service_fn(|request| {
            let client = client.clone();
            // Gone with the answer's head, while its body may last.
            Box::pin(async move { client.answer(request).await })
        });
        let guest: &Guest = &client.seat.guest;
        let active = &guest.active;
        let serve = || match is_http2 {
            true => protocol::http2(&self.limits, io, service),
            false => protocol::http1(&self.limits, io, service),
        };
        let mut connection = SparseBuffers::for_connection(serve);
        let mut check = interval(self.limits.idle_timeout / 3);
        let mut idleness = Idleness::begins(Instant::now());
        let mut patience = self.limits.idle_timeout;
        let mut leaving = None;
        let mut ending = false;
        loop {
            tokio::select! {
                ended = poll_fn(|context| {
                    // The answer that says so has to be sent, which wakes this, too.
                    if leaving.is_none() && active.are_last() {
                        return Poll::Ready(None);
                    }
                    connection.as_mut().poll_turn(context).map(Some)
                }) => match ended {
                    None => {
                        (leaving, ending) = (Some(Leaving::default()), true);
                        check = interval_at(Instant::now() + self.limits.leave_grace, self.limits.leave_grace);
                        connection.as_mut().graceful_shutdown();
                    }
                    Some(ended) => {
                        if let Err(error) = ended {
                            tracing::debug!(%address, %error, "connection ended");
                        }
                        break;
                    }
                },
                () = self.abort.cancelled() => return,
                () = self.shutdown.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = guest.asked_to_leave() => {
                    if guest.can_leave() && !guest.is_known() {
                        return;
                    }
                    // What crosses the word on its way is answered.
                    (patience, ending) = (PARTING, true);
                    check = interval_at(Instant::now() + PARTING, PARTING);
                    connection.as_mut().graceful_shutdown();
                }
                now = check.tick() => {
                    if leaving.as_mut().is_some_and(|leaving| leaving.is_over(active)) {
                        return;
                    }
                    if active.are_unread_for(self.limits.send_timeout, now) {
                        tracing::debug!(%address, "a client does not read what it asked for");
                        return;
                    }
                    if idleness.look(active, now) >= patience {
                        if ending {
                            return;
                        }
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
        // What was upgraded goes on without HTTP.
        client.seat.stays();
        client.upgraded.none_left().await;
    }
}

/// What the requests of a connection share.
struct Client {
    connections: Arc<Connections>,
    peer: Peer,
    seat: Seat,
    upgraded: Arc<Requests>,
    passage: Arc<Passage>,
}

impl Client {
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<CountedBody>, Infallible> {
        let Connections { handler, requests, cut, .. } = &*self.connections;
        let guest = &self.seat.guest;
        let counted = [Counted::new(requests), Counted::new(&guest.active)];
        let _working = guest.works();
        let stranger = self.seat.stranger();
        if let Some(stranger) = &stranger {
            request.extensions_mut().insert(stranger.clone());
        }
        let is_http2 = request.version() == Version::HTTP_2;
        if request.extensions().get::<OnUpgrade>().is_some() {
            request.extensions_mut().insert(self.after_upgrade());
        }
        // In a task of its own: what takes its time does not hold up the connection's other streams. One that panics has answered nobody else
        // wrongly: the state it shares is behind locks that do not poison.
        let (handler, peer) = (handler.clone(), self.peer.clone());
        let answer = tokio::spawn(async move { handler.handle(request, peer).await });
        let answer = AbortOnDropHandle::new(answer).await;
        let mut response = answer.unwrap_or_else(|_| {
            let mut response = Response::new(text_body("the request caused a panic, see the server's log\n"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
        if is_http2 && response.headers_mut().remove(CONNECTION).is_some_and(|value| value == "close") {
            guest.active.set_last();
        }
        if let Some(stranger) = stranger.filter(|_| lasts(&response)) {
            stranger.is_introduced();
        }
        Ok(response.map(|body| CountedBody::new(body, counted, cut, &self.passage)))
    }

    fn after_upgrade(&self) -> AfterUpgrade {
        let Connections { requests, cut, abort, limits, .. } = &*self.connections;
        AfterUpgrade {
            requests: [requests.clone(), self.upgraded.clone()],
            cut: cut.clone(),
            abort: abort.clone(),
            ping: limits.ping,
        }
    }
}

/// Whether somebody is being served for as long as he wants.
fn lasts(response: &Response<Body>) -> bool {
    let is_stream = response.body().size_hint().exact().is_none() && !response.body().is_end_stream();
    response.status() == StatusCode::SWITCHING_PROTOCOLS || response.status().is_success() && is_stream
}

/// What a stream that leaves HTTP behind is held to.
#[derive(Clone)]
pub(crate) struct AfterUpgrade {
    requests: [Arc<Requests>; 2],
    pub(crate) cut: CancellationToken,
    pub(crate) abort: CancellationToken,
    pub(crate) ping: Duration,
}

impl AfterUpgrade {
    /// Counts as a stream until what it returns is dropped.
    pub(crate) fn counted(&self) -> [Counted; 2] {
        self.requests.each_ref().map(Counted::stream)
    }
}

/// Holds little for clients that do not read, and finds out about those that are gone. By probes: a client that was suspended (Ctrl-Z) cannot answer a ping, and goes on
/// reading when it is continued.
fn tune(tcp: &TcpStream, limits: &Limits) -> std::io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, limits.keep_alive)?;
    sockopt::set_tcp_keepintvl(tcp, limits.keep_alive)?;
    hold_little(tcp)
}

fn certificates(tls: &ServerStream<TcpStream>) -> Arc<[Vec<u8>]> {
    let chain = tls.state().peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| certificate.to_vec()).collect()
}
