//! From what was asked for to the logs it means.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use podlog_api::query::Query;
use podlog_api::resource::{self, Resource};
use podlog_api::selector::LabelSelector;
use podlog_api::{Object, PodLogOptions};

use super::containers::{self, Choice, Notes};
use super::deleted;
use super::first_pod;
use super::options::{Asked, LogsOptions, Plan};
use crate::error::Subject;
use crate::{ClientError, Connection};

/// Other API servers have them.
static REPLICATION_CONTROLLERS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &[],
    namespaced: true,
    verbs: &["get"],
    subresources: &[],
    schema: "io.k8s.api.core.v1.ReplicationController",
};

/// One container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) options: PodLogOptions,
}

/// The logs, in the order in which they are asked for, and what to say on stderr.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) logs: Vec<Log>,
    pub(super) notes: Vec<String>,
}

/// Finds the logs that are meant.
pub(super) async fn resolve(
    connection: &Connection,
    options: &LogsOptions,
    plan: &Plan,
) -> Result<Logs, ClientError> {
    let mut found = Logs::default();
    if options.deleted {
        found.add_deleted(connection, options, plan).await?;
        return Ok(found);
    }
    match &plan.asked {
        Asked::Selector(selector) => {
            let pods = list_pods(connection, connection.namespace(), selector).await?;
            if pods.is_empty() {
                found.notes.push(format!("No resources found in {} namespace.", connection.namespace()));
            }
            for pod in &pods {
                found.add(pod, options, &plan.log)?;
            }
        }
        Asked::Argument(argument) => {
            let (kind, name) = split_argument(argument)?;
            let object = get(connection, kind, name).await?;
            if kind.kind == "Pod" {
                found.add(&object, options, &plan.log)?;
            } else {
                found.add_pods_of(connection, kind, &object, options, plan).await?;
            }
        }
    }
    Ok(found)
}

impl Logs {
    /// Pods that are gone: the one of a name, the last one of a workload or all of them, those of a selector.
    async fn add_deleted(
        &mut self,
        connection: &Connection,
        options: &LogsOptions,
        plan: &Plan,
    ) -> Result<(), ClientError> {
        let namespace = connection.namespace();
        let (wanted, selector, of) = match &plan.asked {
            Asked::Selector(selector) => (deleted::Which::All, selector.clone(), None),
            Asked::Argument(argument) => {
                let (kind, name) = split_argument(argument)?;
                if kind.kind == "Pod" {
                    (deleted::Which::Last, String::new(), Some(name))
                } else {
                    let object = get(connection, kind, name).await?;
                    let which = if options.all_pods { deleted::Which::All } else { deleted::Which::Last };
                    (which, selector_of(kind, &object)?.to_string(), None)
                }
            }
        };
        let mut listed = match (deleted::list(connection, namespace, &selector).await, of) {
            (Err(ClientError::Status(status)), Some(pod))
                if status.code == 403 && !options.all_containers =>
            {
                // Whoever may not list pods may still read this one's log: the server chooses.
                let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
                self.logs.push(Log { namespace, pod, options: plan.log.clone() });
                return Ok(());
            }
            (listed, _) => listed?,
        };
        listed.pods.retain(|pod| of.is_none_or(|name| pod.name() == name));
        let (pods, notes) = listed.choose(wanted, options.uid.as_deref(), namespace)?;
        self.notes.extend(notes);
        for pod in &pods {
            let mut log = plan.log.clone();
            log.extensions.uid = Some(pod.uid().to_owned());
            self.add(pod, options, &log)?;
        }
        Ok(())
    }

    async fn add_pods_of(
        &mut self,
        connection: &Connection,
        kind: &Resource,
        object: &Object,
        options: &LogsOptions,
        plan: &Plan,
    ) -> Result<(), ClientError> {
        let selector = selector_of(kind, object)?.to_string();
        let namespace = object.namespace();
        let timeout = options.pod_running_timeout.positive().unwrap_or_default();
        let mut pods = list_pods(connection, namespace, &selector).await?;
        if pods.is_empty() {
            wait_for_pod(connection, namespace, &selector, timeout).await?;
            pods = list_pods(connection, namespace, &selector).await?;
        }
        if options.all_pods {
            return pods.iter().try_for_each(|pod| self.add(pod, options, &plan.log));
        }
        let Some(best) = pods.iter().min_by_key(|pod| first_pod::rank(pod)) else {
            return Err(timed_out());
        };
        if pods.len() > 1 {
            self.notes.push(format!("Found {} pods, using pod/{}", pods.len(), best.name()));
        }
        self.add(best, options, &plan.log)
    }

