//! `KubeletConfiguration`, `kubelet.config.k8s.io/v1beta1`: the file format of the kubelet's settings.
//!
//! Fields, defaults and validation texts as `pkg/kubelet/apis/config`. A field that exists there and has no effect
//! here is named in a warning; a field that exists nowhere is refused.

mod fields;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::go;
use crate::runtime::LogPolicy;
use crate::runtime::log_policy::{parse_number, parse_policy};
use fields::Support;
use podlog_api::quantity::Quantity;
use podlog_driver::FileLimits;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// The kubelet's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeletConfiguration {
    /// Address of the HTTPS endpoint; `None` leaves it to whoever starts the kubelet.
    pub address: Option<IpAddr>,
    /// Port of the HTTPS endpoint; `None` leaves it to whoever starts the kubelet.
    pub port: Option<u16>,
    /// Where pods' log directories are; `None` leaves it to whoever starts the kubelet.
    pub pod_logs_dir: Option<PathBuf>,
    /// Size in bytes at which a container's log is rotated, default 10 MiB; `None` (a negative size) never rotates.
    pub container_log_max_bytes: Option<u64>,
    /// How many files a container's log has at most, the current one included. Default 5, at least 2.
    pub container_log_max_files: u32,
    /// What is kept of the output of a container that prints too much, unless its pod says something else. podlog's own:
    /// `containerLogPolicy`, `containerLogBufferSize`, `containerLogLinesPerSecond`, `containerLogBytesPerSecond`,
    /// `containerLogMaxRecordSize`.
    pub container_log_policy: LogPolicy,
    /// How often a pod is looked at when nothing happens. Default 1 m.
    pub sync_frequency: Duration,
    /// How often the node's status is computed. Default 10 s.
    pub node_status_update_frequency: Duration,
    /// How often an unchanged node status is written. Default 5 m.
    pub node_status_report_frequency: Duration,
    /// For how long a lease is valid; it is renewed four times in that time. Default 40 s.
    pub node_lease_duration: Duration,
    /// How many pods this node takes. Default 110.
    pub max_pods: u32,
    /// Who may talk to the HTTPS endpoint.
    pub authentication: Authentication,
    /// What they may do there.
    pub authorization: Authorization,
    /// Whether the kubelet creates its Node object. Default true.
    pub register_node: bool,
    /// Taints that the Node object is created with.
    pub register_with_taints: Vec<Taint>,
    /// Whether logs, `/runningpods/`, `/configz` and the like are served. Default true.
    pub enable_debugging_handlers: bool,
    /// Whether `/logs/` serves files below `/var/log`. Default false here (true upstream): a node's own logs are
    /// not a pod's.
    pub enable_system_log_handler: bool,
    /// Longest pause between restarts of a crashing container. Default 5 m.
    pub max_container_restart_period: Duration,
    /// Longest time that a call to the container runtime may take. Default 2 m.
    pub runtime_request_timeout: Duration,
    /// Search domain of the cluster, for the environment of pods.
    pub cluster_domain: String,
    /// `spec.providerID` of the node.
    pub provider_id: String,
    /// What was read, for `/configz`.
    pub source: Value,
}

/// Who may talk to the HTTPS endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Bundle of CAs whose client certificates are accepted.
    pub client_ca_file: Option<PathBuf>,
    /// Whether bearer tokens are checked by the API server (`TokenReview`). Default true.
    pub webhook_enabled: bool,
    /// How long such an answer is kept. Default 2 m.
    pub webhook_cache_ttl: Duration,
    /// Whether requests without a credential are let in as `system:anonymous`. Default false.
    pub anonymous_enabled: bool,
}

/// What clients of the HTTPS endpoint may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// How it is decided. Default [`AuthorizationMode::Webhook`].
    pub mode: AuthorizationMode,
    /// How long an allowing answer is kept. Default 5 m.
    pub cache_authorized_ttl: Duration,
    /// How long a refusing answer is kept. Default 30 s.
    pub cache_unauthorized_ttl: Duration,
}

/// How requests to the HTTPS endpoint are authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// The API server is asked (`SubjectAccessReview`).
    Webhook,
    /// Everybody who is authenticated may do everything.
    AlwaysAllow,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not YAML or JSON, or not a map.
    #[error("cannot parse kubelet configuration: {0}")]
    Syntax(String),
    /// Another kind of object.
    #[error(
        "no kind {kind:?} is registered for version {api_version:?}; expected {KIND:?} of {API_VERSION:?}"
    )]
    Kind {
        /// `kind` as found.
        kind: String,
        /// `apiVersion` as found.
        api_version: String,
    },
    /// Fields that no kubelet knows.
    #[error("strict decoding error: {}", unknown_fields(.0))]
    UnknownFields(Vec<String>),
    /// A value of the wrong type.
    #[error("{path}: {why}")]
    Value {
        /// Path of the field.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Values that make no sense, upstream's texts.
    #[error("{}", aggregate(.0))]
    Invalid(Vec<String>),
}

