//! One request, from its arrival to its end, as `audit.k8s.io/v1` events.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use podlog_api::{ApiError, Attributes, RequestInfo, UserInfo, protobuf};
use podlog_serving::{Peer, bearer_token, full_body};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::Auditor;
use super::policy::{Level, Stage, Verdict};
use crate::held;
use crate::http::{Answer, Impersonated};

/// Longer names of clients are cut (`maxUserAgentLength`).
const MAX_USER_AGENT: usize = 1024;
/// What tells that one was cut (`userAgentTruncateSuffix`).
const CUT: &str = "...TRUNCATED";

/// What is noted of one request; its end when nobody works on it any more, and no part of its answer is left.
pub(crate) struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    is_authenticated: bool,
    is_long_running: bool,
    /// Fields that all stages share.
    event: Mutex<Map<String, Value>>,
    left: Mutex<Left>,
}

/// What is still to be noted.
enum Left {
    /// How it is answered.
    Answer,
    /// That the answer, which has this status, has ended.
    End(Value),
    Nothing,
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
            "userAgent": shortened(user_agent),
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
            left: Mutex::new(Left::Answer),
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
    pub(crate) fn decided(&self, decision: &str, reason: &str) {
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// Nobody could tell whether it is allowed.
    pub(crate) fn undecided(&self) {
        self.annotate("authorization.k8s.io/reason", "internal error");
    }

    fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        event.entry("annotations").or_insert_with(|| json!({}))[key] = json!(value);
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

    /// What went well, where the answer is a `Status` that says so.
    pub(crate) fn succeeded(&self, status: &Value) {
        let said = ["status", "details"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), status.get(key)?.clone())));
        self.event.lock().insert("responseStatus".into(), said.collect());
    }

    /// We failed; nothing else is noted then.
    pub(crate) fn panicked(&self, why: &str) {
        let message = format!("APIServer panic'd: {why}");
        let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500});
        self.emit(Stage::Panic, Some(status));
        *self.left.lock() = Left::Nothing;
    }

    /// Notes the answer: that it begins, where it may last, and its status for the end.
    pub(crate) async fn answered(self: &Arc<Self>, mut answer: Answer, error: Option<&ApiError>) -> Answer {
        if matches!(*self.left.lock(), Left::Nothing) {
            return answer;
        }
        let mut status = status(answer.status().as_u16(), error);
        if !self.is_authenticated {
            *self.left.lock() = Left::Nothing;
            self.emit(Stage::ResponseStarted, None);
            return answer;
        }
        if let Some(Value::Object(said)) = self.event.lock().remove("responseStatus") {
            said.into_iter().for_each(|(key, value)| status[key] = value);
        }
        *self.left.lock() = Left::End(status.clone());
        let is_stream = answer.body().size_hint().exact().is_none() && !answer.body().is_end_stream();
        if self.is_long_running {
            self.emit(Stage::ResponseStarted, Some(status));
            if let Some(EndsWith(end)) = answer.extensions_mut().remove() {
                let record = self.clone();
                tokio::spawn(async move {
                    end.cancelled().await;
                    drop(record);
                });
                return answer;
            }
        }
        if is_stream {
            let record = self.clone();
            return answer.map(|body| held::with_body(record, body));
        }
        match self.verdict.level {
            Level::RequestResponse => self.note_body(answer).await,
            _ => answer,
        }
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

/// However it ends: in order, by an error, because its client has gone before or after the answer began.
impl Drop for Record {
    fn drop(&mut self) {
        let status = match std::mem::replace(self.left.get_mut(), Left::Nothing) {
            Left::Answer => {
                json!({"metadata": {}, "status": "Failure", "message": "context canceled", "code": 500})
            }
            Left::End(status) => return self.emit(Stage::ResponseComplete, Some(status)),
            Left::Nothing => return,
        };
        if self.is_long_running {
            self.emit(Stage::ResponseStarted, Some(status.clone()));
        }
        self.emit(Stage::ResponseComplete, Some(status));
    }
}

fn shortened(user_agent: &str) -> String {
    if user_agent.len() <= MAX_USER_AGENT {
        return user_agent.to_owned();
    }
    format!("{}{CUT}", &user_agent[..user_agent.floor_char_boundary(MAX_USER_AGENT)])
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
    let address = |text: &str| Some(text.trim().parse::<IpAddr>().ok()?.to_canonical());
    let mut addresses: Vec<IpAddr> = header("x-forwarded-for").split(',').filter_map(address).collect();
    if let Some(real) = address(header("x-real-ip")).filter(|real| !addresses.contains(real)) {
        addresses.push(real);
    }
    // Whatever they say, who is connected is known: only as the last of them it can be left out.
    let peer = peer.address.ip().to_canonical();
    if addresses.last() != Some(&peer) {
        addresses.push(peer);
    }
    addresses.iter().map(IpAddr::to_string).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let request = headers
            .iter()
            .fold(http::Request::builder(), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn who_is_connected_cannot_be_talked_away() {
        let peer = Peer { address: ([10, 0, 0, 9], 1).into(), certificate_chain: Vec::new().into() };
        let (forwarded, real) = ("x-forwarded-for", "x-real-ip");
        let rows: [(&[(&'static str, &'static str)], &str); 7] = [
            (&[], "10.0.0.9"),
            (&[(forwarded, "1.1.1.1, 2.2.2.2")], "1.1.1.1 2.2.2.2 10.0.0.9"),
            (&[(forwarded, "10.0.0.9, 2.2.2.2")], "10.0.0.9 2.2.2.2 10.0.0.9"),
            (&[(forwarded, "1.1.1.1,10.0.0.9")], "1.1.1.1 10.0.0.9"),
            (&[(forwarded, "nobody, ::ffff:3.3.3.3")], "3.3.3.3 10.0.0.9"),
            (&[(forwarded, "1.1.1.1"), (real, "1.1.1.1")], "1.1.1.1 10.0.0.9"),
            (&[(forwarded, "1.1.1.1"), (real, "4.4.4.4")], "1.1.1.1 4.4.4.4 10.0.0.9"),
        ];
        for (headers, expected) in rows {
            assert_eq!(source_addresses(&parts(headers), &peer).join(" "), expected, "{headers:?}");
        }
    }

    #[test]
    fn long_names_of_clients_are_cut_and_say_so() {
        assert_eq!(shortened("curl/8"), "curl/8");
        let whole = "a".repeat(MAX_USER_AGENT);
        assert_eq!(shortened(&whole), whole);
        assert_eq!(shortened(&format!("{whole}b")), format!("{whole}{CUT}"));
    }
}
