//! TLS on a connection, with no memory of its own but for what is under way.
//!
//! rustls works in buffers that it is lent ([`rustls::unbuffered`]): here those are a thread's, used by all of its connections in
//! turn. tokio-rustls, whose meaning this has, keeps 4 KiB for each, and asks the kernel for no more at a time.

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once: two whole records, and the small ones that HTTP/2 puts between them.
const READ: usize = 36 << 10;
/// Bytes that are encrypted at once, at most.
const WRITE: usize = 32 << 10;
/// What is kept of what came and is not complete: the longest handshake message that is put up with, and a record.
const MAX_KEPT: usize = (64 + 18) << 10;

/// A server's end.
pub(crate) type ServerStream<T> = TlsStream<T, UnbufferedServerConnection>;
/// A client's end.
pub(crate) type ClientStream<T> = TlsStream<T, UnbufferedClientConnection>;

/// A connection with TLS. What the peer sends is only believed to be complete once it has said so.
pub(crate) struct TlsStream<T, S> {
    io: T,
    /// Decrypted, and not asked for yet.
    opened: Queue,
    tls: Protocol<S>,
}

/// TLS without the connection.
struct Protocol<S> {
    session: S,
    /// Came, and is not complete; a part may be decrypted already. rustls knows places in it, so it is shown all of it, from the
    /// first byte, whatever it is asked for.
    kept: Vec<u8>,
    /// Encrypted, and not sent yet.
    sealed: Queue,
    /// The peer has said that nothing more comes.
    is_over: bool,
    /// The peer has broken the rules: nothing it sends counts any more, and nothing is said to it but why.
    is_broken: bool,
    /// We have said that nothing more comes.
    has_closed: bool,
}

/// Either end of TLS.
pub(crate) trait Session: Unpin {
    type Data;

    fn process<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
}

impl Session for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(came)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, came: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(came)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Where bytes are while they are worked on.
#[derive(Default)]
struct Scratch {
    came: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Session> TlsStream<T, S> {
    pub(crate) fn new(io: T, session: S) -> Self {
        TlsStream { io, opened: Queue::default(), tls: Protocol::new(session) }
    }

    /// Shakes hands. There is no limit on how long that takes.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        // A client's first words come by themselves.
        self.tls.open(&mut [], |_| {})?;
        poll_fn(|context| self.poll_handshake(context)).await
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            if !self.tls.session.state().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(context, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
        }
    }

    /// What was agreed on.
    pub(crate) fn state(&self) -> &CommonState {
        self.tls.session.state()
    }

    pub(crate) fn io(&mut self) -> &mut T {
        &mut self.io
    }

    /// Reads once, and decrypts: into the buffer as much as it takes. Answers with how many bytes came, zero at the end.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let TlsStream { io, opened, tls } = self;
        let received = SCRATCH.with_borrow_mut(|Scratch { came, .. }| {
            let before = tls.kept.len();
            if came.len() < before + READ {
                came.resize(before + READ, 0);
            }
            let mut room = ReadBuf::new(&mut came[before..before + READ]);
            ready!(Pin::new(io).poll_read(context, &mut room))?;
            let count = room.filled().len();
            came[..before].copy_from_slice(&tls.kept);
            let came = &mut came[..before + count];
            let done = tls.open(came, |plain| {
                let fits = plain.len().min(buffer.remaining());
                buffer.put_slice(&plain[..fits]);
                opened.push(&plain[fits..]);
            })?;
            tls.keep(&came[done..]);
            Poll::Ready(Ok(count))
        });
        if received.is_ready() && !self.tls.sealed.is_empty() {
            // The peer is owed an answer, e.g. why it is refused; what cannot go yet goes with what is written next.
            let _ = self.poll_send(context);
        }
        match received {
            Poll::Ready(Ok(_)) if self.tls.kept.len() > MAX_KEPT => {
                self.tls.is_broken = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "message buffer full")))
            }
            received => received,
        }
    }

    /// Sends what was encrypted.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.tls.sealed.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, self.tls.sealed.rest()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tls.sealed.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_seal(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        SCRATCH.with_borrow_mut(|Scratch { plain, sealed, .. }| {
            let plain = gather(slices, plain);
            let length = self.tls.seal(plain, sealed)?;
            let mut sent = 0;
            if self.tls.sealed.is_empty()
                && let Poll::Ready(count) = Pin::new(&mut self.io).poll_write(context, &sealed[..length])?
            {
                sent = count;
            }
            self.tls.sealed.push(&sealed[sent..length]);
            Poll::Ready(Ok(plain.len()))
        })
    }
}

