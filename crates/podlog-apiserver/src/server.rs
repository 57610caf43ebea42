//! Starting and stopping.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podlog_api::ApiError;
use podlog_serving::pki::{PkiError, load_or_create_signing_key};
use podlog_serving::{
    Authorizer, Drained, Limits, Liveness, NodeClient, NodeClientConfig, ServeError, Server, ServerTls,
    TlsError,
};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::audit::{AuditError, Auditor};
use crate::auth::{PolicyKeeper, TokenIssuer, WebhookConfigError};
use crate::bootstrap;
use crate::config::{ApiServerConfig, Storage};
use crate::http::{ApiHandler, App, InFlight, Metrics};
use crate::registry::codec::store_error;
use crate::registry::{Registry, migration};
use crate::store::etcd::{ConnectError, EtcdStore};
use crate::store::{RedbStore, Retention, Store};

/// The release of Kubernetes whose API this is.
const EMULATED: (&str, &str, &str) = ("1", "36", "2");

/// Why an API server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store's file cannot be opened or written.
    #[error("cannot open the store {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
    },
    /// The store's file is in use, mostly by another server.
    #[error("the store {} is in use by another process; stop that one, or use another data directory", path.display())]
    StoreInUse {
        /// The file.
        path: PathBuf,
    },
    /// The store's file is damaged.
    #[error("the store {} is damaged; restore it from a backup, or move it away to start with an empty cluster", path.display())]
    StoreDamaged {
        /// The file.
        path: PathBuf,
        /// How it is damaged.
        source: redb::DatabaseError,
    },
    /// etcd cannot be used.
    #[error("cannot keep objects in etcd")]
    Etcd(#[source] ConnectError),
    /// A certificate or key cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// The key that signs tokens cannot be used.
    #[error("cannot set up the service account key {}", path.display())]
    Key {
        /// The private key.
        path: PathBuf,
        /// Why.
        source: PkiError,
    },
    /// The key that signs tokens is neither ECDSA nor RSA.
    #[error("the service account key {} cannot sign: {reason}", path.display())]
    SigningKey {
        /// The private key.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A key that tokens of before are verified with cannot be used.
    #[error("the service account key {} cannot verify: {reason}", path.display())]
    VerifyingKey {
        /// The public key.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Requests cannot be noted.
    #[error(transparent)]
    Audit(AuditError),
    /// A webhook cannot be asked.
    #[error(transparent)]
    Webhook(WebhookConfigError),
    /// The mode has no webhook to ask.
    #[error("--authorization-mode has Webhook: --authorization-webhook-config-file has to say which")]
    NoWebhook,
    /// The file of static tokens cannot be read.
    #[error("cannot read the token file {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot serve")]
    Listen(#[source] ServeError),
    /// What every cluster has could not be written.
    #[error("cannot set up the cluster's namespaces and roles")]
    Bootstrap(#[source] ApiError),
}

/// A running API server.
pub struct ApiServer {
    address: SocketAddr,
    registry: Registry,
    authorizer: Arc<dyn Authorizer>,
    auditor: Option<Arc<Auditor>>,
    shutdown: CancellationToken,
    serving: JoinHandle<Drained>,
    tasks: TaskTracker,
}

impl ApiServer {
    /// Opens the store, listens, and serves.
    ///
    /// # Errors
    /// [`StartError`], which names the file or address and the way out. Nothing keeps running then.
    pub async fn start(config: ApiServerConfig) -> Result<Self, StartError> {
        let tls = ServerTls::load(config.serving.clone()).map_err(StartError::Tls)?;
        let limits = Limits { send_timeout: config.limits.request_timeout, ..Limits::default() };
        let server = Server::bind(config.listen, tls, limits).await.map_err(StartError::Listen)?;
        let address = server.local_addr();
        let registry = Registry::new(open(&config.storage).await?);
        bootstrap::ensure(&registry).await.map_err(StartError::Bootstrap)?;
        let keeper = PolicyKeeper::start(registry.clone()).map_err(StartError::Bootstrap)?;
        let shutdown = CancellationToken::new();
        let app = Arc::new(app(&config, registry.clone(), address, shutdown.clone())?);
        let tasks = TaskTracker::new();
        tasks.spawn(keeper.run(shutdown.clone()));
        tasks.close();
        let (authorizer, auditor) = (app.authorizer.clone(), app.auditor.clone());
        let server = server.with_metrics(&app.metrics.registry);
        let serving = tokio::spawn(server.serve(Arc::new(ApiHandler(app)), shutdown.clone()));
        Ok(ApiServer { address, registry, authorizer, auditor, shutdown, serving, tasks })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// All objects, for controllers in the same process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who decides what users may do, for controllers in the same process.
    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        self.authorizer.clone()
    }

    /// Stops accepting, lets requests finish, closes the store. Says how many requests were cut.
    ///
    /// # Errors
    /// When the server panicked.
    pub async fn shutdown(self) -> Result<Drained, JoinError> {
        self.shutdown.cancel();
        let drained = self.serving.await;
        self.tasks.wait().await;
        self.registry.store().close().await;
        if let Some(auditor) = self.auditor {
            // It waits for the disk.
            tokio::task::spawn_blocking(move || auditor.close()).await?;
        }
        drained
    }
}

async fn open(storage: &Storage) -> Result<Arc<dyn Store>, StartError> {
    Ok(match storage {
        Storage::File(path) => {
            let store = open_store(path)?;
            let moved = migration::adopt_old_keys(&store).await;
            moved.map_err(|error| StartError::Bootstrap(store_error(error)))?;
            Arc::new(store)
        }
        Storage::Etcd(config) => {
            Arc::new(EtcdStore::connect(config, Retention::default()).await.map_err(StartError::Etcd)?)
        }
    })
}

fn open_store(path: &Path) -> Result<RedbStore, StartError> {
    let path = path.to_owned();
    RedbStore::open(&path, Retention::default()).map_err(|source| match source {
        redb::DatabaseError::DatabaseAlreadyOpen => StartError::StoreInUse { path },
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)) => {
            StartError::StoreDamaged { path, source }
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(ref error))
            if error.kind() == std::io::ErrorKind::InvalidData =>
        {
            StartError::StoreDamaged { path, source }
        }
        source => StartError::Store { path, source },
    })
}

fn app(
    config: &ApiServerConfig,
    registry: Registry,
    address: SocketAddr,
    shutdown: CancellationToken,
) -> Result<App, StartError> {
    let issuer = Arc::new(issuer(config)?);
    let Access { requests, tokens, accounts, authorizer } = Access::new(config, &registry, &issuer)?;
    let nodes = NodeClientConfig {
        client: Some(config.kubelet_client.clone()),
        ca: config.kubelet_ca.clone(),
        liveness: Liveness::of(|name| std::env::var(name).ok()),
        stream_window: None,
    };
    let metrics = Metrics::new();
    let auditor = config.audit.as_ref().map(|audit| Auditor::start(audit, &metrics.registry));
    let auditor = auditor.transpose().map_err(StartError::Audit)?;
    Ok(App {
        registry,
        authorizer,
        authenticator: requests,
        token_authenticator: tokens,
        accounts,
        issuer,
        nodes: NodeClient::new(nodes).map_err(StartError::Tls)?,
        preferred_address_types: config.kubelet_preferred_address_types.clone(),
        stream_rules: config.compatibility.stream_rules(),
        auditor,
        in_flight: InFlight::new(&config.limits),
        request_timeout: config.limits.request_timeout,
        metrics,
        version: version(),
        address: address.to_string(),
        shutdown,
    })
}

fn issuer(config: &ApiServerConfig) -> Result<TokenIssuer, StartError> {
    let path = config.service_account_key.clone();
    let (private, public) = load_or_create_signing_key(&path, &config.service_account_public_key)
        .map_err(|source| StartError::Key { path: path.clone(), source })?;
    let mut issuer = TokenIssuer::new(config.service_account_issuer.clone(), &private, &public)
        .map_err(|reason| StartError::SigningKey { path, reason })?;
    // The first may hold a key of before, too.
    for path in [&config.service_account_public_key].into_iter().chain(&config.service_account_old_keys) {
        let unusable = |reason: String| StartError::VerifyingKey { path: path.clone(), reason };
        let pem = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        issuer.believe(&pem).map_err(unusable)?;
    }
    Ok(issuer)
}

/// `GET /version`, in the form of `k8s.io/apimachinery/pkg/version.Info`.
fn version() -> Value {
    let (major, minor, patch) = EMULATED;
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v{major}.{minor}.{patch}+podlog-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
}

/// Go's name of the processor.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_used_says_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let in_use = folder.path().join("used");
        let _open = open_store(&in_use).unwrap();
        let garbage = folder.path().join("garbage");
        std::fs::write(&garbage, [7; 50_000]).unwrap();
        let cut = folder.path().join("cut");
        drop(open_store(&cut).unwrap());
        let content = std::fs::read(&cut).unwrap();
        std::fs::write(&cut, &content[..content.len() / 3]).unwrap();
        let flipped = folder.path().join("flipped");
        drop(open_store(&flipped).unwrap());
        let mut content = std::fs::read(&flipped).unwrap();
        content[64..4096].fill(0xaa);
        std::fs::write(&flipped, content).unwrap();
        let rows = [
            (&in_use, "is in use by another process; stop that one, or use another data directory"),
            (&garbage, "is damaged; restore it from a backup, or move it away"),
            (&cut, "is damaged; restore it from a backup, or move it away"),
            (&flipped, "is damaged; restore it from a backup, or move it away"),
            (&folder.path().join("no/folder"), "cannot open the store"),
        ];
        for (path, text) in rows {
            let error = open_store(path).err().expect("must be refused").to_string();
            assert!(error.contains(text) && error.contains(&path.display().to_string()), "{error}");
        }
    }
}
