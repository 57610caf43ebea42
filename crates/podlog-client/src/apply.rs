//! `kubectl apply`, client-side: what a manifest said last time, what it says now, what there is.
//!
//! As `k8s.io/kubectl/pkg/cmd/apply`, except that the server checks everything (`dryRun=All`) before anything is written.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use http::Method;
use podlog_api::resource::{self, Resource};
use podlog_api::strict::{self, FieldValidation, MediaType};
use podlog_api::{ApiError, Object, json, patch};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::{ServerStatus, Subject};
use crate::manifest::Manifest;
use crate::{ClientError, Connection};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Same as kubectl's, so that either can go on where the other left off.
const FIELD_MANAGER: &str = "kubectl-client-side-apply";
/// Times that a patch is made anew because somebody else wrote in between.
const ATTEMPTS: u32 = 5;

/// How long a pod waits for the service account `default` of its namespace.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for it.
const ACCOUNT_POLL: Duration = Duration::from_millis(100);

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was none.
    Created,
    /// It was changed.
    Configured,
    /// It is as the manifest says.
    Unchanged,
}

/// An object that was applied. `Display` is kubectl's line, e.g. `deployment.apps/web created`.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// What the server says it is now.
    pub object: Object,
    /// What was done.
    pub outcome: Outcome,
    kind: &'static Resource,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
        };
        let (group, dot) = (self.kind.group, if self.kind.group.is_empty() { "" } else { "." });
        write!(f, "{}{dot}{group}/{} {outcome}", self.kind.singular, self.object.name())
    }
}

/// Why manifests were not applied. `Display` has a line or more for each of them, as kubectl would print it.
#[derive(Debug)]
pub struct ApplyError {
    /// What was applied before; empty when a check failed.
    pub applied: Vec<Applied>,
    /// What is wrong, in the order of the manifests.
    pub errors: Vec<ClientError>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(ClientError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ApplyError {}

/// Whether the server writes or only checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Check,
    Write,
}

struct Item {
    kind: &'static Resource,
    object: Object,
    origin: String,
}

/// Applies manifests: namespaces, service accounts, roles, bindings, config maps and secrets first, the rest in its order.
/// Everything is checked first, by us and by the server.
///
/// # Errors
/// When a manifest is wrong, nothing has been written; when writing fails after all, the error says what was done before.
pub async fn apply(connection: &Connection, manifests: Vec<Manifest>) -> Result<Vec<Applied>, ApplyError> {
    let nothing_done = |errors| ApplyError { applied: Vec::new(), errors };
    let items = prepare(connection.namespace(), manifests).map_err(nothing_done)?;
    check(connection, &items).await.map_err(nothing_done)?;
    let mut applied = Vec::new();
    for item in &items {
        match apply_patiently(connection, item, Effect::Write, |_| true).await {
            Ok(done) => applied.push(done),
            Err(error) => return Err(ApplyError { applied, errors: vec![error] }),
        }
    }
    Ok(applied)
}

fn prepare(namespace: &str, manifests: Vec<Manifest>) -> Result<Vec<Item>, Vec<ClientError>> {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    for manifest in manifests {
        match item(namespace, manifest) {
            Ok(item) => items.push(item),
            Err(error) => errors.push(error),
        }
    }
    items.sort_by_key(|item| rank(item.kind.kind));
    if errors.is_empty() { Ok(items) } else { Err(errors) }
}

fn item(namespace: &str, manifest: Manifest) -> Result<Item, ClientError> {
    let Manifest { mut object, origin } = manifest;
    let (version, kind) = (object.api_version().to_owned(), object.kind().to_owned());
    let Some(found) = resource::by_api_version(&version, &kind).filter(|kind| kind.is_stored()) else {
        let (name, namespace) = (object.name(), object.namespace());
        return Err(ClientError::Invalid(format!(
            "resource mapping not found for name: {name:?} namespace: {namespace:?} from {origin:?}: no matches for kind {kind:?} in version {version:?}\nensure CRDs are installed first"
        )));
    };
    if object.name().is_empty() {
        return Err(ClientError::Invalid(format!(
            "error when retrieving current configuration of {kind} from {origin:?}: resource name may not be empty"
        )));
    }
    if found.namespaced && object.namespace().is_empty() {
        object.metadata_mut().insert("namespace".into(), namespace.into());
    }
    let body = object.0.to_string();
    if let Err(error) = strict::decode(found, body.as_bytes(), MediaType::Json, FieldValidation::Strict) {
        return Err(as_from_server(&error, &origin));
    }
    Ok(Item { kind: found, object, origin })
}

/// What the server would say, in its words.
fn as_from_server(error: &ApiError, origin: &str) -> ClientError {
    let status = ServerStatus {
        code: error.code,
        reason: error.reason.as_str().into(),
        message: error.message.clone(),
        details: Value::Null,
    };
    about(ClientError::Status(Box::new(status)), "creating", origin)
}

/// Objects that others need come first.
fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "ServiceAccount" => 1,
        "ClusterRole" | "Role" => 2,
        "ClusterRoleBinding" | "RoleBinding" => 3,
        "ConfigMap" | "Secret" => 4,
        _ => 5,
    }
}

