//! `podlog kubelet`: its flags, named as the kubelet's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use podlog_api::go::parse_bool;
use podlog_kubelet::runtime::cri::Endpoint;
use serde_json::{Value, json};

use super::eviction::EvictionArgs;
use super::up::{CompatibilityName, Runtime};
use crate::exit::Exit;

/// Run a node: its pods, their status, and its endpoint for logs, for any API server.
///
/// Flags are named as those of Kubernetes' kubelet; those with a field in `KubeletConfiguration` take its place. Without a
/// kubeconfig only static pods run. With --front it runs nothing, and stands before a kubelet that does: it answers requests
/// for logs, and passes on all others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  podlog kubelet --config kubelet.yaml --kubeconfig kubelet.conf --hostname-override node-1\n  \
    podlog kubelet --runtime process --kubeconfig kubelet.conf --root-dir ./node-1 --authorization-mode Webhook \\\n    \
    --client-ca-file ca.crt --address 10.0.0.5\n  \
    podlog kubelet --front https://127.0.0.1:10250 --address 10.0.0.5 --config /var/lib/kubelet/config.yaml \\\n    \
    --kubeconfig /etc/kubernetes/kubelet.conf"
)]
pub(crate) struct KubeletArgs {
    /// A `KubeletConfiguration` file (kubelet.config.k8s.io/v1beta1).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to reach the API server. Without it only static pods run.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to reach the API server for a certificate, while there is none; --kubeconfig is then written.
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    pub(crate) bootstrap_kubeconfig: Option<PathBuf>,
    /// Name of the node [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
    /// Directory of pods' volumes and the like; with --runtime process of what runs, too.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) root_dir: PathBuf,
    /// Directory of certificates that are made or asked for [default: pki below --root-dir].
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// What runs containers.
    #[arg(long, value_enum, default_value_t = Runtime::Cri)]
    pub(crate) runtime: Runtime,
    /// Socket of the runtime, for --runtime cri [default: unix:///run/containerd/containerd.sock].
    #[arg(long, value_name = "unix:///PATH")]
    container_runtime_endpoint: Option<Endpoint>,
    /// How logs are read and failures shown.
    #[arg(long, value_enum, default_value_t = CompatibilityName::Exact)]
    pub(crate) compatibility: CompatibilityName,
    /// How much is said on stderr: 2 is `info`, 4 `debug`, 6 and more `trace`. --log-level says it more precisely.
    #[arg(short = 'v', long = "v", value_name = "N")]
    pub(crate) verbosity: Option<u8>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    eviction: EvictionArgs,
    #[command(flatten)]
    pub(crate) front: FrontArgs,
    #[command(flatten)]
    ignored: IgnoredArgs,
}

/// The Node object and what runs on it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Node")]
struct NodeArgs {
    /// Address of the node [default: the one that it listens on, or that leads to the API server].
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// Labels of the Node object: `key=value`, with commas.
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = parse_label)]
    node_labels: Vec<(String, String)>,
    /// Taints of the Node object: `key=value:effect`, with commas.
    #[arg(long, value_name = "TAINTS", value_delimiter = ',', value_parser = parse_taint)]
    register_with_taints: Vec<Value>,
    /// Whether the Node object is made [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    register_node: Option<bool>,
    /// How many pods the node takes [default: 110].
    #[arg(long, value_name = "N")]
    max_pods: Option<u32>,
    /// Directory, or one file, of manifests of static pods.
    #[arg(long, value_name = "PATH")]
    pod_manifest_path: Option<PathBuf>,
    /// Search domain of the cluster.
    #[arg(long, value_name = "NAME")]
    cluster_domain: Option<String>,
    /// `spec.providerID` of the Node object.
    #[arg(long, value_name = "ID")]
    provider_id: Option<String>,
    /// Bytes of logs of deleted pods that are kept, e.g. 512Mi; 0 keeps none [default: 1Gi].
    #[arg(long, value_name = "SIZE")]
    deleted_pod_log_max_size: Option<String>,
    /// For how long they are kept, e.g. 36h; 0s keeps none [default: 24h].
    #[arg(long, value_name = "DURATION")]
    deleted_pod_log_max_age: Option<String>,
}

/// The HTTPS endpoint.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Endpoint")]
struct EndpointArgs {
    /// Address to listen on [default: 0.0.0.0].
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 10250].
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Our certificate, PEM, with its intermediates [default: made in --cert-dir].
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities of client certificates.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Whether bearer tokens are checked by the API server [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    authentication_token_webhook: Option<bool>,
    /// Whether requests without a credential come in as `system:anonymous` [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    anonymous_auth: Option<bool>,
    /// Who decides: `Webhook` (the API server) or `AlwaysAllow` [default: Webhook].
    #[arg(long, value_name = "MODE")]
    authorization_mode: Option<String>,
    /// Ask for a new client certificate before ours expires.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    rotate_certificates: Option<bool>,
    /// Ask the API server for the endpoint's certificate, and for a new one before it expires.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    rotate_server_certificates: Option<bool>,
    /// Address of the plain health port [default: 127.0.0.1].
    #[arg(long, value_name = "IP")]
    healthz_bind_address: Option<IpAddr>,
    /// The plain health port; 0 is none [default: 10248].
    #[arg(long, value_name = "N")]
    healthz_port: Option<u16>,
}