    fn add(&mut self, pod: &Object, options: &LogsOptions, log: &PodLogOptions) -> Result<(), ClientError> {
        let notes = if options.all_pods { Notes::Left } else { Notes::Said };
        let Choice { containers, notes } = if options.all_containers {
            containers::all(pod)
        } else {
            containers::one(pod, &log.container, notes).map_err(ClientError::Invalid)?
        };
        self.notes.extend(notes);
        self.logs.extend(containers.into_iter().map(|container| Log {
            namespace: pod.namespace().to_owned(),
            pod: pod.name().to_owned(),
            options: PodLogOptions { container, ..log.clone() },
        }));
        Ok(())
    }
}

fn split_argument(argument: &str) -> Result<(&'static Resource, &str), ClientError> {
    let invalid = |text: &str| Err(ClientError::Invalid(text.into()));
    let parts: Vec<&str> = argument.split('/').collect();
    match parts.as_slice() {
        [""] => invalid("resource name may not be empty"),
        [name] => Ok((kind_named("pods")?, name)),
        [kind, name] if !kind.is_empty() && !name.is_empty() => Ok((kind_named(kind)?, name)),
        [_, _] => invalid("arguments in resource/name form must have a single resource and name"),
        _ => invalid("arguments in resource/name form may not have more than one slash"),
    }
}

/// By plural, singular or short name, or kind, optionally followed by group or version and group.
fn kind_named(name: &str) -> Result<&'static Resource, ClientError> {
    let lower = name.to_lowercase();
    let (word, group) = lower.split_once('.').unwrap_or((&lower, ""));
    let is_named = |r: &&Resource| {
        r.plural == word
            || r.singular == word
            || r.short_names.contains(&word)
            || r.kind.to_lowercase() == word
    };
    let is_of_group = |r: &&Resource| {
        group.is_empty()
            || group == r.group
            || group == format!("{}.{}", r.version, r.group).trim_end_matches('.')
    };
    resource::all()
        .iter()
        .chain([&REPLICATION_CONTROLLERS])
        .find(|r| r.is_stored() && is_named(r) && is_of_group(r))
        .ok_or_else(|| ClientError::Invalid(format!("the server doesn't have a resource type \"{name}\"")))
}

async fn get(connection: &Connection, kind: &Resource, name: &str) -> Result<Object, ClientError> {
    let namespace = connection.namespace();
    let plural = kind.qualified();
    let subject = Subject { verb: "get", resource: &plural, name };
    let not_found = |message: &str| {
        ClientError::Invalid(format!("error from server (NotFound): {message} in namespace \"{namespace}\""))
    };
    if !can_be_name(name) {
        return Err(not_found(&format!("{plural} \"{name}\" not found")));
    }
    match connection.get(&kind.object_path(namespace, name), subject).await {
        Ok(object) => Ok(Object::new(object)),
        Err(ClientError::Status(status)) if status.reason == "NotFound" => Err(not_found(&status.message)),
        Err(error) => Err(error),
    }
}

/// Whether an object may have this name: what stands in a path is nothing else.
fn can_be_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        && !matches!(name, "." | "..")
}

/// As `SelectorsForObject` in `k8s.io/kubectl/pkg/polymorphichelpers/helpers.go`.
fn selector_of(kind: &Resource, object: &Object) -> Result<LabelSelector, ClientError> {
    let wrong = |why: String| {
        let go_type = format!("*{}.{}", kind.version, kind.kind);
        ClientError::Invalid(format!("cannot get the logs from {go_type}: {}", why.replace("%T", &go_type)))
    };
    let selector = object.at("/spec/selector").cloned().unwrap_or_default();
    match kind.kind {
        "Service" if selector.as_object().is_none_or(|labels| labels.is_empty()) => {
            let name = object.name();
            return Err(wrong(format!("invalid service '{name}': Service is defined without a selector")));
        }
        "Service" | "ReplicationController" => LabelSelector::from_labels(&selector),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            LabelSelector::from_value(&selector)
        }
        _ => return Err(wrong("selector for %T not implemented".into())),
    }
    .map_err(|error| wrong(format!("invalid label selector: {error}")))
}

