//! Followed logs whose connections break.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::{Request, Response};
use hyper::body::Incoming;
use podlog_api::PodLogOptions;
use podlog_serving::{Body, Handler, Peer, json_body, stream_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use super::tests::{logs, logs_with_code, pod};
use crate::testing::{Answer, FakeApi, Script, status};

const POD: &str = "GET /api/v1/namespaces/default/pods/web";
const LOG: &str = "GET /api/v1/namespaces/default/pods/web/log?container=app";
const BROKE: &str = "web/app: unexpected EOF; going on where it stopped\n";

async fn api(answers: &[(&str, Answer)]) -> FakeApi {
    let api = FakeApi::start().await;
    api.script.on_json(POD, pod("web", &["app"]));
    for (query, answer) in answers {
        api.script.on(&format!("{LOG}&{query}"), answer.clone());
    }
    api
}

#[tokio::test]
async fn a_log_goes_on_at_its_cursor() {
    let breaks = |text: &str| Answer::HonoursAndBreaks("cursors", text.into());
    let ends = |text: &str| Answer::Honours("cursor,cursors", text.into());
    let first = "cursors=true&follow=true&tailLines=3&timestamps=true";
    let rest = "cursor=c1&cursors=true&follow=true&timestamps=true";
    let answers = [(first, breaks("c1 T one\nc2 T tw")), (rest, ends("c2 T two\nc3 T three"))];
    let expected = ("T one\nT two\nT three".to_owned(), BROKE.to_owned());
    assert_eq!(logs(&api(&answers).await, "web -f --tail=3 --timestamps").await, expected);
    // Nothing had come yet: all of it is asked for again.
    let again = "cursors=true&follow=true&sinceSeconds=9";
    let answers = [(again, breaks("c")), (again, ends("c1 one\n"))];
    assert_eq!(logs(&api(&answers).await, "web -f --since=9s").await, ("one\n".into(), BROKE.into()));
    // Cursors that were asked for stay.
    let answers = [
        ("cursor=c0&cursors=true&follow=true", ends("")),
        ("cursor=c0&cursors=true&follow=true", ends("c1 one\n")),
    ];
    let api = api(&answers).await;
    assert_eq!(logs(&api, "web -f --cursor=c0").await, (String::new(), String::new()));
    assert_eq!(logs(&api, "web -f --cursor=c0 --cursors").await, ("c1 one\n".into(), String::new()));
}

#[tokio::test]
async fn what_has_been_deleted_meanwhile_is_told() {
    let answers = [
        ("cursors=true&follow=true", Answer::HonoursAndBreaks("cursors", "c1 one\nc2 tw".into())),
        ("cursor=c1&cursors=true&follow=true", Answer::Gone("cursor,cursors", "c8 gap\nc9 nine\n".into())),
    ];
    let (out, err) = logs(&api(&answers).await, "web -f").await;
    assert_eq!(out, "one\ntw\ngap\nnine\n");
    assert_eq!(err, format!("{BROKE}web/app: 7 bytes of the log had been deleted meanwhile\n"));
}

#[tokio::test]
async fn a_log_of_kubernetes_own_goes_on_at_its_time() {
    let time = |second: u32| format!("2024-01-01T00:00:0{second}.5Z");
    let (one, two) = (format!("{} one\n", time(1)), format!("{} two\n", time(2)));
    let answers = [
        ("cursors=true&follow=true", Answer::Text(200, "one\n".into())),
        ("cursors=true&follow=true&timestamps=true", Answer::Text(200, one.clone())),
        ("follow=true&timestamps=true", Answer::Breaks(format!("{one}{}", &two[..two.len() - 2]))),
        (
            "follow=true&sinceTime=2024-01-01T00%3A00%3A02Z&timestamps=true",
            Answer::Text(200, format!("{two}{} three", time(3))),
        ),
    ];
    assert_eq!(logs(&api(&answers).await, "web -f").await, ("one\ntwo\nthree".into(), BROKE.into()));
    let (out, _) = logs(&api(&answers).await, "web -f --timestamps").await;
    assert_eq!(out, format!("{one}{two}{} three", time(3)));
}

#[tokio::test]
async fn patience_ends_and_can_be_forbidden() {
    let unavailable = Answer::Json(503, status(503, "ServiceUnavailable", "no"));
    let gone = Answer::Json(404, status(404, "NotFound", "pods \"web\" not found"));
    let broken = Answer::HonoursAndBreaks("cursors", "c1 one\n".into());
    let (first, rest) = ("cursors=true&follow=true", "cursor=c1&cursors=true&follow=true");
    let refused = "Error from server (ServiceUnavailable): no";
    let missing = "Error from server (NotFound): pods \"web\" not found";
    let eof = "error: unexpected EOF";
    for (arguments, answers, err) in [
        (
            "web -f --reconnect-timeout=350ms",
            vec![(first, broken.clone()), (rest, unavailable)],
            BROKE.to_owned() + refused,
        ),
        ("web -f", vec![(first, broken.clone()), (rest, gone)], BROKE.to_owned() + missing),
        (
            "web -f --reconnect-timeout=350ms --quiet",
            vec![(first, broken.clone()), (rest, Answer::HonoursAndBreaks("cursor,cursors", String::new()))],
            eof.to_owned(),
        ),
        (
            "web -f --reconnect-timeout=0",
            vec![("follow=true", Answer::Breaks("one\n".into()))],
            eof.to_owned(),
        ),
        (
            "web -f --limit-bytes=9",
            vec![("follow=true&limitBytes=9", Answer::Breaks("one\n".into()))],
            eof.to_owned(),
        ),
    ] {
        let told = logs_with_code(&api(&answers).await, arguments).await;
        assert_eq!(told, ("one\n".into(), err, 1), "{arguments}");
    }
}

/// A log of numbered lines, a thousand a second.
struct Numbered {
    lines: usize,
    knows_cursors: bool,
}

impl Numbered {
    /// The lines that are asked for, as a server sends them.
    fn text(&self, options: &PodLogOptions) -> String {
        let begin = jiff::Timestamp::UNIX_EPOCH;
        // Of this moment and later.
        let before = |since: jiff::Timestamp| (since.as_second() as usize * 1000).saturating_sub(1);
        let since = options.since_time.map_or(0, before);
        let after = options.extensions.cursor.as_deref().map_or(0, |cursor| cursor[1..].parse().unwrap());
        let mut text = String::new();
        for number in since.max(after) + 1..=self.lines {
            if self.knows_cursors && options.extensions.cursors {
                write!(text, "c{number} ").unwrap();
            }
            if options.timestamps {
                let at = begin + jiff::SignedDuration::from_millis(number as i64);
                write!(text, "{at} ").unwrap();
            }
            writeln!(text, "{}", line(number)).unwrap();
        }
        text
    }
}

/// Some are alike, some are long.
fn line(number: usize) -> String {
    format!("{} {}", number / 3, "x".repeat(if number.is_multiple_of(1000) { 5000 } else { number % 50 }))
}

#[async_trait]
impl Handler for Numbered {
    async fn handle(&self, request: Request<Incoming>, _: Peer) -> Response<Body> {
        let Some(query) = request.uri().query() else {
            return Response::new(json_body(pod("web", &["app"]).to_string()));
        };
        let options = PodLogOptions::from_query(query, podlog_api::StreamRules::Exact).unwrap();
        let text = bytes::Bytes::from(self.text(&options));
        let (sender, body) = stream_body();
        tokio::spawn(async move {
            for begin in (0..text.len()).step_by(9_999) {
                if sender.send(text.slice(begin..text.len().min(begin + 9_999))).await.is_err() {
                    return;
                }
            }
            sender.finish().await;
        });
        let mut response = Response::new(body);
        if self.knows_cursors {
            let honoured = options.extensions.names().join(",");
            response.headers_mut().insert("podlog-log-options", honoured.parse().unwrap());
        }
        response
    }
}

/// A proxy that cuts each connection after some number of bytes.
async fn cutting_proxy(server: SocketAddr, cuts: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        while let Ok((client, _)) = listener.accept().await {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            tokio::spawn(cut_after(random % 300_000, client, server, cuts.clone()));
        }
    });
    address
}

