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

/// A log of one frame for each piece, whose cursors are numbers from `first` on.
fn frames(first: usize, pieces: &[&str]) -> String {
    let frame = |(index, piece): (usize, &&str)| format!("{} c{}\n{piece}", piece.len(), first + index);
    pieces.iter().enumerate().map(frame).collect()
}

#[tokio::test]
async fn a_log_goes_on_at_its_cursor() {
    let breaks = |text: String| Answer::HonoursAndBreaks("frames", text);
    let ends = |text: String| Answer::Honours("cursor,frames", text);
    let first = "follow=true&frames=true&tailLines=3&timestamps=true";
    let rest = "cursor=c2&follow=true&frames=true&timestamps=true";
    let one = frames(1, &["T one\n", "T tw"]);
    for torn in ["", "5", "5 c3\no"] {
        let answers = [(first, breaks(one.clone() + torn)), (rest, ends(frames(3, &["o\nT three"])))];
        let expected = ("T one\nT two\nT three".to_owned(), BROKE.to_owned());
        assert_eq!(logs(&api(&answers).await, "web -f --tail=3 --timestamps").await, expected);
    }
    // Nothing had come yet: all of it is asked for again.
    let again = "follow=true&frames=true&sinceSeconds=9";
    let answers = [(again, breaks("4".into())), (again, ends(frames(1, &["one\n"])))];
    assert_eq!(logs(&api(&answers).await, "web -f --since=9s").await, ("one\n".into(), BROKE.into()));
    // A log that ends within a frame has broken, and so has one that is not in frames.
    for broken in ["4 c1\no", "no frames\n"] {
        let answers = [(again, ends(broken.into())), (again, ends(frames(1, &["one\n"])))];
        let (out, _) = logs(&api(&answers).await, "web -f --since=9s").await;
        assert_eq!(out, "one\n", "{broken}");
    }
    // Cursors that were asked for are part of the log.
    let asked = "cursor=c0&cursors=true&follow=true&frames=true";
    let answers = [(asked, Answer::Honours("cursor,cursors,frames", frames(1, &["c1 one\n"])))];
    let told = logs(&api(&answers).await, "web -f --cursor=c0 --cursors").await;
    assert_eq!(told, ("c1 one\n".into(), String::new()));
}

#[tokio::test]
async fn a_limit_counts_over_all_connections() {
    let breaks = |text: String| Answer::HonoursAndBreaks("cursor,frames", text);
    let first = ("follow=true&frames=true&limitBytes=9", breaks(frames(1, &["one\n", "tw"])));
    let rest = ("cursor=c2&follow=true&frames=true&limitBytes=3", breaks(frames(3, &["o\nt"])));
    let told = logs(&api(&[first, rest]).await, "web -f --limit-bytes=9").await;
    assert_eq!(told, ("one\ntwo\nt".into(), BROKE.into()));
    // Where frames are not known, it is what the server sends.
    let answers = [("follow=true&frames=true&limitBytes=4", Answer::Text(200, "one\n".into()))];
    assert_eq!(logs(&api(&answers).await, "web -f --limit-bytes=4").await, ("one\n".into(), String::new()));
}

#[tokio::test]
async fn what_has_been_deleted_meanwhile_is_told() {
    let answers = [
        ("follow=true&frames=true", Answer::HonoursAndBreaks("frames", frames(1, &["one\n", "tw"]))),
        ("cursor=c2&follow=true&frames=true", Answer::Gone("cursor,frames", frames(8, &["\ngap\nnine\n"]))),
    ];
    let (out, err) = logs(&api(&answers).await, "web -f").await;
    assert_eq!(out, "one\ntw\ngap\nnine\n");
    assert_eq!(err, format!("{BROKE}web/app: 7 bytes of the log had been deleted meanwhile\n"));
}

#[tokio::test]
async fn a_log_of_kubernetes_own_goes_on_at_its_time() {
    let time = |second: u32| format!("2024-01-01T00:00:0{second}.5Z");
    let (one, two) = (format!("{} one\n", time(1)), format!("{} two\n", time(2)));
    let torn = Answer::Breaks(format!("{one}{}", &two[..two.len() - 2]));
    let answers = [
        ("follow=true&frames=true", Answer::Text(200, "one\n".into())),
        ("follow=true&frames=true&timestamps=true", torn.clone()),
        ("follow=true&timestamps=true", torn),
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
    let broken = Answer::HonoursAndBreaks("frames", frames(1, &["one\n"]));
    let (first, rest) = ("follow=true&frames=true", "cursor=c1&follow=true&frames=true");
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
            vec![(first, broken.clone()), (rest, Answer::HonoursAndBreaks("cursor,frames", String::new()))],
            eof.to_owned(),
        ),
        (
            "web -f --reconnect-timeout=0",
            vec![("follow=true", Answer::Breaks("one\n".into()))],
            eof.to_owned(),
        ),
        (
            "web -f --limit-bytes=9",
            vec![("follow=true&frames=true&limitBytes=9", Answer::Breaks("one\n".into()))],
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
    knows_frames: bool,
}

impl Numbered {
    /// The lines that are asked for, as a server sends them.
    fn text(&self, options: &PodLogOptions) -> String {
        let begin = jiff::Timestamp::UNIX_EPOCH;
        // Of this moment and later.
        let before = |since: jiff::Timestamp| (since.as_second() as usize * 1000).saturating_sub(1);
        let since = options.since_time.map_or(0, before);
        let mut text = String::new();
        for number in since + 1..=self.lines {
            if options.timestamps {
                let at = begin + jiff::SignedDuration::from_millis(number as i64);
                write!(text, "{at} ").unwrap();
            }
            writeln!(text, "{}", line(number)).unwrap();
        }
        text
    }

    /// Frames of so many bytes, that begin and end anywhere; their cursors say how much is before.
    fn frames(&self, options: &PodLogOptions) -> String {
        const FRAME: usize = 7_777;
        let text = self.text(options);
        let done = options.extensions.cursor.as_deref().map_or(0, |cursor| cursor[1..].parse().unwrap());
        let ends = (done..text.len()).step_by(FRAME).map(|begin| (begin, text.len().min(begin + FRAME)));
        ends.map(|(begin, end)| format!("{} c{end}\n{}", end - begin, &text[begin..end])).collect()
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
        let in_frames = self.knows_frames && options.extensions.frames;
        let text = if in_frames { self.frames(&options) } else { self.text(&options) };
        let text = bytes::Bytes::from(text);
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
        if self.knows_frames {
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
    for (knows_frames, lines, least_cuts) in [(true, 100_000, 10), (false, 20_000, 2)] {
        let expected: String = (1..=lines).map(|number| line(number) + "\n").collect();
        let handler = Arc::new(Numbered { lines, knows_frames });
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
        assert!(out == expected, "in frames: {knows_frames}, {} of {} bytes", out.len(), expected.len());
        let cuts = cuts.load(Ordering::Relaxed);
        assert!(cuts >= least_cuts, "only {cuts} cuts");
    }
}
