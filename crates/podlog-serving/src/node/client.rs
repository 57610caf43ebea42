//! Requests to nodes.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{HOST, LOCATION};
use http::{HeaderValue, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::body::{NodeBody, StreamSlot};
use super::connection::{Connection, Connections, Exclusive, Liveness, STREAM_WINDOW};
use super::dial::{Dialled, Timeouts, dial};
use super::error::{DialCause, DialError, Ends};
use crate::forward::{passed_back, passed_on};
use crate::pki::KeyPairFiles;
use crate::reload::Reloading;
use crate::tls::{AnyServer, ServerOfAuthority, load_key_pair, load_roots, provider};
use crate::upgrade::authority;
use crate::{Body, TlsError, Upgrade, UpgradeError, empty_body};

/// Who the API server is to nodes, and which nodes it believes.
#[derive(Clone, Debug, Default)]
pub struct NodeClientConfig {
    /// What nodes know us by; `None` for nothing.
    pub client: Option<KeyPairFiles>,
    /// Authorities of nodes' certificates; without any, no node's certificate is verified, as kube-apiserver.
    pub ca: Option<PathBuf>,
    /// How silent nodes are found out about.
    pub liveness: Liveness,
    /// Bytes that a stream over HTTP/2 may be ahead of its reader, from 16 KiB on: what is held of it when its reader stalls,
    /// and what comes of it in the time that it takes to the node and back. Default 48 KiB less 27 bytes, which at a millisecond are 49 MB a
    /// second.
    pub stream_window: Option<u32>,
}

/// Whether a node's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Against the authorities of [`NodeClientConfig::ca`].
    Ca,
    /// Not at all (`insecureSkipTLSVerifyBackend`). Our own certificate is shown all the same.
    Skip,
}

/// The API server's client towards kubelets. Clones share its connections.
#[derive(Clone)]
pub struct NodeClient {
    shared: Arc<State>,
}

struct State {
    tls: Reloading<Trust, TlsError>,
    nodes: Mutex<Nodes>,
    timeouts: Timeouts,
    liveness: Liveness,
    stream_window: u32,
}

/// TLS by the files' content.
struct Trust {
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

/// Connections made with one state of the files.
#[derive(Default)]
struct Nodes {
    trust: Option<Arc<Trust>>,
    connections: HashMap<Node, Arc<Mutex<Connections>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    host: String,
    port: u16,
    verify: Verify,
}

impl NodeClient {
    /// Loads certificate, key and authorities. They are loaded again when they change; connections of before end with
    /// the requests they carry.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn new(config: NodeClientConfig) -> Result<Self, TlsError> {
        Self::with_timeouts(config, Timeouts::default())
    }

