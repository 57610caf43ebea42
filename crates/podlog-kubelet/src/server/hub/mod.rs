//! Followers of one log share its reading.
//!
//! A follower that has read everything there is joins the group of those that want the same of the same log: the group
//! reads and renders once, and hands each member the same bytes through a queue of its own. A member whose queue is full
//! leaves at once, with a reading of its own at that very place; it comes back when it has caught up. So nobody waits for
//! a slow follower, and nothing is lost or doubled on the way in or out.

mod group;
mod seat;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use podlog_line::{Mode, Selection, Timestamp};
use tokio::sync::mpsc;

use super::ending::Ending;
use super::framing::Framing;
use super::hints::Watching;
use super::reading::{Reading, Wanted};
use crate::runtime::ContainerId;
use group::{Group, Join};
pub(super) use seat::{Departure, Joined, Seat};

/// Followers that wait to be let in; more wait outside.
const WAITING: usize = 64;

/// The groups of a kubelet.
#[derive(Clone, Default)]
pub(super) struct Hub {
    groups: Arc<Mutex<HashMap<ContainerId, Vec<Entry>>>>,
}

struct Entry {
    wanted: Shareable,
    door: mpsc::Sender<Join>,
}

/// Where a follower's log comes from, and when it ends.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) ending: Ending,
    pub(super) watching: Watching,
}

/// What all members of a group want of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shareable(Selection, Framing);

impl Shareable {
    /// What a follower has in common with others once it has caught up; `None` when it goes its own way: its log ends
    /// at a limit, it waits for a time to come, or it reads as Kubernetes does.
    pub(super) fn of(wanted: &Wanted, now: Timestamp) -> Option<Self> {
        let selection = &wanted.selection;
        let is_common = selection.follow
            && selection.mode == Mode::Exact
            && selection.until.is_none()
            && selection.limit_bytes.is_none()
            && selection.since.is_none_or(|since| since <= now);
        is_common.then(|| {
            let shared = Selection { since: None, tail: None, after: None, ..selection.clone() };
            Shareable(shared, wanted.framing)
        })
    }
}

impl Hub {
    /// Joins the group of a log; the first member founds it.
    pub(super) async fn join(&self, wanted: &Shareable, source: &Source, reading: Reading) -> Joined {
        let (mut join, joined) = Join::new(reading);
        // A group may end just when somebody comes: the next one is founded.
        while let Err(mpsc::error::SendError(back)) = self.door(wanted, source).send(join).await {
            join = back;
        }
        joined.await.unwrap_or(Joined::Lost)
    }

    /// Where those who want this are let in.
    fn door(&self, wanted: &Shareable, source: &Source) -> mpsc::Sender<Join> {
        let mut groups = self.groups.lock();
        let entries = groups.entry(source.ending.instance.clone()).or_default();
        if let Some(entry) = entries.iter().find(|entry| entry.wanted == *wanted && !entry.door.is_closed()) {
            return entry.door.clone();
        }
        let (door, joins) = mpsc::channel(WAITING);
        entries.push(Entry { wanted: wanted.clone(), door: door.clone() });
        tokio::spawn(self.clone().keep(source.clone(), joins));
        door
    }

    /// Runs a group to its end.
    async fn keep(self, source: Source, mut joins: mpsc::Receiver<Join>) {
        let instance = source.ending.instance.clone();
        if let Some(first) = joins.recv().await {
            Group::found(source, first, &mut joins).await;
        }
        joins.close();
        while let Some(join) = joins.recv().await {
            join.refuse();
        }
        let mut groups = self.groups.lock();
        if let Some(entries) = groups.get_mut(&instance) {
            entries.retain(|entry| !entry.door.is_closed());
            if entries.is_empty() {
                groups.remove(&instance);
            }
        }
    }
}
