//! Ports of a pod: its containers listen on the host's network.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::channels::{Connection, Outflow, Stream};
use super::spdy::value;

const PIECE: usize = 32 << 10;

/// One connection to a port.
struct Forwarding {
    port: u16,
    data: Stream,
    error: Outflow,
}

/// Forwards whatever the client asks for, until it has gone. Each connection has two streams of one request id.
pub(super) async fn over_spdy(connection: Connection, mut opened: mpsc::Receiver<Stream>, sandbox: &str) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut forwarded = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = opened.recv() => match stream {
                Some(stream) => stream,
                None => break,
            },
            Some(_) = forwarded.join_next() => continue,
        };
        let request = value(&stream.headers, "requestid").to_owned();
        match halves.remove(&request) {
            None => drop(halves.insert(request, stream)),
            Some(other) => match pair(other, stream) {
                Some(forwarding) => drop(forwarded.spawn(forwarding.run(sandbox.to_owned()))),
                None => tracing::debug!("a client opened streams for ports that do not fit together"),
            },
        }
    }
    drop((connection, forwarded));
}

/// The streams of one request, whichever came first.
fn pair(one: Stream, other: Stream) -> Option<Forwarding> {
    let kind = |stream: &Stream| value(&stream.headers, "streamtype").to_owned();
    let (data, error) = match (kind(&one).as_str(), kind(&other).as_str()) {
        ("data", "error") => (one, other),
        ("error", "data") => (other, one),
        _ => return None,
    };
    let port = value(&data.headers, "port").parse().ok().filter(|port| *port > 0)?;
    Some(Forwarding { port, data, error: error.to })
}

/// Forwards one connection to each of these ports, each with two channels, which begin with the port's number.
pub(super) async fn over_channels(
    connection: Connection,
    channels: Vec<Stream>,
    sandbox: &str,
    ports: &[u16],
) {
    let mut channels = channels.into_iter();
    let mut forwarded = JoinSet::new();
    for port in ports {
        let (Some(data), Some(error)) = (channels.next(), channels.next()) else { break };
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        if data.to.send(number.clone()).await.is_err() || error.to.send(number).await.is_err() {
            return;
        }
        let forwarding = Forwarding { port: *port, data, error: error.to };
        forwarded.spawn(forwarding.run(sandbox.to_owned()));
    }
    let all = async { while forwarded.join_next().await.is_some() {} };
    tokio::select! {
        () = all => connection.finish().await,
        () = connection.gone() => {}
    }
}

impl Forwarding {
    async fn run(self, sandbox: String) {
        let Forwarding { port, data, error } = self;
        let to = data.to.clone();
        if let Err(why) = carry(port, data).await {
            let why = format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
            tracing::debug!(why, "a port was not forwarded");
            // Nobody to tell when the client has gone.
            let _ = error.send(why.into()).await;
        }
        to.end().await;
        error.end().await;
    }
}

async fn carry(port: u16, stream: Stream) -> io::Result<()> {
    let mut tcp = connect(port).await?;
    let (mut from_port, mut to_port) = tcp.split();
    let Stream { mut from, to, .. } = stream;
    let there = async {
        while let Some(mut data) = from.recv().await {
            to_port.write_all_buf(&mut data).await?;
        }
        to_port.shutdown().await
    };
    let back = async {
        let mut piece = BytesMut::with_capacity(PIECE);
        while from_port.read_buf(&mut piece).await? > 0 {
            if to.send(piece.split().freeze()).await.is_err() {
                break;
            }
            piece.reserve(PIECE);
        }
        Ok::<(), io::Error>(())
    };
    tokio::pin!(there, back);
    // Who is asked has the last word: with its end, the connection is over.
    tokio::select! {
        passed = &mut back => passed,
        passed = &mut there => {
            // What cannot be told to the port does not matter once it has closed.
            let _ = passed;
            back.await
        }
    }
}

/// As for `localhost`: the older protocol first.
async fn connect(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(tcp) => Ok(tcp),
        Err(first) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| {
            let (text, kind) = (first.to_string(), first.kind());
            let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            io::Error::new(kind, format!("dial tcp 127.0.0.1:{port}: connect: {reason}"))
        }),
    }
}
