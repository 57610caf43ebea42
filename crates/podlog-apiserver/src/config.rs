//! What an API server is to be like: the flags of kube-apiserver as values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Public keys of before: tokens that they verify stay valid.
    pub service_account_old_keys: Vec<PathBuf>,
    /// `iss` of these tokens. Default of kubeadm: `https://kubernetes.default.svc.cluster.local`.
    pub service_account_issuer: String,
    /// Who is believed, besides client certificates and service accounts.
    pub authentication: AuthenticationConfig,
    /// Who decides what users may do.
    pub authorization: AuthorizationConfig,
    /// What is noted of requests, and where; nothing without.
    pub audit: Option<AuditConfig>,
    /// How much the server does at once, and for how long.
    pub limits: RequestLimits,
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
    /// The OpenID Connect provider whose id tokens are believed (`--oidc-*`).
    pub oidc: Option<OidcConfig>,
    /// Who is asked about tokens that nobody here knows (`--authentication-token-webhook-*`).
    pub webhook: Option<TokenWebhookConfig>,
    /// The proxy whose word is taken for who asks (`--requestheader-*`).
    pub request_header: Option<RequestHeaderConfig>,
}

/// An OpenID Connect provider, and what is made of its tokens.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// Its URL, `iss` of its tokens (`--oidc-issuer-url`); https.
    pub issuer: String,
    /// Who tokens have to be meant for: `aud` (`--oidc-client-id`).
    pub client_id: String,
    /// Authorities of its certificate; by default those that the system trusts (`--oidc-ca-file`).
    pub ca: Option<PathBuf>,
    /// The claim that is the user's name; by default `sub`.
    pub username_claim: String,
    /// What user names begin with; by default `<issuer>#`, unless the claim is `email`; `-` for nothing.
    pub username_prefix: Option<String>,
    /// The claim that lists groups; by default none.
    pub groups_claim: Option<String>,
    /// What group names begin with; by default nothing.
    pub groups_prefix: String,
    /// Algorithms of signatures that are believed; by default RS256.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Claims that tokens must have, and their values.
    pub required_claims: BTreeMap<String, String>,
}

impl OidcConfig {
    /// With defaults for all but the provider and who we are to it.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        OidcConfig {
            issuer: issuer.into(),
            client_id: client_id.into(),
            ca: None,
            username_claim: "sub".into(),
            username_prefix: None,
            groups_claim: None,
            groups_prefix: String::new(),
            algorithms: vec![jsonwebtoken::Algorithm::RS256],
            required_claims: BTreeMap::new(),
        }
    }
}

/// Who is asked by `TokenReview`.
#[derive(Clone, Debug)]
pub struct TokenWebhookConfig {
    /// Where and as whom: a file in kubeconfig's form.
    pub config_file: PathBuf,
    /// How long answers are believed; by default two minutes.
    pub cache_ttl: Duration,
}

/// A proxy that names users in headers.
#[derive(Clone, Debug)]
pub struct RequestHeaderConfig {
    /// Authorities of its client certificate, PEM.
    pub client_ca: PathBuf,
    /// Common names that certificate may have; any without.
    pub allowed_names: Vec<String>,
    /// Headers that name the user; the first that is there counts.
    pub username_headers: Vec<String>,
    /// Headers that hold the user's uid; the first that is there counts.
    pub uid_headers: Vec<String>,
    /// Headers that name groups; all count.
    pub group_headers: Vec<String>,
    /// What the headers of extra facts begin with.
    pub extra_header_prefixes: Vec<String>,
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
    /// Who is asked in [`AuthorizationMode::Webhook`].
    pub webhook: Option<AccessWebhookConfig>,
}

/// Who is asked by `SubjectAccessReview`.
#[derive(Clone, Debug)]
pub struct AccessWebhookConfig {
    /// Where and as whom: a file in kubeconfig's form (`--authorization-webhook-config-file`).
    pub config_file: PathBuf,
    /// How long it is believed that something is allowed; by default five minutes.
    pub allowed_ttl: Duration,
    /// How long it is believed that something is not; by default 30 s.
    pub refused_ttl: Duration,
}

/// The default of podlog: nodes by what is theirs, all others by roles.
impl Default for AuthorizationConfig {
    fn default() -> Self {
        AuthorizationConfig { modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac], webhook: None }
    }
}

/// One of those who decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Nodes may do what concerns them and their pods.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Somebody else, by [`AuthorizationConfig::webhook`].
    Webhook,
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is, but for `system:masters`.
    AlwaysDeny,
}

/// What is noted of requests, and where.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// An `audit.k8s.io/v1` Policy, YAML (`--audit-policy-file`).
    pub policy: PathBuf,
    /// Where events go.
    pub log: AuditLogConfig,
}

/// The file of the audit log.
#[derive(Clone, Debug)]
pub struct AuditLogConfig {
    /// The file; `-` for stdout (`--audit-log-path`).
    pub path: PathBuf,
    /// When a new file is begun (`--audit-log-maxsize`, in MiB there); by default 100 MiB.
    pub max_bytes: u64,
    /// How many files of before are kept (`--audit-log-maxbackup`); all without.
    pub max_backups: Option<usize>,
    /// How long they are kept (`--audit-log-maxage`); for ever without.
    pub max_age_days: Option<u32>,
}

/// How much the server does at once, and for how long. Requests that last (watches, logs) are not counted.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// Requests that read; 0 for no limit, by default 400 (`--max-requests-inflight`).
    pub max_in_flight: usize,
    /// Requests that write; 0 for no limit, by default 200 (`--max-mutating-requests-inflight`).
    pub max_mutating_in_flight: usize,
    /// For a request, its body included; by default a minute (`--request-timeout`).
    pub request_timeout: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            max_in_flight: 400,
            max_mutating_in_flight: 200,
            request_timeout: Duration::from_secs(60),
        }
    }
}
