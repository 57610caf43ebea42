//! Our standard output: large chunks through one writer, whole lines where several logs share it.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memrchr;
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ClientError;

/// Chunks that may wait for the writer.
const QUEUED_CHUNKS: usize = 8;
/// A line longer than this is written while it still grows.
const MAX_HELD_LINE: usize = 1 << 20;
/// How long other logs wait for the end of a line that is written while it grows; then it is broken, visibly.
const LINE_PATIENCE: Duration = Duration::from_secs(5);
/// The same for one of which nothing came for a while: a prompt.
const PROMPT_PATIENCE: Duration = Duration::from_millis(500);

/// Whether prefixes are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    #[default]
    Never,
    /// One of twelve colours by pod and container, the same every time.
    Always,
}

/// What stands before every line: `[pod/<pod>/<container>] `.
pub(crate) fn prefix(pod: &str, container: &str, colour: Colour) -> Bytes {
    let plain = format!("[pod/{pod}/{container}]");
    match colour {
        Colour::Never => format!("{plain} ").into(),
        Colour::Always => format!("\x1b[{}m{plain}\x1b[0m ", ansi_colour(pod, container)).into(),
    }
}

/// FNV-1a of the names picks a colour; black, white and grey are left out.
fn ansi_colour(pod: &str, container: &str) -> &'static str {
    const COLOURS: [&str; 12] = ["36", "33", "32", "35", "34", "31", "96", "93", "92", "95", "94", "91"];
    let names = pod.bytes().chain([b'/']).chain(container.bytes());
    let hash = names.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let index = usize::try_from((hash >> 32) % 12).unwrap_or_default();
    COLOURS[index]
}

/// The writer's side, on a thread of its own: a slow terminal does not hold up the network.
pub(crate) struct Output {
    sender: mpsc::Sender<Bytes>,
    writer: JoinHandle<io::Result<()>>,
}

impl Output {
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
        let writer = tokio::task::spawn_blocking(move || write_all(out, receiver));
        Output { sender, writer }
    }

    pub(crate) async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.sender.send(chunk).await.map_err(|_| Gone)
    }

    /// Waits until everything is written.
    pub(crate) async fn close(self) -> Result<(), ClientError> {
        drop(self.sender);
        match self.writer.await {
            Ok(written) => written.map_err(ClientError::Output),
            Err(error) => Err(ClientError::Output(io::Error::other(error))),
        }
    }
}

/// The writer has failed; [`Output::close`] says why.
#[derive(Debug)]
pub(crate) struct Gone;

fn write_all(mut out: Box<dyn Write + Send>, mut receiver: mpsc::Receiver<Bytes>) -> io::Result<()> {
    while let Some(chunk) = receiver.blocking_recv() {
        out.write_all(&chunk)?;
        if receiver.is_empty() {
            out.flush()?;
        }
    }
    out.flush()
}

/// Several logs that share an output.
#[derive(Clone)]
pub(crate) struct SharedOutput(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    line_ended: Notify,
    next_writer: AtomicU64,
}

struct State {
    output: Output,
    /// What was written last ended without a newline.
    open_line: Option<OpenLine>,
}

#[derive(Clone, Copy)]
struct OpenLine {
    writer: u64,
    /// Until then the others wait for the line's end; none when it will not come.
    reserved_until: Option<Instant>,
}

impl SharedOutput {
    pub(crate) fn new(output: Output) -> Self {
        let state = Mutex::new(State { output, open_line: None });
        SharedOutput(Arc::new(Shared { state, line_ended: Notify::new(), next_writer: AtomicU64::new(0) }))
    }

    /// One log's place in it.
    pub(crate) fn lines(&self, prefix: Bytes) -> LineWriter {
        let id = self.0.next_writer.fetch_add(1, Ordering::Relaxed);
        LineWriter { shared: self.0.clone(), id, prefix, held: BytesMut::new(), is_inside_line: false }
    }

    /// Waits until everything is written, once nobody else writes.
    pub(crate) async fn close(self) -> Result<(), ClientError> {
        match Arc::try_unwrap(self.0) {
            Ok(shared) => shared.state.into_inner().output.close().await,
            Err(_) => Ok(()),
        }
    }
}

