//! Calls to the members of an etcd cluster: one is asked as long as it answers, then the next.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use podlog_proto::etcd::kv_client::KvClient;
use podlog_proto::etcd::lease_client::LeaseClient;
use podlog_proto::etcd::maintenance_client::MaintenanceClient;
use podlog_proto::etcd::watch_client::WatchClient;
use podlog_proto::etcd::watch_request::RequestUnion;
use podlog_proto::etcd::{
    CompactionRequest, LeaseGrantRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use podlog_serving::pki::KeyPairFiles;
use podlog_serving::{Dialer, TlsError};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::store::StoreError;

/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(3);
/// For one attempt at one member: a little more than an election takes.
const ATTEMPT: Duration = Duration::from_secs(5);
/// For one call with all its attempts.
const CALL: Duration = Duration::from_secs(15);
/// Between attempts once every member has been asked.
const PAUSE: Duration = Duration::from_millis(100);
/// Between HTTP/2 pings, so that a member that is silent is told from one that is gone. etcd refuses less than 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);
/// As etcd's own client: the server's limits are what bounds a message.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Where etcd is and how to speak to it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of its members, `http://host:port` or `https://host:port` (`--etcd-servers`).
    pub servers: Vec<String>,
    /// Authorities of their certificates, PEM (`--etcd-cafile`); needed for `https`.
    pub ca: Option<PathBuf>,
    /// What they know us by (`--etcd-certfile`, `--etcd-keyfile`).
    pub client: Option<KeyPairFiles>,
    /// What all our keys begin with (`--etcd-prefix`). Default `/registry`.
    pub prefix: String,
}

impl EtcdConfig {
    /// Default of [`EtcdConfig::prefix`].
    pub const DEFAULT_PREFIX: &str = "/registry";
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No server is named.
    #[error("no etcd server is named; name one, e.g. --etcd-servers=https://127.0.0.1:2379")]
    NoServer,
    /// A server is not a URL of the kind expected.
    #[error("{0:?} is no URL of an etcd server; write e.g. https://127.0.0.1:2379")]
    Server(String),
    /// A server is to be asked by TLS and nothing says which certificates to believe.
    #[error("{0} needs --etcd-cafile, the authorities of its certificate")]
    NoAuthority(String),
    /// Certificates or keys cannot be used.
    #[error("cannot set up TLS to etcd")]
    Tls(#[from] TlsError),
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The revision asked for is no longer kept.
    #[error("the revision has been compacted")]
    Compacted,
    /// etcd's quota is used up: it refuses writes until somebody makes room and clears the alarm.
    #[error("etcd's database is full")]
    Full,
    /// No member answered, or none that has a leader.
    #[error("no member of etcd answers: {0}")]
    Unavailable(String),
    /// etcd refused.
    #[error("etcd refuses: {0}")]
    Refused(String),
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Full => StoreError::Full("etcd's database (its quota is used up)".into()),
            CallError::Unavailable(_) => StoreError::Unavailable(error.to_string()),
            other => StoreError::Failed(other.to_string()),
        }
    }
}

/// An answer, and whether an earlier attempt may have had its effect already.
pub(super) struct Answer<T> {
    pub(super) message: T,
    pub(super) is_repeated: bool,
}

/// The cluster's members. Connections are made when they are first needed, and again when they broke.
pub(super) struct Client {
    members: Vec<Member>,
    current: AtomicUsize,
}

struct Member {
    address: String,
    channel: Channel,
}