/// Standing before another kubelet.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "In front of another kubelet")]
pub(crate) struct FrontArgs {
    /// The endpoint of the kubelet behind. Nothing runs here and nothing is registered.
    #[arg(long, value_name = "URL", conflicts_with_all = ["bootstrap_kubeconfig", "pod_manifest_path"])]
    pub(crate) front: Option<String>,
    /// Authorities of the certificate of the kubelet behind. Without it it is not verified, as kube-apiserver does.
    #[arg(long, value_name = "FILE", requires = "front")]
    pub(crate) front_certificate_authority: Option<PathBuf>,
    /// What the kubelet behind knows us by [default: made in --cert-dir, with an authority podlog-front-ca.crt].
    #[arg(long, value_name = "FILE", requires_all = ["front", "front_client_key"])]
    pub(crate) front_client_certificate: Option<PathBuf>,
    /// The key of --front-client-certificate.
    #[arg(long, value_name = "FILE", requires = "front_client_certificate")]
    pub(crate) front_client_key: Option<PathBuf>,
}

/// Flags of Kubernetes' kubelet that tools write without being asked, and that mean nothing here.
#[derive(Debug, clap::Args)]
struct IgnoredArgs {
    #[arg(long, hide = true)]
    pod_infra_container_image: Option<String>,
    #[arg(long, hide = true)]
    cgroup_driver: Option<String>,
    #[arg(long, hide = true)]
    fail_swap_on: Option<String>,
    #[arg(long, hide = true)]
    resolv_conf: Option<String>,
    #[arg(long, hide = true)]
    cluster_dns: Option<String>,
    #[arg(long, hide = true)]
    cloud_provider: Option<String>,
    #[arg(long, hide = true)]
    volume_plugin_dir: Option<String>,
    #[arg(long, hide = true)]
    read_only_port: Option<String>,
}

impl KubeletArgs {
    /// Fields of the configuration whose place flags take: dotted paths and values.
    pub(crate) fn overrides(&self) -> Vec<(&'static str, Value)> {
        let (node, endpoint) = (&self.node, &self.endpoint);
        let taints = (!node.register_with_taints.is_empty()).then(|| json!(node.register_with_taints));
        let socket = self.container_runtime_endpoint.as_ref().map(|socket| json!(socket.path()));
        let given = [
            ("address", endpoint.address.map(|address| json!(address))),
            // Zero is no port of a configuration.
            ("port", endpoint.port.filter(|port| *port != 0).map(|port| json!(port))),
            ("tlsCertFile", endpoint.tls_cert_file.as_ref().map(|path| json!(path))),
            ("tlsPrivateKeyFile", endpoint.tls_private_key_file.as_ref().map(|path| json!(path))),
            ("authentication.x509.clientCAFile", endpoint.client_ca_file.as_ref().map(|path| json!(path))),
            ("authentication.webhook.enabled", endpoint.authentication_token_webhook.map(|is| json!(is))),
            ("authentication.anonymous.enabled", endpoint.anonymous_auth.map(|is| json!(is))),
            ("authorization.mode", endpoint.authorization_mode.as_ref().map(|mode| json!(mode))),
            ("rotateCertificates", endpoint.rotate_certificates.map(|is| json!(is))),
            ("serverTLSBootstrap", endpoint.rotate_server_certificates.map(|is| json!(is))),
            ("healthzBindAddress", endpoint.healthz_bind_address.map(|address| json!(address))),
            ("healthzPort", endpoint.healthz_port.map(|port| json!(port))),
            ("registerWithTaints", taints),
            ("registerNode", node.register_node.map(|is| json!(is))),
            ("maxPods", node.max_pods.map(|pods| json!(pods))),
            ("staticPodPath", node.pod_manifest_path.as_ref().map(|path| json!(path))),
            ("clusterDomain", node.cluster_domain.as_ref().map(|name| json!(name))),
            ("providerID", node.provider_id.as_ref().map(|id| json!(id))),
            ("containerRuntimeEndpoint", socket),
            ("deletedPodLogMaxSize", node.deleted_pod_log_max_size.as_ref().map(|size| json!(size))),
            ("deletedPodLogMaxAge", node.deleted_pod_log_max_age.as_ref().map(|age| json!(age))),
        ];
        let given = given.into_iter().chain(self.eviction.overrides());
        given.filter_map(|(path, value)| Some((path, value?))).collect()
    }

    /// Whether a free port is wanted.
    pub(crate) fn takes_free_port(&self) -> bool {
        self.endpoint.port == Some(0)
    }

    pub(crate) fn node_ip(&self) -> Option<IpAddr> {
        self.node.node_ip
    }

    pub(crate) fn node_labels(&self) -> BTreeMap<String, String> {
        self.node.node_labels.iter().cloned().collect()
    }

