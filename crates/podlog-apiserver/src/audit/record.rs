//! One request, from its arrival to its end, as `audit.k8s.io/v1` events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Attributes, RequestInfo, UserInfo, protobuf};
use podlog_serving::{Body, BodyError, Peer, bearer_token, full_body};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::Auditor;
use super::policy::{Level, Stage, Verdict};
use crate::http::{Answer, Impersonated};

/// Longer names of clients are cut (`maxUserAgentLength`).
const MAX_USER_AGENT: usize = 1024;

/// What is noted of one request.
pub(crate) struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    is_authenticated: bool,
    is_long_running: bool,
    /// Fields that all stages share.
    event: Mutex<Map<String, Value>>,
}

impl Record {
    pub(super) fn new(
        auditor: Arc<Auditor>,
        verdict: Verdict,
        user: Option<&UserInfo>,
        info: &RequestInfo,
        parts: &Parts,
        peer: &Peer,
        audit_id: &str,
    ) -> Self {
        let user_agent = parts.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": verdict.level, "auditID": audit_id,
            "requestURI": parts.uri.path_and_query().map_or("", |p| p.as_str()),
            "verb": info.attributes.verb(),
            "user": user.map_or_else(|| json!({}), user_value),
            "sourceIPs": source_addresses(parts, peer),
            "userAgent": user_agent.chars().take(MAX_USER_AGENT).collect::<String>(),
            "requestReceivedTimestamp": time(Timestamp::now()),
        });
        let Value::Object(mut event) = event else { unreachable!("it is an object") };
        if let Some(reference) = reference(&info.attributes) {
            event.insert("objectRef".into(), reference);
        }
        if user.is_none() {
            event.insert("responseStatus".into(), unauthenticated(parts, peer));
        }
        let is_long_running = info.is_long_running();
        Record {
            auditor,
            verdict,
            is_authenticated: user.is_some(),
            is_long_running,
            event: Mutex::new(event),
        }
    }

    /// The user acts as somebody else.
    pub(crate) fn impersonates(&self, other: &Impersonated) {
        let mut event = self.event.lock();
        event.insert("impersonatedUser".into(), user_value(&other.user));
        if let Some(constraint) = &other.constraint {
            let metadata = json!({"impersonationConstraint": constraint});
            event.insert("authenticationMetadata".into(), metadata);
        }
    }

    /// Whether that was allowed, and why.
    pub(crate) fn decided(&self, decision: &'static str, reason: &str) {
        let mut event = self.event.lock();
        let annotations = event.entry("annotations").or_insert_with(|| json!({}));
        annotations["authorization.k8s.io/decision"] = json!(decision);
        annotations["authorization.k8s.io/reason"] = json!(reason);
    }

    /// The body of the request, once it has been read.
    pub(crate) fn request_body(&self, body: &Bytes, content_type: &str) {
        if self.verdict.level < Level::Request || body.is_empty() {
            return;
        }
        if let Some(object) = object(body, content_type) {
            let object = self.shown(object);
            self.event.lock().insert("requestObject".into(), object);
        }
    }

    /// We failed.
    pub(crate) fn panicked(&self) {
        let status = json!({"metadata": {}, "status": "Failure", "code": 500, "reason": "InternalError"});
        self.emit(Stage::Panic, Some(status));
    }

    /// Notes the answer, now or, where it lasts, when it begins and when it ends.
    pub(crate) async fn answered(self: &Arc<Self>, mut answer: Answer, error: Option<&ApiError>) -> Answer {
        let status = status(answer.status().as_u16(), error);
        if !self.is_authenticated {
            self.emit(Stage::ResponseStarted, None);
            return answer;
        }
        let is_stream = answer.body().size_hint().exact().is_none() && !answer.body().is_end_stream();
        if self.is_long_running {
            self.emit(Stage::ResponseStarted, Some(status.clone()));
            if let Some(EndsWith(end)) = answer.extensions_mut().remove() {
                let record = self.clone();
                tokio::spawn(async move {
                    end.cancelled().await;
                    record.emit(Stage::ResponseComplete, Some(status));
                });
                return answer;
            }
            if is_stream {
                let record = self.clone();
                return answer.map(|inner| Audited { inner, record, status }.boxed_unsync());
            }
        }
        let answer = match self.verdict.level {
            Level::RequestResponse if !is_stream => self.note_body(answer).await,
            _ => answer,
        };
        self.emit(Stage::ResponseComplete, Some(status));
        answer
    }

    /// Keeps a copy of a body that is in memory already.
    async fn note_body(&self, answer: Answer) -> Answer {
        let (head, body) = answer.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return Answer::from_parts(head, podlog_serving::empty_body());
        };
        let text = |name| {
            head.headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default()
        };
        if text(CONTENT_ENCODING).is_empty()
            && let Some(object) = object(&body, text(CONTENT_TYPE))
        {
            let object = self.shown(object);
            self.event.lock().insert("responseObject".into(), object);
        }
        Answer::from_parts(head, full_body(body))
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields {
            let drop = |object: &mut Value| {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            };
            drop(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(drop);
        }
        object
    }

    pub(super) fn emit(&self, stage: Stage, status: Option<Value>) {
        if self.verdict.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.event.lock().clone();
        event.insert("stage".into(), json!(stage));
        event.insert("stageTimestamp".into(), json!(time(Timestamp::now())));
        if let Some(status) = status {
            event.insert("responseStatus".into(), status);
        }
        let mut line = Value::Object(event).to_string().into_bytes();
        line.push(b'\n');
        self.auditor.log.write(line);
    }
}

