//! Selectors and options of deletions, as queries and bodies carry them.

use podlog_api::query::Query;
use podlog_api::resource::Resource;
use podlog_api::selector::{FieldSelector, LabelSelector};
use podlog_api::strict::{self, FieldValidation};
use podlog_api::{ApiError, Cause, Object};

use super::{Call, Target};
use crate::registry::{DeleteOptions, Preconditions, Propagation};

/// Which objects of a collection are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    resource: &'static Resource,
    /// Only the object of this name, where the path has one; empty otherwise.
    name: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(target: &Target, query: &Query) -> Result<Self, ApiError> {
        let text = |name: &str| query.first(name).unwrap_or_default();
        Ok(Selection {
            resource: target.resource,
            name: target.name.clone(),
            labels: LabelSelector::parse(text("labelSelector"))?,
            fields: FieldSelector::parse(target.resource, text("fieldSelector"))?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.name.is_empty() && self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.name.is_empty() || self.name == object.name())
            && self.labels.matches_object(object)
            && self.fields.matches(self.resource, object)
    }
}

/// How to delete: the body if there is one, else the query.
pub(crate) async fn delete_options(call: &Call) -> Result<(DeleteOptions, bool), ApiError> {
    let body = call.read_body().await?;
    if body.is_empty() {
        return from_query(&call.query);
    }
    let media_type = call.media_type()?;
    let (object, _) =
        strict::decode_as(strict::Target::DELETE_OPTIONS, &body, media_type, FieldValidation::Ignore)?;
    let dry_run = object.array("/dryRun").iter().any(|value| value == "All");
    Ok((from_object(&object)?, dry_run))
}

fn from_query(query: &Query) -> Result<(DeleteOptions, bool), ApiError> {
    let options = DeleteOptions {
        grace_period_seconds: query.integer("gracePeriodSeconds")?,
        preconditions: Preconditions::default(),
        propagation_policy: match query.first("propagationPolicy") {
            Some(text) if !text.is_empty() => Some(propagation(text)?),
            _ => query.first("orphanDependents").map(|_| orphan(query.flag("orphanDependents"))),
        },
    };
    Ok((options, query.first("dryRun") == Some("All")))
}

/// Reads the `DeleteOptions` of a deletion or eviction.
pub(crate) fn from_object(options: &Object) -> Result<DeleteOptions, ApiError> {
    let given = |pointer: &str| Some(options.text(pointer).to_owned()).filter(|text| !text.is_empty());
    let policy = options.text("/propagationPolicy");
    let orphaned = options.at("/orphanDependents").and_then(serde_json::Value::as_bool);
    Ok(DeleteOptions {
        grace_period_seconds: options.integer("/gracePeriodSeconds"),
        preconditions: Preconditions {
            uid: given("/preconditions/uid"),
            resource_version: given("/preconditions/resourceVersion"),
        },
        propagation_policy: if policy.is_empty() { orphaned.map(orphan) } else { Some(propagation(policy)?) },
    })
}

fn orphan(orphaned: bool) -> Propagation {
    if orphaned { Propagation::Orphan } else { Propagation::Background }
}

fn propagation(text: &str) -> Result<Propagation, ApiError> {
    match text {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => {
            let cause = Cause {
                reason: "FieldValueNotSupported".into(),
                message: format!(
                    "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                ),
                field: "propagationPolicy".into(),
            };
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]))
        }
    }
}
