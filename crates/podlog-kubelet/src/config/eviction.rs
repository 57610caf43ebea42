//! When pods are evicted: `evictionHard`, `evictionSoft` and what belongs to them.
//!
//! Rules and texts as `pkg/kubelet/eviction/helpers.go`.

use std::collections::BTreeMap;
use std::time::Duration;

use podlog_api::quantity::Quantity;

use crate::go;

/// Space that is enough whatever its share, where nothing is configured: a tenth of a large disk is a lot of room.
const ENOUGH_BYTES: u64 = 1 << 30;

/// Signals and what was given for them, as the configuration has them.
pub(super) type Statements = BTreeMap<String, String>;

/// What may run out. In the order in which it is taken care of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Memory that is free or can be made so, in bytes.
    MemoryAvailable,
    /// Space on the file system of the kubelet, in bytes.
    NodefsAvailable,
    /// Inodes there.
    NodefsInodesFree,
    /// Space on the file system of images, in bytes.
    ImagefsAvailable,
    /// Inodes there.
    ImagefsInodesFree,
    /// Processes that can still be made.
    PidAvailable,
}

impl Signal {
    const ALL: [Signal; 6] = [
        Signal::MemoryAvailable,
        Signal::NodefsAvailable,
        Signal::NodefsInodesFree,
        Signal::ImagefsAvailable,
        Signal::ImagefsInodesFree,
        Signal::PidAvailable,
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodefsAvailable => "nodefs.available",
            Signal::NodefsInodesFree => "nodefs.inodesFree",
            Signal::ImagefsAvailable => "imagefs.available",
            Signal::ImagefsInodesFree => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    /// `Ok(None)` for signals that exist upstream and are never looked at here: there is no cgroup around all pods, and no
    /// runtime that keeps writable layers apart from images.
    fn parse(name: &str) -> Result<Option<Self>, String> {
        if let Some(signal) = Self::ALL.into_iter().find(|signal| signal.name() == name) {
            return Ok(Some(signal));
        }
        match name {
            "allocatableMemory.available" | "containerfs.available" | "containerfs.inodesFree" => Ok(None),
            _ => Err(format!("unsupported eviction signal {name}")),
        }
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// In the signal's unit: bytes, inodes, processes.
    Amount(u64),
    /// In hundredths of what there is.
    Percent(f64),
    /// In hundredths of what there is, and never more than so much.
    PercentAtMost(f64, u64),
}

impl Threshold {
    /// What that is of `all`.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Threshold::Amount(amount) => amount,
            Threshold::Percent(percent) => (all as f64 * percent / 100.0) as u64,
            Threshold::PercentAtMost(percent, most) => Threshold::Percent(percent).of(all).min(most),
        }
    }

    /// `100Mi`, `10%`.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|share: &f64| share.is_finite()).map(Threshold::Percent)
            }
            None => {
                Quantity::parse(text).map(|amount| Threshold::Amount(amount.value().max(0).unsigned_abs()))
            }
        }
    }
}

/// A signal, how much must be left of it, and for how long it may be less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionThreshold {
    /// Which.
    pub signal: Signal,
    /// How much must be left.
    pub value: Threshold,
    /// How long it may be less before a pod has to go; zero is not at all (`evictionHard`).
    pub grace: Duration,
    /// How much more than `value` must be left before all is well again (`evictionMinimumReclaim`).
    pub min_reclaim: Option<Threshold>,
}

impl EvictionThreshold {
    /// Whether less than `value` is left; with `reclaim`, less than that and `min_reclaim`.
    pub fn is_crossed(&self, left: u64, all: u64, reclaim: bool) -> bool {
        left < if reclaim { self.wanted(all) } else { self.value.of(all) }
    }

    /// How much of `all` must be left for all to be well again.
    pub fn wanted(&self, all: u64) -> u64 {
        let more = self.min_reclaim.map_or(0, |more| more.of(all));
        self.value.of(all).saturating_add(more)
    }

    /// Whether it counts at once.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// When pods are evicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    /// Every threshold, by signal.
    pub thresholds: Vec<EvictionThreshold>,
    /// For how long pressure is reported after it was last seen. Default 5 m.
    pub pressure_transition_period: Duration,
    /// Longest grace period in seconds of a pod that a soft threshold evicts, default 0; below zero it is the pod's own.
    pub max_pod_grace_seconds: i64,
}

