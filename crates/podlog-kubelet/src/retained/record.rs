//! Whose the logs in a directory are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use podlog_api::Object;
use podlog_container::{FileError, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contents::Contents;
use crate::pods::PodId;

/// The record of a pod, in the pod's log directory.
const FILE: &str = "pod.json";
/// Bytes of a record that are read: labels are limited, and so is what is taken of a pod.
const MAX_BYTES: u64 = 1 << 20;
/// The annotation of a pod that clients choose a container by.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What is known of a pod whose logs these are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// `metadata` and `spec`, as far as they say whose the logs are and how to find them.
    #[serde(flatten)]
    pod: Value,
    /// Since when it is gone; `None` while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted_at: Option<Timestamp>,
}

impl Record {
    pub(super) fn of(pod: &Pod, now: Timestamp) -> Self {
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
        let annotations = metadata.annotations.iter().flatten();
        let annotations: serde_json::Map<String, Value> = annotations
            .filter(|(key, _)| *key == DEFAULT_CONTAINER)
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        // Static pods have no time of their own.
        let created = metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let names =
            |names: Vec<&String>| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
        let all = |list: &mut dyn Iterator<Item = &'_ String>| names(list.collect());
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
        let regular = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let pod = json!({
            "metadata": {
                "name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid,
                "labels": metadata.labels, "annotations": annotations, "ownerReferences": metadata.owner_references,
                "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "resourceVersion": metadata.resource_version,
            },
            "spec": {
                "nodeName": spec.and_then(|spec| spec.node_name.as_ref()),
                "initContainers": all(&mut init.iter().map(|container| &container.name)),
                "containers": all(&mut regular.iter().map(|container| &container.name)),
                "ephemeralContainers": all(&mut ephemeral.iter().map(|container| &container.name)),
            },
        });
        Record { pod, deleted_at: None }
    }

    /// Of a pod whose record is lost.
    pub(super) fn unknown(id: &PodId) -> Self {
        let pod = json!({ "metadata": { "name": id.name, "namespace": id.namespace, "uid": id.uid } });
        Record { pod, deleted_at: None }
    }

    pub(super) fn deleted(self, now: Timestamp) -> Self {
        Record { deleted_at: Some(now), ..self }
    }

    /// `None` when there is none that can be read.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(directory.join(FILE)).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), FileError> {
        write_atomically(&directory.join(FILE), self)
    }

    /// As it is told to clients. The directory says which pod it is; the record, the rest.
    pub(super) fn describe(&self, id: &PodId, contents: &Contents) -> Object {
        let mut pod = Object::new(self.pod.clone());
        let metadata = pod.metadata_mut();
        for (key, value) in [("namespace", &id.namespace), ("name", &id.name), ("uid", &id.uid)] {
            metadata.insert(key.to_owned(), json!(value));
        }
        let known = ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .any(|kind| !pod.array(&format!("/spec/{kind}")).is_empty());
        if !known {
            let names: Value = contents.containers.iter().map(|logs| json!({"name": logs.name})).collect();
            pod.map_mut("spec").insert("containers".to_owned(), names);
        }
        pod.0["logs"] = json!({
            "deletedAt": self.deleted_at, "bytes": contents.bytes(), "containers": contents.containers,
        });
        pod
    }
}
