//! `KubeletConfiguration`, `kubelet.config.k8s.io/v1beta1`: the file format of the kubelet's settings.
//!
//! Fields, defaults and validation texts as `pkg/kubelet/apis/config`. A field that exists there and has no effect
//! here is named in a warning; a field that exists nowhere is refused.

mod dead_containers;
mod eviction;
mod fields;
mod images;
mod read;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use crate::go;
use crate::runtime::LogPolicy;
pub use dead_containers::DeadContainers;
pub use eviction::{Eviction, EvictionThreshold, Signal, Threshold};
use fields::Support;
pub use images::ImageGc;
use podlog_driver::FileLimits;
use read::{Fields, Problems};

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
    /// Bytes of logs of deleted pods that are kept, the last deleted ones; zero keeps none. Default 1 GiB. podlog's own:
    /// `deletedPodLogMaxSize`.
    pub deleted_pod_log_max_bytes: u64,
    /// For how long they are kept; zero keeps none. Default 24 h. podlog's own: `deletedPodLogMaxAge`.
    pub deleted_pod_log_max_age: Duration,
    /// Where logs are looked for that are in no files.
    pub container_log_journal: JournalFiles,
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
    /// Socket of the container runtime, `unix:///run/containerd/containerd.sock`; empty leaves it to whoever starts the
    /// kubelet.
    pub container_runtime_endpoint: String,
    /// Certificate of the HTTPS endpoint, PEM. `None` leaves it to whoever starts the kubelet.
    pub tls_cert_file: Option<PathBuf>,
    /// Key of [`KubeletConfiguration::tls_cert_file`].
    pub tls_private_key_file: Option<PathBuf>,
    /// Whether the client certificate is asked for anew before it expires. Default false.
    pub rotate_certificates: bool,
    /// Whether the certificate of the HTTPS endpoint is asked of the API server. Default false.
    pub server_tls_bootstrap: bool,
    /// Directory, or one file, of manifests of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// How often manifests of static pods are looked at; once a second at least. Default 20 s.
    pub file_check_frequency: Duration,
    /// Address of the plain health port. Default 127.0.0.1.
    pub healthz_bind_address: IpAddr,
    /// The plain health port; zero is none, `None` leaves it to whoever starts the kubelet.
    pub healthz_port: Option<u16>,
    /// What must be left of memory, disk and processes, and what happens when it is not (`evictionHard` and its like).
    pub eviction: Eviction,
    /// Whether pods that use more local storage than their limits allow are evicted (`localStorageCapacityIsolation`).
    /// Default true.
    pub local_storage_isolation: bool,
    /// When images that nobody uses are removed.
    pub image_gc: ImageGc,
    /// How many ended instances of containers are kept.
    pub dead_containers: DeadContainers,
    /// How the kubelet hears of changes of ConfigMaps and Secrets (`configMapAndSecretChangeDetectionStrategy`).
    pub change_detection: ChangeDetection,
    /// What was read, for `/configz`.
    pub source: Value,
}

/// The journal of the machine, which keeps what containers print where their runtime was told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFiles {
    /// Directories of journals; empty is none. Default `/var/log/journal` and `/run/log/journal`. podlog's own:
    /// `containerLogJournalDirectories`.
    pub directories: Vec<PathBuf>,
    /// Where journald is asked to write what it has when a container has ended that is followed. Default
    /// `/run/systemd/journal/io.systemd.journal`. podlog's own: `containerLogJournalSocket`.
    pub socket: PathBuf,
}

impl Default for JournalFiles {
    fn default() -> Self {
        JournalFiles {
            directories: vec!["/var/log/journal".into(), "/run/log/journal".into()],
            socket: "/run/systemd/journal/io.systemd.journal".into(),
        }
    }
}

/// How the kubelet hears of changes of ConfigMaps and Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeDetection {
    /// They are watched, and looked at every [`KubeletConfiguration::sync_frequency`], too. The default.
    Watch,
    /// They are looked at only (`Get` and, as nothing is kept, `Cache`).
    Look,
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
            deleted_pod_log_max_bytes: 1 << 30,
            deleted_pod_log_max_age: Duration::from_secs(24 * 3600),
            container_log_journal: JournalFiles::default(),
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
            container_runtime_endpoint: String::new(),
            tls_cert_file: None,
            tls_private_key_file: None,
            rotate_certificates: false,
            server_tls_bootstrap: false,
            static_pod_path: None,
            file_check_frequency: Duration::from_secs(20),
            healthz_bind_address: Ipv4Addr::LOCALHOST.into(),
            healthz_port: None,
            eviction: Eviction::default(),
            local_storage_isolation: true,
            image_gc: ImageGc::default(),
            dead_containers: DeadContainers::default(),
            change_detection: ChangeDetection::Watch,
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
        Self::parse_with(text, &[])
    }

    /// [`KubeletConfiguration::parse`], with values that take the place of those in the text: pairs of dotted path and
    /// value, as flags give them.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse_with(text: &str, overrides: &[(&str, Value)]) -> Result<(Self, Vec<String>), ConfigError> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let source: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| ConfigError::Syntax(error.to_string()))?;
        if !source.is_object() {
            return Err(ConfigError::Syntax("not a map".into()));
        }
        check_kind(&source)?;
        Self::of_source(source, overrides)
    }

    /// The defaults, with values that take the place of some of them.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn of_flags(overrides: &[(&str, Value)]) -> Result<(Self, Vec<String>), ConfigError> {
        Self::of_source(KubeletConfiguration::default().source, overrides)
    }

    fn of_source(mut source: Value, overrides: &[(&str, Value)]) -> Result<(Self, Vec<String>), ConfigError> {
        for (path, value) in overrides {
            set(&mut source, path, value.clone());
        }
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
            deleted_pod_log_max_bytes: fields
                .count("deletedPodLogMaxSize", default.deleted_pod_log_max_bytes)?,
            deleted_pod_log_max_age: fields.age("deletedPodLogMaxAge", default.deleted_pod_log_max_age)?,
            container_log_journal: fields.journal(default.container_log_journal)?,
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
            container_runtime_endpoint: fields.get("containerRuntimeEndpoint")?.unwrap_or_default(),
            tls_cert_file: fields.path("tlsCertFile")?,
            tls_private_key_file: fields.path("tlsPrivateKeyFile")?,
            rotate_certificates: fields.get("rotateCertificates")?.unwrap_or(false),
            server_tls_bootstrap: fields.get("serverTLSBootstrap")?.unwrap_or(false),
            static_pod_path: fields.path("staticPodPath")?,
            file_check_frequency: fields.duration("fileCheckFrequency", default.file_check_frequency)?,
            healthz_bind_address: fields
                .parsed("healthzBindAddress")?
                .unwrap_or(default.healthz_bind_address),
            healthz_port: fields.healthz_port(&mut problems)?,
            eviction: fields.eviction(&mut problems)?,
            local_storage_isolation: fields.get("localStorageCapacityIsolation")?.unwrap_or(true),
            image_gc: fields.image_gc(&mut problems)?,
            dead_containers: fields.dead_containers()?,
            change_detection: fields.change_detection()?,
            source: Value::Null,
        };
        problems.none().map(|()| config)
    }
}

/// Puts a value at a dotted path. What stands in the way and is no map is replaced.
fn set(target: &mut Value, path: &str, value: Value) {
    let mut place = target;
    for key in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[key];
    }
    *place = value;
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

#[cfg(test)]
mod tests;
