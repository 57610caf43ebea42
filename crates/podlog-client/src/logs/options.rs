//! Arguments and flags, and what they mean together.

use jiff::Timestamp;
use podlog_api::{LogExtensions, PodLogOptions, go};

use crate::{ClientError, Colour, GoDuration};

/// Lines of each log when pods are selected by label and nothing else is said.
const SELECTOR_TAIL: i64 = 10;

/// Which of a container's streams.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChoice {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Arguments and flags of `logs`, as kubectl's.
#[derive(clap::Args, Clone, Debug)]
pub struct LogsOptions {
    /// POD or TYPE/NAME, then optionally a container.
    #[arg(value_name = "POD | TYPE/NAME")]
    pub arguments: Vec<String>,
    /// Print the logs of this container.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as the log grows.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub follow: bool,
    /// Print the log of the container's previous, terminated instance.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub previous: bool,
    /// Begin every line with its time.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub timestamps: bool,
    /// Print only so many of the last lines [default: all, or 10 with a selector].
    #[arg(long, value_name = "LINES", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub tail: Option<i64>,
    /// Print at most so many bytes of each log [default: all].
    #[arg(long, value_name = "BYTES", default_value = "0", hide_default_value = true, allow_hyphen_values = true, value_parser = go::parse_int)]
    pub limit_bytes: i64,
    /// Print only lines newer than this, e.g. 5s, 2m or 3h [default: all].
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub since: GoDuration,
    /// Print only lines of this moment and later, RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub since_time: Option<String>,
    /// Print the logs of all containers of the pods.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub all_containers: bool,
    /// Print the logs of all pods of a workload; implies --prefix.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub all_pods: bool,
    /// Begin every line with pod and container.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub prefix: bool,
    /// Go on with the next log when one fails.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub ignore_errors: bool,
    /// Follow at most so many logs at once.
    #[arg(long, value_name = "COUNT", default_value_t = 5, allow_hyphen_values = true, value_parser = go::parse_int)]
    pub max_log_requests: i64,
    /// How long to wait for a workload's first pod, and for a followed container to start.
    #[arg(long, value_name = "DURATION", default_value = "20s", allow_hyphen_values = true)]
    pub pod_running_timeout: GoDuration,
    /// How long to try to take a followed log up again whose connection broke, 0 to fail at once.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub reconnect_timeout: GoDuration,
    /// Say nothing about containers that are waited for and connections that broke.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub quiet: bool,
    /// Pods with these labels, e.g. app=web,tier!=cache.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Print only what was written to this stream. Kubernetes' own servers refuse it unless told otherwise.
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<StreamChoice>,
    /// Print only lines older than this, e.g. 5s, 2m or 3h [default: all].
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub until: Option<GoDuration>,
    /// Print only lines of this moment and earlier, RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub until_time: Option<String>,
    /// Print only lines in which this is found; may be given several times.
    #[arg(long = "match", value_name = "REGEX")]
    pub include: Vec<String>,
    /// Print only lines in which this is not found; may be given several times.
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// Take what is given to --match and --exclude literally.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub fixed_strings: bool,
    /// Begin every line with its cursor, at which --cursor goes on.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub cursors: bool,
    /// Print only what comes after this cursor.
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Print the logs of the container's earlier instances, too, oldest first.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub all_instances: bool,
    /// Print the log of this instance of the container: its restart count, or how many instances before the newest, e.g. -2.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = go::parse_int)]
    pub instance: Option<i64>,
    /// Print a log file inside the container, by its path there; the pod has to declare it.
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
    /// Print the logs of a pod that has been deleted, or of those of a workload or selector; without any, list which there are.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub deleted: bool,
    /// Which of several deleted pods of a name [default: the one that was deleted last].
    #[arg(long, value_name = "UID", requires = "deleted")]
    pub uid: Option<String>,
    /// List deleted pods of all namespaces.
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub all_namespaces: bool,
    /// Accept any certificate of the kubelet.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_name = "BOOL", value_parser = go::parse_bool)]
    pub insecure_skip_tls_verify_backend: bool,
    /// Colour of prefixes.
    #[arg(skip)]
    pub colour: Colour,
}

impl Default for LogsOptions {
    fn default() -> Self {
        LogsOptions {
            arguments: Vec::new(),
            container: None,
            follow: false,
            previous: false,
            timestamps: false,
            tail: None,
            limit_bytes: 0,
            since: GoDuration::default(),
            since_time: None,
            all_containers: false,
            all_pods: false,
            prefix: false,
            ignore_errors: false,
            max_log_requests: 5,
            pod_running_timeout: GoDuration::from_seconds(20),
            reconnect_timeout: GoDuration::from_seconds(60),
            quiet: false,
            selector: None,
            stream: None,
            until: None,
            until_time: None,
            include: Vec::new(),
            exclude: Vec::new(),
            fixed_strings: false,
            cursors: false,
            cursor: None,
            all_instances: false,
            instance: None,
            deleted: false,
            file: None,
            uid: None,
            all_namespaces: false,
            insecure_skip_tls_verify_backend: false,
            colour: Colour::Never,
        }
    }
}

/// What the logs are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `POD` or `TYPE/NAME`.
    Argument(String),
    /// Pods by label.
    Selector(String),
}

