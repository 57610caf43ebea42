//! Questions about identity and permission, asked as objects that are never stored.
//!
//! As `pkg/registry/{authorization,authentication}`.

use http::StatusCode;
use podlog_api::{ApiError, Attributes, Decision, Object, Selectors, UserInfo, validation};
use podlog_serving::{AuthnError, Authorizer, Peer};
use serde_json::{Map, Value, json};

use crate::http::{Answer, App, Call, Target, decode, json_answer};
use crate::registry::metadata;

/// Answers a review.
pub(crate) async fn answer(app: &App, call: &Call, target: &Target) -> Result<Answer, ApiError> {
    let what = podlog_api::strict::Target::of(target.resource);
    let (mut review, _) = decode(call, what).await?;
    if target.resource.namespaced {
        metadata::set_namespace(target.resource, &target.namespace, &mut review)?;
    }
    let causes = validation::create(target.resource, &review);
    if !causes.is_empty() {
        return Err(ApiError::invalid(target.resource.group, target.resource.kind, "", causes));
    }
    let caller = call.user().clone();
    let status = match target.resource.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(&caller)}),
        "TokenReview" => token_review(app, &review).await?,
        "SelfSubjectRulesReview" => {
            let namespace = review.text("/spec/namespace").to_owned();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            // The answer repeats no question.
            review.0["spec"] = json!({});
            app.authorizer.rules_for(&caller, &namespace).to_status()
        }
        _ => {
            let user = subject(target, &review, caller);
            let (attributes, complaints) = asked(&review);
            access(app, &user, &attributes, complaints).await
        }
    };
    review.0["kind"] = json!(target.resource.kind);
    review.0["apiVersion"] = json!(target.resource.api_version());
    review.metadata_mut();
    review.0["status"] = status;
    json_answer(call, StatusCode::CREATED, &review.0)
}

/// Whether somebody may do something; `complaints` are what was not understood of the question.
async fn access(app: &App, user: &UserInfo, attributes: &Attributes, mut complaints: Vec<String>) -> Value {
    let mut status = Map::new();
    match app.authorizer.authorize(user, attributes).await {
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
            complaints.insert(0, error.to_string());
        }
    }
    if !complaints.is_empty() {
        status.insert("evaluationError".into(), json!(complaints.join("; ")));
    }
    Value::Object(status)
}

/// Whom an access review is about.
fn subject(target: &Target, review: &Object, caller: UserInfo) -> UserInfo {
    if target.resource.kind == "SelfSubjectAccessReview" {
        return caller;
    }
    let mut user = UserInfo::described(review, "user");
    user.extra = user.extra.into_iter().map(|(key, values)| (key.to_lowercase(), values)).collect();
    user
}

/// What an access review asks, and what of it was not understood.
fn asked(review: &Object) -> (Attributes, Vec<String>) {
    let text = |part: &str, key: &str| review.text(&format!("/spec/{part}/{key}")).to_owned();
    if review.at("/spec/nonResourceAttributes").is_some_and(Value::is_object) {
        let part = "nonResourceAttributes";
        let attributes = Attributes::NonResource { verb: text(part, "verb"), path: text(part, "path") };
        return (attributes, Vec::new());
    }
    let part = "resourceAttributes";
    let version = Some(text(part, "version")).filter(|version| !version.is_empty());
    let (selectors, complaints) =
        Selectors::of_review(review.at("/spec/resourceAttributes").unwrap_or(&Value::Null));
    let attributes = Attributes::Resource {
        verb: text(part, "verb"),
        group: text(part, "group"),
        version: version.unwrap_or_else(|| "*".into()),
        resource: text(part, "resource"),
        subresource: text(part, "subresource"),
        namespace: text(part, "namespace"),
        name: text(part, "name"),
        selectors,
    };
    (attributes, complaints)
}

async fn token_review(app: &App, review: &Object) -> Result<Value, ApiError> {
    let token = review.text("/spec/token");
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = match review.array("/spec/audiences") {
        [] => app.accounts.audiences.clone(),
        named => named.iter().filter_map(|audience| Some(audience.as_str()?.to_owned())).collect(),
    };
    Ok(match known(app, token, &wanted).await {
        Ok(Some((user, audiences))) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}

/// Whose token it is, and for which of the wanted audiences. Tokens that name no audience are for us
/// (`WrapAudienceAgnosticToken` of `k8s.io/apiserver/pkg/authentication/authenticator`).
async fn known(
    app: &App,
    token: &str,
    wanted: &[String],
) -> Result<Option<(UserInfo, Vec<String>)>, AuthnError> {
    if app.accounts.is_ours(token) {
        let known = app.accounts.review(token, wanted);
        let (mut user, meant) =
            known.map_err(|AuthnError(why)| AuthnError(format!("[invalid bearer token, {why}]")))?;
        user.groups.push(UserInfo::AUTHENTICATED.into());
        return Ok(Some((user, meant)));
    }
    let meant: Vec<String> =
        wanted.iter().filter(|audience| app.accounts.audiences.contains(audience)).cloned().collect();
    let Some(parts) = token_request(token).filter(|_| !meant.is_empty()) else { return Ok(None) };
    let nowhere = Peer { address: ([0, 0, 0, 0], 0).into(), certificate_chain: Vec::new().into() };
    let user = app.token_authenticator.authenticate(&parts, &nowhere).await?;
    Ok(user.map(|user| (user, meant)))
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