impl Client {
    /// Does not connect yet.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, ConfigError> {
        let members = config.servers.iter().map(|server| Member::new(server, config));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(ConfigError::NoServer);
        }
        Ok(Client { members, current: AtomicUsize::new(0) })
    }

    /// Keys and values.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, CallError> {
        let answer = self.call(|channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        });
        Ok(answer.await?.message)
    }

    /// A transaction. It has to be one that can be repeated: whoever asks is told when it was.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<Answer<TxnResponse>, CallError> {
        self.call(|channel| {
            let request = request.clone();
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    /// Forgets what was before `revision`. That somebody else did so already is no failure.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), CallError> {
        let request = CompactionRequest { revision, physical: false };
        match self.call(|channel| async move { kv(channel).compact(request).await }).await {
            Ok(_) | Err(CallError::Compacted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A lease of so many seconds; answers with its id.
    pub(super) async fn grant(&self, seconds: i64) -> Result<i64, CallError> {
        let request = LeaseGrantRequest { ttl: seconds, id: 0 };
        let grant = |channel| async move { LeaseClient::new(channel).lease_grant(request).await };
        Ok(self.call(grant).await?.message.id)
    }

    /// What the current member says of itself.
    pub(super) async fn status(&self) -> Result<StatusResponse, CallError> {
        let status = |channel| async move { MaintenanceClient::new(channel).status(StatusRequest {}).await };
        Ok(self.call(status).await?.message)
    }

    /// Follows all keys from revision `start` on. The member ends it when it loses its leader.
    pub(super) async fn watch(&self, start: i64) -> Result<Streaming<WatchResponse>, CallError> {
        let everything = Bytes::from_static(b"\0");
        let create = WatchCreateRequest {
            key: everything.clone(),
            range_end: everything,
            start_revision: start,
            progress_notify: true,
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let answer =
            self.call(|channel| {
                // The end of what we say would be the end of the watch.
                let said = stream::iter([create.clone()]).chain(stream::pending());
                let mut request = Request::new(said);
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                async move {
                    WatchClient::new(channel).max_decoding_message_size(MAX_MESSAGE).watch(request).await
                }
            });
        Ok(answer.await?.message)
    }

    /// From now on asks another member than the one asked now, e.g. because its watch is silent.
    pub(super) fn leave_current(&self) {
        self.leave(self.current.load(Ordering::Relaxed));
    }

    fn leave(&self, index: usize) {
        let next = (index + 1) % self.members.len();
        // Who comes second finds that it has been left already.
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks members in turn until one answers or time is up.
    async fn call<T, F>(&self, ask: impl Fn(Channel) -> F) -> Result<Answer<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + CALL;
        let mut failures = String::new();
        for attempt in 0.. {
            let index = self.current.load(Ordering::Relaxed);
            let member = &self.members[index];
            let asked = tokio::time::timeout(ATTEMPT, ask(member.channel.clone())).await;
            let failure = match asked {
                Ok(Ok(answer)) => {
                    return Ok(Answer { message: answer.into_inner(), is_repeated: attempt > 0 });
                }
                Ok(Err(status)) => judge(&status)?,
                Err(_) => "no answer in time".into(),
            };
            tracing::debug!(member = member.address, failure, "etcd does not answer");
            if attempt < self.members.len() {
                let separator = if attempt == 0 { "" } else { ", " };
                // Writing into a string does not fail.
                let _ = write!(failures, "{separator}{}: {failure}", member.address);
            }
            self.leave(index);
            if Instant::now() >= deadline {
                break;
            }
            if (attempt + 1) % self.members.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(CallError::Unavailable(failures))
    }
}

impl Member {
    fn new(server: &str, config: &EtcdConfig) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Server(server.to_owned());
        let uri: Uri = server.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(2379);
        let dialer = match uri.scheme_str() {
            Some("http") => Dialer::plain(),
            Some("https") => {
                let ca = config.ca.clone().ok_or_else(|| ConfigError::NoAuthority(server.to_owned()))?;
                Dialer::tls(ca, config.client.clone())?
            }
            _ => return Err(wrong()),
        };
        // TLS is the dialer's business: to tonic it is a connection like any other.
        let authority = uri.authority().ok_or_else(wrong)?;
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| wrong())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true);
        let dialer = Arc::new(dialer);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (dialer, host) = (dialer.clone(), host.clone());
            async move { dialer.dial(&host, port).await.map(TokioIo::new) }
        }));
        Ok(Member { address: server.to_owned(), channel })
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// Whether to ask another member, and why; texts of etcd's `api/v3rpc/rpctypes/error.go`.
fn judge(status: &Status) -> Result<String, CallError> {
    let text = status.message();
    match status.code() {
        Code::OutOfRange if text.contains("compacted") => Err(CallError::Compacted),
        Code::ResourceExhausted if text.contains("space exceeded") => Err(CallError::Full),
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::ResourceExhausted => Ok(with_causes(status)),
        _ => Err(CallError::Refused(text.to_owned())),
    }
}

/// What the transport says stands in the causes.
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
