//! Streams of processes, as whoever has the URL gets them.

use std::fs;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use podlog_kubelet::runtime::{ContainerId, ContainerRuntime, StreamUrl, Streams};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::node::{Node, eventually};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
const SPDY: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

type Socket = WebSocketStream<TcpStream>;

/// Asks for what is at a URL; returns the head of the answer, too.
async fn ask(url: &StreamUrl, headers: &str) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect((url.host.as_str(), url.port)).await.expect("connect");
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n", url.path);
    tcp.write_all(request.as_bytes()).await.expect("ask");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.expect("an answer"));
    }
    (tcp, String::from_utf8(head).expect("text"))
}

async fn open(node: &Node, id: &ContainerId, script: &str, streams: Streams) -> Socket {
    let command = ["sh", "-c", script].map(str::to_owned);
    let url = node.runtime.exec(id, &command, streams).await.expect("exec");
    let (tcp, head) = ask(&url, WEBSOCKET).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (_, again) = ask(&url, WEBSOCKET).await;
    assert!(again.starts_with("HTTP/1.1 404 "), "a URL is good for one client: {again}");
    WebSocketStream::from_raw_socket(tcp, Role::Client, None).await
}

async fn say(socket: &mut Socket, channel: u8, data: &[u8]) {
    let message = [&[channel], data].concat();
    socket.send(Message::Binary(message.into())).await.expect("say");
}

/// The next that is said on a channel; nothing once all was said.
async fn hear(socket: &mut Socket) -> Option<(u8, Vec<u8>)> {
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(data) if data.len() > 1 => return Some((data[0], data[1..].to_vec())),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// All that is printed, and the exit code.
async fn hear_all(socket: &mut Socket) -> (String, String, i64) {
    let mut said = [const { Vec::new() }; 4];
    while let Some((channel, data)) = hear(socket).await {
        said[usize::from(channel)].extend(data);
    }
    let [_, stdout, stderr, status] = said.map(|bytes| String::from_utf8(bytes).expect("text"));
    let status: Value = serde_json::from_str(&status).expect("a status");
    let code =
        status["details"]["causes"][0]["message"].as_str().map_or(0, |code| code.parse().expect("a code"));
    assert_eq!(status["status"] == "Success", code == 0, "{status}");
    (stdout, stderr, code)
}

async fn idle(node: &Node) -> ContainerId {
    let sandbox = node.sandbox().await;
    node.run(&sandbox, "exec sleep 1000").await
}

#[tokio::test]
async fn commands_are_spoken_to_and_heard() {
    let node = Node::new();
    let id = idle(&node).await;
    let mut socket = open(&node, &id, "cat; echo over >&2; exit 4", ALL).await;
    say(&mut socket, 0, b"hello").await;
    assert_eq!(hear(&mut socket).await, Some((1, b"hello".to_vec())));
    // Nonsense changes nothing; then stdin is closed.
    for (channel, data) in [(7, &b"x"[..]), (4, b"x"), (1, b"x"), (255, b""), (255, b"\x09"), (255, b"\0")] {
        say(&mut socket, channel, data).await;
    }
    assert_eq!(hear_all(&mut socket).await, (String::new(), "over\n".to_owned(), 4));

    // What is not wanted is not sent, and what a command leaves running holds nobody up.
    let mut socket = open(
        &node,
        &id,
        "echo out; echo err >&2; sleep 1000 &",
        Streams { stderr: true, ..Streams::default() },
    )
    .await;
    assert_eq!(hear_all(&mut socket).await, (String::new(), "err\n".to_owned(), 0));
}

#[tokio::test]
async fn all_that_is_printed_arrives_however_slowly_it_is_read() {
    let node = Node::new();
    let id = idle(&node).await;
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end";
    let mut socket = open(&node, &id, script, Streams { stdout: true, ..Streams::default() }).await;
    let mut heard = 0;
    while let Some((1, data)) = hear(&mut socket).await {
        heard += data.len();
        if heard < 3_000_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(heard, 20_000_005);
}

#[tokio::test]
async fn terminals_have_their_clients_size() {
    let node = Node::new();
    let id = idle(&node).await;
    let script = "echo $TERM; while [ \"$(stty size)\" != '31 97' ]; do sleep 0.01; done; read line; echo got $line >&2; exit 9";
    let mut socket = open(&node, &id, script, TERMINAL).await;
    assert_eq!(hear(&mut socket).await, Some((1, b"xterm\r\n".to_vec())));
    say(&mut socket, 4, b"{\"Width\":97,\"Height\":31}\n").await;
    say(&mut socket, 0, b"this\n").await;
    let (stdout, stderr, code) = hear_all(&mut socket).await;
    assert!(stdout.ends_with("got this\r\n"), "{stdout:?}");
    assert_eq!((stderr.as_str(), code), ("", 9));
}

#[tokio::test]
async fn commands_are_left_to_themselves_by_clients_that_go() {
    let node = Node::new();
    let id = idle(&node).await;
    let note = |name: &str| node.root().join(name);
    let reads = format!("echo up; cat; echo rest > {}", note("read").display());
    let hangs = format!(
        "trap 'echo hung up > {}; exit' HUP; echo up; while :; do sleep 0.01; done",
        note("hung").display()
    );
    for (script, streams) in [(&reads, ALL), (&hangs, TERMINAL)] {
        let mut socket = open(&node, &id, script, streams).await;
        let (_, said) = hear(&mut socket).await.expect("a word");
        assert!(said.starts_with(b"up"), "{said:?}");
    }
    for (name, text) in [("read", "rest\n"), ("hung", "hung up\n")] {
        eventually(name, || fs::read_to_string(note(name)).ok().filter(|found| found == text)).await;
    }
}

#[tokio::test]
async fn nonsense_harms_nobody_else() {
    let node = Node::new();
    let id = idle(&node).await;
    let command = ["true".to_owned()];
    let url = node.runtime.exec(&id, &command, ALL).await.expect("exec");
    let elsewhere = StreamUrl { path: "/exec/0123456789abcdef".to_owned(), ..url.clone() };
    for (url, headers, code) in [(&elsewhere, WEBSOCKET, "404"), (&url, "", "400"), (&url, WEBSOCKET, "404")]
    {
        let (_, head) = ask(url, headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
    }
    let junk: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        // A stream with headers that are none, one of another version, and one that is far too long.
        b"\x80\x03\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00abcd",
        b"\x80\x02\x00\x01\x00\x00\x00\x00",
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
        // Data for a stream that does not exist, then an end.
        b"\x00\x00\x00\x63\x01\x00\x00\x02hi\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x80\x02",
    ];
    for junk in junk {
        let url = node.runtime.exec(&id, &command, ALL).await.expect("exec");
        let (mut tcp, head) = ask(&url, SPDY).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        tcp.write_all(junk).await.expect("junk");
        tcp.shutdown().await.expect("shutdown");
        let mut rest = Vec::new();
        // Closed, or broken off.
        let _ = tcp.read_to_end(&mut rest).await;
    }
    let mut socket = open(&node, &id, "echo well", ALL).await;
    assert_eq!(hear_all(&mut socket).await, ("well\n".to_owned(), String::new(), 0));
    node.runtime.stop_container(&id, Duration::ZERO).await.expect("stop");
    assert!(node.runtime.exec(&id, &command, ALL).await.is_err(), "not in a container that has ended");
}
