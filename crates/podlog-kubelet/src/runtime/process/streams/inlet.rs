//! What a container's first process reads, as a client speaks to it.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use podlog_container::Process;

use super::descriptor::Descriptor;
use super::ends::resize;
use super::remote::Input;
use crate::runtime::process::control::{self, Connection};
use crate::runtime::process::error::blocking;
use crate::runtime::process::record::ContainerRecord;

/// How often to look for a monitor that takes the place of one that was killed.
const RETRY: Duration = Duration::from_millis(20);

/// The other end of a stdin, or of a terminal.
pub(super) struct Inlet {
    record: Arc<ContainerRecord>,
    /// With its end the client has gone, for capture.
    connection: Connection,
    /// `None` when nothing is read, or nothing more.
    descriptor: Option<Descriptor>,
    is_read: bool,
    then: Then,
}

/// What becomes of a client that says nothing more (`ContainerIO.Attach` of containerd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The program reads the end of its stdin, and the client hears the rest.
    Hears,
    /// It has gone.
    Goes,
}

impl Inlet {
    /// Asks capture for it.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(super) async fn open(record: &Arc<ContainerRecord>) -> io::Result<Self> {
        let dir = record.dir.clone();
        let process = blocking(move || Ok(dir.config().map(|config| config.process))).await;
        let process = process.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let Process { stdin, stdin_once, tty, .. } = process;
        let (connection, descriptor) = control::stdin(&record.dir).await?;
        let descriptor = descriptor.map(Descriptor::new).transpose()?;
        let then = if stdin_once && !tty { Then::Hears } else { Then::Goes };
        Ok(Self { record: Arc::clone(record), connection, descriptor, is_read: stdin, then })
    }

    /// Passes on what a client says, until it says nothing more or nobody reads it; never ends where there is no stdin.
    pub(super) async fn feed(mut self, input: &mut Input) -> Then {
        let Input { stdin, sizes } = input;
        if !self.is_read || self.descriptor.is_none() {
            // Else it would wait in the way of all other streams.
            *stdin = None;
        }
        let Some(descriptor) = self.descriptor.take() else { pending().await };
        let spoken = async {
            match stdin {
                Some(stdin) => descriptor.feed(stdin).await,
                None => pending().await,
            }
        };
        let resized = async {
            resize(&descriptor, sizes.as_mut()).await;
            pending::<Infallible>().await
        };
        tokio::select! {
            () = spoken => {}
            never = resized => match never {},
            never = self.stay() => match never {},
        }
        *stdin = None;
        self.then
    }

    /// Tells whoever is the container's monitor that the client is still there.
    async fn stay(&mut self) -> Infallible {
        loop {
            self.connection.closed().await;
            self.connection = loop {
                tokio::time::sleep(RETRY).await;
                if let Ok((connection, _)) = control::stdin(&self.record.dir).await {
                    break connection;
                }
            };
        }
    }
}
