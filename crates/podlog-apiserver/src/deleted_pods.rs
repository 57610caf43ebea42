//! Pods that are gone and whose logs are still on their nodes. Nothing of them is stored: all nodes are asked.
//!
//! Whoever may list pods sees which there are, and whoever may read a pod's log reads it, as before. A namespace that was made
//! anew is another one: of what is older than it, only those see something who may do the same in all namespaces.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::StatusCode;
use jiff::Timestamp;
use podlog_api::deleted_pods::{self, Wanted};
use podlog_api::resource::{Resource, find};
use podlog_api::{ApiError, Attributes, LOG_OPTIONS_HEADER, Object, Reason, StreamRules};
use podlog_serving::{Refusal, Verify, authorize};
use serde_json::{Value, json};

use crate::http::{Answer, App, Call, Selection, Target, json_answer, read_limited};
use crate::logs::{address, port};
use crate::registry::codec;
use crate::store::KeyValue;

/// Nodes that are asked at the same time.
const ASKED_AT_ONCE: usize = 32;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a node's answer.
const MAX_ANSWER: usize = 64 << 20;

/// What nodes said.
#[derive(Default)]
struct Found {
    pods: Vec<Object>,
    /// Nodes that could not be asked.
    silent: Vec<String>,
}

/// Whether a list of deleted pods is asked for, and not of those that there are.
pub(crate) fn is_listed(app: &App, call: &Call, target: &Target) -> bool {
    app.stream_rules == StreamRules::Exact && target.resource.kind == "Pod" && call.query.flag("deleted")
}

/// Answers with the list.
pub(crate) async fn list(app: &App, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let selection = Selection::parse(target, &call.query)?;
    let wanted = Wanted { namespace: target.namespace.clone(), ..Wanted::default() };
    let mut found = ask(app, &wanted).await?;
    found.pods.retain(|pod| selection.matches(pod));
    let mut pods = visible(app, call, target, found.pods).await?;
    pods.sort_by_key(|pod| std::cmp::Reverse(deleted_at(pod)));
    let list = deleted_pods::list(pods.into_iter().map(|pod| pod.0).collect(), &found.silent);
    let mut answer = json_answer(call, StatusCode::OK, &list)?;
    answer.headers_mut().insert(LOG_OPTIONS_HEADER, http::HeaderValue::from_static("deleted"));
    Ok(answer)
}

/// A deleted pod of the target's name: that of the uid, or the one that was deleted last.
pub(crate) async fn find_one(
    app: &App,
    call: &Call,
    target: &Target,
    uid: Option<&str>,
) -> Result<Object, ApiError> {
    let wanted = Wanted { namespace: target.namespace.clone(), name: target.name.clone() };
    let mut found = ask(app, &wanted).await?;
    found.pods.retain(|pod| uid.is_none_or(|uid| pod.uid() == uid));
    let pods = visible(app, call, target, found.pods).await?;
    pods.into_iter().max_by_key(deleted_at).ok_or_else(|| unknown(&target.name, &found.silent))
}

fn unknown(name: &str, silent: &[String]) -> ApiError {
    let text = format!("no logs of a deleted pod {name:?} are on any node");
    if silent.is_empty() {
        return ApiError::new(404, Reason::NotFound, text);
    }
    let text = format!("{text} that answered; these did not: {}", silent.join(", "));
    ApiError::new(503, Reason::ServiceUnavailable, text)
}

fn deleted_at(pod: &Object) -> Option<Timestamp> {
    pod.text("/logs/deletedAt").parse().ok()
}

/// Asks all nodes.
async fn ask(app: &App, wanted: &Wanted) -> Result<Found, ApiError> {
    let nodes = app.registry.list(resource("nodes")?, None)?.0;
    let answers = stream::iter(nodes)
        .map(|node| async move { (ask_node(app, &node, wanted).await, node) })
        .buffer_unordered(ASKED_AT_ONCE)
        .collect::<Vec<_>>();
    let mut found = Found::default();
    for (answer, node) in answers.await {
        match answer {
            Ok(pods) => found.pods.extend(pods),
            Err(error) => {
                tracing::warn!(node = node.name(), error, "cannot ask a node for logs of deleted pods");
                found.silent.push(node.name().to_owned());
            }
        }
    }
    found.silent.sort();
    Ok(found)
}

/// What a node has. It is believed for itself alone, and for what it was asked.
async fn ask_node(app: &App, node: &Object, wanted: &Wanted) -> Result<Vec<Object>, String> {
    let host = address(node, &app.preferred_address_types).map_err(|error| error.message)?;
    let path = wanted.path();
    let asked = async {
        let response =
            app.nodes.get(&host, port(node), &path, Verify::Ca).await.map_err(|e| e.to_string())?;
        let code = response.status();
        if code == StatusCode::NOT_FOUND {
            // Another kubelet than podlog's.
            return Ok(Value::Null);
        }
        if code != StatusCode::OK {
            return Err(format!("it answered with {code}"));
        }
        let body = read_limited(response.into_body(), MAX_ANSWER).await;
        let body = body.map_err(|_| "its answer broke off or is too long".to_owned())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    };
    let list = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "it did not answer in time")??;
    let items = Object::new(list).array("/items").to_vec();
    let pods = items.into_iter().map(Object::new).filter(|pod| wanted.is(pod.namespace(), pod.name()));
    Ok(pods.map(|pod| on_node(pod, node.name())).collect())
}

