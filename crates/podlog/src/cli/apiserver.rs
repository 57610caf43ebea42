//! `podlog apiserver`: its flags, named as kube-apiserver's.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use podlog_apiserver::controllers::CertificateSigning;
use podlog_apiserver::{ApiServerConfig, EtcdConfig, Storage};
use podlog_client::GoDuration;
use podlog_serving::pki::{KeyPairFiles, Signer};

use super::access::AccessArgs;
use super::audit::AuditArgs;
use super::up::CompatibilityName;
use crate::exit::Exit;

/// Run an API server alone, with the scheduler and the controllers; nodes and clients reach it over the network.
///
/// With --etcd-servers several of them share one etcd, and any of them may be killed: one of them runs the controllers,
/// and another takes over when it is gone. Flags are named as kube-apiserver's; what is not listed here is not accepted.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  podlog apiserver --etcd-servers https://10.0.0.1:2379,https://10.0.0.2:2379 --etcd-cafile etcd-ca.crt \\\n    \
    --etcd-certfile etcd-client.crt --etcd-keyfile etcd-client.key --client-ca-file ca.crt \\\n    \
    --tls-cert-file apiserver.crt --tls-private-key-file apiserver.key \\\n    \
    --kubelet-client-certificate kubelet-client.crt --kubelet-client-key kubelet-client.key \\\n    \
    --kubelet-certificate-authority ca.crt --service-account-key-file sa.pub --service-account-signing-key-file sa.key",
    group = clap::ArgGroup::new("storage").args(["etcd_servers", "store"]).required(true)
)]
pub(crate) struct ApiServerArgs {
    /// Address to listen on.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 6443)]
    secure_port: u16,
    /// Our certificate, PEM, with its intermediates.
    #[arg(long, value_name = "FILE")]
    tls_cert_file: PathBuf,
    /// The key of --tls-cert-file.
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: PathBuf,
    /// Authorities of client certificates.
    #[arg(long, value_name = "FILE")]
    client_ca_file: PathBuf,
    /// Public key that tokens of service accounts are verified with, besides that of --service-account-signing-key-file,
    /// which is written there where the file is missing; may be repeated, for keys of before, whose tokens stay valid.
    #[arg(long, value_name = "FILE", required = true)]
    service_account_key_file: Vec<PathBuf>,
    /// Private key, ECDSA or RSA, that signs tokens of service accounts; made where it is missing. Servers that share a
    /// storage share it too.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: PathBuf,
    /// `iss` of tokens of service accounts.
    #[arg(long, value_name = "URL", default_value = ApiServerConfig::DEFAULT_ISSUER)]
    service_account_issuer: String,
    /// Certificate that kubelets know us by.
    #[arg(long, value_name = "FILE")]
    kubelet_client_certificate: PathBuf,
    /// The key of --kubelet-client-certificate.
    #[arg(long, value_name = "FILE")]
    kubelet_client_key: PathBuf,
    /// Authorities of kubelets' certificates. Without it they are not verified, as with kube-apiserver.
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses to dial, the first that it has.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_values_t = ApiServerConfig::default_address_types())]
    kubelet_preferred_address_types: Vec<String>,
    /// Authorities that service accounts are told to trust us by [default: those of --client-ca-file].
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Certificate of the authority that signs approved requests for certificates of clients and kubelets; without it
    /// they wait for a signer from elsewhere. Kubelets join by such requests.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// The key of --cluster-signing-cert-file.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// How long certificates are valid that are signed, unless their request wants less, e.g. 8760h.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    cluster_signing_duration: Duration,
    /// How logs are read and failures shown.
    #[arg(long, value_enum, default_value_t = CompatibilityName::Exact)]
    compatibility: CompatibilityName,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    audit: AuditArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

/// Where objects are kept: one of `--etcd-servers` and `--store`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
struct StorageArgs {
    /// Keep objects in etcd (v3, 3.4 or later), shared with other servers: URLs of its members, with commas.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Authorities of etcd's certificates; needed for https.
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate that etcd knows us by.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_servers", "etcd_keyfile"])]
    etcd_certfile: Option<PathBuf>,
    /// The key of --etcd-certfile.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// What all our keys in etcd begin with.
    #[arg(long, value_name = "PREFIX", default_value = EtcdConfig::DEFAULT_PREFIX)]
    etcd_prefix: String,
    /// Keep objects in this file, for one server alone; made where it is missing.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

impl ApiServerArgs {
    /// What the flags ask for.
    pub(crate) fn config(&self) -> anyhow::Result<ApiServerConfig> {
        let pair = |certificate: &PathBuf, key: &PathBuf| KeyPairFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let (public_key, old_keys) =
            self.service_account_key_file.split_first().context("--service-account-key-file is missing")?;
        Ok(ApiServerConfig {
            listen: (self.bind_address, self.secure_port).into(),
            storage: self.storage.storage(),
            serving: pair(&self.tls_cert_file, &self.tls_private_key_file),
            client_ca: self.client_ca_file.clone(),
            service_account_key: self.service_account_signing_key_file.clone(),
            service_account_public_key: public_key.clone(),
            service_account_old_keys: old_keys.to_vec(),
            service_account_issuer: self.service_account_issuer.clone(),
            authentication: self.access.authentication()?,
            authorization: self.access.authorization(),
            audit: self.audit.audit(),
            limits: self.audit.limits(),
            kubelet_client: pair(&self.kubelet_client_certificate, &self.kubelet_client_key),
            kubelet_ca: self.kubelet_certificate_authority.clone(),
            kubelet_preferred_address_types: self.kubelet_preferred_address_types.clone(),
            compatibility: self.compatibility.into(),
        })
    }

    /// How requests for certificates are signed, if they are.
    ///
    /// # Errors
    /// When the authority's files cannot be used.
    pub(crate) fn signing(&self) -> anyhow::Result<Option<CertificateSigning>> {
        let files = self.cluster_signing_cert_file.clone().zip(self.cluster_signing_key_file.clone());
        let Some((certificate, key)) = files else { return Ok(None) };
        let signer = Signer::load(KeyPairFiles { certificate, key })
            .context("cannot use --cluster-signing-cert-file and --cluster-signing-key-file")?;
        Ok(Some(CertificateSigning { signer: Arc::new(signer), duration: self.cluster_signing_duration }))
    }

    /// Authorities that service accounts are told to trust.
    pub(crate) fn root_ca(&self) -> &PathBuf {
        self.root_ca_file.as_ref().unwrap_or(&self.client_ca_file)
    }
}

impl StorageArgs {
    fn storage(&self) -> Storage {
        if let Some(file) = &self.store {
            return Storage::File(file.clone());
        }
        let client = self.etcd_certfile.clone().zip(self.etcd_keyfile.clone());
        Storage::Etcd(EtcdConfig {
            servers: self.etcd_servers.clone(),
            ca: self.etcd_cafile.clone(),
            client: client.map(|(certificate, key)| KeyPairFiles { certificate, key }),
            prefix: self.etcd_prefix.clone(),
        })
    }
}

/// A duration in Go's form, more than nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: GoDuration = text.parse()?;
    parsed.positive().ok_or_else(|| "must be greater than 0".to_owned())
}

pub(super) fn run(args: ApiServerArgs) -> anyhow::Result<Exit> {
    crate::apiserver::run(&args)
}
