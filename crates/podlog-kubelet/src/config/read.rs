//! Typed access to the fields of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use podlog_api::quantity::Quantity;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Authentication, Authorization, AuthorizationMode, ChangeDetection, ConfigError, DeadContainers, Eviction,
    ImageGc, JournalFiles, eviction,
};
use crate::go;
use crate::runtime::LogPolicy;
use crate::runtime::log_policy::{parse_number, parse_policy};

#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, text: String) {
        self.0.push(format!("invalid configuration: {text}"));
    }

    pub(super) fn none(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(self.0)) }
    }
}

/// Typed access by path, with the path in every error.
pub(super) struct Fields<'a>(pub(super) &'a Value);

impl Fields<'_> {
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ConfigError> {
        let pointer = format!("/{}", path.replace('.', "/"));
        match self.0.pointer(&pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|error| ConfigError::Value { path: path.into(), why: error.to_string() }),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.get::<String>(path)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| ConfigError::Value {
            path: path.into(),
            why: format!("{}: {error}", go::quote(&text)),
        })
    }

    /// Zero is the default.
    pub(super) fn duration(&self, path: &str, default: Duration) -> Result<Duration, ConfigError> {
        let value = self.age(path, default)?;
        Ok(if value.is_zero() { default } else { value })
    }

    /// Zero is zero.
    pub(super) fn age(&self, path: &str, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = self.get::<String>(path)? else { return Ok(default) };
        go::parse_duration(&text).ok_or_else(|| ConfigError::Value {
            path: path.into(),
            why: format!("time: invalid duration {}", go::quote(&text)),
        })
    }

    pub(super) fn port(&self, problems: &mut Problems) -> Result<Option<u16>, ConfigError> {
        let Some(port) = self.get::<i64>("port")? else { return Ok(None) };
        let valid = u16::try_from(port).ok().filter(|port| *port > 0);
        if valid.is_none() && port != 0 {
            problems.add(format!("port (--port) {port} must be between 1 and 65535, inclusive"));
        }
        Ok(valid)
    }

    /// A path; empty is none.
    pub(super) fn path(&self, path: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.get::<PathBuf>(path)?.filter(|path| !path.as_os_str().is_empty()))
    }

    pub(super) fn eviction(&self, problems: &mut Problems) -> Result<Eviction, ConfigError> {
        let default = Eviction::default();
        let given = eviction::Given {
            hard: self.get("evictionHard")?,
            soft: self.get("evictionSoft")?.unwrap_or_default(),
            soft_grace: self.get("evictionSoftGracePeriod")?.unwrap_or_default(),
            min_reclaim: self.get("evictionMinimumReclaim")?.unwrap_or_default(),
            merge: self.get("mergeDefaultEvictionSettings")?.unwrap_or(false),
        };
        let thresholds = eviction::thresholds(&given).unwrap_or_else(|text| {
            problems.add(text);
            Vec::new()
        });
        let pressure_transition_period =
            self.duration("evictionPressureTransitionPeriod", default.pressure_transition_period)?;
        let max_pod_grace_seconds = self.get::<i32>("evictionMaxPodGracePeriod")?.map_or(0, i64::from);
        Ok(Eviction { thresholds, pressure_transition_period, max_pod_grace_seconds })
    }

    pub(super) fn image_gc(&self, problems: &mut Problems) -> Result<ImageGc, ConfigError> {
        let default = ImageGc::default();
        let percent = |path: &str, default: u8| -> Result<i32, ConfigError> {
            Ok(self.get::<i32>(path)?.unwrap_or_else(|| i32::from(default)))
        };
        let high = percent("imageGCHighThresholdPercent", default.high_percent)?;
        let low = percent("imageGCLowThresholdPercent", default.low_percent)?;
        let is_share = |share: i32| (0..=100).contains(&share);
        if !is_share(high) {
            problems.add(format!(
                "imageGCHighThresholdPercent (--image-gc-high-threshold) {high} must be between 0 and 100, inclusive"
            ));
        }
        if !is_share(low) {
            problems.add(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be between 0 and 100, inclusive"
            ));
        }
        if low >= high {
            problems.add(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than \
                 imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            ));
        }
        let maximum_age = self.duration("imageMaximumGCAge", Duration::ZERO)?;
        Ok(ImageGc {
            high_percent: u8::try_from(high).unwrap_or(default.high_percent),
            low_percent: u8::try_from(low).unwrap_or(default.low_percent),
            minimum_age: self.duration("imageMinimumGCAge", default.minimum_age)?,
            maximum_age: (!maximum_age.is_zero()).then_some(maximum_age),
        })
    }

    pub(super) fn dead_containers(&self) -> Result<DeadContainers, ConfigError> {
        let default = DeadContainers::default();
        // Below zero there is no limit.
        let limit = |path: &str, default: Option<usize>| -> Result<Option<usize>, ConfigError> {
            Ok(self.get::<i32>(path)?.map_or(default, |count| usize::try_from(count).ok()))
        };
        Ok(DeadContainers {
            per_container: limit("maximumDeadContainersPerContainer", default.per_container)?,
            total: limit("maximumDeadContainers", default.total)?,
            minimum_age: self.age("minimumContainerTTLDuration", default.minimum_age)?,
        })
    }

    pub(super) fn change_detection(&self) -> Result<ChangeDetection, ConfigError> {
        let path = "configMapAndSecretChangeDetectionStrategy";
        match self.get::<String>(path)?.as_deref() {
            None | Some("" | "Watch") => Ok(ChangeDetection::Watch),
            Some("Get" | "Cache") => Ok(ChangeDetection::Look),
            Some(other) => {
                let why = format!("unknown configmap and secret manager mode: {other}");
                Err(ConfigError::Value { path: path.into(), why })
            }
        }
    }

    pub(super) fn healthz_port(&self, problems: &mut Problems) -> Result<Option<u16>, ConfigError> {
        let Some(port) = self.get::<i64>("healthzPort")? else { return Ok(None) };
        let valid = u16::try_from(port).ok();
        if valid.is_none() {
            problems
                .add(format!("healthzPort (--healthz-port) {port} must be between 1 and 65535, inclusive"));
        }
        Ok(valid)
    }

    pub(super) fn pod_logs_dir(&self, problems: &mut Problems) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.get::<String>("podLogsDir")?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(&text);
        if !path.is_absolute() {
            problems.add(format!("pod logs path {} must be absolute path", go::quote(&text)));
        }
        if text != "/" && normalised(&text) != text {
            problems.add(format!("pod logs path {} must be normalized", go::quote(&text)));
        }
        if !text.is_ascii() {
            problems.add("pod logs path must contains ASCII characters only".into());
        }
        Ok(Some(path))
    }

    pub(super) fn log_max_bytes(&self, default: Option<u64>) -> Result<Option<u64>, ConfigError> {
        let path = "containerLogMaxSize";
        let Some(value) = self.get::<Value>(path)? else { return Ok(default) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quantity = Quantity::parse(&text).ok_or_else(|| no_quantity(path))?;
        Ok(u64::try_from(quantity.value()).ok())
    }

    pub(super) fn log_policy(&self, default: LogPolicy) -> Result<LogPolicy, ConfigError> {
        let path = "containerLogPolicy";
        let back_pressure = match self.get::<String>(path)?.filter(|name| !name.is_empty()) {
            None => default.back_pressure,
            Some(name) => parse_policy(&name).ok_or_else(|| ConfigError::Value {
                path: path.into(),
                why: format!("{} is none of block, drop-newest and drop-oldest", go::quote(&name)),
            })?,
        };
        Ok(LogPolicy {
            back_pressure,
            buffer_bytes: self.count("containerLogBufferSize", default.buffer_bytes)?,
            lines_per_second: self.count("containerLogLinesPerSecond", default.lines_per_second)?,
            bytes_per_second: self.count("containerLogBytesPerSecond", default.bytes_per_second)?,
            max_record_bytes: self.count("containerLogMaxRecordSize", default.max_record_bytes)?,
        })
    }

    pub(super) fn journal(&self, default: JournalFiles) -> Result<JournalFiles, ConfigError> {
        Ok(JournalFiles {
            directories: self.get("containerLogJournalDirectories")?.unwrap_or(default.directories),
            socket: self.path("containerLogJournalSocket")?.unwrap_or(default.socket),
        })
    }

    /// A quantity of zero or more.
    pub(super) fn count(&self, path: &str, default: u64) -> Result<u64, ConfigError> {
        let Some(value) = self.get::<Value>(path)? else { return Ok(default) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parse_number(&text).ok_or_else(|| no_quantity(path))
    }

    pub(super) fn log_max_files(&self, default: u32, problems: &mut Problems) -> Result<u32, ConfigError> {
        let files = self.get::<i32>("containerLogMaxFiles")?.map_or(i64::from(default), i64::from);
        if files <= 1 {
            problems.add("containerLogMaxFiles must be greater than 1".into());
        }
        Ok(u32::try_from(files).unwrap_or(default))
    }

    pub(super) fn lease_duration(
        &self,
        default: Duration,
        problems: &mut Problems,
    ) -> Result<Duration, ConfigError> {
        let Some(seconds) = self.get::<i32>("nodeLeaseDurationSeconds")? else { return Ok(default) };
        if seconds <= 0 {
            problems.add("nodeLeaseDurationSeconds must be greater than 0".into());
        }
        Ok(u64::try_from(seconds).map_or(default, Duration::from_secs))
    }

    pub(super) fn max_pods(&self, default: u32, problems: &mut Problems) -> Result<u32, ConfigError> {
        let Some(pods) = self.get::<i32>("maxPods")? else { return Ok(default) };
        if pods < 0 {
            problems.add(format!("maxPods (--max-pods) {pods} must not be a negative number"));
        }
        Ok(u32::try_from(pods).unwrap_or(default))
    }

    pub(super) fn restart_period(
        &self,
        default: Duration,
        problems: &mut Problems,
    ) -> Result<Duration, ConfigError> {
        let period = self.duration("crashLoopBackOff.maxContainerRestartPeriod", default)?;
        if !(1_000..=300_000).contains(&period.as_millis()) {
            let seconds = period.as_secs_f64();
            problems.add(format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set between 1s and 300s"
            ));
        }
        Ok(period)
    }

    pub(super) fn authentication(&self, default: Authentication) -> Result<Authentication, ConfigError> {
        Ok(Authentication {
            client_ca_file: self.path("authentication.x509.clientCAFile")?,
            webhook_enabled: self.get("authentication.webhook.enabled")?.unwrap_or(default.webhook_enabled),
            webhook_cache_ttl: self.duration("authentication.webhook.cacheTTL", default.webhook_cache_ttl)?,
            anonymous_enabled: self
                .get("authentication.anonymous.enabled")?
                .unwrap_or(default.anonymous_enabled),
        })
    }

    pub(super) fn authorization(&self, default: Authorization) -> Result<Authorization, ConfigError> {
        let path = "authorization.mode";
        let mode = match self.get::<String>(path)?.as_deref() {
            None | Some("" | "Webhook") => AuthorizationMode::Webhook,
            Some("AlwaysAllow") => AuthorizationMode::AlwaysAllow,
            Some(other) => {
                return Err(ConfigError::Value {
                    path: path.into(),
                    why: format!("unknown authorization mode {other}"),
                });
            }
        };
        Ok(Authorization {
            mode,
            cache_authorized_ttl: self
                .duration("authorization.webhook.cacheAuthorizedTTL", default.cache_authorized_ttl)?,
            cache_unauthorized_ttl: self
                .duration("authorization.webhook.cacheUnauthorizedTTL", default.cache_unauthorized_ttl)?,
        })
    }
}

fn no_quantity(path: &str) -> ConfigError {
    let why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    ConfigError::Value { path: path.into(), why: why.into() }
}

/// The path without `.`, `..`, doubled and trailing slashes, as Go's `filepath.Clean`.
fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("{}{}", if path.starts_with('/') { "/" } else { "" }, parts.join("/"))
}
