//! Who is inside. When there are as many connections as there may be, one that nobody would miss makes room for a newcomer.
//!
//! Go's servers know no limit, so that a crowd takes all the files of the process; hyper leaves the matter to whoever accepts.
//! nginx closes those that have been idle for longest (`ngx_drain_connections`), which is what this does, and strangers before others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::requests::Requests;
use crate::metrics::{Counters, Registry};

/// Between looks for somebody who can go while everybody is being served.
const LOOK: Duration = Duration::from_millis(100);
/// Between words about a crowd in the log.
const SILENCE: Duration = Duration::from_secs(60);

/// The connections of a server.
pub(super) struct Room {
    slots: Arc<Semaphore>,
    guests: Mutex<Guests>,
    closed: Counters,
    warned: Mutex<Option<Instant>>,
}

/// A place in it, as long as there is a connection.
pub(super) struct Seat {
    room: Arc<Room>,
    pub(super) guest: Arc<Guest>,
    _slot: OwnedSemaphorePermit,
}

/// What is known of a connection.
pub(super) struct Guest {
    number: u64,
    origin: IpAddr,
    is_known: AtomicBool,
    /// Requests that have no answer yet.
    working: AtomicUsize,
    /// Requests whose answers are not through.
    pub(super) active: Arc<Requests>,
    leave: Notify,
}

/// A guest of whom it is not known yet on whose behalf it comes; goes with its requests.
#[derive(Clone)]
pub(crate) struct Stranger {
    room: Arc<Room>,
    guest: Arc<Guest>,
}

/// A request that has no answer yet.
pub(super) struct Working<'a>(&'a AtomicUsize);

impl Room {
    pub(super) fn new(size: usize, metrics: &Registry) -> Self {
        let closed = metrics.counters(
            "podlog_connections_closed_total",
            "Connections that were closed to make room for others, by whether their callers were unknown, or known and idle.",
            &["caller"],
        );
        let slots = Arc::new(Semaphore::new(size));
        Room { slots, guests: Mutex::default(), closed, warned: Mutex::default() }
    }

    /// A place for a newcomer, at somebody else's cost where all are taken. Waits while everybody is being served.
    pub(super) async fn seat(self: &Arc<Self>, address: IpAddr) -> Seat {
        let _slot = self.slot().await;
        let guest = self.guests.lock().arrives(origin(address));
        Seat { room: self.clone(), guest, _slot }
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                return slot;
            }
            self.warn();
            self.ask_one_to_leave();
            // Whoever leaves is gone in a moment; where nobody could, somebody may later.
            if let Ok(Ok(slot)) = timeout(LOOK, self.slots.clone().acquire_owned()).await {
                return slot;
            }
        }
    }

    fn ask_one_to_leave(&self) {
        let leaver = self.guests.lock().leaver();
        if let Some(guest) = leaver {
            let caller = if guest.is_known() { "known" } else { "unknown" };
            self.closed.with(&[caller]).increment();
            guest.leave.notify_one();
        }
    }

    fn warn(&self) {
        let now = Instant::now();
        let mut warned = self.warned.lock();
        if warned.is_none_or(|last| now - last >= SILENCE) {
            *warned = Some(now);
            tracing::warn!("connection limit reached, those that are not used are closed for newcomers");
        }
    }
}

impl Seat {
    /// The guest on its requests, as long as its callers are unknown.
    pub(super) fn stranger(&self) -> Option<Stranger> {
        let stranger = || Stranger { room: self.room.clone(), guest: self.guest.clone() };
        (!self.guest.is_known()).then(stranger)
    }

    /// From now on, nobody is asked to leave.
    pub(super) fn stays(&self) {
        self.room.guests.lock().remove(&self.guest);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stays();
    }
}

impl Stranger {
    /// It comes on behalf of somebody who is known, or is served like one.
    pub(crate) fn is_introduced(&self) {
        let mut guests = self.room.guests.lock();
        // One that is about to leave is in neither place.
        if guests.remove(&self.guest) {
            guests.known.insert(self.guest.number, self.guest.clone());
        }
        self.guest.is_known.store(true, Ordering::SeqCst);
    }
}

impl Guest {
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::SeqCst)
    }

    /// Whether it has nothing to lose: no request without an answer, and where its callers are known, none whose answer is on
    /// its way. (A stranger who does not read a refusal could stay for ever.)
    pub(super) fn can_leave(&self) -> bool {
        let is_working = self.working.load(Ordering::SeqCst) > 0;
        !is_working && (!self.is_known() || self.active.count() == 0)
    }

    /// Counts a request until what it returns is dropped.
    pub(super) fn works(&self) -> Working<'_> {
        self.working.fetch_add(1, Ordering::SeqCst);
        Working(&self.working)
    }

    /// Resolves when it is to leave.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Who could be asked to leave.