fn unknown_fields(paths: &[String]) -> String {
    paths.iter().map(|path| format!("unknown field {}", go::quote(path))).collect::<Vec<_>>().join(", ")
}

fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl KubeletConfiguration {
    /// When a container's log is rotated.
    pub fn log_limits(&self) -> FileLimits {
        FileLimits {
            // None turns rotation off.
            max_bytes: self.container_log_max_bytes.unwrap_or(u64::MAX),
            max_files: self.container_log_max_files,
        }
    }
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        KubeletConfiguration {
            address: None,
            port: None,
            pod_logs_dir: None,
            container_log_max_bytes: Some(10 << 20),
            container_log_max_files: 5,
            container_log_policy: LogPolicy::default(),
            sync_frequency: Duration::from_secs(60),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
            max_pods: 110,
            authentication: Authentication {
                client_ca_file: None,
                webhook_enabled: true,
                webhook_cache_ttl: Duration::from_secs(120),
                anonymous_enabled: false,
            },
            authorization: Authorization {
                mode: AuthorizationMode::Webhook,
                cache_authorized_ttl: Duration::from_secs(300),
                cache_unauthorized_ttl: Duration::from_secs(30),
            },
            register_node: true,
            register_with_taints: Vec::new(),
            enable_debugging_handlers: true,
            enable_system_log_handler: false,
            max_container_restart_period: Duration::from_secs(300),
            runtime_request_timeout: Duration::from_secs(120),
            cluster_domain: String::new(),
            provider_id: String::new(),
            source: serde_json::json!({ "kind": KIND, "apiVersion": API_VERSION }),
        }
    }
}

impl KubeletConfiguration {
    /// Parses YAML or JSON. The second part are warnings about fields that have no effect here.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let source: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| ConfigError::Syntax(error.to_string()))?;
        if !source.is_object() {
            return Err(ConfigError::Syntax("not a map".into()));
        }
        check_kind(&source)?;
        let mut walk = Walk::default();
        walk.object("", &source);
        if !walk.unknown.is_empty() {
            return Err(ConfigError::UnknownFields(walk.unknown));
        }
        let config = Self::from_fields(&Fields(&source))?;
        Ok((KubeletConfiguration { source, ..config }, walk.warnings))
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        let default = KubeletConfiguration::default();
        let mut problems = Problems::default();
        let config = KubeletConfiguration {
            address: fields.parsed("address")?,
            port: fields.port(&mut problems)?,
            pod_logs_dir: fields.pod_logs_dir(&mut problems)?,
            container_log_max_bytes: fields.log_max_bytes(default.container_log_max_bytes)?,
            container_log_max_files: fields.log_max_files(default.container_log_max_files, &mut problems)?,
            container_log_policy: fields.log_policy(default.container_log_policy)?,
            sync_frequency: fields.duration("syncFrequency", default.sync_frequency)?,
            node_status_update_frequency: fields
                .duration("nodeStatusUpdateFrequency", default.node_status_update_frequency)?,
            node_status_report_frequency: fields
                .duration("nodeStatusReportFrequency", default.node_status_report_frequency)?,
            node_lease_duration: fields.lease_duration(default.node_lease_duration, &mut problems)?,
            max_pods: fields.max_pods(default.max_pods, &mut problems)?,
            authentication: fields.authentication(default.authentication)?,
            authorization: fields.authorization(default.authorization)?,
            register_node: fields.get("registerNode")?.unwrap_or(default.register_node),
            register_with_taints: fields.get("registerWithTaints")?.unwrap_or_default(),
            enable_debugging_handlers: fields.get("enableDebuggingHandlers")?.unwrap_or(true),
            enable_system_log_handler: fields.get("enableSystemLogHandler")?.unwrap_or(false),
            max_container_restart_period: fields
                .restart_period(default.max_container_restart_period, &mut problems)?,
            runtime_request_timeout: fields
                .duration("runtimeRequestTimeout", default.runtime_request_timeout)?,
            cluster_domain: fields.get("clusterDomain")?.unwrap_or_default(),
            provider_id: fields.get("providerID")?.unwrap_or_default(),
            source: Value::Null,
        };
        problems.none().map(|()| config)
    }
}

fn check_kind(source: &Value) -> Result<(), ConfigError> {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    if kind == KIND && api_version == API_VERSION {
        Ok(())
    } else {
        Err(ConfigError::Kind { kind, api_version })
    }
}

/// Sorts the fields that are present into known, known elsewhere, and unknown.
#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    warnings: Vec<String>,
}

