//! Which thresholds are crossed, for how long, and what the node says about it. Pure, but for the board that shows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Eviction, EvictionThreshold, Signal};

/// What presses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

impl Pressure {
    /// The node's conditions that hold.
    pub(crate) fn conditions(self) -> Vec<&'static str> {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")];
        all.into_iter().filter(|(presses, _)| *presses).map(|(_, name)| name).collect()
    }

    fn place(&mut self, signal: Signal) -> &mut bool {
        match signal {
            Signal::MemoryAvailable => &mut self.memory,
            Signal::PidAvailable => &mut self.pids,
            Signal::NodefsAvailable
            | Signal::NodefsInodesFree
            | Signal::ImagefsAvailable
            | Signal::ImagefsInodesFree => &mut self.disk,
        }
    }
}

/// Where everybody sees what presses.
#[derive(Clone, Default)]
pub(crate) struct Pressures(Arc<watch::Sender<Pressure>>);

impl Pressures {
    pub(crate) fn now(&self) -> Pressure {
        *self.0.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Pressure> {
        self.0.subscribe()
    }

    pub(super) fn set(&self, pressure: Pressure) {
        self.0.send_if_modified(|old| std::mem::replace(old, pressure) != pressure);
    }
}

/// What is left of something, and how much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) left: u64,
    pub(super) all: u64,
}

/// What was seen. A signal that is missing could not be seen.
pub(super) type Observations = BTreeMap<Signal, Observation>;

/// What follows from a look.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    /// What the node says.
    pub(super) pressure: Pressure,
    /// Thresholds for which something has to be done now, the most urgent first.
    pub(super) due: Vec<EvictionThreshold>,
}

/// Looks, and remembers: what presses goes on to for a while (`evictionPressureTransitionPeriod`), so that it does not come
/// and go.
pub(super) struct Gauge {
    thresholds: Vec<EvictionThreshold>,
    transition: Duration,
    /// Since when thresholds are crossed, by their place.
    crossed: HashMap<usize, Instant>,
    /// Those for which something had to be done at the last look: they hold until enough is given back.
    met: Vec<usize>,
    /// When a threshold was crossed last, by signal.
    seen: BTreeMap<Signal, Instant>,
}

impl Gauge {
    pub(super) fn new(eviction: &Eviction) -> Self {
        Gauge {
            thresholds: eviction.thresholds.clone(),
            transition: eviction.pressure_transition_period,
            crossed: HashMap::new(),
            met: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn look(&mut self, observations: &Observations, now: Instant) -> Look {
        let crossed: Vec<usize> = (0..self.thresholds.len())
            .filter(|place| is_crossed(&self.thresholds[*place], observations, self.met.contains(place)))
            .collect();
        self.crossed =
            crossed.iter().map(|place| (*place, *self.crossed.get(place).unwrap_or(&now))).collect();
        self.met = crossed
            .iter()
            .copied()
            .filter(|place| now - self.crossed[place] >= self.thresholds[*place].grace)
            .collect();
        self.seen.extend(crossed.iter().map(|place| (self.thresholds[*place].signal, now)));
        let mut pressure = Pressure::default();
        for (signal, seen) in &self.seen {
            *pressure.place(*signal) |= *seen == now || now - *seen < self.transition;
        }
        Look { pressure, due: self.met.iter().map(|place| self.thresholds[*place]).collect() }
    }
}

/// Whether a threshold is crossed; with `reclaim`, whether too little was given back since.
pub(super) fn is_crossed(threshold: &EvictionThreshold, observations: &Observations, reclaim: bool) -> bool {
    let seen = observations.get(&threshold.signal);
    seen.is_some_and(|seen| threshold.is_crossed(seen.left, seen.all, reclaim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Threshold;

    fn threshold(signal: Signal, amount: u64, grace: u64, reclaim: Option<u64>) -> EvictionThreshold {
        EvictionThreshold {
            signal,
            value: Threshold::Amount(amount),
            grace: Duration::from_secs(grace),
            min_reclaim: reclaim.map(Threshold::Amount),
        }
    }

    fn gauge(thresholds: Vec<EvictionThreshold>, transition: u64) -> Gauge {
        Gauge::new(&Eviction {
            thresholds,
            pressure_transition_period: Duration::from_secs(transition),
            max_pod_grace_seconds: 0,
        })
    }

    /// Looks once a row: second, what is left of disk and memory; conditions and how many thresholds are due.
    fn check(mut gauge: Gauge, rows: &[(u64, u64, u64, &[&str], usize)]) {
        let start = Instant::now();
        for (second, disk, memory, conditions, due) in rows {
            let observations = Observations::from([
                (Signal::NodefsAvailable, Observation { left: *disk, all: 100 }),
                (Signal::MemoryAvailable, Observation { left: *memory, all: 100 }),
            ]);
            let look = gauge.look(&observations, start + Duration::from_secs(*second));
            assert_eq!(look.pressure.conditions(), *conditions, "second {second}");
            assert_eq!(look.due.len(), *due, "second {second}");
        }
    }

    #[test]
    fn pressure_goes_on_for_a_while() {
        let hard = gauge(vec![threshold(Signal::NodefsAvailable, 10, 0, None)], 60);
        let pressed: &[&str] = &["DiskPressure"];
        check(
            hard,
            &[(0, 10, 0, &[], 0), (1, 9, 0, pressed, 1), (2, 10, 0, pressed, 0), (61, 10, 0, &[], 0)],
        );
        let short = gauge(vec![threshold(Signal::NodefsAvailable, 10, 0, None)], 0);
        check(short, &[(0, 9, 0, pressed, 1), (1, 10, 0, &[], 0)]);
    }

    #[test]
    fn a_soft_threshold_waits_for_its_grace_period() {
        let soft = gauge(vec![threshold(Signal::MemoryAvailable, 10, 30, None)], 0);
        let pressed: &[&str] = &["MemoryPressure"];
        check(
            soft,
            &[
                (0, 0, 9, pressed, 0),
                (29, 0, 9, pressed, 0),
                (30, 0, 9, pressed, 1),
                (31, 0, 10, &[], 0),
                (32, 0, 9, pressed, 0),
            ],
        );
    }

    #[test]
    fn enough_has_to_be_given_back_and_memory_comes_first() {
        let thresholds = vec![
            threshold(Signal::MemoryAvailable, 10, 0, None),
            threshold(Signal::NodefsAvailable, 10, 0, Some(5)),
        ];
        check(
            gauge(thresholds.clone(), 0),
            &[
                (0, 12, 50, &[], 0),
                (1, 9, 50, &["DiskPressure"], 1),
                (2, 14, 50, &["DiskPressure"], 1),
                (3, 15, 50, &[], 0),
                (4, 14, 50, &[], 0),
            ],
        );
        let both = gauge(thresholds, 0).look(
            &Observations::from([
                (Signal::NodefsAvailable, Observation { left: 0, all: 100 }),
                (Signal::MemoryAvailable, Observation { left: 0, all: 100 }),
            ]),
            Instant::now(),
        );
        assert_eq!(both.pressure.conditions(), ["MemoryPressure", "DiskPressure"]);
        assert_eq!(both.due[0].signal, Signal::MemoryAvailable);
        assert_eq!(
            gauge(vec![threshold(Signal::PidAvailable, 9, 0, None)], 0)
                .look(&Observations::new(), Instant::now())
                .due,
            []
        );
    }
}
