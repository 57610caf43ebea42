//! From what a request asks for to whoever answers it.

use std::sync::Arc;

use http::StatusCode;
use podlog_api::accept::Endpoint;
use podlog_api::{ApiError, Attributes, Object, resource};
use serde_json::json;

use super::answer::{self, Answer};
use super::list_options::Version;
use super::{App, Call, Target, discovery, health, list, options, watch, write};
use crate::registry::codec::too_large_version;
use crate::registry::{Part, Preconditions, scale};
use crate::{deleted_pods, logs, node_proxy, reviews, streams};

/// Answers a request that is allowed.
pub(crate) async fn answer(app: &Arc<App>, call: Call) -> Result<Answer, ApiError> {
    let Attributes::Resource { group, version, .. } = &call.info.attributes else {
        return document(app, &call).await;
    };
    if !resource::group_versions().iter().any(|(g, v)| g == group && v == version) {
        return Ok(answer::page_not_found());
    }
    let target = call.target()?;
    catch_up(app, &call, &target).await?;
    // Streams count as long as they last, everything else as long as it takes.
    match (target.subresource.map(|s| s.name), target.verb.as_str()) {
        (None, "watch") => {
            let held = app.metrics.lasting(&call.info);
            watch::watch(app, &call, &target, held)
        }
        (Some("log"), _) => {
            let held = app.metrics.lasting(&call.info);
            logs::answer(app, call, &target, held).await
        }
        (Some("exec" | "attach" | "portforward"), _) => {
            let held = app.metrics.lasting(&call.info);
            streams::answer(app, call, &target, held).await
        }
        (Some("proxy"), _) => {
            let held = app.metrics.lasting(&call.info);
            node_proxy::answer(app, call, &target, held).await
        }
        _ => {
            let _held = app.metrics.in_flight(&call.info);
            object(app, &call, &target).await
        }
    }
}

/// Makes sure that the answer shows whatever any server had acknowledged before the request came, unless the request says
/// that something older is good enough.
async fn catch_up(app: &App, call: &Call, target: &Target) -> Result<(), ApiError> {
    let reads = matches!(target.verb.as_str(), "get" | "list" | "watch");
    let asked = call.query.first("resourceVersion").and_then(|version| version.parse::<u64>().ok());
    if reads && asked.is_some_and(|version| version <= app.registry.store().revision()) {
        return Ok(());
    }
    app.registry.catch_up().await
}

/// Every pair of subresource and verb has its own row: what has none is refused, never answered by the object around it.
async fn object(app: &Arc<App>, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let registry = &app.registry;
    let subresource = target.subresource.map(|subresource| subresource.name);
    match (subresource, target.verb.as_str()) {
        (None, "create") if !target.resource.is_stored() => reviews::answer(app, call, target).await,
        (Some("token"), "create") => app.issuer.answer(registry, call, target).await,
        (Some("binding"), "create") => bind(app, call, target).await,
        (Some("eviction"), "create") => evict(app, call, target).await,
        (Some("scale"), "get") => {
            let workload = registry.get(target.resource, &target.namespace, &target.name)?;
            list::one(call, target.resource, &scale::of(&workload), StatusCode::OK)
        }
        (None | Some("status" | "approval" | "ephemeralcontainers"), "get") => {
            is_known(app, Version::of(&call.query)?)?;
            let found = registry.find_stored(target.resource, &target.namespace, &target.name)?;
            let missing = || ApiError::not_found(target.resource.group, target.resource.plural, &target.name);
            list::stored(call, target.resource, &found.ok_or_else(missing)?)
        }
        (None, "list") if deleted_pods::is_listed(app, call, target) => {
            deleted_pods::list(app, call, target).await
        }
        (None, "list") => list_off_thread(app, call, target).await,
        (None, "create") => write::create(registry, call, target).await,
        (None, "deletecollection") => write::delete_collection(registry, call, target).await,
        (None, "delete") => write::delete(registry, call, target).await,
        (None, "update") => write::update(registry, call, target, Part::Main).await,
        (None, "patch") => write::patch(registry, call, target, Part::Main).await,
        (Some("approval"), "update") => write::update(registry, call, target, Part::Approval).await,
        (Some("approval"), "patch") => write::patch(registry, call, target, Part::Approval).await,
        (Some("status"), "update") => write::update(registry, call, target, Part::Status).await,
        (Some("status"), "patch") => write::patch(registry, call, target, Part::Status).await,
        (Some("ephemeralcontainers"), "update") => {
            write::update(registry, call, target, Part::EphemeralContainers).await
        }
        (Some("ephemeralcontainers"), "patch") => {
            write::patch(registry, call, target, Part::EphemeralContainers).await
        }
        (Some("finalize"), "update") => write::update(registry, call, target, Part::Finalize).await,
        (Some("scale"), "update") => write::update_scale(registry, call, target).await,
        (Some("scale"), "patch") => write::patch_scale(registry, call, target).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Refuses what is newer than all that there is.
fn is_known(app: &App, version: Version) -> Result<(), ApiError> {
    let current = app.registry.store().revision();
    match version {
        Version::At(revision) if revision > current => Err(too_large_version(revision, current)),
        _ => Ok(()),
    }
}

/// Lists can be long: they are read, filtered and encoded off the async threads.
async fn list_off_thread(app: &Arc<App>, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let registry = app.registry.clone();
    let target = target.clone();
    let query = super::list::Question::of(call);
    tokio::task::spawn_blocking(move || list::list(&registry, &query, &target))
        .await
        .map_err(ApiError::internal)?
}

async fn bind(app: &Arc<App>, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Plain)?;
    let context = call.write_context()?;
    let binding = body(call, target).await?;
    check_name(target, &binding)?;
    let (node, meant) = (binding.text("/target/name"), Preconditions::of(&binding));
    app.registry.bind(&context, &target.namespace, &target.name, node, &meant).await?;
    write::success(call, json!(null), StatusCode::CREATED)
}

async fn evict(app: &Arc<App>, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Plain)?;
    let mut context = call.write_context()?;
    let eviction = body(call, target).await?;
    check_name(target, &eviction)?;
    let wanted = Object::new(eviction.at("/deleteOptions").cloned().unwrap_or_else(|| json!({})));
    context.dry_run |= wanted.array("/dryRun").iter().any(|value| value == "All");
    let options = options::from_object(&wanted)?;
    app.registry.evict(&context, &target.namespace, &target.name, &options).await?;
    write::success(call, json!(null), StatusCode::CREATED)
}