async fn list_pods(
    connection: &Connection,
    namespace: &str,
    selector: &str,
) -> Result<Vec<Object>, ClientError> {
    let pods = kind_named("pods")?;
    let mut query = Query::default();
    query.set("labelSelector", selector);
    let path = format!("{}?{}", pods.collection_path(namespace), query.encode());
    let subject = Subject { verb: "get", resource: "pods", name: "" };
    let list = connection.get(&path, subject).await?;
    let items = list.get("items").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let mut pods: Vec<Object> = items.into_iter().map(Object::new).collect();
    pods.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    Ok(pods)
}

async fn wait_for_pod(
    connection: &Connection,
    namespace: &str,
    selector: &str,
    timeout: Duration,
) -> Result<(), ClientError> {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(connection.client().clone(), namespace);
    let mut events = pin!(watcher(pods, watcher::Config::default().labels(selector)).default_backoff());
    let seen = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(_) | watcher::Event::InitApply(_)) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "watching for a pod"),
            }
        }
    };
    tokio::time::timeout(timeout, seen).await.map_err(|_| timed_out())
}

fn timed_out() -> ClientError {
    ClientError::Invalid("timed out waiting for the condition".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_name_kinds_as_kubectl_reads_them() {
        let rows = [
            ("web", Ok(("Pod", "web"))),
            ("po/web", Ok(("Pod", "web"))),
            ("Pod/web", Ok(("Pod", "web"))),
            ("deploy/web", Ok(("Deployment", "web"))),
            ("deployment.apps/web", Ok(("Deployment", "web"))),
            ("deployments.v1.apps/web", Ok(("Deployment", "web"))),
            ("rs/web", Ok(("ReplicaSet", "web"))),
            ("svc/web", Ok(("Service", "web"))),
            ("rc/web", Ok(("ReplicationController", "web"))),
            ("", Err("error: resource name may not be empty")),
            ("deployment.foo/web", Err("error: the server doesn't have a resource type \"deployment.foo\"")),
            ("foo/web", Err("error: the server doesn't have a resource type \"foo\"")),
            ("deploy/", Err("error: arguments in resource/name form must have a single resource and name")),
            ("/web", Err("error: arguments in resource/name form must have a single resource and name")),
            ("a/b/c", Err("error: arguments in resource/name form may not have more than one slash")),
        ];
        for (argument, expected) in rows {
            let said =
                split_argument(argument).map(|(kind, name)| (kind.kind, name)).map_err(|e| e.to_string());
            assert_eq!(said, expected.map_err(str::to_owned), "{argument}");
        }
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        for name in ["web", "web-0.x", "system:node"] {
            assert!(can_be_name(name), "{name}");
        }
        for name in ["a b", "a?b", "a%2Fb", "..", ".", "a#", "\u{e9}"] {
            assert!(!can_be_name(name), "{name}");
        }
    }

    #[test]
    fn workloads_select_their_pods() {
        let rows = [
            ("deploy", json!({"matchLabels": {"b": "1", "a": "2"}}), Ok("a=2,b=1")),
            (
                "deploy",
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}),
                Ok("a in (x,y)"),
            ),
            ("svc", json!({"app": "web"}), Ok("app=web")),
            ("rc", json!({"app": "web"}), Ok("app=web")),
            (
                "svc",
                json!({}),
                Err(
                    "error: cannot get the logs from *v1.Service: invalid service 'n': Service is defined without a selector",
                ),
            ),
            (
                "cm",
                json!(null),
                Err(
                    "error: cannot get the logs from *v1.ConfigMap: selector for *v1.ConfigMap not implemented",
                ),
            ),
        ];
        for (kind, selector, expected) in rows {
            let object = Object(json!({"metadata": {"name": "n"}, "spec": {"selector": selector}}));
            let said = selector_of(kind_named(kind).unwrap(), &object)
                .map(|s| s.to_string())
                .map_err(|e| e.to_string());
            assert_eq!(said, expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
