//! Pods that are gone and whose logs can still be read.

use std::io::Write;

use podlog_api::query::Query;
use podlog_api::{Object, deleted_pods, resource};
use serde_json::Value;

use super::options::LogsOptions;
use super::run::Streams;
use crate::error::Subject;
use crate::{ClientError, Connection};

/// Which of those that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// The one that was deleted last.
    Last,
}

/// Deleted pods, the last deleted first.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) pods: Vec<Object>,
    /// Nodes that could not be asked.
    silent: Vec<String>,
}

/// Asks the server; the empty namespace is all of them.
///
/// # Errors
/// Also when the server does not know of deleted pods.
pub(super) async fn list(
    connection: &Connection,
    namespace: &str,
    selector: &str,
) -> Result<Listed, ClientError> {
    let Some(pods) = resource::find("", "v1", "pods") else { return Ok(Listed::default()) };
    let mut query = Query::default();
    query.set("deleted", "true");
    if !selector.is_empty() {
        query.set("labelSelector", selector);
    }
    let path = format!("{}?{}", pods.collection_path(namespace), query.encode());
    let subject = Subject { verb: "list", resource: "pods", name: "" };
    let list = Object::new(connection.get(&path, subject).await?);
    if list.kind() != deleted_pods::KIND {
        return Err(ClientError::Invalid(
            "the server does not know --deleted: it has to be podlog's, and so have the kubelets".into(),
        ));
    }
    let silent = list.array("/silentNodes").iter().filter_map(|node| Some(node.as_str()?.to_owned()));
    let silent = silent.collect();
    Ok(Listed { pods: list.array("/items").iter().cloned().map(Object::new).collect(), silent })
}

impl Listed {
    /// The pods that are meant, and what to say about the choice.
    pub(super) fn choose(
        mut self,
        which: Which,
        uid: Option<&str>,
        namespace: &str,
    ) -> Result<(Vec<Object>, Vec<String>), ClientError> {
        let mut notes: Vec<String> = self.silence().into_iter().collect();
        self.pods.retain(|pod| uid.is_none_or(|uid| pod.uid() == uid));
        if self.pods.is_empty() {
            notes.insert(0, format!("no logs of such a deleted pod are in namespace {namespace:?}"));
            return Err(ClientError::Invalid(notes.join("; ")));
        }
        if which == Which::Last && self.pods.len() > 1 {
            let (last, others) = self.pods.split_at(1);
            let uids: Vec<&str> = others.iter().map(Object::uid).collect();
            notes.push(format!(
                "Using the pod that was deleted last, --uid={}; others: {}",
                last[0].uid(),
                uids.join(", ")
            ));
            self.pods.truncate(1);
        }
        Ok((self.pods, notes))
    }

    fn silence(&self) -> Option<String> {
        (!self.silent.is_empty()).then(|| format!("nodes that did not answer: {}", self.silent.join(", ")))
    }
}

/// Prints which there are.
pub(super) async fn print_list(
    connection: &Connection,
    options: &LogsOptions,
    streams: Streams,
) -> Result<(), ClientError> {
    let namespace = if options.all_namespaces { "" } else { connection.namespace() };
    let listed = list(connection, namespace, "").await?;
    let Streams { mut out, mut err } = streams;
    let mut notes: Vec<String> = listed.silence().into_iter().collect();
    if listed.pods.is_empty() {
        notes.push("No logs of deleted pods found.".to_owned());
    } else {
        out.write_all(table(&listed.pods).as_bytes()).map_err(ClientError::Output)?;
    }
    for note in notes {
        // Nobody to tell when stderr is closed.
        let _ = writeln!(err, "{note}");
    }
    Ok(())
}

const COLUMNS: [&str; 8] = ["NAMESPACE", "NAME", "UID", "CONTAINER", "INSTANCES", "ENDED", "BYTES", "NODE"];

/// One row a container.
fn table(pods: &[Object]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(pods.iter().flat_map(rows_of));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &[String; COLUMNS.len()]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn rows_of(pod: &Object) -> impl Iterator<Item = [String; COLUMNS.len()]> + '_ {
    pod.array("/logs/containers").iter().map(|logs| {
        let text = |key: &str| logs[key].as_str().unwrap_or_default().to_owned();
        let instances = logs["instances"].as_array().into_iter().flatten();
        let instances: Vec<String> = instances.map(Value::to_string).collect();
        let ended = text("endedAt");
        [
            pod.namespace().to_owned(),
            pod.name().to_owned(),
            pod.uid().to_owned(),
            text("name"),
            instances.join(","),
            ended.split_once('.').map_or(ended.clone(), |(seconds, _)| format!("{seconds}Z")),
            logs["bytes"].to_string(),
            pod.text("/spec/nodeName").to_owned(),
        ]
        .map(printable)
    })
}

/// Nodes say what is printed here: nothing of it moves a terminal's cursor.
fn printable(text: String) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str) -> Object {
        Object::new(json!({
            "metadata": {"namespace": "prod", "name": name, "uid": uid}, "spec": {"nodeName": "n\u{1b}[2J"},
            "logs": {"containers": [
                {"name": "app", "instances": [0, 1], "bytes": 1234, "endedAt": "2026-11-22T05:00:00.123456789Z"},
                {"name": "c", "instances": [0], "bytes": 5, "endedAt": null},
            ]},
        }))
    }

    #[test]
    fn every_container_has_a_row() {
        let expected = "\
NAMESPACE   NAME   UID   CONTAINER   INSTANCES   ENDED                  BYTES   NODE
prod        web    u-1   app         0,1         2026-11-22T05:00:00Z   1234    n[2J
prod        web    u-1   c           0                                  5       n[2J
";
        assert_eq!(table(&[pod("web", "u-1")]), expected);
    }

    #[test]
    fn the_last_is_meant_unless_another_is_named() {
        let listed = || Listed { pods: vec![pod("web", "u-2"), pod("web", "u-1")], silent: vec![] };
        let uids = |(pods, notes): (Vec<Object>, Vec<String>)| {
            (pods.iter().map(|pod| pod.uid().to_owned()).collect::<Vec<_>>().join(" "), notes.concat())
        };
        let note = "Using the pod that was deleted last, --uid=u-2; others: u-1".to_owned();
        assert_eq!(uids(listed().choose(Which::Last, None, "prod").unwrap()), ("u-2".into(), note));
        assert_eq!(
            uids(listed().choose(Which::Last, Some("u-1"), "prod").unwrap()),
            ("u-1".into(), String::new())
        );
        assert_eq!(
            uids(listed().choose(Which::All, None, "prod").unwrap()),
            ("u-2 u-1".into(), String::new())
        );
        let silent = Listed { pods: vec![], silent: vec!["n1".into()] };
        assert_eq!(
            silent.choose(Which::Last, None, "prod").unwrap_err().to_string(),
            "error: no logs of such a deleted pod are in namespace \"prod\"; nodes that did not answer: n1"
        );
    }
}
