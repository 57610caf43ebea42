//! How many requests are answered at once (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use podlog_api::{RequestInfo, UserInfo};

use crate::config::RequestLimits;

/// Requests at once, of those that do not last.
pub(crate) struct InFlight {
    reading: Arc<Slots>,
    mutating: Arc<Slots>,
}

/// One request that is being answered; it counts until this is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    user: String,
}

/// There are too many already.
#[derive(Debug)]
pub(crate) struct TooMany;

struct Slots {
    /// 0 for no limit.
    limit: usize,
    /// By user.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_user: HashMap<String, usize>,
}

impl InFlight {
    pub(crate) fn new(limits: &RequestLimits) -> Self {
        let slots = |limit| Arc::new(Slots { limit, taken: Mutex::default() });
        InFlight { reading: slots(limits.max_in_flight), mutating: slots(limits.max_mutating_in_flight) }
    }

    /// A place for a request; `None` for those that are not counted.
    ///
    /// # Errors
    /// When all places are taken, or so many by the same user that others would have to wait for one of them.
    pub(crate) fn enter(&self, user: &UserInfo, info: &RequestInfo) -> Result<Option<Slot>, TooMany> {
        if info.is_long_running() || user.is_in(UserInfo::MASTERS) {
            return Ok(None);
        }
        let reads = matches!(info.attributes.verb(), "get" | "list" | "watch" | "head");
        let slots = if reads { &self.reading } else { &self.mutating };
        slots.take(&user.username)
    }
}

impl Slots {
    fn take(self: &Arc<Self>, user: &str) -> Result<Option<Slot>, TooMany> {
        if self.limit == 0 {
            return Ok(None);
        }
        let mut taken = self.taken.lock();
        let own = taken.by_user.get(user).copied().unwrap_or_default();
        if taken.total >= self.limit || own >= most_for_one(self.limit) {
            return Err(TooMany);
        }
        taken.total += 1;
        taken.by_user.insert(user.to_owned(), own + 1);
        Ok(Some(Slot { slots: self.clone(), user: user.to_owned() }))
    }
}

/// A quarter of the places is out of reach for whoever has all others.
fn most_for_one(limit: usize) -> usize {
    limit - limit / 4
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        taken.total -= 1;
        if let Some(own) = taken.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each() {
        let limits =
            RequestLimits { max_in_flight: 4, max_mutating_in_flight: 1, ..RequestLimits::default() };
        let in_flight = InFlight::new(&limits);
        let user = |name: &str, group: &str| UserInfo {
            username: name.into(),
            groups: vec![group.into()],
            ..UserInfo::default()
        };
        let (ann, bob, root) = (user("ann", ""), user("bob", ""), user("root", UserInfo::MASTERS));
        let info = |method: Method, target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            RequestInfo::parse(&method, path, query)
        };
        let list = info(Method::GET, "/api/v1/pods");
        let create = info(Method::POST, "/api/v1/namespaces/x/pods");
        let mut held: Vec<_> = (0..3).map(|_| in_flight.enter(&ann, &list).unwrap().unwrap()).collect();
        assert!(in_flight.enter(&ann, &list).is_err(), "the last place is not for the same user");
        held.push(in_flight.enter(&bob, &list).unwrap().unwrap());
        assert!(in_flight.enter(&bob, &list).is_err(), "full");
        // Neither masters nor what lasts is counted; writes have places of their own.
        assert!(in_flight.enter(&root, &list).unwrap().is_none());
        for lasting in ["/api/v1/pods?watch=true", "/api/v1/namespaces/x/pods/p/log"] {
            assert!(in_flight.enter(&ann, &info(Method::GET, lasting)).unwrap().is_none());
        }
        let write = in_flight.enter(&ann, &create).unwrap().unwrap();
        assert!(in_flight.enter(&bob, &create).is_err());
        drop((write, held));
        assert!(in_flight.enter(&bob, &create).is_ok() && in_flight.enter(&ann, &list).is_ok());
        assert!(in_flight.reading.taken.lock().by_user.len() <= 1, "nobody is remembered for ever");
        let unlimited = InFlight::new(&RequestLimits { max_in_flight: 0, ..RequestLimits::default() });
        assert!(unlimited.enter(&ann, &list).unwrap().is_none());
    }
}
