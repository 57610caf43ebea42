//! What an API server is to be like: the flags of kube-apiserver as values.

use std::net::SocketAddr;
use std::path::PathBuf;

use podlog_api::Compatibility;
use podlog_serving::pki::KeyPairFiles;

use crate::store::etcd::EtcdConfig;

/// Where objects are kept.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In one file, by this server alone; made where it is missing, its folder must exist.
    File(PathBuf),
    /// In etcd, which other servers may use at the same time.
    Etcd(EtcdConfig),
}

/// How an API server is to run.
#[derive(Clone, Debug)]
pub struct ApiServerConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where objects are kept.
    pub storage: Storage,
    /// Our certificate and key.
    pub serving: KeyPairFiles,
    /// Authorities of client certificates, PEM.
    pub client_ca: PathBuf,
    /// Private key that signs tokens of service accounts; made where it is missing.
    pub service_account_key: PathBuf,
    /// Its public half; made where it is missing.
    pub service_account_public_key: PathBuf,
    /// `iss` of these tokens. Default of kubeadm: `https://kubernetes.default.svc.cluster.local`.
    pub service_account_issuer: String,
    /// Who is believed, besides client certificates and service accounts.
    pub authentication: AuthenticationConfig,
    /// Who decides what users may do.
    pub authorization: AuthorizationConfig,
    /// What kubelets know us by.
    pub kubelet_client: KeyPairFiles,
    /// Authorities of kubelets' certificates. Without them kubelets are not verified, as with kube-apiserver.
    pub kubelet_ca: Option<PathBuf>,
    /// Which of a node's addresses to dial, the first that it has.
    pub kubelet_preferred_address_types: Vec<String>,
    /// Whether logs can be had by stream, which Kubernetes refuses by default.
    pub compatibility: Compatibility,
}

impl ApiServerConfig {
    /// Default of [`ApiServerConfig::service_account_issuer`].
    pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// Default of [`ApiServerConfig::kubelet_preferred_address_types`].
    pub fn default_address_types() -> Vec<String> {
        ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"].map(str::to_owned).to_vec()
    }
}

/// Who is believed, besides client certificates and service accounts.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationConfig {
    /// Static tokens, `token,user,uid[,"groups"]` a line (`--token-auth-file`).
    pub token_file: Option<PathBuf>,
    /// What becomes of requests without any credential (`--anonymous-auth`).
    pub anonymous: AnonymousRequests,
    /// What becomes of the tokens by which kubelets join (`--enable-bootstrap-token-auth`).
    pub bootstrap_tokens: BootstrapTokens,
}

/// What becomes of requests without any credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousRequests {
    /// They are refused: 401.
    #[default]
    Refused,
    /// Those for `/healthz`, `/livez` and `/readyz` are `system:anonymous`'s; others are refused.
    ForHealth,
}

/// What becomes of the tokens in secrets of type `bootstrap.kubernetes.io/token` in `kube-system`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootstrapTokens {
    /// Nobody is known by them.
    #[default]
    Refused,
    /// They are `system:bootstrap:<id>`'s.
    Accepted,
}

/// Who decides what users may do.
#[derive(Clone, Debug)]
pub struct AuthorizationConfig {
    /// Asked in this order, until one decides (`--authorization-mode`).
    pub modes: Vec<AuthorizationMode>,
}

/// The default of podlog: nodes by what is theirs, all others by roles.
impl Default for AuthorizationConfig {
    fn default() -> Self {
        AuthorizationConfig { modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac] }
    }
}

/// One of those who decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Nodes may do what concerns them and their pods.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is, but for `system:masters`.
    AlwaysDeny,
}