impl<S: Session> Protocol<S> {
    fn new(session: S) -> Self {
        let (kept, sealed) = (Vec::new(), Queue::default());
        Protocol { session, kept, sealed, is_over: false, is_broken: false, has_closed: false }
    }

    /// Without memory for nothing.
    fn keep(&mut self, rest: &[u8]) {
        self.kept = rest.to_vec();
    }

    /// Decrypts what came and was kept, as far as it is complete; answers with how many bytes are done with.
    fn open(&mut self, came: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        if self.is_broken {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut done = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.session.process(&mut came[done..]);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        take(record.payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    self.sealed.encode(&mut message);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_over = true;
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    self.is_broken = true;
                    self.encode_alert();
                    return Err(invalid(error));
                }
            };
            done += discard;
            if !goes_on {
                return Ok(done);
            }
        }
    }

    /// Why the peer is refused.
    fn encode_alert(&mut self) {
        // What is to be said comes before anything is looked for in what came.
        while self.session.state().wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut alert)) = self.session.process(&mut []).state
        {
            self.sealed.encode(&mut alert);
        }
    }

    /// Encrypts; answers with how much of `sealed` it takes.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<usize> {
        self.send(sealed, |traffic, sealed| traffic.encrypt(plain, sealed))
    }

    /// Says that nothing more comes from us.
    fn close(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        let length = self.send(&mut sealed, |traffic, sealed| traffic.queue_close_notify(sealed))?;
        self.sealed.push(&sealed[..length]);
        Ok(())
    }

    fn send(
        &mut self,
        sealed: &mut Vec<u8>,
        work: impl Fn(&mut WriteTraffic<'_, S::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.is_broken || self.has_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            match self.session.process(&mut self.kept).state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let first = work(&mut traffic, sealed);
                    let Err(EncryptError::InsufficientSize(size)) = first else {
                        return first.map_err(io::Error::other);
                    };
                    sealed.resize(size.required_size, 0);
                    return work(&mut traffic, sealed).map_err(io::Error::other);
                }
                ConnectionState::EncodeTlsData(mut message) => self.sealed.encode(&mut message),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => self.is_over = true,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The slices, as far as they are encrypted at once; copied only if they are several.
fn gather<'a>(slices: &'a [IoSlice<'_>], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let mut filled = slices.iter().filter(|slice| !slice.is_empty());
    match (filled.next(), filled.next()) {
        (None, _) => &[],
        (Some(only), None) => &only[..only.len().min(WRITE)],
        _ => {
            buffer.clear();
            for slice in slices {
                let room = WRITE - buffer.len();
                buffer.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            buffer
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Session> AsyncRead for TlsStream<T, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        while buffer.filled().len() == before && buffer.remaining() > 0 {
            if !this.opened.is_empty() {
                let count = this.opened.rest().len().min(buffer.remaining());
                buffer.put_slice(&this.opened.rest()[..count]);
                this.opened.advance(count);
            } else if this.tls.is_over {
                break;
            } else if ready!(this.poll_receive(context, buffer))? == 0 && !this.tls.is_over {
                let text = "peer closed connection without sending TLS close_notify";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, S: Session> AsyncWrite for TlsStream<T, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_seal(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_seal(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.tls.has_closed {
            // Without TLS yet, there is nobody to be told.
            let _ = self.tls.close();
            self.tls.has_closed = true;
        }
        ready!(self.poll_send(context))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(context)) {
            // The peer was first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}

/// Bytes that wait, without memory when there are none.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Of these, so many are gone.
    taken: usize,
}

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        *self = Queue::default();
    }

    fn encode<D>(&mut self, message: &mut EncodeTlsData<'_, D>) {
        if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
            let begin = self.bytes.len();
            self.bytes.resize(begin + size.required_size, 0);
            let encoded = message.encode(&mut self.bytes[begin..]);
            self.bytes.truncate(begin + encoded.unwrap_or(0));
        }
    }
}
