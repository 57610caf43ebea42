//! One reading for many followers.

use std::sync::Arc;

use bytes::Bytes;
use podlog_driver::ReadState;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::super::hints::{Hints, PACE};
use super::super::reading::{Meeting, Reading};
use super::super::stream::Broken;
use super::Source;
use super::seat::{Departure, Joined, Member};

/// A follower at the door.
pub(super) struct Join {
    reading: Reading,
    answer: oneshot::Sender<Joined>,
}

impl Join {
    pub(super) fn new(reading: Reading) -> (Join, oneshot::Receiver<Joined>) {
        let (answer, joined) = oneshot::channel();
        (Join { reading, answer }, joined)
    }

    /// The follower goes on alone.
    pub(super) fn refuse(self) {
        let Join { reading, answer } = self;
        // Nobody to tell when the follower has gone.
        let _ = answer.send(Joined::NotYet(reading, Bytes::new()));
    }
}

/// The members, and the reading they share.
pub(super) struct Group {
    source: Source,
    hints: Hints,
    reading: Reading,
    members: Vec<Member>,
    /// Told when a member has left.
    left: Arc<Notify>,
    next_look: Instant,
}

impl Group {
    /// Runs a group that `first` founds, until it has no members or its log has ended.
    pub(super) async fn found(source: Source, first: Join, joins: &mut mpsc::Receiver<Join>) {
        let left = Arc::new(Notify::new());
        let (member, seat) = Member::new(&left);
        let Join { reading, answer } = first;
        if let Err(Joined::Member(_)) = answer.send(Joined::Member(seat)) {
            return;
        }
        let hints = source.watching.hints();
        let members = vec![member];
        let mut group = Group { source, hints, reading, members, left, next_look: Instant::now() };
        let departure = group.share(joins).await.map_err(Arc::new);
        for member in group.members {
            member.depart(match &departure {
                Ok(()) => Departure::Ended,
                Err(broken) => Departure::Failed(broken.clone()),
            });
        }
    }

    async fn share(&mut self, joins: &mut mpsc::Receiver<Join>) -> Result<(), Broken> {
        // The hints begin later than the reading.
        self.read().await?;
        while !self.members.is_empty() {
            tokio::select! {
                biased;
                ended = self.source.ending.wait_from(self.next_look, &mut self.hints) => {
                    let ended = ended?;
                    self.next_look = Instant::now() + PACE;
                    self.read().await?;
                    if ended {
                        let rest = self.reading.rest().await?;
                        self.hand_out(&rest);
                        return Ok(());
                    }
                }
                Some(join) = joins.recv() => self.admit(join).await?,
                () = self.left.notified() => self.members.retain(|member| !member.has_left()),
            }
        }
        Ok(())
    }

    /// Reads and hands out everything there is.
    async fn read(&mut self) -> Result<(), Broken> {
        loop {
            let chunk = self.reading.chunk().await?;
            self.hand_out(&chunk.data);
            if chunk.state != ReadState::More {
                return Ok(());
            }
        }
    }

    /// Those who have no room for it leave with a reading of their own.
    fn hand_out(&mut self, chunk: &Bytes) {
        if chunk.is_empty() {
            return;
        }
        let behind: Vec<Member> = self.members.extract_if(.., |member| !member.offer(chunk)).collect();
        for member in behind {
            member.depart(match self.reading.try_clone() {
                Ok(reading) => Departure::Behind(reading, chunk.clone()),
                Err(error) => Departure::Failed(Arc::new(Broken::Clone(error))),
            });
        }
    }

    /// Lets a follower in if it stands where the group stands.
    async fn admit(&mut self, join: Join) -> Result<(), Broken> {
        let Join { mut reading, answer } = join;
        let Meeting { ours, theirs, met } = self.reading.meet(&mut reading).await?;
        self.hand_out(&ours);
        let joined = match (theirs, met) {
            (Err(error), _) => Joined::Failed(error),
            (Ok(theirs), None) => Joined::NotYet(reading, theirs),
            (Ok(theirs), Some(_)) => {
                let (member, seat) = Member::new(&self.left);
                member.offer(&theirs);
                self.members.push(member);
                Joined::Member(seat)
            }
        };
        // A seat that nobody takes is given up again.
        let _ = answer.send(joined);
        Ok(())
    }
}
