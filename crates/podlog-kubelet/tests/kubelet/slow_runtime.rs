//! Followers while the runtime takes its time, refuses, or is away.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use podlog_serving::NodeBody;
use tokio::time::timeout;

use crate::bench::Bench;
use crate::cri_socket::{CriSocket, Statuses};
use crate::followers::{PATIENCE, open, read_to, run_pod, wait_readings};

/// Longer than the time between two questions.
const WHILE: Duration = Duration::from_millis(1500);

struct Followed {
    bench: Bench,
    socket: CriSocket,
    /// One that shares its reading, and one that goes its own way.
    bodies: [NodeBody; 2],
}

impl Followed {
    async fn new() -> Self {
        let mut bench = Bench::idle().await;
        let socket = CriSocket::listen(&bench).await;
        bench.seen = Some(socket.runtime());
        bench.start().await;
        run_pod(&bench, "web", "c").await;
        let (client, port) = (bench.client(Some("admin")), bench.port());
        let shared = open(&client, port, "web", "c", "").await;
        let alone = open(&client, port, "web", "c", "&limitBytes=10000000").await;
        let mut followed = Followed { bench, socket, bodies: [shared, alone] };
        followed.line("one").await;
        followed
    }

    /// Prints a line, which reaches everybody.
    async fn line(&mut self, line: &str) {
        self.bench.runtime.log("c", &[line]);
        for body in &mut self.bodies {
            assert_eq!(read_to(body, line.len() + 1).await, format!("{line}\n"));
        }
    }

    /// Prints lines for a while, and until the runtime was asked in vain by everybody.
    async fn lines(&mut self) {
        let (begun, before) = (Instant::now(), self.socket.unanswered());
        let mut number = 0;
        while begun.elapsed() < WHILE || self.socket.unanswered() < before + 2 {
            number += 1;
            self.line(&format!("line {number}")).await;
        }
    }

    async fn end(self) {
        for body in self.bodies {
            assert_eq!(timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes(), "");
        }
        wait_readings(&self.bench, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_takes_its_time_delays_no_follower() {
    let mut followed = Followed::new().await;
    followed.socket.set(Statuses::Held);
    followed.lines().await;
    followed.bench.runtime.end("c", 0);
    followed.line("last").await;
    followed.socket.set(Statuses::Told);
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_starts_ends_no_follower() {
    let mut followed = Followed::new().await;
    followed.socket.close().await;
    for number in 0..100 {
        followed.line(&format!("away {number}")).await;
    }
    followed.socket.set(Statuses::Refused);
    followed.socket.open();
    followed.lines().await;
    followed.socket.set(Statuses::Told);
    followed.line("last").await;
    followed.bench.runtime.end("c", 0);
    followed.end().await;
}
