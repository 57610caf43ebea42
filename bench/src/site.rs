//! An API server to be measured: in this process or in one of its own, with certificates and a node.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use podlog_api::{Compatibility, Object, resource};
use podlog_apiserver::{
    ApiServer, ApiServerConfig, AuthenticationConfig, AuthorizationConfig, Registry, RequestLimits, Storage,
    controllers::{self, ControllerConfig},
};
use podlog_serving::{
    NodeClient, NodeClientConfig,
    pki::{CertificateAuthority, CertificateRequest, KeyPairFiles},
};
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;
use tokio_util::sync::CancellationToken;

/// A folder with an authority, certificates and a store.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
}

impl Site {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Site> {
        podlog_serving::install_crypto_provider();
        let authority = CertificateAuthority::load_or_create(folder, "ca", "bench")?;
        for (name, request) in [
            ("server", CertificateRequest::serving("server", ["127.0.0.1"])),
            ("admin", CertificateRequest::client("admin", Some("system:masters"))),
        ] {
            authority.ensure(&KeyPairFiles::in_folder(folder, name), &request)?;
        }
        Ok(Site { folder: folder.to_owned() })
    }

    pub(crate) fn pair(&self, name: &str) -> KeyPairFiles {
        KeyPairFiles::in_folder(&self.folder, name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> anyhow::Result<NodeClient> {
        // As Go's clients, kubectl among them (`transportDefaultStreamFlow` of `golang.org/x/net/http2`).
        self.client_that_takes(4 << 20)
    }

    /// One that takes so many bytes of an answer before they are read.
    pub(crate) fn client_that_takes(&self, stream_window: u32) -> anyhow::Result<NodeClient> {
        let (client, ca) = (Some(self.pair("admin")), Some(self.ca()));
        let stream_window = Some(stream_window);
        Ok(NodeClient::new(NodeClientConfig { client, ca, stream_window, ..NodeClientConfig::default() })?)
    }

    fn config(&self) -> ApiServerConfig {
        ApiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            storage: Storage::File(self.folder.join("store.redb")),
            serving: self.pair("server"),
            client_ca: self.ca(),
            service_account_key: self.folder.join("sa.key"),
            service_account_public_key: self.folder.join("sa.pub"),
            service_account_old_keys: Vec::new(),
            service_account_issuer: ApiServerConfig::DEFAULT_ISSUER.into(),
            authentication: AuthenticationConfig::default(),
            authorization: AuthorizationConfig::default(),
            audit: None,
            limits: RequestLimits::default(),
            kubelet_client: self.pair("admin"),
            kubelet_ca: Some(self.ca()),
            kubelet_preferred_address_types: ApiServerConfig::default_address_types(),
            compatibility: Compatibility::default(),
        }
    }

    pub(crate) async fn server(&self) -> anyhow::Result<ApiServer> {
        Ok(ApiServer::start(self.config()).await?)
    }
}

/// Creates an object.
pub(crate) async fn create(
    registry: &Registry,
    plural: &str,
    namespace: &str,
    object: Value,
) -> anyhow::Result<()> {
    let kind = resource::find("", "v1", plural).context("no such kind")?;
    registry.create(kind, namespace, Object::new(object)).await?;
    Ok(())
}

/// A node whose kubelet listens there, and the pod `web` on it.
pub(crate) async fn create_pod(registry: &Registry, kubelet: SocketAddr) -> anyhow::Result<()> {
    create(registry, "serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await?;
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": kubelet.ip()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}},
    });
    create(registry, "nodes", "", json!({"metadata": {"name": "n"}, "status": status})).await?;
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "i"}]});
    create(registry, "pods", "default", json!({"metadata": {"name": "web"}, "spec": spec})).await
}

/// Path of the log of `web`.
pub(crate) const LOG: &str = "/api/v1/namespaces/default/pods/web/log";

/// Serves the API of a [`Site`] with all controllers, until its standard input ends. There it is told which of the pods of
/// [`crate::api`] to change.
#[derive(clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    folder: PathBuf,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        podlog_serving::install_crypto_provider();
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let server = Site { folder: self.folder }.server().await?;
            let end = CancellationToken::new();
            let _controllers = controllers::spawn_all(server.registry(), ControllerConfig::default(), &end);
            writeln!(std::io::stdout(), "{}", server.local_addr())?;
            let mut orders = tokio::io::BufReader::new(tokio::io::stdin()).lines();
            while let Some(order) = orders.next_line().await? {
                let (first, end) = order.split_once(' ').context("no range")?;
                crate::api::change(server.registry(), first.parse()?..end.parse()?).await?;
                writeln!(std::io::stdout(), "done")?;
            }
            Ok(())
        })
    }
}

/// A server in a process of its own.
pub(crate) struct ServerProcess {
    pub(crate) address: SocketAddr,
    /// From its start until it could be asked.
    pub(crate) ready_after: Duration,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl ServerProcess {
    pub(crate) fn start(site: &Site) -> anyhow::Result<ServerProcess> {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-api").arg("--folder").arg(&site.folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("no stdin")?;
        let mut answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().parse().context("the server did not start")?;
        Ok(ServerProcess { address, ready_after: begun.elapsed(), child, orders, answers })
    }

    /// Changes these pods of [`crate::api`].
    pub(crate) fn change(&mut self, pods: Range<usize>) -> anyhow::Result<()> {
        writeln!(self.orders, "{} {}", pods.start, pods.end)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        anyhow::ensure!(line == "done\n", "the server changes no pods");
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
