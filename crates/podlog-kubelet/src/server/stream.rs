//! A log on its way to one client.
//!
//! The log is read one chunk ahead of the connection: a slow client holds memory for seven chunks at most (one that is being sent, four
//! that wait, one that waits for room and one that has been read meanwhile) and no thread. A follower
//! that has caught up shares the reading with the others of its log; alone, it waits for hints and asks the runtime
//! whether there will be more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use podlog_api::Compatibility;
use podlog_driver::ReadState;
use podlog_serving::{BodySender, Permit, ReceiverGone};
use tokio::time::Instant;

use super::hints::{Hints, PACE};
use super::hub::{Departure, Hub, Joined, Seat, Shareable, Source};
use super::reading::{Chunk, Reading, ReadingError};
use crate::runtime::RuntimeError;

/// A follower that could not join the others tries again after so long.
const JOIN_AGAIN: Duration = Duration::from_millis(100);

/// A log on its way.
pub(super) struct LogStream {
    /// Not here while it is shared.
    pub(super) reading: Option<Reading>,
    pub(super) source: Source,
    pub(super) follow: bool,
    /// What it has in common with other followers.
    pub(super) shareable: Option<Shareable>,
    pub(super) hub: Hub,
    /// Nobody streams a log without.
    pub(super) permit: Permit,
}

/// Why a stream ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the client has gone")]
    Gone(#[from] ReceiverGone),
    #[error(transparent)]
    Read(#[from] ReadingError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot go on reading a log alone")]
    Clone(#[source] io::Error),
    #[error(transparent)]
    Shared(#[from] Arc<Broken>),
    #[error("the shared reading of a log has failed")]
    Lost,
}

/// How being a member of a group ended.
enum Left {
    /// The log has ended.
    Ended,
    /// There is more to read.
    GoesOn,
}

impl LogStream {
    /// Sends `first` and all that follows.
    pub(super) async fn run(mut self, first: Chunk, sender: BodySender) {
        let instance = self.source.ending.instance.0.clone();
        match self.send_all(first, &sender).await {
            Ok(()) => sender.finish().await,
            Err(Broken::Gone(_)) => {
                tracing::debug!(user = self.permit.user().username, instance, "the client has gone");
            }
            Err(error) => {
                tracing::warn!(instance, %error, "a log stream was aborted");
                self.break_off(sender, error).await;
            }
        }
    }

    /// A body that ends in an error does not look complete. Kubernetes prints the error into the body instead.
    async fn break_off(&self, sender: BodySender, error: Broken) {
        match self.source.ending.compatibility {
            Compatibility::Exact => sender.fail(error).await,
            Compatibility::Upstream => {
                if sender.send(error.to_string()).await.is_ok() {
                    sender.finish().await;
                }
            }
        }
    }

    async fn send_all(&mut self, first: Chunk, sender: &BodySender) -> Result<(), Broken> {
        let mut state = self.catch_up(first, sender).await?;
        while self.follow && state != ReadState::LimitReached {
            if let Left::Ended = self.share(sender).await? {
                return Ok(());
            }
            match self.follow_alone(sender).await? {
                Some(caught_up) => state = caught_up,
                None => break,
            }
        }
        if state != ReadState::LimitReached {
            sender.send(self.reading().rest().await?).await?;
        }
        Ok(())
    }

    fn reading(&mut self) -> &mut Reading {
        self.reading.as_mut().expect("a stream that does not share its reading has one")
    }

    /// Sends a chunk and everything up to the end of what is there; reads the next chunk while one is sent.
    async fn catch_up(&mut self, first: Chunk, sender: &BodySender) -> Result<ReadState, Broken> {
        let Chunk { mut data, mut state } = first;
        while state == ReadState::More {
            let (sent, next) = tokio::join!(sender.send(data), self.reading().chunk());
            sent?;
            Chunk { data, state } = next?;
        }
        sender.send(data).await?;
        Ok(state)
    }

    /// Follows the log by itself for a while, and to its end if nobody can share its reading. `None` at its end.
    async fn follow_alone(&mut self, sender: &BodySender) -> Result<Option<ReadState>, Broken> {
        let mut hints = self.source.watching.hints();
        let begun = Instant::now();
        // The hints begin later than the reading.
        let mut ended = false;
        loop {
            let next_look = Instant::now() + PACE;
            let chunk = self.reading().chunk().await?;
            let state = self.catch_up(chunk, sender).await?;
            if ended {
                return Ok(None);
            }
            if state == ReadState::LimitReached || (self.can_share() && begun.elapsed() >= JOIN_AGAIN) {
                self.source.ending.rest();
                return Ok(Some(state));
            }
            ended = self.wait(next_look, &mut hints, sender).await?;
        }
    }

    fn can_share(&self) -> bool {
        self.shareable.is_some() && self.reading.as_ref().is_some_and(|reading| reading.place().is_some())
    }

    /// Waits until there may be more to read. Returns whether the container has ended: what it wrote is then all there.
    async fn wait(
        &mut self,
        next_look: Instant,
        hints: &mut Hints,
        sender: &BodySender,
    ) -> Result<bool, Broken> {
        tokio::select! {
            () = sender.closed() => Err(ReceiverGone.into()),
            ended = self.source.ending.wait_from(next_look, hints) => Ok(ended?),
        }
    }

    /// Follows the log together with others, as long as that goes.
    async fn share(&mut self, sender: &BodySender) -> Result<Left, Broken> {
        let Some(shareable) = self.shareable.as_ref().filter(|_| self.can_share()) else {
            return Ok(Left::GoesOn);
        };
        let Some(reading) = self.reading.take() else { return Ok(Left::GoesOn) };
        match self.hub.join(shareable, &self.source, reading).await {
            Joined::Member(seat) => self.sit(seat, sender).await,
            Joined::NotYet(reading, chunk) => {
                self.reading = Some(reading);
                sender.send(chunk).await?;
                Ok(Left::GoesOn)
            }
            Joined::Failed(error) => Err(error.into()),
            Joined::Lost => Err(Broken::Lost),
        }
    }

    async fn sit(&mut self, mut seat: Seat, sender: &BodySender) -> Result<Left, Broken> {
        loop {
            tokio::select! {
                () = sender.closed() => return Err(ReceiverGone.into()),
                chunk = seat.chunk() => match chunk {
                    Some(chunk) => sender.send(chunk).await?,
                    None => break,
                }
            }
        }
        match seat.departure().await {
            Some(Departure::Ended) => Ok(Left::Ended),
            Some(Departure::Behind(reading, chunk)) => {
                self.reading = Some(reading);
                sender.send(chunk).await?;
                Ok(Left::GoesOn)
            }
            Some(Departure::Failed(error)) => Err(error.into()),
            None => Err(Broken::Lost),
        }
    }
}
