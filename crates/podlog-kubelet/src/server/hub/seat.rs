//! The place of a follower in a group.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::super::reading::{Reading, ReadingError};
use super::super::stream::Broken;

/// Chunks that may wait for a member. They are shared with the other members.
const QUEUED: usize = 32;

/// How an attempt to join ended.
pub(in super::super) enum Joined {
    /// In the group.
    Member(Seat),
    /// Not yet: the log grows too fast, or the group has ended. What was read in the attempt is to be sent.
    NotYet(Reading, Bytes),
    /// The follower's own reading has failed.
    Failed(ReadingError),
    /// The group has failed.
    Lost,
}

/// Why a follower is no member any more.
pub(in super::super) enum Departure {
    /// The log has ended, and all of it was handed out.
    Ended,
    /// It was too slow. The chunk comes next, and after it what the reading delivers.
    Behind(Reading, Bytes),
    /// The group's reading has failed.
    Failed(Arc<Broken>),
}

/// What a member gets.
pub(in super::super) struct Seat {
    chunks: mpsc::Receiver<Bytes>,
    departure: oneshot::Receiver<Departure>,
    left: Arc<Notify>,
}

/// What the group has of a member.
pub(super) struct Member {
    chunks: mpsc::Sender<Bytes>,
    departure: oneshot::Sender<Departure>,
}

impl Seat {
    /// The next chunk; `None` when there will be no more: then [`Seat::departure`] says why.
    pub(in super::super) async fn chunk(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }

    /// Why there are no more chunks; `None` when the group has failed.
    pub(in super::super) async fn departure(&mut self) -> Option<Departure> {
        (&mut self.departure).await.ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.chunks.close();
        self.left.notify_one();
    }
}

impl Member {
    /// A member; the group is told through `left` when its seat is given up.
    pub(super) fn new(left: &Arc<Notify>) -> (Member, Seat) {
        let (sender, chunks) = mpsc::channel(QUEUED);
        let (teller, departure) = oneshot::channel();
        (Member { chunks: sender, departure: teller }, Seat { chunks, departure, left: left.clone() })
    }

    pub(super) fn has_left(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Hands out a chunk. False when there is no room for it.
    pub(super) fn offer(&self, chunk: &Bytes) -> bool {
        !matches!(self.chunks.try_send(chunk.clone()), Err(mpsc::error::TrySendError::Full(_)))
    }

    pub(super) fn depart(self, departure: Departure) {
        // Nobody to tell when the follower has left by itself.
        let _ = self.departure.send(departure);
    }
}