fn on_node(mut pod: Object, node: &str) -> Object {
    pod.map_mut("spec").insert("nodeName".to_owned(), json!(node));
    pod
}

/// The pods that whoever asks may know of.
async fn visible(
    app: &App,
    call: &Call,
    target: &Target,
    pods: Vec<Object>,
) -> Result<Vec<Object>, ApiError> {
    let Some(namespace) = target.namespace() else { return Ok(pods) };
    let namespaces = resource("namespaces")?;
    let stored = app.registry.find_stored(namespaces, "", namespace)?;
    let decode = |stored: &KeyValue| codec::decode(namespaces, &stored.value, stored.mod_revision);
    let there = stored.as_ref().map(decode).transpose()?;
    let (own, earlier) = split(there.as_ref().zip(stored.map(|stored| stored.create_revision)), pods);
    if earlier.is_empty() || !may_everywhere(app, call).await? {
        return Ok(own);
    }
    Ok([own, earlier].concat())
}

/// The pods of the namespace, and those of namespaces of its name before it. Where there is none, it is one of those before: rights
/// in it may outlive it for a moment.
fn split(namespace: Option<(&Object, u64)>, pods: Vec<Object>) -> (Vec<Object>, Vec<Object>) {
    pods.into_iter()
        .partition(|pod| namespace.is_some_and(|(namespace, revision)| is_of(namespace, revision, pod)))
}

/// Whether the pod was made in this namespace, which has been there since `revision`, and not in one of its name before it.
///
/// Times have whole seconds: in the second in which the namespace was made, resource versions decide, which a store that was
/// made anew begins anew. What has none (a static pod) belongs to the namespace from the second after.
fn is_of(namespace: &Object, revision: u64, pod: &Object) -> bool {
    let created = |object: &Object| object.text("/metadata/creationTimestamp").parse::<Timestamp>().ok();
    let Some((pod_created, namespace_created)) = created(pod).zip(created(namespace)) else { return false };
    match pod.text("/metadata/resourceVersion").parse::<u64>() {
        Ok(version) => pod_created >= namespace_created && version > revision,
        Err(_) => pod_created > namespace_created,
    }
}

/// Whether whoever asks may do the same in all namespaces.
async fn may_everywhere(app: &App, call: &Call) -> Result<bool, ApiError> {
    let mut attributes = call.info.attributes.clone();
    if let Attributes::Resource { namespace, .. } = &mut attributes {
        namespace.clear();
    }
    match authorize(app.authorizer.as_ref(), call.user(), &attributes).await {
        Ok(_) => Ok(true),
        Err(Refusal::Forbidden { .. }) => Ok(false),
        Err(Refusal::Error(error)) => Err(ApiError::internal(error)),
    }
}

fn resource(plural: &str) -> Result<&'static Resource, ApiError> {
    find("", "v1", plural).ok_or_else(ApiError::no_such_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_belong_to_the_namespace_that_was_there_when_they_were_made() {
        let created = |at: &str, version: &str| {
            Object::new(json!({"metadata": {"creationTimestamp": at, "resourceVersion": version}}))
        };
        let namespace = created("2026-01-02T00:00:00Z", "9");
        for (at, version, expected) in [
            ("2026-01-02T00:00:00Z", "8", true),
            ("2026-01-03T00:00:00Z", "8", true),
            ("2026-01-02T00:00:00Z", "7", false),
            ("2026-01-02T00:00:00Z", "6", false),
            ("2026-01-03T00:00:00Z", "6", false),
            ("2026-01-01T23:59:59Z", "8", false),
            ("2026-01-02T00:00:01Z", "", true),
            ("2026-01-02T00:00:00Z", "", false),
            ("2026-01-01T23:59:59Z", "", false),
            ("", "8", false),
            ("x", "", false),
        ] {
            assert_eq!(is_of(&namespace, 7, &created(at, version)), expected, "{at} {version}");
        }
        let pods = vec![created("2026-01-03T00:00:00Z", "8"), created("2026-01-01T00:00:00Z", "3")];
        for (namespace, own, earlier) in [(Some((&namespace, 7)), 1, 1), (None, 0, 2)] {
            let (of_it, before) = split(namespace, pods.clone());
            assert_eq!((of_it.len(), before.len()), (own, earlier));
        }
    }

    #[test]
    fn nobody_is_told_that_logs_are_gone_while_a_node_is_silent() {
        let error = unknown("web", &[]);
        assert_eq!(
            (error.code, error.message.as_str()),
            (404, r#"no logs of a deleted pod "web" are on any node"#)
        );
        let error = unknown("web", &["a".into(), "b".into()]);
        assert_eq!(error.code, 503);
        assert!(error.message.ends_with("that answered; these did not: a, b"), "{}", error.message);
    }
}