#[derive(Default)]
struct Guests {
    /// How many there ever were.
    arrived: u64,
    /// Whose callers are unknown, by where they come from and in the order of their arrival.
    strangers: HashMap<IpAddr, BTreeMap<u64, Arc<Guest>>>,
    /// The same, the largest crowd last, and of those of one size the one whose first came first.
    crowds: BTreeSet<Crowd>,
    known: BTreeMap<u64, Arc<Guest>>,
}

/// How many, the number of the first, and where they come from.
type Crowd = (usize, Reverse<u64>, IpAddr);

impl Guests {
    fn arrives(&mut self, origin: IpAddr) -> Arc<Guest> {
        let guest = Arc::new(Guest {
            number: self.arrived,
            origin,
            is_known: AtomicBool::new(false),
            working: AtomicUsize::new(0),
            active: Arc::default(),
            leave: Notify::new(),
        });
        self.arrived += 1;
        self.change_crowd(origin, |crowd| crowd.insert(guest.number, guest.clone()));
        guest
    }

    /// Says whether it was there.
    fn remove(&mut self, guest: &Guest) -> bool {
        self.known.remove(&guest.number).is_some()
            || self.change_crowd(guest.origin, |crowd| crowd.remove(&guest.number)).is_some()
    }

    /// Who would be missed least, no longer among the others: of strangers the oldest of the largest crowd, then the oldest of all
    /// that are idle.
    fn leaver(&mut self) -> Option<Arc<Guest>> {
        let crowds = self.crowds.iter().rev().filter_map(|(.., origin)| self.strangers.get(origin));
        let strangers = crowds.flat_map(BTreeMap::values);
        let leaver = strangers.chain(self.known.values()).find(|guest| guest.can_leave())?.clone();
        self.remove(&leaver);
        Some(leaver)
    }

    fn change_crowd<T>(
        &mut self,
        origin: IpAddr,
        change: impl FnOnce(&mut BTreeMap<u64, Arc<Guest>>) -> T,
    ) -> T {
        let crowd = self.strangers.entry(origin).or_default();
        if let Some(rank) = rank(origin, crowd) {
            self.crowds.remove(&rank);
        }
        let changed = change(crowd);
        match rank(origin, crowd) {
            Some(rank) => drop(self.crowds.insert(rank)),
            None => drop(self.strangers.remove(&origin)),
        }
        changed
    }
}

fn rank(origin: IpAddr, crowd: &BTreeMap<u64, Arc<Guest>>) -> Option<Crowd> {
    let (first, _) = crowd.first_key_value()?;
    Some((crowd.len(), Reverse(*first), origin))
}

/// Addresses that one client has at its disposal count as one: 64 bits of an address of IPv6.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of guests in the order in which they would leave.
    fn order(guests: &mut Guests) -> Vec<u64> {
        std::iter::from_fn(|| guests.leaver()).map(|guest| guest.number).collect()
    }

    fn guests(addresses: &[&str]) -> (Guests, Vec<Arc<Guest>>) {
        let mut guests = Guests::default();
        let all = addresses.iter().map(|address| guests.arrives(origin(address.parse().unwrap())));
        let all = all.collect();
        (guests, all)
    }

    #[test]
    fn the_oldest_of_the_largest_crowd_leaves_first() {
        let rows: &[(&[&str], &[u64])] = &[
            (&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &[0, 1, 2]),
            (&["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.1"], &[0, 2, 1, 3, 4]),
            (&["10.0.0.1", "::ffff:10.0.0.2", "10.0.0.2"], &[1, 0, 2]),
            (&["10.0.0.1", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:1:2::"], &[1, 0, 2, 3]),
        ];
        for (addresses, expected) in rows {
            let (mut guests, _) = guests(addresses);
            assert_eq!(order(&mut guests), *expected, "{addresses:?}");
            assert!(guests.strangers.is_empty() && guests.crowds.is_empty() && guests.known.is_empty());
        }
    }

    #[test]
    fn who_is_being_served_stays() {
        let (waiting, all) = guests(&["10.0.0.1"; 6]);
        let room = Arc::new(Room { guests: Mutex::new(waiting), ..Room::new(6, &Registry::new()) });
        for guest in &all[..3] {
            Stranger { room: room.clone(), guest: guest.clone() }.is_introduced();
        }
        let _answer = super::super::requests::Counted::new(&all[0].active);
        let _working = (all[1].works(), all[4].works());
        let _unread_by_a_stranger = super::super::requests::Counted::new(&all[3].active);
        assert_eq!(order(&mut room.guests.lock()), [3, 5, 2]);
    }
}