    /// Where certificates are kept.
    pub(crate) fn cert_dir(&self) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| self.root_dir.join("pki"))
    }

    /// Names of flags that were given and mean nothing here.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let ignored = &self.ignored;
        let given = [
            ("pod-infra-container-image", &ignored.pod_infra_container_image),
            ("cgroup-driver", &ignored.cgroup_driver),
            ("fail-swap-on", &ignored.fail_swap_on),
            ("resolv-conf", &ignored.resolv_conf),
            ("cluster-dns", &ignored.cluster_dns),
            ("cloud-provider", &ignored.cloud_provider),
            ("volume-plugin-dir", &ignored.volume_plugin_dir),
            ("read-only-port", &ignored.read_only_port),
        ];
        given.into_iter().filter_map(|(name, value)| value.as_ref().map(|_| name)).collect()
    }

    /// What -v asks for, in the words of --log-level.
    pub(crate) fn log_level(&self) -> Option<&'static str> {
        Some(match self.verbosity? {
            0 | 1 => "warn",
            2 | 3 => "info",
            4 | 5 => "debug",
            _ => "trace",
        })
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is key=value")?;
    if key.is_empty() {
        return Err("a label has a key".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value:effect` or `key:effect`.
fn parse_taint(text: &str) -> Result<Value, String> {
    let (name, effect) = text.rsplit_once(':').ok_or("a taint is key=value:effect")?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("{effect:?} is none of NoSchedule, PreferNoSchedule and NoExecute"));
    }
    let (key, value) = name.split_once('=').unwrap_or((name, ""));
    let mut taint = json!({ "key": key, "effect": effect });
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Ok(taint)
}

pub(super) fn run(args: KubeletArgs) -> anyhow::Result<Exit> {
    crate::kubelet::run(&args)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: KubeletArgs,
    }

    fn parse(text: &str) -> KubeletArgs {
        Cli::try_parse_from(std::iter::once("kubelet").chain(text.split_whitespace())).unwrap().args
    }

    #[test]
    fn flags_become_fields() {
        let check = |flags: &str, expected: Value| {
            let fields: serde_json::Map<String, Value> =
                parse(flags).overrides().into_iter().map(|(path, value)| (path.to_owned(), value)).collect();
            assert_eq!(Value::from(fields), expected, "{flags}");
        };
        check("", json!({}));
        check("--anonymous-auth=false", json!({"authentication.anonymous.enabled": false}));
        check("--rotate-certificates", json!({"rotateCertificates": true}));
        check("--address 10.0.0.5 --port 0", json!({"address": "10.0.0.5"}));
        check("--max-pods=3 --pod-manifest-path=/m", json!({"maxPods": 3, "staticPodPath": "/m"}));
        check(
            "--register-with-taints=a=b:NoSchedule,c:NoExecute",
            json!({"registerWithTaints": [
                {"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "NoExecute"},
            ]}),
        );
        check(
            "--deleted-pod-log-max-size=1Mi --deleted-pod-log-max-age 5m",
            json!({"deletedPodLogMaxSize": "1Mi", "deletedPodLogMaxAge": "5m"}),
        );
        check(
            "--eviction-hard=memory.available<1Gi,nodefs.available<10% --eviction-max-pod-grace-period=-1",
            json!({"evictionHard": {"memory.available": "1Gi", "nodefs.available": "10%"}, "evictionMaxPodGracePeriod": -1}),
        );
        check(
            "--maximum-dead-containers=-1 --maximum-dead-containers-per-container 2 --minimum-container-ttl-duration=1m",
            json!({"maximumDeadContainers": -1, "maximumDeadContainersPerContainer": 2, "minimumContainerTTLDuration": "1m"}),
        );
        check("--eviction-hard=", json!({"evictionHard": {}}));
        check(
            "--eviction-soft=pid.available<9 --eviction-soft-grace-period=pid.available=1m \
             --eviction-minimum-reclaim=nodefs.available=1Gi --image-gc-high-threshold=70",
            json!({"evictionSoft": {"pid.available": "9"}, "evictionSoftGracePeriod": {"pid.available": "1m"},
                "evictionMinimumReclaim": {"nodefs.available": "1Gi"}, "imageGCHighThresholdPercent": 70}),
        );
        check(
            "--container-runtime-endpoint unix:///run/x.sock",
            json!({"containerRuntimeEndpoint": "/run/x.sock"}),
        );
    }

    #[test]
    fn nodes_have_labels_and_tools_are_forgiven() {
        let args = parse("--node-labels=a=1,b= --cgroup-driver=systemd --v=2");
        assert_eq!(args.node_labels(), [("a".into(), "1".into()), ("b".into(), String::new())].into());
        assert_eq!(args.ignored(), ["cgroup-driver"]);
        assert_eq!(args.log_level(), Some("info"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            "--nonsense",
            "--node-labels=a",
            "--register-with-taints=a=b:Never",
            "--tls-cert-file=x",
            "--bootstrap-kubeconfig=x",
            "--front-certificate-authority=x",
            "--front=https://127.0.0.1:1 --pod-manifest-path=/m",
        ] {
            assert!(
                Cli::try_parse_from(["kubelet"].into_iter().chain(flags.split_whitespace())).is_err(),
                "{flags}"
            );
        }
    }
}
