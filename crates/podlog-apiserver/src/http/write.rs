//! `create`, `update`, `patch`, `delete` and `deletecollection`.

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use podlog_api::accept::Endpoint;
use podlog_api::ownership::Conflicts;
use podlog_api::patch::{self, PatchType};
use podlog_api::resource::Resource;
use podlog_api::strict::{self, FieldValidation, MediaType};
use podlog_api::{ApiError, Cause, Object, Reason, ownership, validation};
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::{self, Selection};
use super::{Call, Target, list};
use crate::registry::{Deleted, Ownership, Part, Preconditions, Registry, WriteContext, metadata, scale};

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
/// Server-side apply.
/// Kinds that an update creates when there are none (`AllowCreateOnUpdate` of their strategies).
const CREATED_ON_UPDATE: &[&str] =
    &["Event", "Lease", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
/// Kinds whose updates have to say which version they are based on (`AllowUnconditionalUpdate` is false).
const UPDATED_BY_VERSION: &[&str] = &["Lease"];

/// A new object.
pub(crate) async fn create(registry: &Registry, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Objects)?;
    let context = call.write_context()?;
    let (object, mut warnings) = decode(call, strict::Target::of(target.resource)).await?;
    let made = registry.create_as(&context, target.resource, &target.namespace, object).await?;
    warnings.extend(validation::warnings(target.resource, &made));
    let answer = list::one(call, target.resource, &made, StatusCode::CREATED)?;
    Ok(with_warnings(answer, &warnings))
}

/// An object in place of another, as far as `part` goes.
pub(crate) async fn update(
    registry: &Registry,
    call: &Call,
    target: &Target,
    part: Part,
) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Objects)?;
    let context = call.write_context()?;
    let (object, mut warnings) = decode(call, strict::Target::of(target.resource)).await?;
    check_name(target, &object)?;
    let replace = |current: &mut Object| {
        check_version(target, &object)?;
        let metadata = current.at("/metadata").cloned();
        *current = object.clone();
        if current.at("/metadata").is_none() {
            current.0["metadata"] = metadata.unwrap_or_else(|| json!({}));
        }
        Ok(())
    };
    let resource = target.resource;
    let updated =
        registry.update_as(&context, resource, &target.namespace, &target.name, part, replace).await;
    let (object, code) = match updated {
        Err(error) if error.reason == Reason::NotFound && creates_on_update(target, &object) => {
            call.demand("create").await?;
            // Whoever means a certain object does not want another one.
            let none = Object::new(json!({"metadata": {"name": target.name}}));
            Preconditions::of(&object).check(resource, &none)?;
            let made = registry.create_as(&context, resource, &target.namespace, object).await?;
            (made, StatusCode::CREATED)
        }
        other => (other?, StatusCode::OK),
    };
    if part == Part::Main {
        warnings.extend(validation::warnings(resource, &object));
    }
    Ok(with_warnings(list::one(call, resource, &object, code)?, &warnings))
}

/// An object with changes, as far as `part` goes.
pub(crate) async fn patch(
    registry: &Registry,
    call: &Call,
    target: &Target,
    part: Part,
) -> Result<Answer, ApiError> {
    if call.is_apply() {
        return apply(registry, call, target, part).await;
    }
    call.wanted(Endpoint::Objects)?;
    let context = call.write_context()?;
    let validation = call.field_validation()?;
    let patch_type = patch_type(call)?;
    let body = call.read_body().await?;
    let mut warnings = Vec::new();
    let change = |object: &mut Object| {
        let patched = patch::apply(target.resource, patch_type, object, &body)?;
        let (checked, found) = strict::check(strict::Target::of(target.resource), &patched.0, validation)?;
        warnings = found;
        *object = checked;
        Ok(())
    };
    let resource = target.resource;
    let object =
        registry.update_as(&context, resource, &target.namespace, &target.name, part, change).await?;
    if part == Part::Main {
        warnings.extend(validation::warnings(resource, &object));
    }
    Ok(with_warnings(list::one(call, resource, &object, StatusCode::OK)?, &warnings))
}