/// Lets the server check everything. An object that needs another one of the same set, which is not there yet, may be refused for
/// its absence alone.
async fn check(connection: &Connection, items: &[Item]) -> Result<(), Vec<ClientError>> {
    let made_here = MadeHere::new(items);
    let mut errors = Vec::new();
    for item in items {
        let unexplained = |error: &ClientError| !made_here.explains(error, item);
        if let Err(error) = apply_patiently(connection, item, Effect::Check, unexplained).await
            && unexplained(&error)
        {
            errors.push(error);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What others may need and only this set brings.
struct MadeHere<'a> {
    namespaces: BTreeSet<&'a str>,
    service_accounts: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> MadeHere<'a> {
    fn new(items: &'a [Item]) -> Self {
        let of = |kind: &'static str| {
            items.iter().filter(move |item| item.kind.kind == kind).map(|item| &item.object)
        };
        MadeHere {
            namespaces: of("Namespace").map(Object::name).collect(),
            service_accounts: of("ServiceAccount")
                .map(|object| (object.namespace(), object.name()))
                .collect(),
        }
    }

    fn explains(&self, error: &ClientError, item: &Item) -> bool {
        let Some(status) = error.status() else { return false };
        let account = match item.object.text("/spec/serviceAccountName") {
            "" => "default",
            named => named,
        };
        let needs_account = self.service_accounts.contains(&(item.object.namespace(), account));
        let needs_namespace = self.namespaces.contains(item.object.namespace());
        matches!(status.code, 403 | 404) && (needs_namespace || needs_account)
    }
}

async fn apply_one(connection: &Connection, item: &Item, effect: Effect) -> Result<Applied, ClientError> {
    let mut attempt = 1;
    loop {
        let applied = match current(connection, item).await? {
            None => create(connection, item, effect).await,
            Some(current) => update(connection, item, &current, effect).await,
        };
        match applied {
            Err(ClientError::Status(status)) if status.code == 409 && attempt < ATTEMPTS => attempt += 1,
            applied => return applied,
        }
    }
}

/// [`apply_one`], again while the namespace's account is missing and `waits` says that this is worth waiting for.
async fn apply_patiently(
    connection: &Connection,
    item: &Item,
    effect: Effect,
    waits: impl Fn(&ClientError) -> bool,
) -> Result<Applied, ClientError> {
    let patience = Instant::now() + ACCOUNT_PATIENCE;
    loop {
        match apply_one(connection, item, effect).await {
            Err(error)
                if lacks_default_account(&error, item) && waits(&error) && Instant::now() < patience =>
            {
                tokio::time::sleep(ACCOUNT_POLL).await;
            }
            applied => return applied,
        }
    }
}

/// A controller makes the account `default` of every namespace, a moment after the namespace.
fn lacks_default_account(error: &ClientError, item: &Item) -> bool {
    let account = format!("service account {}/default", item.object.namespace());
    error.status().is_some_and(|status| status.code == 403 && status.message.contains(&account))
}

async fn current(connection: &Connection, item: &Item) -> Result<Option<Object>, ClientError> {
    match connection.get(&item.path(), item.subject("get")).await {
        Ok(object) => Ok(Some(Object::new(object))),
        Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn create(connection: &Connection, item: &Item, effect: Effect) -> Result<Applied, ClientError> {
    let path = format!("{}?{}", item.kind.collection_path(item.object.namespace()), query(effect));
    let body = json::to_vec(&item.modified().0);
    let created = connection.write(Method::POST, &path, "application/json", body, item.subject("post")).await;
    let object = created.map_err(|error| about(error, "creating", &item.origin))?;
    Ok(Applied { object: Object::new(object), outcome: Outcome::Created, kind: item.kind })
}

async fn update(
    connection: &Connection,
    item: &Item,
    current: &Object,
    effect: Effect,
) -> Result<Applied, ClientError> {
    let last_applied = current.annotation(LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
    let last_applied: Value = last_applied.unwrap_or_else(|| json!({}));
    let patch = patch::three_way(item.kind, &last_applied, &item.modified().0, &current.0)
        .map_err(|error| ClientError::Invalid(format!("error when applying {:?}: {error}", item.origin)))?;
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(Applied { object: current.clone(), outcome: Outcome::Unchanged, kind: item.kind });
    }
    let path = format!("{}?{}", item.path(), query(effect));
    let content_type = "application/strategic-merge-patch+json";
    let body = json::to_vec(&patch);
    let patched = connection.write(Method::PATCH, &path, content_type, body, item.subject("patch")).await;
    let object = Object::new(patched.map_err(|error| about(error, "patching", &item.origin))?);
    let unchanged = object.resource_version() == current.resource_version() && effect == Effect::Write;
    let outcome = if unchanged { Outcome::Unchanged } else { Outcome::Configured };
    Ok(Applied { object, outcome, kind: item.kind })
}

impl Item {
    fn path(&self) -> String {
        self.kind.object_path(self.object.namespace(), self.object.name())
    }

    fn subject<'a>(&'a self, verb: &'a str) -> Subject<'a> {
        Subject { verb, resource: self.kind.plural, name: self.object.name() }
    }

    /// The manifest with itself as an annotation (`GetModifiedConfiguration` in `k8s.io/kubectl/pkg/util/apply.go`).
    fn modified(&self) -> Object {
        let mut object = self.object.clone();
        let annotations = podlog_api::child_map(&mut object.0["metadata"], "annotations");
        annotations.remove(LAST_APPLIED);
        let mut text = String::from_utf8_lossy(&json::to_sorted_vec(&object.0)).into_owned();
        text.push('\n');
        let annotations = podlog_api::child_map(&mut object.0["metadata"], "annotations");
        annotations.insert(LAST_APPLIED.into(), text.into());
        object
    }
}

fn query(effect: Effect) -> String {
    let dry_run = if effect == Effect::Check { "dryRun=All&" } else { "" };
    format!("{dry_run}fieldManager={FIELD_MANAGER}&fieldValidation=Strict")
}

fn about(error: ClientError, doing: &str, origin: &str) -> ClientError {
    match error {
        ClientError::Status(mut status) => {
            status.message = format!("error when {doing} {origin:?}: {}", status.message);
            ClientError::Status(status)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::testing::{Answer, FakeApi, status};

    fn manifests(text: &str) -> Vec<Manifest> {
        manifest::read(&["-".into()], &mut text.as_bytes()).unwrap()
    }

    const POD: &str =
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: app, image: x}]}}";
    const PODS: &str = "/api/v1/namespaces/default/pods";
    const QUERY: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";

    async fn applied(api: &FakeApi, text: &str) -> Result<String, String> {
        let applied =
            apply(&api.connect().await, manifests(text)).await.map_err(|error| error.to_string())?;
        Ok(applied.iter().map(Applied::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[tokio::test]
    async fn everything_is_checked_before_anything_is_written() {
        let api = FakeApi::start().await;
        let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: app}]}}}}";
        let config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: new}}";
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: new}}";
        let created = json!({"metadata": {"name": "made"}});
        for path in [PODS, "/apis/apps/v1/namespaces/default/deployments", "/api/v1/namespaces"] {
            api.script.on_json(&format!("POST {path}?dryRun=All&{QUERY}"), created.clone());
            api.script.on_json(&format!("POST {path}?{QUERY}"), created.clone());
        }
        let maps = "/api/v1/namespaces/new/configmaps";
        let missing = status(404, "NotFound", "namespaces \"new\" not found");
        api.script.on(&format!("POST {maps}?dryRun=All&{QUERY}"), Answer::Json(404, missing));
        api.script.on_json(&format!("POST {maps}?{QUERY}"), created.clone());
        let said = applied(&api, &[POD, deployment, config, namespace].join("\n---\n")).await.unwrap();
        assert_eq!(
            said,
            "namespace/made created\nconfigmap/made created\npod/made created\ndeployment.apps/made created"
        );
        let writes = |requests: Vec<String>| -> Vec<String> {
            requests.into_iter().filter(|line| line.starts_with("POST") && !line.contains("dryRun")).collect()
        };
        assert_eq!(writes(api.script.requests()).len(), 4);
        let first_write = api
            .script
            .requests()
            .iter()
            .position(|line| line.starts_with("POST") && !line.contains("dryRun"));
        let last_check = api.script.requests().iter().rposition(|line| line.contains("dryRun"));
        assert!(last_check < first_write);
        let body = api.script.bodies().into_iter().find(|body| body["kind"] == "Pod").unwrap();
        let annotation = body["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(
            annotation,
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":{},\"name\":\"web\",\"namespace\":\"default\"},\"spec\":{\"containers\":[{\"image\":\"x\",\"name\":\"app\"}]}}\n"
        );
    }

    #[tokio::test]
    async fn wrong_manifests_write_nothing_and_are_all_named() {
        let api = FakeApi::start().await;
        let invalid = json!({"kind": "Status", "reason": "Invalid", "message": "m", "details": {"name": "web", "kind": "Pod", "causes": [{"field": "spec", "message": "bad"}]}});
        api.script.on(&format!("POST {PODS}?dryRun=All&{QUERY}"), Answer::Json(422, invalid));
        assert_eq!(applied(&api, POD).await.unwrap_err(), "The Pod \"web\" is invalid: spec: bad");
        let text = format!(
            "{POD}\n---\n{{apiVersion: v1, kind: Foo, metadata: {{name: f}}}}\n---\n{}",
            POD.replace("image: x", "imagee: x")
        );
        let said = applied(&api, &text).await.unwrap_err();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines[0],
            "error: resource mapping not found for name: \"f\" namespace: \"\" from \"STDIN\": no matches for kind \"Foo\" in version \"v1\""
        );
        let strict = "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\"";
        assert_eq!(lines[2], strict);
        assert!(
            !api.script.requests().iter().any(|line| line.starts_with("POST") && !line.contains("dryRun"))
        );
    }

    #[tokio::test]
    async fn a_new_namespaces_account_is_waited_for() {
        let api = FakeApi::start().await;
        let missing = "pods \"web\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found";
        let create = format!("POST {PODS}?{QUERY}");
        api.script
            .on_json(&format!("POST {PODS}?dryRun=All&{QUERY}"), json!({"metadata": {"name": "web"}}))
            .on(&create, Answer::Json(403, status(403, "Forbidden", missing)))
            .on_json(&create, json!({"metadata": {"name": "web"}}));
        assert_eq!(applied(&api, POD).await.unwrap(), "pod/web created");
    }

    #[tokio::test]
    async fn what_is_there_is_patched_or_left() {
        let api = FakeApi::start().await;
        let prepared = prepare("default", manifests(POD)).map_err(|_| ()).unwrap().remove(0);
        let mut live = prepared.modified().0;
        live["metadata"]["resourceVersion"] = "5".into();
        live["spec"]["nodeName"] = "n".into();
        api.script.on_json(&format!("GET {PODS}/web"), live.clone());
        assert_eq!(applied(&api, POD).await.unwrap(), "pod/web unchanged");
        let mut patched = live.clone();
        patched["metadata"]["resourceVersion"] = "6".into();
        let conflict = status(409, "Conflict", "the object has been modified");
        let patch = format!("PATCH {PODS}/web?{QUERY}");
        api.script.on_json(&format!("PATCH {PODS}/web?dryRun=All&{QUERY}"), patched.clone());
        api.script.on(&patch, Answer::Json(409, conflict)).on_json(&patch, patched);
        assert_eq!(applied(&api, &POD.replace("image: x", "image: z")).await.unwrap(), "pod/web configured");
        let sent = api.script.bodies().pop().unwrap();
        assert_eq!(sent["spec"]["containers"][0]["image"], "z");
        assert!(sent["spec"].get("nodeName").is_none(), "{sent}");
    }
}