    pub(super) fn with_timeouts(config: NodeClientConfig, timeouts: Timeouts) -> Result<Self, TlsError> {
        let mut files = Vec::from_iter(config.ca.clone());
        files.extend(config.client.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]));
        let liveness = config.liveness;
        let stream_window = config.stream_window.unwrap_or(STREAM_WINDOW);
        let tls = Reloading::new(files, move || Trust::load(&config))?;
        let nodes = Mutex::default();
        Ok(NodeClient { shared: Arc::new(State { tls, nodes, timeouts, liveness, stream_window }) })
    }

    /// Asks a node. There is no limit on how long it may think; dropping the future or the body cancels the request.
    ///
    /// # Errors
    /// When no answer came. An answer with an error status is an answer; a redirect is refused.
    pub async fn get(
        &self,
        host: &str,
        port: u16,
        path_and_query: &str,
        verify: Verify,
    ) -> Result<Response<NodeBody>, DialError> {
        let url = url(host, port, path_and_query);
        match self.exchange(host, port, &url, verify).await {
            Ok((response, ends, slot)) => refuse_redirects(response, &url)
                .map(|response| response.map(|body| NodeBody::new(body, ends, slot))),
            Err(cause) => Err(DialError { url, cause }),
        }
    }

    /// Passes a client's wish for another protocol on to a node, over a connection of its own. The node's answer is ours; when
    /// it agrees, bytes go both ways. `held` lives as long as they do.
    ///
    /// # Errors
    /// When no answer came, or one that is neither an agreement nor a refusal.
    pub async fn upgrade(
        &self,
        host: &str,
        port: u16,
        path_and_query: &str,
        upgrade: Upgrade,
        held: impl Send + 'static,
    ) -> Result<Response<Body>, UpgradeError> {
        let dialled = dial(host, port, self.http1_config(), self.shared.timeouts).await;
        let Dialled { connection, ends, .. } = dialled.map_err(UpgradeError::Dial)?;
        upgrade.pass_over(connection, ends, &authority(host, port), path_and_query, held).await
    }

    /// Passes a request on to a node, whatever its method; its answer comes back as it is. The request's URI is the path there.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn forward(
        &self,
        host: &str,
        port: u16,
        request: Request<Body>,
    ) -> Result<Response<Body>, DialCause> {
        let mut request = passed_on(request, false);
        let authority = HeaderValue::try_from(authority(host, port));
        request.headers_mut().extend(authority.ok().map(|authority| (HOST, authority)));
        let trust = self.shared.tls.current();
        let node = Node { host: host.to_owned(), port, verify: Verify::Ca };
        let pool = self.shared.nodes.lock().connections(&trust, node);
        // A connection that waits may have been closed by the node a moment ago.
        if let Some(copy) = copy(&request)
            && let Some(waiting) = { pool.lock().take_passing() }
        {
            match waiting.pass_on(copy, &pool).await {
                Ok((response, ends)) => return Ok(passed_back(response, None, ends, ())),
                Err((error, _)) if is_stale(&error) => {
                    tracing::debug!(%error, host, "a pooled connection was stale");
                }
                Err((error, ends)) => return Err(DialCause::exchange(&error, &ends)),
            }
        }
        let dialled = dial(host, port, self.http1_config(), self.shared.timeouts).await?;
        let sent = Exclusive::start(dialled).await?.pass_on(request, &pool).await;
        let (response, ends) = sent.map_err(|(error, ends)| DialCause::exchange(&error, &ends))?;
        Ok(passed_back(response, None, ends, ()))
    }

    /// Only HTTP/1.1 can be upgraded, and has connections that are for one request at a time.
    fn http1_config(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.shared.tls.current().verified);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    async fn exchange(
        &self,
        host: &str,
        port: u16,
        url: &str,
        verify: Verify,
    ) -> Result<(Response<Incoming>, Ends, StreamSlot), DialCause> {
        let uri: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| DialCause::Other(error.to_string()))?;
        let trust = self.shared.tls.current();
        let node = Node { host: host.to_owned(), port, verify };
        let pool = self.shared.nodes.lock().connections(&trust, node);
        let waiting = pool.lock().take();
        if let Some(connection) = waiting {
            match connection.send(&uri, &pool).await {
                Ok(answer) => return Ok(answer),
                // It was closed while it waited for us: a GET can be sent again, over a fresh one.
                Err((error, _)) if is_stale(&error) => {
                    tracing::debug!(%error, url, "a pooled connection was stale")
                }
                Err((error, ends)) => return Err(DialCause::exchange(&error, &ends)),
            }
        }
        let config = if verify == Verify::Ca { &trust.verified } else { &trust.unverified };
        let dialled = dial(host, port, config.clone(), self.shared.timeouts).await?;
        let connection =
            Connection::start(dialled, self.shared.liveness, self.shared.stream_window, &pool).await?;
        connection.send(&uri, &pool).await.map_err(|(error, ends)| DialCause::exchange(&error, &ends))
    }
}

impl fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeClient")
    }
}

impl Nodes {
    fn connections(&mut self, trust: &Arc<Trust>, node: Node) -> Arc<Mutex<Connections>> {
        if !self.trust.as_ref().is_some_and(|known| Arc::ptr_eq(known, trust)) {
            self.trust = Some(trust.clone());
            self.connections.clear();
        }
        if !self.connections.contains_key(&node) {
            self.forget_closed();
        }
        self.connections.entry(node).or_default().clone()
    }

    fn forget_closed(&mut self) {
        self.connections.retain(|_, connections| {
            let in_use = Arc::strong_count(connections) > 1;
            let mut connections = connections.lock();
            connections.forget_closed();
            in_use || !connections.is_empty()
        });
    }
}

impl Trust {
    fn load(config: &NodeClientConfig) -> Result<Self, TlsError> {
        let own = config.client.as_ref().map(load_key_pair).transpose()?;
        let unverified = client_config(Arc::new(AnyServer::new()), own.clone())?;
        let verified = match &config.ca {
            None => unverified.clone(),
            Some(bundle) => {
                client_config(Arc::new(ServerOfAuthority::new(load_roots(bundle)?, bundle)?), own)?
            }
        };
        Ok(Trust { verified, unverified })
    }
}

/// How a client speaks TLS: HTTP/2 where the server knows it.
pub(crate) fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<CertifiedKey>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable { path: PathBuf::new(), reason: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn url(host: &str, port: u16, path_and_query: &str) -> String {
    format!("https://{}{path_and_query}", authority(host, port))
}

/// The same request, of one that changes nothing and has no body: it can be made twice.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(empty_body());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn is_stale(error: &hyper::Error) -> bool {
    !error.is_timeout() && !error.is_user()
}

/// As Go, the error names the URL that the answer pointed to.
fn refuse_redirects(response: Response<Incoming>, url: &str) -> Result<Response<Incoming>, DialError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(response);
    }
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    Err(DialError { url: location.unwrap_or(url).to_owned(), cause: DialCause::Redirect })
}