/// An object as somebody wants it, as far as they say: server-side apply.
async fn apply(registry: &Registry, call: &Call, target: &Target, part: Part) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Objects)?;
    let context = WriteContext { ownership: Ownership::Applied, ..call.write_context()? };
    let conflicts = if call.query.flag("force") { Conflicts::TakeOver } else { Conflicts::Refuse };
    let resource = target.resource;
    let body = call.read_body().await?;
    // A field that the kind does not have cannot have an owner: it is refused, whatever `fieldValidation` says.
    let (mut config, mut warnings) =
        strict::decode_as(strict::Target::of(resource), &body, MediaType::Yaml, FieldValidation::Strict)?;
    check_name(target, &config)?;
    config.metadata_mut().insert("name".into(), json!(target.name));
    metadata::set_namespace(resource, &target.namespace, &mut config)?;
    let writer = context.writer(part, Timestamp::now());
    let merge = |live: &mut Object| {
        *live = ownership::apply(resource, live, &config, &writer, conflicts)?;
        Ok(())
    };
    let updated = registry.update_as(&context, resource, &target.namespace, &target.name, part, merge).await;
    let (object, code) = match updated {
        Err(error) if error.reason == Reason::NotFound && part == Part::Main => {
            call.demand("create").await?;
            if !config.uid().is_empty() {
                let why = format_args!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    config.uid()
                );
                return Err(ApiError::conflict(resource.group, resource.plural, &target.name, why));
            }
            let object = ownership::apply(resource, &Object::new(json!({})), &config, &writer, conflicts)?;
            (registry.create_as(&context, resource, &target.namespace, object).await?, StatusCode::CREATED)
        }
        other => (other?, StatusCode::OK),
    };
    if part == Part::Main {
        warnings.extend(validation::warnings(resource, &object));
    }
    Ok(with_warnings(list::one(call, resource, &object, code)?, &warnings))
}

/// How many there are to be.
pub(crate) async fn update_scale(
    registry: &Registry,
    call: &Call,
    target: &Target,
) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Objects)?;
    let (wanted, warnings) = decode(call, scale_of(target)?).await?;
    check_name(target, &wanted)?;
    let change = |workload: &mut Object| scale::apply(target.resource, workload, &wanted);
    let answer = changed_scale(registry, call, target, change).await?;
    Ok(with_warnings(answer, &warnings))
}

/// How many more or less there are to be.
pub(crate) async fn patch_scale(
    registry: &Registry,
    call: &Call,
    target: &Target,
) -> Result<Answer, ApiError> {
    call.wanted(Endpoint::Objects)?;
    let validation = call.field_validation()?;
    // A scale has no lists: a strategic patch of it is a merge patch.
    let patch_type = match patch_type(call)? {
        PatchType::Json => PatchType::Json,
        PatchType::Merge | PatchType::Strategic => PatchType::Merge,
    };
    let body = call.read_body().await?;
    let kind = scale_of(target)?;
    let mut warnings = Vec::new();
    let change = |workload: &mut Object| {
        let patched = patch::apply(target.resource, patch_type, &scale::of(workload), &body)?;
        let (checked, found) = strict::check(kind, &patched.0, validation)?;
        warnings = found;
        scale::apply(target.resource, workload, &checked)
    };
    let answer = changed_scale(registry, call, target, change).await?;
    Ok(with_warnings(answer, &warnings))
}

fn scale_of(target: &Target) -> Result<strict::Target, ApiError> {
    let subresource = target.subresource.ok_or_else(ApiError::no_such_path)?;
    Ok(strict::Target::of_subresource(target.resource, subresource))
}

/// Away with one object.
pub(crate) async fn delete(registry: &Registry, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let mut context = call.write_context()?;
    let (options, dry_run) = options::delete_options(call).await?;
    context.dry_run |= dry_run;
    let deleted =
        registry.delete_as(&context, target.resource, &target.namespace, &target.name, &options).await?;
    deletion_answer(call, target.resource, &deleted)
}

