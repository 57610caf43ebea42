//! A kubelet that says what Kubernetes' own says, when the test wants it: refusals before the first byte, failures in the
//! text of a log, and lines with times.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use podlog_serving::{Body, BodySender, Handler, Limits, Peer, Server, ServerTls, stream_body, text_body};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between the times of two lines of `counter`.
const PACE: Duration = Duration::from_millis(5);
/// Lines of `counter`.
pub(crate) const LINES: u32 = 600;
/// Lines of it that come before [`ScriptedKubelet::release`].
const HELD_AT: u32 = 30;
/// Bytes of `bulk`.
pub(crate) const BULK: usize = 3 << 20;

/// It serves until it is dropped.
pub(crate) struct ScriptedKubelet {
    pub(crate) address: SocketAddr,
    released: watch::Sender<bool>,
    _shutdown: DropGuard,
    _runtime: tokio::runtime::Runtime,
}

impl ScriptedKubelet {
    /// Listens on `ip`; `answers` are refusals by container: a code and a text.
    pub(crate) fn start(ip: [u8; 4], tls: ServerTls, answers: &[(&str, u16, &'static str)]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::bind((ip, 0).into(), tls, Limits::default())).unwrap();
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let answers = answers.iter().map(|(name, code, text)| ((*name).to_owned(), (*code, *text))).collect();
        let released = watch::Sender::new(false);
        let handler = Arc::new(Script { born: SystemTime::now(), released: released.clone(), answers });
        runtime.spawn(server.serve(handler, shutdown.clone()));
        ScriptedKubelet { address, released, _shutdown: shutdown.drop_guard(), _runtime: runtime }
    }

    /// Lets `counter` go on to its end.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }
}

struct Script {
    born: SystemTime,
    released: watch::Sender<bool>,
    answers: HashMap<String, (u16, &'static str)>,
}

#[async_trait]
impl Handler for Script {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if peer.certificate_chain.is_empty() {
            return refusal(401, "Unauthorized");
        }
        let query = request.uri().query().unwrap_or_default();
        let query: HashMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3A", ":")))
            .collect();
        let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let ["containerLogs", _, _, container] = parts[..] else {
            return refusal(404, "404 page not found\n");
        };
        if let Some((code, text)) = self.answers.get(container) {
            return refusal(*code, text);
        }
        let (sender, body) = stream_body();
        match container {
            "counter" => drop(tokio::spawn(count(self.born, self.released.subscribe(), query, sender))),
            "bulk" => drop(tokio::spawn(async move {
                for _ in 0..BULK / 4096 {
                    if sender.send([&[b'x'; 4095][..], b"\n"].concat()).await.is_err() {
                        return;
                    }
                }
                sender.finish().await;
            })),
            // What has gone wrong behind the 200 stands in the log, without a line feed (3.4, 3.6).
            _ => drop(tokio::spawn(async move {
                let _ = sender.send("a line\nunable to retrieve container logs for containerd://0123").await;
                sender.finish().await;
            })),
        }
        Response::new(body)
    }
}

fn refusal(code: u16, text: &'static str) -> Response<Body> {
    let mut response = Response::new(text_body(text));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// Line n says that it was printed n times [`PACE`] after the birth.
async fn count(
    born: SystemTime,
    mut released: watch::Receiver<bool>,
    query: HashMap<String, String>,
    sender: BodySender,
) {
    let since = query.get("sinceTime").map(|time| podlog_api::go::parse_rfc3339(time).unwrap());
    let is_on = |name: &str| query.get(name).is_some_and(|value| value == "true");
    for number in 0..LINES {
        let time = born + PACE * number;
        let nanoseconds = i128::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        if since.is_some_and(|since| nanoseconds < since.as_nanosecond()) {
            continue;
        }
        if number == HELD_AT && !*released.borrow() {
            if !is_on("follow") {
                break;
            }
            // Fails when the kubelet ends.
            let _ = released.wait_for(|released| *released).await;
        }
        let stamp = if is_on("timestamps") { rfc3339_nano(nanoseconds) } else { String::new() };
        if sender.send(format!("{stamp}line {number}\n")).await.is_err() {
            return;
        }
    }
    sender.finish().await;
}

fn rfc3339_nano(nanoseconds: i128) -> String {
    format!("{:.9} ", jiff::Timestamp::from_nanosecond(nanoseconds).unwrap())
}