impl Walk {
    fn object(&mut self, parent: &str, value: &Value) {
        for (key, child) in value.as_object().into_iter().flatten() {
            let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
            match fields::support(&path) {
                Some(Support::Works) => {}
                Some(Support::Group) => self.object(&path, child),
                Some(Support::Elsewhere) => {
                    self.warnings
                        .push(format!("{path} has no effect here: podlog's kubelet does not use it"));
                }
                None => self.unknown.push(path),
            }
        }
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, text: String) {
        self.0.push(format!("invalid configuration: {text}"));
    }

    fn none(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(self.0)) }
    }
}

/// Typed access by path, with the path in every error.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ConfigError> {
        let pointer = format!("/{}", path.replace('.', "/"));
        match self.0.pointer(&pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|error| ConfigError::Value { path: path.into(), why: error.to_string() }),
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.get::<String>(path)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| ConfigError::Value {
            path: path.into(),
            why: format!("{}: {error}", go::quote(&text)),
        })
    }

    fn duration(&self, path: &str, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = self.get::<String>(path)? else { return Ok(default) };
        let value = go::parse_duration(&text).ok_or_else(|| ConfigError::Value {
            path: path.into(),
            why: format!("time: invalid duration {}", go::quote(&text)),
        })?;
        Ok(if value.is_zero() { default } else { value })
    }

    fn port(&self, problems: &mut Problems) -> Result<Option<u16>, ConfigError> {
        let Some(port) = self.get::<i64>("port")? else { return Ok(None) };
        let valid = u16::try_from(port).ok().filter(|port| *port > 0);
        if valid.is_none() && port != 0 {
            problems.add(format!("port (--port) {port} must be between 1 and 65535, inclusive"));
        }
        Ok(valid)
    }

    fn pod_logs_dir(&self, problems: &mut Problems) -> Result<Option<PathBuf>, ConfigError> {
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

    fn log_max_bytes(&self, default: Option<u64>) -> Result<Option<u64>, ConfigError> {
        let path = "containerLogMaxSize";
        let Some(value) = self.get::<Value>(path)? else { return Ok(default) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quantity = Quantity::parse(&text).ok_or_else(|| no_quantity(path))?;
        Ok(u64::try_from(quantity.value()).ok())
    }

    fn log_policy(&self, default: LogPolicy) -> Result<LogPolicy, ConfigError> {
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

    /// A quantity of zero or more.
    fn count(&self, path: &str, default: u64) -> Result<u64, ConfigError> {
        let Some(value) = self.get::<Value>(path)? else { return Ok(default) };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parse_number(&text).ok_or_else(|| no_quantity(path))
    }

    fn log_max_files(&self, default: u32, problems: &mut Problems) -> Result<u32, ConfigError> {
        let files = self.get::<i32>("containerLogMaxFiles")?.map_or(i64::from(default), i64::from);
        if files <= 1 {
            problems.add("containerLogMaxFiles must be greater than 1".into());
        }
        Ok(u32::try_from(files).unwrap_or(default))
    }

    fn lease_duration(&self, default: Duration, problems: &mut Problems) -> Result<Duration, ConfigError> {
        let Some(seconds) = self.get::<i32>("nodeLeaseDurationSeconds")? else { return Ok(default) };
        if seconds <= 0 {
            problems.add("nodeLeaseDurationSeconds must be greater than 0".into());
        }
        Ok(u64::try_from(seconds).map_or(default, Duration::from_secs))
    }

    fn max_pods(&self, default: u32, problems: &mut Problems) -> Result<u32, ConfigError> {
        let Some(pods) = self.get::<i32>("maxPods")? else { return Ok(default) };
        if pods < 0 {
            problems.add(format!("maxPods (--max-pods) {pods} must not be a negative number"));
        }
        Ok(u32::try_from(pods).unwrap_or(default))
    }

    fn restart_period(&self, default: Duration, problems: &mut Problems) -> Result<Duration, ConfigError> {
        let period = self.duration("crashLoopBackOff.maxContainerRestartPeriod", default)?;
        if !(1_000..=300_000).contains(&period.as_millis()) {
            let seconds = period.as_secs_f64();
            problems.add(format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set between 1s and 300s"
            ));
        }
        Ok(period)
    }

    fn authentication(&self, default: Authentication) -> Result<Authentication, ConfigError> {
        Ok(Authentication {
            client_ca_file: self
                .get::<PathBuf>("authentication.x509.clientCAFile")?
                .filter(|path| !path.as_os_str().is_empty()),
            webhook_enabled: self.get("authentication.webhook.enabled")?.unwrap_or(default.webhook_enabled),
            webhook_cache_ttl: self.duration("authentication.webhook.cacheTTL", default.webhook_cache_ttl)?,
            anonymous_enabled: self
                .get("authentication.anonymous.enabled")?
                .unwrap_or(default.anonymous_enabled),
        })
    }

    fn authorization(&self, default: Authorization) -> Result<Authorization, ConfigError> {
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

#[cfg(test)]
mod tests;