impl Default for Eviction {
    fn default() -> Self {
        let space = |percent| Threshold::PercentAtMost(percent, ENOUGH_BYTES);
        let thresholds = vec![
            hard(Signal::MemoryAvailable, Threshold::Amount(100 << 20)),
            hard(Signal::NodefsAvailable, space(10.0)),
            hard(Signal::NodefsInodesFree, Threshold::Percent(5.0)),
            hard(Signal::ImagefsAvailable, space(15.0)),
            hard(Signal::ImagefsInodesFree, Threshold::Percent(5.0)),
        ];
        Eviction {
            thresholds,
            pressure_transition_period: Duration::from_secs(300),
            max_pod_grace_seconds: 0,
        }
    }
}

fn hard(signal: Signal, value: Threshold) -> EvictionThreshold {
    EvictionThreshold { signal, value, grace: Duration::ZERO, min_reclaim: None }
}

/// What a configuration says about thresholds.
#[derive(Default)]
pub(super) struct Given {
    pub(super) hard: Option<Statements>,
    pub(super) soft: Statements,
    pub(super) soft_grace: Statements,
    pub(super) min_reclaim: Statements,
    /// Whether defaults stay for signals that `hard` does not name (`mergeDefaultEvictionSettings`).
    pub(super) merge: bool,
}

/// The thresholds of a configuration. Given hard ones take the place of all defaults, unless both are to be merged.
///
/// # Errors
/// Upstream's text, when a signal is unknown or its threshold is none.
pub(super) fn thresholds(given: &Given) -> Result<Vec<EvictionThreshold>, String> {
    let named = given.hard.clone().unwrap_or_default();
    let mut all = statements(&named)?;
    if given.hard.is_none() || given.merge {
        let defaults = Eviction::default().thresholds.into_iter();
        all.extend(defaults.filter(|threshold| !named.contains_key(threshold.signal.name())));
    }
    let graces = graces(&given.soft_grace)?;
    for mut soft in statements(&given.soft)? {
        let name = soft.signal.name();
        soft.grace = *graces.get(name).ok_or_else(|| {
            format!("grace period must be specified for the soft eviction threshold {name}")
        })?;
        all.push(soft);
    }
    let reclaims = reclaims(&given.min_reclaim)?;
    for threshold in &mut all {
        threshold.min_reclaim = reclaims.get(threshold.signal.name()).copied();
    }
    all.sort_by_key(|threshold| threshold.signal);
    Ok(all)
}

fn statements(given: &Statements) -> Result<Vec<EvictionThreshold>, String> {
    let mut parsed = Vec::new();
    for (name, text) in given {
        let Some(signal) = Signal::parse(name)? else { continue };
        if matches!(text.as_str(), "0%" | "100%") {
            continue;
        }
        let value = Threshold::parse(text).ok_or_else(|| no_threshold(name, text))?;
        match value {
            Threshold::Percent(share) if share < 0.0 => {
                return Err(format!("eviction percentage threshold {name} must be >= 0%: {text}"));
            }
            Threshold::Percent(share) if share > 100.0 => {
                return Err(format!("eviction percentage threshold {name} must be <= 100%: {text}"));
            }
            Threshold::Amount(0) => {
                return Err(format!("eviction threshold {name} must be positive: {text}"));
            }
            _ => parsed.push(hard(signal, value)),
        }
    }
    Ok(parsed)
}

fn no_threshold(name: &str, text: &str) -> String {
    format!("invalid eviction threshold {} of {name}", go::quote(text))
}

fn graces(given: &Statements) -> Result<BTreeMap<&str, Duration>, String> {
    let mut parsed = BTreeMap::new();
    for (name, text) in given {
        Signal::parse(name)?;
        let grace = go::parse_duration(text).ok_or_else(|| match text.starts_with('-') {
            true => format!("invalid eviction grace period specified: {text}, must be a positive value"),
            false => format!("time: invalid duration {}", go::quote(text)),
        })?;
        parsed.insert(name.as_str(), grace);
    }
    Ok(parsed)
}