/// Part of an answer after which the connection goes on without HTTP: cancelled when it ends.
#[derive(Clone)]
pub(crate) struct EndsWith(pub(crate) CancellationToken);

/// A body whose end is noted, however it comes.
struct Audited {
    inner: Body,
    record: Arc<Record>,
    status: Value,
}

impl http_body::Body for Audited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        self.record.emit(Stage::ResponseComplete, Some(std::mem::take(&mut self.status)));
    }
}

fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.username});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn reference(attributes: &Attributes) -> Option<Value> {
    let Attributes::Resource { group, version, resource, subresource, namespace, name, .. } = attributes
    else {
        return None;
    };
    let parts = [
        ("resource", resource),
        ("namespace", namespace),
        ("name", name),
        ("apiGroup", group),
        ("apiVersion", version),
        ("subresource", subresource),
    ];
    let known = parts.into_iter().filter(|(_, value)| !value.is_empty());
    Some(Value::Object(known.map(|(key, value)| (key.to_owned(), json!(value))).collect()))
}

/// Proxies' word first, and the peer last, as `k8s.io/apimachinery/pkg/util/net.SourceIPs`.
fn source_addresses(parts: &Parts, peer: &Peer) -> Vec<String> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let said = header("x-forwarded-for").split(',').chain([header("x-real-ip")]).map(str::trim);
    let said = said.filter(|text| text.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned);
    let mut addresses: Vec<String> = said.collect();
    let peer = peer.address.ip().to_string();
    if !addresses.contains(&peer) {
        addresses.push(peer);
    }
    addresses
}

fn unauthenticated(parts: &Parts, peer: &Peer) -> Value {
    let basic = parts.headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
    let tried = [
        (basic, "basic"),
        (bearer_token(parts).is_some(), "bearer"),
        (!peer.certificate_chain.is_empty(), "x509"),
    ];
    let tried: Vec<&str> = tried.into_iter().filter(|(shown, _)| *shown).map(|(_, name)| name).collect();
    let message = match tried.is_empty() {
        true => "Authentication failed, no credentials provided".to_owned(),
        false => format!("Authentication failed, attempted: {}", tried.join(", ")),
    };
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "Unauthorized", "code": 401})
}

fn status(code: u16, error: Option<&ApiError>) -> Value {
    let Some(error) = error else { return json!({"metadata": {}, "code": code}) };
    let text = error.to_body(podlog_api::json::Layout::Compact);
    let status: Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut shown = json!({"metadata": {}, "code": code});
    for key in ["status", "message", "reason", "details"] {
        if let Some(value) = status.get(key) {
            shown[key] = value.clone();
        }
    }
    shown
}

/// A body as an object; `None` for what is none.
fn object(body: &Bytes, content_type: &str) -> Option<Value> {
    if body.starts_with(&protobuf::PREFIX) {
        return protobuf::decode(body).ok().map(|object| object.0);
    }
    if content_type.contains("yaml") {
        return serde_saphyr::from_slice(body).ok();
    }
    serde_json::from_slice(body).ok()
}