/// Away with all that are selected; answers with the list of them.
pub(crate) async fn delete_collection(
    registry: &Registry,
    call: &Call,
    target: &Target,
) -> Result<Answer, ApiError> {
    let mut context = call.write_context()?;
    let wanted = call.wanted(Endpoint::Objects)?;
    let selection = Selection::parse(target, &call.query)?;
    let (options, dry_run) = options::delete_options(call).await?;
    context.dry_run |= dry_run;
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let (objects, revision) = registry.list(target.resource, namespace)?;
    let mut deleted = Vec::new();
    for object in objects.iter().filter(|object| selection.matches(object)) {
        let result =
            registry.delete_as(&context, target.resource, object.namespace(), object.name(), &options).await;
        match result {
            Ok(done) => deleted.push(done.object),
            Err(error) if error.reason == Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = json!({"resourceVersion": revision.to_string()});
    Ok(wanted.answer(StatusCode::OK, &list::list_object(target.resource, deleted, metadata)))
}

/// What a deletion is answered with: the object while it lives or where clients want to see its end, else success.
pub(crate) fn deletion_answer(
    call: &Call,
    resource: &Resource,
    deleted: &Deleted,
) -> Result<Answer, ApiError> {
    if !deleted.gone || matches!(resource.kind, "Pod" | "Service" | "ServiceAccount") {
        return list::one(call, resource, &deleted.object, StatusCode::OK);
    }
    let mut details =
        json!({"name": deleted.object.name(), "kind": resource.plural, "uid": deleted.object.uid()});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    success(call, details, StatusCode::OK)
}

/// `Status` of something that went well.
pub(crate) fn success(call: &Call, details: Value, code: StatusCode) -> Result<Answer, ApiError> {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if details.is_null() {
        status["code"] = json!(code.as_u16());
    } else {
        status["details"] = details;
    }
    if let Some(record) = &call.audit {
        record.succeeded(&status);
    }
    Ok(call.wanted(Endpoint::Objects)?.answer(code, &status))
}

/// The body of a write.
pub(crate) async fn decode(call: &Call, target: strict::Target) -> Result<(Object, Vec<String>), ApiError> {
    let validation = call.field_validation()?;
    let media_type = call.media_type()?;
    let body = call.read_body().await?;
    strict::decode_as(target, &body, media_type, validation)
}

fn with_warnings(mut answer: Answer, warnings: &[String]) -> Answer {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
    answer
}

fn creates_on_update(target: &Target, object: &Object) -> bool {
    target.subresource.is_none()
        && CREATED_ON_UPDATE.contains(&target.resource.kind)
        && object.resource_version().is_empty()
}

fn check_name(target: &Target, object: &Object) -> Result<(), ApiError> {
    let name = object.name();
    if name.is_empty() || name == target.name {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({})",
        target.name
    )))
}

fn check_version(target: &Target, object: &Object) -> Result<(), ApiError> {
    let needed = UPDATED_BY_VERSION.contains(&target.resource.kind) && object.resource_version().is_empty();
    if !needed {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: "Invalid value: \"\": must be specified for an update".into(),
        field: "metadata.resourceVersion".into(),
    };
    Err(ApiError::invalid(target.resource.group, target.resource.kind, &target.name, vec![cause]))
}

fn patch_type(call: &Call) -> Result<PatchType, ApiError> {
    PatchType::from_media_type(call.bare_media_type()).ok_or_else(|| {
        ApiError::new(
            415,
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {PATCH_TYPES}"
            ),
        )
    })
}

async fn changed_scale(
    registry: &Registry,
    call: &Call,
    target: &Target,
    change: impl FnMut(&mut Object) -> Result<(), ApiError> + Send,
) -> Result<Answer, ApiError> {
    let resource = target.resource;
    let workload = registry
        .update_as(&call.write_context()?, resource, &target.namespace, &target.name, Part::Main, change)
        .await?;
    list::one(call, resource, &scale::of(&workload), StatusCode::OK)
}
