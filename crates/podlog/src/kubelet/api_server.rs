//! The API server of a kubelet's kubeconfig, whatever becomes of the file.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use kube::config::Kubeconfig;
use podlog_kubelet::ApiConnection;
use tokio_util::sync::CancellationToken;

use crate::node_client::{SwappedClient, connect};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Pause when the server's name cannot be resolved yet.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// A connection that takes up new credentials when the files change.
pub(super) struct Connection {
    kubeconfig: PathBuf,
    client: SwappedClient,
    address: SocketAddr,
    stamps: Stamps,
}

/// What tells one state of files from the next.
type Stamps = Vec<Option<(u64, u64, Option<SystemTime>)>>;

impl Connection {
    /// Reads the kubeconfig. The server need not be there yet, but its name must be known.
    pub(super) async fn load(kubeconfig: &Path) -> anyhow::Result<Self> {
        let (config, stamps) = read(kubeconfig)?;
        let (client, url) = connect(config).await?;
        let address = resolve(&url).await?;
        Ok(Connection {
            kubeconfig: kubeconfig.to_owned(),
            client: SwappedClient::new(client),
            address,
            stamps,
        })
    }

    pub(super) fn api_server(&self) -> ApiConnection {
        ApiConnection { client: self.client.client(), address: self.address }
    }

    /// Takes up what changes, until `stop`. What is wrong is reported once, and changes nothing.
    pub(super) async fn keep_fresh(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = format!("{error:#}"), "cannot take up the new kubeconfig");
            }
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let (config, stamps) = match read(&self.kubeconfig) {
            Ok(read) => read,
            // It is being replaced, or gone: what is in use goes on.
            Err(_) => return Ok(()),
        };
        if stamps == self.stamps {
            return Ok(());
        }
        self.stamps = stamps;
        let (client, _) = connect(config).await?;
        self.client.replace(client);
        tracing::info!(kubeconfig = %self.kubeconfig.display(), "took up new credentials");
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<(Kubeconfig, Stamps)> {
    let config = Kubeconfig::read_from(path)
        .with_context(|| format!("cannot read --kubeconfig {}", path.display()))?;
    let mut files = vec![path.to_owned()];
    let users = config.auth_infos.iter().filter_map(|user| user.auth_info.as_ref());
    let of_user = |user: &kube::config::AuthInfo| {
        [user.client_certificate.clone(), user.client_key.clone(), user.token_file.clone()]
    };
    files.extend(users.flat_map(of_user).flatten().map(PathBuf::from));
    let clusters = config.clusters.iter().filter_map(|cluster| cluster.cluster.as_ref());
    files.extend(clusters.filter_map(|cluster| cluster.certificate_authority.clone()).map(PathBuf::from));
    Ok((config, files.iter().map(|file| stamp(file)).collect()))
}

fn stamp(file: &Path) -> Option<(u64, u64, Option<SystemTime>)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

/// Where the server is. A name may become known a while after the machine has started.
async fn resolve(url: &str) -> anyhow::Result<SocketAddr> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL of an API server"))?;
    let host = uri.host().with_context(|| format!("{url:?} names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    loop {
        match tokio::net::lookup_host((host, port)).await.map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => tracing::warn!(host, "the API server's name has no address yet"),
            Err(error) => tracing::warn!(host, %error, "cannot resolve the API server's name yet"),
        }
        tokio::time::sleep(RESOLVE_AGAIN).await;
    }
}
