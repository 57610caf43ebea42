//! The chain that every request goes through.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONNECTION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::BodyExt;
use podlog_api::go::{self, GoDuration};
use podlog_api::query::Query;
use podlog_api::{ApiError, Attributes, Details, Reason, RequestInfo, StreamRules, UserInfo, rbac};
use podlog_serving::{
    Authenticator, Authorizer, Body, Handler, NodeClient, Peer, Permit, Refusal, Upgrade, authorize,
};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::in_flight::Slot;
use super::negotiation::error_layout;
use super::{Call, InFlight, Metrics, dispatch, impersonation, malformed, sending};
use crate::audit::{Auditor, Record};
use crate::auth::{ClusterAuthorizer, ServiceAccountAuthenticator, TokenIssuer};
use crate::registry::Registry;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const MAX_AUDIT_ID: usize = 64;

/// What all requests share.
pub(crate) struct App {
    pub(crate) registry: Registry,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<ClusterAuthorizer>,
    /// Knows tokens, and nothing else: for `TokenReview`.
    pub(crate) token_authenticator: Arc<dyn Authenticator>,
    /// Knows the tokens of service accounts, and the audiences that are ours.
    pub(crate) accounts: Arc<ServiceAccountAuthenticator>,
    pub(crate) issuer: Arc<TokenIssuer>,
    pub(crate) nodes: NodeClient,
    /// Address types of nodes, most wanted first.
    pub(crate) preferred_address_types: Vec<String>,
    /// Which streams of a log can be asked for.
    pub(crate) stream_rules: StreamRules,
    pub(crate) metrics: Metrics,
    /// Notes requests, where there is an audit log.
    pub(crate) auditor: Option<Arc<Auditor>>,
    pub(crate) in_flight: InFlight,
    /// For requests that do not last (`--request-timeout`).
    pub(crate) request_timeout: Duration,
    /// `GET /version`.
    pub(crate) version: serde_json::Value,
    /// `host:port` where clients reach us.
    pub(crate) address: String,
    pub(crate) shutdown: CancellationToken,
}

/// What one request asks for.
struct Asked<'a> {
    info: &'a RequestInfo,
    query: Query,
    /// As on the wire.
    raw_query: String,
    audit_id: &'a HeaderValue,
    /// What is noted of it; there once it is known who asks, if anything is to be noted.
    audit: OnceLock<Arc<Record>>,
    /// Whether it is known who asks, once that has been looked into.
    caller: OnceLock<Caller>,
    /// Its place among the requests in flight, where it needs one.
    slot: OnceLock<Slot>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Known,
    /// Nobody, or anybody.
    Unknown,
}

/// Answers requests.
pub(crate) struct ApiHandler(pub(crate) Arc<App>);

#[async_trait]
impl Handler for ApiHandler {
    async fn handle(&self, request: Request<hyper::body::Incoming>, peer: Peer) -> Answer {
        let (parts, body) = request.into_parts();
        if let Some(answer) = malformed::answer(&parts) {
            return answer;
        }
        self.0.serve(Request::from_parts(parts, body.map_err(Into::into).boxed_unsync()), peer).await
    }
}