impl Shared {
    /// The output, once no line of another log is in the way.
    async fn turn(&self, writer: u64) -> MutexGuard<'_, State> {
        loop {
            let mut line_ended = pin!(self.line_ended.notified());
            line_ended.as_mut().enable();
            let state = self.state.lock().await;
            let reserved = state.open_line.filter(|line| line.writer != writer);
            match reserved.and_then(|line| line.reserved_until).filter(|until| *until > Instant::now()) {
                None => return state,
                Some(until) => {
                    drop(state);
                    // Either is a reason to look again.
                    let _ = tokio::time::timeout_at(until, line_ended).await;
                }
            }
        }
    }
}

impl State {
    /// Until when the line that was written last is this writer's to go on with.
    fn reserved_for(&self, writer: u64) -> Option<Instant> {
        self.open_line.filter(|line| line.writer == writer)?.reserved_until
    }

    async fn end_line(&mut self) -> Result<(), Gone> {
        if self.open_line.take().is_some() {
            self.output.send(Bytes::from_static(b"\n")).await
        } else {
            Ok(())
        }
    }
}

/// Writes whole lines of one log, each with the prefix.
pub(crate) struct LineWriter {
    shared: Arc<Shared>,
    id: u64,
    prefix: Bytes,
    /// The begin of a line whose end has not come yet.
    held: BytesMut,
    /// What was written last ended without a newline.
    is_inside_line: bool,
}

impl LineWriter {
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), Gone> {
        self.held.extend_from_slice(chunk);
        let whole = memrchr(b'\n', chunk).map_or(0, |last| self.held.len() - chunk.len() + last + 1);
        let ready = if self.held.len() - whole > MAX_HELD_LINE { self.held.len() } else { whole };
        let lines = self.held.split_to(ready).freeze();
        self.put(lines, LINE_PATIENCE).await
    }

    /// Writes what there is of a line whose end may not come soon.
    pub(crate) async fn show_unfinished(&mut self) -> Result<(), Gone> {
        let rest = self.held.split().freeze();
        self.put(rest, PROMPT_PATIENCE).await
    }

    /// Writes what is left of a log that ended without a newline.
    pub(crate) async fn finish(&mut self) -> Result<(), Gone> {
        let rest = self.held.split().freeze();
        self.put(rest, LINE_PATIENCE).await?;
        self.release().await;
        Ok(())
    }

    /// The others wait so long for the end of a line that begins in `lines`.
    async fn put(&mut self, mut lines: Bytes, patience: Duration) -> Result<(), Gone> {
        let Some(last) = lines.last() else { return Ok(()) };
        let is_open = *last != b'\n';
        let mut state = self.shared.turn(self.id).await;
        let reserved_until = state.reserved_for(self.id);
        let was_inside_line = std::mem::replace(&mut self.is_inside_line, is_open);
        if was_inside_line && reserved_until.is_none() && lines.first() == Some(&b'\n') {
            // Somebody else has ended the line.
            lines.advance(1);
            if lines.is_empty() {
                return Ok(());
            }
        }
        let text = if reserved_until.is_some() {
            continued(&self.prefix, lines)
        } else {
            state.end_line().await?;
            prefixed(&self.prefix, lines)
        };
        state.output.send(text).await?;
        let reserved_until = reserved_until.or_else(|| Some(Instant::now() + patience));
        state.open_line = is_open.then_some(OpenLine { writer: self.id, reserved_until });
        drop(state);
        self.shared.line_ended.notify_waiters();
        Ok(())
    }

    /// The line that was begun does not go on.
    async fn release(&self) {
        let mut state = self.shared.state.lock().await;
        if let Some(line) = state.open_line.as_mut().filter(|line| line.writer == self.id) {
            line.reserved_until = None;
            self.shared.line_ended.notify_waiters();
        }
    }
}

/// Puts the prefix before every line; lines without prefix are not copied.
pub(crate) fn prefixed(prefix: &[u8], lines: Bytes) -> Bytes {
    if prefix.is_empty() {
        return lines;
    }
    let count = memchr::memchr_iter(b'\n', &lines).count() + 1;
    let mut text = BytesMut::with_capacity(lines.len() + count * prefix.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(prefix);
        text.extend_from_slice(line);
    }
    text.freeze()
}