/// What says which pod it is about says the same as the path.
fn check_name(target: &Target, object: &Object) -> Result<(), ApiError> {
    if object.name().is_empty() || object.name() == target.name {
        return Ok(());
    }
    let kind = target.subresource.map_or("", |subresource| subresource.kind);
    Err(ApiError::bad_request(format!("name in URL does not match name in {kind} object")))
}

async fn body(call: &Call, target: &Target) -> Result<Object, ApiError> {
    let Some(subresource) = target.subresource else { return Err(ApiError::no_such_path()) };
    let what = podlog_api::strict::Target::of_subresource(target.resource, subresource);
    let object = write::decode(call, what).await?.0;
    let causes = podlog_api::validation::subresource(subresource.schema, &object);
    if causes.is_empty() {
        return Ok(object);
    }
    Err(ApiError::invalid(what.group, what.kind, object.name(), causes))
}

/// Everything that is not a resource.
async fn document(app: &Arc<App>, call: &Call) -> Result<Answer, ApiError> {
    let Attributes::NonResource { path, .. } = &call.info.attributes else {
        return Ok(answer::page_not_found());
    };
    let answer = known_document(app, call, path).await;
    let reads = matches!(call.method.as_str(), "GET" | "HEAD");
    match answer {
        Some(_) if !reads => Ok(answer::method_not_allowed("GET")),
        Some(answer) => answer,
        None => Ok(answer::page_not_found()),
    }
}

async fn known_document(app: &Arc<App>, call: &Call, path: &str) -> Option<Result<Answer, ApiError>> {
    if let Some(answer) = health::answer(app, path, &call.query) {
        return Some(Ok(answer));
    }
    match path.trim_end_matches('/') {
        "" => Some(Ok(answer::raw_json(&json!({"paths": paths()})))),
        "/version" => Some(Ok(answer::raw_json(&app.version))),
        "/metrics" => {
            let text = app.metrics.registry.render();
            Some(Ok(answer::bytes(StatusCode::OK, podlog_serving::metrics::CONTENT_TYPE, text)))
        }
        "/.well-known/openid-configuration" => Some(Ok(app.issuer.configuration())),
        "/openid/v1/jwks" => Some(Ok(app.issuer.key_set())),
        path => discovery::answer(app, call, path).await,
    }
}

fn paths() -> Vec<String> {
    let own = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths = podlog_api::discovery::paths();
    paths.extend(own.map(str::to_owned));
    paths.sort();
    paths
}
