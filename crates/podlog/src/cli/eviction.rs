//! Flags of `podlog kubelet` about what happens when the node runs out of something.

use serde_json::{Value, json};

/// What happens when the node runs out of something.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Eviction")]
pub(super) struct EvictionArgs {
    /// What must be left, else pods are evicted at once: `memory.available<100Mi,nodefs.available<10%`. Empty is nothing.
    #[arg(long, value_name = "THRESHOLDS", value_parser = thresholds)]
    eviction_hard: Option<Value>,
    /// What should be left, else pods are evicted after --eviction-soft-grace-period.
    #[arg(long, value_name = "THRESHOLDS", value_parser = thresholds)]
    eviction_soft: Option<Value>,
    /// For how long less may be left: `memory.available=1m30s`.
    #[arg(long, value_name = "TIMES", value_parser = amounts)]
    eviction_soft_grace_period: Option<Value>,
    /// How much more than a threshold is made free: `nodefs.available=500Mi`.
    #[arg(long, value_name = "AMOUNTS", value_parser = amounts)]
    eviction_minimum_reclaim: Option<Value>,
    /// Longest grace period in seconds of pods that --eviction-soft evicts; below zero it is their own [default: 0].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    eviction_max_pod_grace_period: Option<i32>,
    /// For how long the node reports pressure after it was last seen [default: 5m].
    #[arg(long, value_name = "DURATION")]
    eviction_pressure_transition_period: Option<String>,
    /// How full, in percent, the disk of images may be before unused ones are removed; 100 is never [default: 85].
    #[arg(long, value_name = "PERCENT")]
    image_gc_high_threshold: Option<i32>,
    /// How full it may still be afterwards [default: 80].
    #[arg(long, value_name = "PERCENT")]
    image_gc_low_threshold: Option<i32>,
    /// How old an image is at least when it is removed [default: 2m].
    #[arg(long, value_name = "DURATION")]
    minimum_image_ttl_duration: Option<String>,
    /// How many ended instances of each container are kept beside the newest; below zero all [default: 1].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    maximum_dead_containers_per_container: Option<i32>,
    /// How many of all containers; below zero there is no limit [default: -1].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    maximum_dead_containers: Option<i32>,
    /// How old one is at least when it is removed [default: 0s].
    #[arg(long, value_name = "DURATION")]
    minimum_container_ttl_duration: Option<String>,
}

impl EvictionArgs {
    /// Fields of the configuration, and what takes their place.
    pub(super) fn overrides(&self) -> [(&'static str, Option<Value>); 12] {
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let number = |value: Option<i32>| value.map(|value| json!(value));
        [
            ("evictionHard", self.eviction_hard.clone()),
            ("evictionSoft", self.eviction_soft.clone()),
            ("evictionSoftGracePeriod", self.eviction_soft_grace_period.clone()),
            ("evictionMinimumReclaim", self.eviction_minimum_reclaim.clone()),
            ("evictionMaxPodGracePeriod", number(self.eviction_max_pod_grace_period)),
            ("evictionPressureTransitionPeriod", text(&self.eviction_pressure_transition_period)),
            ("imageGCHighThresholdPercent", number(self.image_gc_high_threshold)),
            ("imageGCLowThresholdPercent", number(self.image_gc_low_threshold)),
            ("imageMinimumGCAge", text(&self.minimum_image_ttl_duration)),
            ("maximumDeadContainersPerContainer", number(self.maximum_dead_containers_per_container)),
            ("maximumDeadContainers", number(self.maximum_dead_containers)),
            ("minimumContainerTTLDuration", text(&self.minimum_container_ttl_duration)),
        ]
    }
}

fn thresholds(text: &str) -> Result<Value, String> {
    pairs(text, '<')
}

fn amounts(text: &str) -> Result<Value, String> {
    pairs(text, '=')
}

/// Signals and what is said about them, as the configuration has it.
fn pairs(text: &str, sign: char) -> Result<Value, String> {
    let mut map = serde_json::Map::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (signal, amount) =
            part.split_once(sign).ok_or_else(|| format!("{part:?} is no signal{sign}amount"))?;
        map.insert(signal.trim().to_owned(), amount.trim().into());
    }
    Ok(map.into())
}
