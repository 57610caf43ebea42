//! Thresholds below which the node is under pressure: `evictionHard`.

use std::collections::BTreeMap;

use podlog_api::quantity::Quantity;

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// In the signal's unit: bytes, inodes, processes.
    Amount(u64),
    /// In hundredths of what there is.
    Percent(f64),
}

impl Threshold {
    /// Whether `left` of `all` is less than that.
    pub fn is_crossed(self, left: u64, all: u64) -> bool {
        match self {
            Threshold::Amount(amount) => left < amount,
            Threshold::Percent(percent) => (left as f64) < all as f64 * percent / 100.0,
        }
    }

    /// `100Mi`, `10%`.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent)).map(Threshold::Percent)
            }
            None => u64::try_from(Quantity::parse(text)?.value()).ok().map(Threshold::Amount),
        }
    }
}

/// Signals and their thresholds; a signal without one never presses.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionThresholds {
    /// Memory that is free or can be made so. Default 100 Mi.
    pub memory_available: Option<Threshold>,
    /// Space on the file system of the kubelet. Default 10 %, and 1 GiB is enough whatever its share.
    pub nodefs_available: Option<Threshold>,
    /// Inodes there. Default 5 %.
    pub nodefs_inodes_free: Option<Threshold>,
    /// Processes that can still be made. Default 10 %.
    pub pid_available: Option<Threshold>,
    /// Whether a gibibyte of space is enough, whatever its share.
    pub is_gibibyte_enough: bool,
}

impl Default for EvictionThresholds {
    fn default() -> Self {
        EvictionThresholds {
            memory_available: Some(Threshold::Amount(100 << 20)),
            nodefs_available: Some(Threshold::Percent(10.0)),
            nodefs_inodes_free: Some(Threshold::Percent(5.0)),
            pid_available: Some(Threshold::Percent(10.0)),
            is_gibibyte_enough: true,
        }
    }
}

impl EvictionThresholds {
    /// Those of a configuration, which take the place of all defaults. The error is a text.
    ///
    /// # Errors
    /// When a signal is unknown or its threshold is none.
    pub(super) fn parse(signals: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut parsed = EvictionThresholds {
            memory_available: None,
            nodefs_available: None,
            nodefs_inodes_free: None,
            pid_available: None,
            is_gibibyte_enough: false,
        };
        for (signal, text) in signals {
            let threshold = Threshold::parse(text)
                .ok_or_else(|| format!("invalid eviction threshold {text:?} of {signal}"))?;
            let place = match signal.as_str() {
                "memory.available" => &mut parsed.memory_available,
                "nodefs.available" => &mut parsed.nodefs_available,
                "nodefs.inodesFree" => &mut parsed.nodefs_inodes_free,
                "pid.available" => &mut parsed.pid_available,
                // Images are the runtime's, and so is their file system.
                "imagefs.available"
                | "imagefs.inodesFree"
                | "containerfs.available"
                | "containerfs.inodesFree" => {
                    continue;
                }
                _ => return Err(format!("unsupported eviction signal {signal}")),
            };
            *place = Some(threshold);
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_amounts_or_shares() {
        for (text, left, all, crossed) in [
            ("100Mi", 100 << 20, 1 << 40, Some(false)),
            ("100Mi", (100 << 20) - 1, 1 << 40, Some(true)),
            ("10%", 9, 100, Some(true)),
            ("10%", 10, 100, Some(false)),
            ("0%", 0, 100, Some(false)),
            ("7.5%", 7, 100, Some(true)),
            ("x", 0, 0, None),
            ("110%", 0, 0, None),
            ("-1", 0, 0, None),
        ] {
            let threshold = Threshold::parse(text);
            assert_eq!(threshold.map(|threshold| threshold.is_crossed(left, all)), crossed, "{text}");
        }
    }

    #[test]
    fn what_is_given_takes_the_place_of_all_defaults() {
        let parse = |pairs: &[(&str, &str)]| {
            let signals = pairs.iter().map(|(signal, text)| ((*signal).to_owned(), (*text).to_owned()));
            EvictionThresholds::parse(&signals.collect())
        };
        let parsed = parse(&[("memory.available", "1Gi"), ("imagefs.available", "15%")]).unwrap();
        assert_eq!(parsed.memory_available, Some(Threshold::Amount(1 << 30)));
        assert_eq!((parsed.nodefs_available, parsed.is_gibibyte_enough), (None, false));
        assert_eq!(parse(&[("disk", "1")]).unwrap_err(), "unsupported eviction signal disk");
        let text = "invalid eviction threshold \"all\" of pid.available";
        assert_eq!(parse(&[("pid.available", "all")]).unwrap_err(), text);
    }
}
