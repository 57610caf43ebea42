//! Questions about identity and permission, asked as objects that are never stored.
//!
//! As `pkg/registry/{authorization,authentication}`.

use http::StatusCode;
use podlog_api::{ApiError, Attributes, Cause, Decision, Object, UserInfo};
use podlog_serving::{Authorizer, Peer};
use serde_json::{Map, Value, json};

use crate::auth::ClusterAuthorizer;
use crate::http::{Answer, App, Call, Target, decode, json_answer};

/// Answers a review.
pub(crate) async fn answer(app: &App, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let what = podlog_api::strict::Target::of(target.resource);
    let (mut review, _) = decode(call, what).await?;
    let caller = call.user().clone();
    let status = match target.resource.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(&caller)}),
        "TokenReview" => token_review(app, &review).await?,
        "SelfSubjectRulesReview" => {
            let namespace = review.text("/spec/namespace").to_owned();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            app.registry.policy().rules_for(&caller, &namespace).to_status()
        }
        _ => {
            let user = subject(target, &review, caller)?;
            access(app, &user, &asked(target, &review)?).await
        }
    };
    review.0["kind"] = json!(target.resource.kind);
    review.0["apiVersion"] = json!(target.resource.api_version());
    review.metadata_mut();
    review.0["status"] = status;
    json_answer(call, StatusCode::CREATED, &review.0)
}

/// Whether somebody may do something.
async fn access(app: &App, user: &UserInfo, attributes: &Attributes) -> Value {
    let authorizer = ClusterAuthorizer { registry: app.registry.clone(), field_selector: String::new() };
    let mut status = Map::new();
    match authorizer.authorize(user, attributes).await {
        Ok(decision) => {
            status.insert("allowed".into(), json!(matches!(decision, Decision::Allow(_))));
            if matches!(decision, Decision::Deny(_)) {
                status.insert("denied".into(), json!(true));
            }
            let (Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason)) = decision;
            if !reason.is_empty() {
                status.insert("reason".into(), json!(reason));
            }
        }
        Err(error) => {
            status.insert("allowed".into(), json!(false));
            status.insert("evaluationError".into(), json!(error.to_string()));
        }
    }
    Value::Object(status)
}

/// Whom an access review is about.
fn subject(target: &Target, review: &Object, caller: UserInfo) -> Result<UserInfo, ApiError> {
    if target.resource.kind == "SelfSubjectAccessReview" {
        return Ok(caller);
    }
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_owned())).collect()
    };
    let extra = review.at("/spec/extra").and_then(Value::as_object).into_iter().flatten();
    let user = UserInfo {
        username: review.text("/spec/user").to_owned(),
        uid: review.text("/spec/uid").to_owned(),
        groups: review.at("/spec/groups").map(strings).unwrap_or_default(),
        extra: extra.map(|(key, value)| (key.to_lowercase(), strings(value))).collect(),
    };
    if user.username.is_empty() && user.groups.is_empty() {
        let cause = Cause {
            reason: "FieldValueInvalid".into(),
            message: "Invalid value: \"\": at least one of user or group must be specified".into(),
            field: "spec.user".into(),
        };
        return Err(invalid(target, vec![cause]));
    }
    Ok(user)
}

/// What an access review asks.
fn asked(target: &Target, review: &Object) -> Result<Attributes, ApiError> {
    let part = |key: &str| review.at(&format!("/spec/{key}")).filter(|value| value.is_object());
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(resource), None) => {
            let namespace = text(resource, "namespace");
            check_namespace(target, &namespace)?;
            Ok(Attributes::Resource {
                verb: text(resource, "verb"),
                group: text(resource, "group"),
                version: text(resource, "version"),
                resource: text(resource, "resource"),
                subresource: text(resource, "subresource"),
                name: text(resource, "name"),
                namespace,
            })
        }
        (None, Some(path)) if !target.resource.namespaced => {
            Ok(Attributes::NonResource { verb: text(path, "verb"), path: text(path, "path") })
        }
        _ => {
            let message = if target.resource.namespaced {
                "Invalid value: \"\": disallowed on this kind of request"
            } else {
                "Invalid value: \"\": exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            let field = if target.resource.namespaced {
                "spec.nonResourceAttributes"
            } else {
                "spec.resourceAttributes"
            };
            let cause =
                Cause { reason: "FieldValueInvalid".into(), message: message.into(), field: field.into() };
            Err(invalid(target, vec![cause]))
        }
    }
}

/// A local review only asks about its own namespace.
fn check_namespace(target: &Target, namespace: &str) -> Result<(), ApiError> {
    if !target.resource.namespaced || namespace == target.namespace {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "spec.resourceAttributes.namespace must match namespace: {}",
        target.namespace
    )))
}

fn invalid(target: &Target, causes: Vec<Cause>) -> ApiError {
    ApiError::invalid(target.resource.group, target.resource.kind, "", causes)
}

async fn token_review(app: &App, review: &Object) -> Result<Value, ApiError> {
    let token = review.text("/spec/token");
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let authenticated = match token_request(token) {
        Some(parts) => {
            let nowhere = Peer { address: ([0, 0, 0, 0], 0).into(), certificate_chain: Vec::new().into() };
            app.token_authenticator.authenticate(&parts, &nowhere).await
        }
        None => Ok(None),
    };
    Ok(match authenticated {
        Ok(Some(user)) => json!({"authenticated": true, "user": user_info(&user)}),
        Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}

/// A request that carries nothing but the token. `None` for what no header can hold.
fn token_request(token: &str) -> Option<http::request::Parts> {
    let header = format!("Bearer {token}");
    Some(http::Request::builder().header(http::header::AUTHORIZATION, header).body(()).ok()?.into_parts().0)
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), json!(user.username));
    if !user.uid.is_empty() {
        info.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}
