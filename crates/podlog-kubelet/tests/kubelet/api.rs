//! As much of an API server as a kubelet needs: objects in a map, watches of kinds and of single objects, tokens, and reviews by table.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use podlog_api::patch::{PatchType, apply};
use podlog_api::{ApiError, Attributes, Object, RequestInfo, resource};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

type Key = (String, String, String);
type Reply = Response<BoxBody<Bytes, Infallible>>;

/// The server; it ends with the last clone.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<State>,
    pub(crate) address: SocketAddr,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct State {
    objects: Mutex<BTreeMap<Key, Value>>,
    revision: Mutex<u64>,
    /// What happens: the kind and the name of an object, and the event.
    events: broadcast::Sender<(String, String, Value)>,
    /// How long tokens live that come one after the other; `None`: there is one, which lives long.
    token_life: Mutex<Option<SignedDuration>>,
    /// When each of those was asked for.
    tokens: Mutex<Vec<Instant>>,
    /// Requests for tokens that failed.
    refused_tokens: AtomicU32,
    /// What is asked of the server fails.
    down: AtomicBool,
    /// `SubjectAccessReview`s that came in.
    reviews: Mutex<Vec<Value>>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            objects: Mutex::default(),
            revision: Mutex::new(1),
            events: broadcast::channel(1000).0,
            token_life: Mutex::default(),
            tokens: Mutex::default(),
            refused_tokens: AtomicU32::new(0),
            down: AtomicBool::new(false),
            reviews: Mutex::default(),
        });
        let served = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let state = served.clone();
                let service = service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Api { state, address, _task: Arc::new(Task(task.abort_handle())) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        let mut config = kube::Config::new(url);
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// Puts a pod in, bound to `node-1`.
    pub(crate) fn create_pod(&self, name: &str, spec: Value) -> String {
        let uid = format!("uid-{name}-{}", self.state.revision.lock());
        let mut spec = spec;
        spec["nodeName"] = json!("node-1");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1},
            "spec": spec, "status": {"phase": "Pending"},
        });
        self.state.put("pods", "default", name, pod, "ADDED");
        uid
    }

    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, object: Value) {
        self.state.put(plural, namespace, name, object, "MODIFIED");
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state.objects.lock().get(&(plural.into(), namespace.into(), name.into())).cloned()
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.get("pods", "default", name)
    }

    /// Asks for a pod's deletion, as a client does.
    pub(crate) fn delete_pod(&self, name: &str, grace: i64) {
        let mut pod = self.pod(name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.state.put("pods", "default", name, pod, "MODIFIED");
    }

    /// Removes a pod at once.
    pub(crate) fn force_delete_pod(&self, name: &str) {
        self.state.remove("pods", "default", name);
    }

    /// Events as `reason: message`, those about one container only if it is named, with their counts.
    pub(crate) fn events(&self, object: &str) -> Vec<String> {
        let objects = self.state.objects.lock();
        let mut events: Vec<&Value> = objects
            .iter()
            .filter(|((plural, ..), event)| plural == "events" && event["involvedObject"]["name"] == object)
            .map(|(_, event)| event)
            .collect();
        events.sort_by_key(|event| {
            event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
        });
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events
            .into_iter()
            .map(|event| format!("{}: {}", text(event, "reason"), text(event, "message")))
            .collect()
    }

    /// From now on, tokens are called `token-1`, `token-2` and so on, and live so long.
    pub(crate) fn set_token_life(&self, seconds: i64) {
        *self.state.token_life.lock() = Some(SignedDuration::from_secs(seconds));
    }

    /// When each of those tokens was asked for.
    pub(crate) fn tokens(&self) -> Vec<Instant> {
        self.state.tokens.lock().clone()
    }

    /// How many requests for tokens have failed.
    pub(crate) fn refused_tokens(&self) -> u32 {
        self.state.refused_tokens.load(Ordering::SeqCst)
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn reviews(&self) -> Vec<Value> {
        self.state.reviews.lock().clone()
    }
}

impl State {
    fn next_revision(&self) -> String {
        let mut revision = self.revision.lock();
        *revision += 1;
        revision.to_string()
    }

    fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value, event: &str) -> Value {
        let mut objects = self.objects.lock();
        let version = match (plural, objects.get(&(plural.into(), namespace.into(), name.into()))) {
            // Repeated events keep their place in the order.
            ("events", Some(old)) => old["metadata"]["resourceVersion"].as_str().unwrap().to_owned(),
            _ => self.next_revision(),
        };
        object["metadata"]["resourceVersion"] = json!(version);
        objects.insert((plural.into(), namespace.into(), name.into()), object.clone());
        self.tell(plural, name, event, &object);
        object
    }

    fn tell(&self, plural: &str, name: &str, event: &str, object: &Value) {
        // Nobody may be watching.
        let _ = self.events.send((plural.into(), name.into(), json!({"type": event, "object": object})));
    }

    fn remove(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut objects = self.objects.lock();
        let mut object = objects.remove(&(plural.into(), namespace.into(), name.into()))?;
        object["metadata"]["resourceVersion"] = json!(self.next_revision());
        self.tell(plural, name, "DELETED", &object);
        Some(object)
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        if self.down.load(Ordering::SeqCst) {
            if request.uri().path().ends_with("/token") {
                self.refused_tokens.fetch_add(1, Ordering::SeqCst);
            }
            return reply(
                503,
                &json!({"kind": "Status", "code": 503, "status": "Failure", "message": "down"}),
            );
        }
        let (parts, body) = request.into_parts();
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let media =
            parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match self.handle(&info, media, &body) {
            Ok(Answer::Object(code, object)) => reply(code, &object),
            Ok(Answer::Watch { plural, name }) => self.watch(plural, name),
            Err(error) => reply(error.code, &error.to_status()),
        }
    }

    fn handle(&self, info: &RequestInfo, media: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let Attributes::Resource {
            verb, group, version, resource: plural, subresource, namespace, name, ..
        } = &info.attributes
        else {
            return Err(ApiError::no_such_path());
        };
        let key = (plural.clone(), namespace.clone(), name.clone());
        let missing = || ApiError::not_found(group, plural, name);
        match (verb.as_str(), subresource.as_str()) {
            ("watch", _) => Ok(Answer::Watch { plural: plural.clone(), name: name.clone() }),
            ("list", _) => {
                let items: Vec<Value> = self
                    .objects
                    .lock()
                    .iter()
                    .filter(|((kind, _, own), _)| kind == plural && is_named(own, name))
                    .map(|(_, object)| object.clone())
                    .collect();
                let metadata = json!({"resourceVersion": self.revision.lock().to_string()});
                let list =
                    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items});
                Ok(Answer::Object(200, list))
            }
            ("get", _) => self
                .objects
                .lock()
                .get(&key)
                .cloned()
                .map(|object| Answer::Object(200, object))
                .ok_or_else(missing),
            ("create", _) => {
                let object: Value = serde_json::from_slice(body).unwrap();
                Ok(Answer::Object(201, self.create(plural, namespace, subresource, object)))
            }
            ("patch", _) => {
                let old = self.objects.lock().get(&key).cloned().ok_or_else(missing)?;
                let kind = resource::find(group, version, plural).unwrap();
                let patched = apply(kind, PatchType::from_media_type(media).unwrap(), &Object(old), body)?;
                Ok(Answer::Object(200, self.put(plural, namespace, name, patched.0, "MODIFIED")))
            }
            ("delete", _) => {
                let gone = self.remove(plural, namespace, name).ok_or_else(missing)?;
                Ok(Answer::Object(200, gone))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn create(&self, plural: &str, namespace: &str, subresource: &str, mut object: Value) -> Value {
        match (plural, subresource) {
            ("subjectaccessreviews", _) => {
                let allowed = object["spec"]["user"] != "eve";
                self.reviews.lock().push(object["spec"].clone());
                object["status"] = json!({"allowed": allowed});
                object
            }
            ("tokenreviews", _) => {
                let user = object["spec"]["token"].as_str().and_then(|token| token.strip_prefix("token-of-"));
                object["status"] = match user {
                    Some(user) => json!({"authenticated": true, "user": {"username": user, "groups": ["g"]}}),
                    None => json!({"authenticated": false}),
                };
                object
            }
            ("serviceaccounts", "token") => {
                object["status"] = self.next_token();
                object
            }
            _ => {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                self.put(plural, namespace, &name, object, "ADDED")
            }
        }
    }

    fn next_token(&self) -> Value {
        let Some(life) = *self.token_life.lock() else {
            return json!({"token": "a-token", "expirationTimestamp": "2099-01-01T00:00:00Z"});
        };
        let number = {
            let mut tokens = self.tokens.lock();
            tokens.push(Instant::now());
            tokens.len()
        };
        let expires = (Timestamp::now() + life).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"token": format!("token-{number}"), "expirationTimestamp": expires})
    }

    /// Everything that happens to objects of a kind, or to one of them, from now on. A kubelet lists before it watches, and misses nothing here only
    /// because tests change pods when it watches already or before it starts.
    fn watch(&self, plural: String, name: String) -> Reply {
        let events = self.events.subscribe();
        let is_wanted = move |kind: &str, own: &str| kind == plural && is_named(own, &name);
        let current: Vec<Value> = {
            let objects = self.objects.lock();
            let wanted = objects.iter().filter(|((kind, _, own), _)| is_wanted(kind, own));
            wanted.map(|(_, object)| json!({"type": "MODIFIED", "object": object})).collect()
        };
        let later = stream::unfold((events, is_wanted), |(mut events, is_wanted)| async move {
            loop {
                let (kind, own, event) = events.recv().await.ok()?;
                if is_wanted(&kind, &own) {
                    return Some((event, (events, is_wanted)));
                }
            }
        });
        let lines = stream::iter(current)
            .chain(later)
            .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        let body = BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(lines)))));
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    }
}

enum Answer {
    Object(u16, Value),
    Watch { plural: String, name: String },
}

/// Whether an object is the one that is meant; all are when none is named.
fn is_named(own: &str, name: &str) -> bool {
    name.is_empty() || own == name
}

fn reply(code: u16, object: &Value) -> Reply {
    let body = Full::new(Bytes::from(object.to_string())).boxed();
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

/// A stream that may be shared between threads, which `BoxBody` asks for.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().as_mut().poll_next(context)
    }
}