async fn cut_after(bytes: u64, client: TcpStream, server: SocketAddr, cuts: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
    let forth = async { copy(&mut from_client, &mut to_server).await.ok() };
    let back = async { copy(&mut from_server.take(bytes), &mut to_client).await.ok() };
    tokio::select! {
        _ = forth => {}
        copied = back => {
            if copied == Some(bytes) {
                cuts.fetch_add(1, Ordering::Relaxed);
            }
            // What was copied arrives.
            let _ = to_client.flush().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_over_a_connection_that_is_cut_again_and_again_is_whole() {
    for (knows_cursors, lines, least_cuts) in [(true, 100_000, 10), (false, 20_000, 2)] {
        let expected: String = (1..=lines).map(|number| line(number) + "\n").collect();
        let handler = Arc::new(Numbered { lines, knows_cursors });
        let mut api = FakeApi::start_with(handler, Arc::<Script>::default()).await;
        let cuts = Arc::<AtomicUsize>::default();
        let proxy = cutting_proxy(([127, 0, 0, 1], api.port).into(), cuts.clone()).await;
        api.options.server = Some(format!("https://{proxy}"));
        let arguments = "web -f --quiet --reconnect-timeout=10m";
        // The first request, for the pod, is not tried again.
        let (out, err, code) = loop {
            let told = logs_with_code(&api, arguments).await;
            if !told.0.is_empty() {
                break told;
            }
        };
        assert_eq!((err.as_str(), code), ("", 0));
        assert!(out == expected, "with cursors: {knows_cursors}, {} of {} bytes", out.len(), expected.len());
        let cuts = cuts.load(Ordering::Relaxed);
        assert!(cuts >= least_cuts, "only {cuts} cuts");
    }
}