/// [`prefixed`] where the first line has its prefix already.
pub(crate) fn continued(prefix: &[u8], lines: Bytes) -> Bytes {
    prefixed(prefix, lines).split_off(prefix.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An output that can be read.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<parking::Mutex<Vec<u8>>>);

    use std::sync as parking;

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_of_several_logs_stay_whole() {
        let captured = Captured::default();
        let shared = SharedOutput::new(Output::new(Box::new(captured.clone())));
        let (mut a, mut b) = (shared.lines("A ".into()), shared.lines(Bytes::new()));
        a.write(b"one\ntw").await.unwrap();
        b.write(b"1\n2").await.unwrap();
        a.write(b"o\nthree").await.unwrap();
        b.write(b"2\n\n33").await.unwrap();
        a.finish().await.unwrap();
        b.finish().await.unwrap();
        drop((a, b));
        shared.close().await.unwrap();
        assert_eq!(captured.text(), "A one\n1\nA two\n22\n\nA three\n33");
    }

    #[tokio::test]
    async fn a_line_without_end_holds_up_the_others_until_it_ends() {
        let captured = Captured::default();
        let shared = SharedOutput::new(Output::new(Box::new(captured.clone())));
        let (mut a, mut b) = (shared.lines("A ".into()), shared.lines("B ".into()));
        let long = vec![b'x'; MAX_HELD_LINE + 1];
        a.write(&long).await.unwrap();
        let waiting = tokio::spawn(async move { b.write(b"short\n").await });
        a.write(b"yy").await.unwrap();
        a.write(b"zz\nnext\n").await.unwrap();
        waiting.await.unwrap().unwrap();
        drop(a);
        shared.close().await.unwrap();
        let text = captured.text();
        let (head, tail) = text.split_at(2 + long.len());
        assert!(head.starts_with("A xxx") && head.ends_with('x'));
        assert!(tail == "yyzz\nA next\nB short\n" || tail == "yyzz\nB short\nA next\n", "{tail}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_does_not_end_is_broken_in_the_end() {
        let captured = Captured::default();
        let shared = SharedOutput::new(Output::new(Box::new(captured.clone())));
        let (mut a, mut b) = (shared.lines("A ".into()), shared.lines("B ".into()));
        let long = "x".repeat(MAX_HELD_LINE + 1);
        a.write(long.as_bytes()).await.unwrap();
        // A clock at rest does not advance by itself beside a thread at work.
        let (waited, ()) = tokio::join!(b.write(b"waits\n"), tokio::time::advance(LINE_PATIENCE));
        waited.unwrap();
        a.write(b"rest\n").await.unwrap();
        a.write(long.as_bytes()).await.unwrap();
        a.finish().await.unwrap();
        b.write(b"at once\n").await.unwrap();
        drop((a, b));
        shared.close().await.unwrap();
        assert_eq!(captured.text(), format!("A {long}\nB waits\nA rest\nA {long}\nB at once\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_is_shown_and_goes_on_or_is_broken() {
        let captured = Captured::default();
        let shared = SharedOutput::new(Output::new(Box::new(captured.clone())));
        let (mut a, mut b) = (shared.lines("A ".into()), shared.lines("B ".into()));
        for (before, patience, rest) in
            [("name? ", 0, "me\n"), ("and? ", 500, "\nmore\n"), ("end? ", 500, "\n")]
        {
            a.write(before.as_bytes()).await.unwrap();
            a.show_unfinished().await.unwrap();
            if patience > 0 {
                // A clock at rest does not advance by itself beside a thread at work.
                let (waited, ()) =
                    tokio::join!(b.write(b"other\n"), tokio::time::advance(Duration::from_millis(patience)));
                waited.unwrap();
            }
            a.write(rest.as_bytes()).await.unwrap();
            a.show_unfinished().await.unwrap();
        }
        drop((a, b));
        shared.close().await.unwrap();
        assert_eq!(captured.text(), "A name? me\nA and? \nB other\nA more\nA end? \nB other\n");
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_noticed() {
        let output = Output::new(Box::new(Broken));
        while output.send("x".into()).await.is_ok() {}
        let error = output.close().await.unwrap_err();
        assert!(error.is_closed_output(), "{error}");
    }

    #[test]
    fn colours_are_stable() {
        assert_eq!(prefix("p", "c", Colour::Never), "[pod/p/c] ");
        let coloured = prefix("p", "c", Colour::Always);
        assert_eq!(coloured, prefix("p", "c", Colour::Always));
        assert!(coloured.starts_with(b"\x1b[") && coloured.ends_with(b"m[pod/p/c]\x1b[0m "), "{coloured:?}");
    }
}
