//! Our standard output: large chunks through one writer, whole lines where several logs share it.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;

use crate::ClientError;

/// Chunks that may wait for the writer.
const QUEUED_CHUNKS: usize = 8;
/// A line longer than this is written while it still grows, and the others wait for its end.
const MAX_HELD_LINE: usize = 1 << 20;

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
pub(crate) struct SharedOutput(Arc<Mutex<Shared>>);

struct Shared {
    output: Output,
    /// The last log ended without a newline: the next one begins with it.
    open_line: bool,
}

impl SharedOutput {
    pub(crate) fn new(output: Output) -> Self {
        SharedOutput(Arc::new(Mutex::new(Shared { output, open_line: false })))
    }

    /// One log's place in it.
    pub(crate) fn lines(&self, prefix: Bytes) -> LineWriter {
        LineWriter { shared: self.clone(), prefix, held: BytesMut::new(), exclusive: None }
    }

    /// Waits until everything is written, once nobody else writes.
    pub(crate) async fn close(self) -> Result<(), ClientError> {
        match Arc::try_unwrap(self.0) {
            Ok(shared) => shared.into_inner().output.close().await,
            Err(_) => Ok(()),
        }
    }
}

impl Shared {
    async fn write(&mut self, lines: Bytes) -> Result<(), Gone> {
        let Some(last) = lines.last() else { return Ok(()) };
        let open_line = *last != b'\n';
        self.output.send(lines).await?;
        self.open_line = open_line;
        Ok(())
    }

    async fn end_line(&mut self) -> Result<(), Gone> {
        if self.open_line { self.write(Bytes::from_static(b"\n")).await } else { Ok(()) }
    }
}

/// Writes whole lines of one log, each with the prefix.
pub(crate) struct LineWriter {
    shared: SharedOutput,
    prefix: Bytes,
    /// The begin of a line whose end has not come yet.
    held: BytesMut,
    /// Held while a line is being written that is too long to be held back.
    exclusive: Option<OwnedMutexGuard<Shared>>,
}

impl LineWriter {
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), Gone> {
        let mut rest = chunk;
        if let Some(mut shared) = self.exclusive.take() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            let (line, after) = rest.split_at(end);
            shared.write(Bytes::copy_from_slice(line)).await?;
            if line.last() != Some(&b'\n') {
                self.exclusive = Some(shared);
                return Ok(());
            }
            rest = after;
        }
        if let Some(last) = memrchr(b'\n', rest) {
            let (lines, tail) = rest.split_at(last + 1);
            self.held.extend_from_slice(lines);
            let lines = self.held.split().freeze();
            self.write_lines(lines).await?;
            rest = tail;
        }
        self.held.extend_from_slice(rest);
        if self.held.len() > MAX_HELD_LINE {
            let begin = self.held.split().freeze();
            let mut shared = self.shared.0.clone().lock_owned().await;
            shared.end_line().await?;
            shared.write(prefixed(&self.prefix, begin)).await?;
            self.exclusive = Some(shared);
        }
        Ok(())
    }

    /// Writes what is left of a log that ended without a newline.
    pub(crate) async fn finish(&mut self) -> Result<(), Gone> {
        self.exclusive = None;
        let rest = self.held.split().freeze();
        self.write_lines(rest).await
    }

    /// Forgets a line whose end will not come: it will be written again from its begin.
    pub(crate) fn discard(&mut self) {
        self.exclusive = None;
        self.held.clear();
    }

    async fn write_lines(&self, lines: Bytes) -> Result<(), Gone> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut shared = self.shared.0.lock().await;
        shared.end_line().await?;
        shared.write(prefixed(&self.prefix, lines)).await
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
        assert!(error.is_closed_output() && error.exit_code() == 141);
    }

    #[test]
    fn colours_are_stable() {
        assert_eq!(prefix("p", "c", Colour::Never), "[pod/p/c] ");
        let coloured = prefix("p", "c", Colour::Always);
        assert_eq!(coloured, prefix("p", "c", Colour::Always));
        assert!(coloured.starts_with(b"\x1b[") && coloured.ends_with(b"m[pod/p/c]\x1b[0m "), "{coloured:?}");
    }
}
