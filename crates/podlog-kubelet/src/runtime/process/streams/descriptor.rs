//! Our ends of the streams of a program.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::channels::Outflow;

/// What is read at once.
const PIECE: usize = 32 << 10;
/// How long nothing must have come for the output of a program that has ended to be over: what it left running may hold it open.
const LULL: Duration = Duration::from_millis(100);

/// A pipe or a terminal, read and written without blocking.
pub(super) struct Descriptor(AsyncFd<OwnedFd>);

/// Our end of a pipe that a program writes to, and its end.
pub(super) fn output() -> io::Result<(Descriptor, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    Ok((Descriptor::new(ours.into())?, theirs.into()))
}

/// Our end of a pipe that a program reads from, and its end.
pub(super) fn input() -> io::Result<(Descriptor, OwnedFd)> {
    let (theirs, ours) = io::pipe()?;
    Ok((Descriptor::new(ours.into())?, theirs.into()))
}

/// Our end of a terminal, and the program's.
pub(super) fn terminal() -> io::Result<(Descriptor, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((Descriptor::new(ours)?, theirs))
}

impl Descriptor {
    /// An end that somebody else has made.
    ///
    /// # Errors
    /// When it cannot be waited for.
    #[expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open")]
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&descriptor, true)?;
        // SAFETY: it is owned, and nobody gets hold of it: it stays open as long as it is registered.
        Ok(Descriptor(unsafe { AsyncFd::register(descriptor) }?))
    }

    pub(super) fn set_size(&self, size: Winsize) {
        // What is no terminal has no size.
        let _ = tcsetwinsize(self.0.get_ref(), size);
    }

    /// What is there; empty at the end. Nothing is lost when it is dropped.
    async fn read(&self) -> io::Result<Bytes> {
        let mut piece = BytesMut::zeroed(PIECE);
        let reading =
            self.0.async_io(Interest::READABLE, |descriptor| Ok(read(descriptor, &mut piece[..])?)).await;
        match reading {
            Ok(length) => {
                piece.truncate(length);
                Ok(piece.freeze())
            }
            // A terminal at whose other end nobody is.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(Bytes::new()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written =
                self.0.async_io(Interest::WRITABLE, |descriptor| Ok(write(descriptor, data)?)).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Writes what a client says, to its end or until nobody reads it.
    pub(super) async fn feed(&self, stdin: &mut mpsc::Receiver<Bytes>) {
        while let Some(data) = stdin.recv().await {
            if self.write(&data).await.is_err() {
                return;
            }
        }
    }

    /// Sends all that comes to a client, until the end, or a lull after the program has `ended`. Without a client it is thrown
    /// away.
    pub(super) async fn drain(&self, to: Option<&Outflow>, ended: &CancellationToken) {
        loop {
            let piece = match ended.is_cancelled() {
                true => timeout(LULL, self.read()).await.unwrap_or(Ok(Bytes::new())),
                false => tokio::select! {
                    piece = self.read() => piece,
                    () = ended.cancelled() => continue,
                },
            };
            let piece = piece.unwrap_or_default();
            if piece.is_empty() {
                return;
            }
            if let Some(to) = to
                && to.send(piece).await.is_err()
            {
                return;
            }
        }
    }
}