/// Arguments that make sense together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) asked: Asked,
    pub(super) log: PodLogOptions,
}

const USAGE: &str = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command";

impl LogsOptions {
    /// Checks arguments and flags, in kubectl's order and words.
    pub(super) fn plan(&self) -> Result<Plan, ClientError> {
        let (asked, inline) = self.asked()?;
        if self.pod_running_timeout.positive().is_none() {
            return Err(ClientError::Invalid("--pod-running-timeout must be higher than zero".into()));
        }
        let log = self.log_options(inline)?;
        self.check(&log, inline).map_err(|text| ClientError::Invalid(text.into_owned()))?;
        Ok(Plan { asked, log })
    }

    /// Whether only a list of deleted pods is wanted.
    pub(super) fn lists_deleted(&self) -> bool {
        let has_selector = self.selector.as_ref().is_some_and(|selector| !selector.is_empty());
        self.deleted && self.arguments.is_empty() && !has_selector
    }

    /// Whether lines begin with pod and container.
    pub(super) fn has_prefix(&self) -> bool {
        self.prefix || self.all_pods
    }

    fn asked(&self) -> Result<(Asked, Option<&String>), ClientError> {
        let selector = self.selector.as_ref().filter(|selector| !selector.is_empty());
        match (self.arguments.as_slice(), selector) {
            ([], Some(selector)) => Ok((Asked::Selector(selector.clone()), None)),
            ([_], Some(_)) => Err(ClientError::Usage("only a selector (-l) or a POD name is allowed".into())),
            ([target], None) => Ok((Asked::Argument(target.clone()), None)),
            ([target, container], None) => Ok((Asked::Argument(target.clone()), Some(container))),
            _ => Err(ClientError::Usage(USAGE.into())),
        }
    }

    fn log_options(&self, inline: Option<&String>) -> Result<PodLogOptions, ClientError> {
        Ok(PodLogOptions {
            container: inline.or(self.container.as_ref()).cloned().unwrap_or_default(),
            follow: self.follow,
            previous: self.previous,
            since_seconds: (!self.since.is_zero()).then(|| self.since.rounded_seconds()),
            since_time: parsed_time(self.since_time.as_deref())?,
            timestamps: self.timestamps,
            tail_lines: self.tail_lines(),
            limit_bytes: (self.limit_bytes != 0).then_some(self.limit_bytes),
            insecure_skip_tls_verify_backend: self.insecure_skip_tls_verify_backend,
            stream: self.stream.map(|stream| format!("{stream:?}")),
            extensions: self.extensions()?,
        })
    }

    /// What Kubernetes cannot be asked for.
    fn extensions(&self) -> Result<LogExtensions, ClientError> {
        Ok(LogExtensions {
            until_seconds: self.until.map(GoDuration::rounded_seconds),
            until_time: parsed_time(self.until_time.as_deref())?,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            fixed_strings: self.fixed_strings,
            cursors: self.cursors,
            frames: false,
            cursor: self.cursor.clone(),
            all_instances: self.all_instances,
            instance: self.instance,
            deleted: self.deleted,
            uid: self.uid.clone(),
            file: self.file.clone(),
        })
    }

    fn tail_lines(&self) -> Option<i64> {
        match (self.tail, &self.selector) {
            (None, Some(selector)) if !selector.is_empty() => Some(SELECTOR_TAIL),
            (tail, _) => tail.filter(|lines| *lines != -1),
        }
    }

    fn check(
        &self,
        log: &PodLogOptions,
        inline: Option<&String>,
    ) -> Result<(), std::borrow::Cow<'static, str>> {
        if self.since_time.as_deref().is_some_and(|text| !text.is_empty()) && !self.since.is_zero() {
            return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
        }
        if self.all_containers && !log.container.is_empty() {
            let name = &log.container;
            return Err(
                format!("--all-containers=true should not be specified with container name {name}").into()
            );
        }
        if self.container.is_some() && inline.is_some() {
            return Err("only one of -c or an inline [CONTAINER] arg is allowed".into());
        }
        if self.limit_bytes < 0 {
            return Err("--limit-bytes must be greater than 0".into());
        }
        if log.since_seconds.is_some_and(|seconds| seconds < 0) {
            return Err("--since must be greater than 0".into());
        }
        if log.tail_lines.is_some_and(|lines| lines < -1) {
            return Err("--tail must be greater than or equal to -1".into());
        }
        if log.extensions.until_seconds.is_some_and(|seconds| seconds < 0) {
            return Err("--until must be greater than or equal to 0".into());
        }
        if self.all_namespaces {
            return Err(
                "--all-namespaces is for the list of deleted pods: --deleted, and nothing that names pods"
                    .into(),
            );
        }
        if self.instance.is_some() && self.previous {
            return Err("at most one of --instance and --previous may be specified".into());
        }
        if self.until.is_some() && self.until_time.is_some() {
            return Err("at most one of `untilTime` or `untilSeconds` may be specified".into());
        }
        Ok(())
    }
}

fn parsed_time(text: Option<&str>) -> Result<Option<Timestamp>, ClientError> {
    let text = text.filter(|text| !text.is_empty());
    text.map(go::parse_rfc3339).transpose().map_err(|error| ClientError::Invalid(error.to_string()))
}