impl App {
    /// Answers one request; failures and panics are answers too.
    pub(crate) async fn serve(self: &Arc<Self>, request: Request<Body>, peer: Peer) -> Answer {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &raw_query);
        let query = Query::parse(&raw_query);
        let layout = error_layout(&parts.headers, &raw_query);
        let audit_id = audit_id(&parts);
        let is_http2 = parts.version == Version::HTTP_2;
        let (audit, caller, slot) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let asked = Asked { info: &info, query, raw_query, audit_id: &audit_id, audit, caller, slot };
        let work = AssertUnwindSafe(self.chain(&asked, parts, body, peer)).catch_unwind();
        let work = async {
            match deadline(&info, &asked.query, self.request_timeout) {
                Ok(deadline) => within(deadline, work).await,
                Err(error) => Ok(Err(error)),
            }
        };
        let result = work.await.unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            if let Some(record) = asked.audit.get() {
                record.panicked(text);
            }
            tracing::error!(panic = text, audit_id = ?audit_id, "a request made the server panic");
            let text = "This request caused the API server to panic. Look in the logs for details.";
            Err(ApiError::new(500, Reason::InternalError, text))
        });
        let failure = result.as_ref().err().cloned();
        let mut answer = result.unwrap_or_else(|error| answer::failure(&error, layout));
        if let Some(record) = asked.audit.get() {
            answer = record.answered(answer, failure.as_ref()).await;
        }
        let headers = answer.headers_mut();
        headers.insert(AUDIT_ID, asked.audit_id.clone());
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        // HTTP/2 lets a client ask for much at once: who is unknown gets a connection a request.
        if is_http2 && asked.caller.get() == Some(&Caller::Unknown) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.answered(&info, answer.status().as_u16(), started.elapsed());
        sending::in_its_place(answer, asked.slot.into_inner())
    }

    async fn chain(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        mut parts: Parts,
        body: Body,
        peer: Peer,
    ) -> Result<Answer, ApiError> {
        let info = asked.info;
        let mut user = self.authenticate(asked, &parts, &peer).await?;
        let audit = asked.audit.get().cloned();
        let authorizer = self.authorizer.as_ref();
        let other = impersonation::impersonated(&parts.headers, &user, &info.attributes, authorizer).await?;
        if let Some(other) = other {
            tracing::debug!(user = user.username, other = other.user.username, "impersonation");
            if let Some(record) = &audit {
                record.impersonates(&other);
            }
            user = other.user;
        }
        let Ok(slot) = self.in_flight.enter(&user, info) else {
            self.metrics.dropped(info);
            return Ok(answer::too_many_requests());
        };
        if let Some(slot) = slot {
            let _ = asked.slot.set(slot);
        }
        let permit = match self.permit(authorizer, &user, &info.attributes, audit.as_deref()).await? {
            Ok(permit) => permit,
            Err(error) => {
                let uri = parts.uri.path_and_query().map_or("", |p| p.as_str());
                tracing::error!(%error, uri, "cannot decide");
                let text = go::escape_html(&format!("Internal Server Error: {}: {error}\n", go::quote(uri)));
                return Ok(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        };
        let upgrade = Upgrade::of(&mut parts);
        let call = Call {
            address: peer.address.ip().to_canonical(),
            path: parts.uri.path().to_owned(),
            method: parts.method,
            headers: parts.headers,
            info: info.clone(),
            query: asked.query.clone(),
            raw_query: asked.raw_query.clone(),
            permit,
            authorizer: self.authorizer.clone(),
            body: parking_lot::Mutex::new(Some(body)),
            upgrade,
            audit,
        };
        dispatch::answer(self, call).await
    }

    /// Who asks; from here on, the audit log knows of the request.
    async fn authenticate(
        &self,
        asked: &Asked<'_>,
        parts: &Parts,
        peer: &Peer,
    ) -> Result<UserInfo, ApiError> {
        let audit_id = asked.audit_id.to_str().unwrap_or_default();
        let user = match self.authenticator.authenticate(parts, peer).await {
            Ok(Some(user)) => Some(user),
            Ok(None) => None,
            Err(error) => {
                tracing::info!(address = %peer.address, %error, "unable to authenticate the request");
                None
            }
        };
        let record = self.auditor.as_ref().and_then(|auditor| match &user {
            Some(user) => auditor.begin(user, asked.info, parts, peer, audit_id),
            None => auditor.begin_refused(asked.info, parts, peer, audit_id),
        });
        if let Some(record) = record {
            let _ = asked.audit.set(record);
        }
        let is_known = user.as_ref().is_some_and(|user| !user.is_anonymous());
        let _ = asked.caller.set(if is_known { Caller::Known } else { Caller::Unknown });
        user.ok_or_else(ApiError::unauthorized)
    }

    /// The inner error: no decision could be reached.
    async fn permit(
        &self,
        authorizer: &dyn Authorizer,
        user: &UserInfo,
        attributes: &Attributes,
        audit: Option<&Record>,
    ) -> Result<Result<Permit, podlog_serving::AuthzError>, ApiError> {
        let note = |decision, reason: &str| {
            if let Some(record) = audit {
                record.decided(decision, reason);
            }
        };
        match authorize(authorizer, user, attributes).await {
            Ok(permit) => {
                note("allow", permit.reason());
                Ok(Ok(permit))
            }
            Err(Refusal::Forbidden { reason }) => {
                note("forbid", &reason);
                Err(rbac::forbidden(user, attributes, &reason))
            }
            Err(Refusal::Error(error)) => {
                if let Some(record) = audit {
                    record.undecided();
                }
                Ok(Err(error))
            }
        }
    }
}

type Panicked = Box<dyn std::any::Any + Send>;

/// For how long a request is worked on that does not last: as long as it says, if that is not longer than we say
/// (`k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go`).
fn deadline(info: &RequestInfo, query: &Query, most: Duration) -> Result<Option<Duration>, ApiError> {
    if info.is_long_running() {
        return Ok(None);
    }
    let asked = query.first("timeout").filter(|text| !text.is_empty()).map(str::parse::<GoDuration>);
    let asked = asked.transpose().map_err(|why| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    Ok(Some(asked.and_then(GoDuration::positive).map_or(most, |asked| asked.min(most))))
}

async fn within(
    deadline: Option<Duration>,
    work: impl Future<Output = Result<Result<Answer, ApiError>, Panicked>>,
) -> Result<Result<Answer, ApiError>, Panicked> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        let text = "Timeout: request did not complete within the allotted timeout";
        Ok(Err(ApiError::new(504, Reason::Timeout, text).with_details(Details::default())))
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown")
}

/// The client's id of the request, or a new one.
fn audit_id(parts: &Parts) -> HeaderValue {
    let sent = parts.headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID);
    sent.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-"))
    })
}