fn reclaims(given: &Statements) -> Result<BTreeMap<&str, Threshold>, String> {
    let mut parsed = BTreeMap::new();
    for (name, text) in given {
        Signal::parse(name)?;
        let value = Threshold::parse(text).ok_or_else(|| no_threshold(name, text))?;
        if matches!(value, Threshold::Percent(share) if share <= 0.0) {
            return Err(format!("eviction percentage minimum reclaim {name} must be positive: {text}"));
        }
        if text.starts_with('-') {
            return Err(format!("negative eviction minimum reclaim specified for {name}"));
        }
        parsed.insert(name.as_str(), value);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Statements {
        pairs.iter().map(|(signal, text)| ((*signal).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn thresholds_are_amounts_or_shares() {
        let gib = 1 << 30;
        for (text, left, all, crossed) in [
            ("100Mi", 100 << 20, 1 << 40, true),
            ("100Mi", 100 << 20, 1 << 40, false),
            ("10%", 9, 100, true),
            ("10%", 10, 100, false),
            ("7.5%", 74, 1000, true),
            ("7.5%", 75, 1000, false),
        ] {
            let left = if text == "100Mi" && crossed { left - 1 } else { left };
            let threshold = hard(Signal::MemoryAvailable, Threshold::parse(text).unwrap());
            assert_eq!(threshold.is_crossed(left, all, false), crossed, "{text} {left}");
        }
        let usual = Eviction::default().thresholds[1];
        for (left, all, crossed) in
            [(20 * gib, 400 * gib, false), (gib / 2, 4 * gib, false), (gib / 2, 8 * gib, true)]
        {
            assert_eq!(usual.is_crossed(left, all, false), crossed, "{left} of {all}");
        }
        let reclaim = EvictionThreshold {
            min_reclaim: Some(Threshold::Amount(5)),
            ..hard(Signal::PidAvailable, Threshold::Percent(10.0))
        };
        assert_eq!([false, true].map(|more| reclaim.is_crossed(12, 100, more)), [false, true]);
    }

    #[test]
    fn what_is_given_takes_the_place_of_all_defaults() {
        let names = |given: &Given| -> Vec<_> {
            let names = thresholds(given).unwrap();
            names.iter().map(|threshold| (threshold.signal.name(), threshold.value)).collect()
        };
        assert_eq!(names(&Given::default()).len(), 5);
        let hard = Some(map(&[
            ("memory.available", "1Gi"),
            ("imagefs.available", "0%"),
            ("containerfs.available", "1%"),
        ]));
        let one = [("memory.available", Threshold::Amount(1 << 30))];
        assert_eq!(names(&Given { hard: hard.clone(), ..Given::default() }), one);
        let merged = names(&Given { hard, merge: true, ..Given::default() });
        assert_eq!((merged.len(), merged[0]), (4, one[0]));
        assert_eq!(names(&Given { hard: Some(map(&[])), ..Given::default() }), []);
    }

    #[test]
    fn soft_thresholds_have_a_grace_period() {
        let given = Given {
            hard: Some(map(&[])),
            soft: map(&[("nodefs.available", "2Gi")]),
            soft_grace: map(&[("nodefs.available", "1m30s")]),
            min_reclaim: map(&[("nodefs.available", "500Mi")]),
            ..Given::default()
        };
        let expected = EvictionThreshold {
            signal: Signal::NodefsAvailable,
            value: Threshold::Amount(2 << 30),
            grace: Duration::from_secs(90),
            min_reclaim: Some(Threshold::Amount(500 << 20)),
        };
        assert_eq!(thresholds(&given), Ok(vec![expected]));
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        let refused = |hard: &[(&str, &str)], soft: &[(&str, &str)], grace: &[(&str, &str)], text: &str| {
            let given =
                Given { hard: Some(map(hard)), soft: map(soft), soft_grace: map(grace), ..Given::default() };
            assert_eq!(thresholds(&given).unwrap_err(), text);
        };
        refused(&[("disk", "1")], &[], &[], "unsupported eviction signal disk");
        refused(&[("pid.available", "all")], &[], &[], "invalid eviction threshold \"all\" of pid.available");
        let text = "eviction percentage threshold nodefs.available must be <= 100%: 110%";
        refused(&[("nodefs.available", "110%")], &[], &[], text);
        refused(
            &[("pid.available", "-1")],
            &[],
            &[],
            "eviction threshold pid.available must be positive: -1",
        );
        let text = "grace period must be specified for the soft eviction threshold memory.available";
        refused(&[], &[("memory.available", "1Gi")], &[], text);
        let text = "invalid eviction grace period specified: -1s, must be a positive value";
        refused(&[], &[], &[("memory.available", "-1s")], text);
        let given = Given { min_reclaim: map(&[("nodefs.available", "0%")]), ..Given::default() };
        let text = "eviction percentage minimum reclaim nodefs.available must be positive: 0%";
        assert_eq!(thresholds(&given).unwrap_err(), text);
    }
}
