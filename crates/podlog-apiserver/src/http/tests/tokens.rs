//! Reviews, and tokens of service accounts from their issue to their end.

use std::sync::Arc;

use async_trait::async_trait;
use podlog_api::{Attributes, Decision, UserInfo};
use podlog_serving::{Authorizer, AuthzError};
use serde_json::{Value, json};

use super::{ADMIN, ISSUER, server};
use crate::auth::{ClusterAuthorizer, Member};

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default";

#[tokio::test]
async fn access_reviews() {
    let app = server().await;
    let group = "/apis/authorization.k8s.io/v1";
    let log = json!({"verb": "get", "resource": "pods", "subresource": "log", "namespace": "default"});
    let rows = [
        ("selfsubjectaccessreviews", "", json!({"resourceAttributes": log}), json!(true)),
        (
            "selfsubjectaccessreviews",
            "",
            json!({"nonResourceAttributes": {"verb": "get", "path": "/x"}}),
            json!(true),
        ),
        ("subjectaccessreviews", "", json!({"user": "bob", "resourceAttributes": log}), json!(false)),
        (
            "subjectaccessreviews",
            "",
            json!({"user": "bob", "groups": ["system:masters"], "resourceAttributes": log}),
            json!(true),
        ),
        (
            "localsubjectaccessreviews",
            "/namespaces/default",
            json!({"user": "bob", "resourceAttributes": log}),
            json!(false),
        ),
        (
            "localsubjectaccessreviews",
            "/namespaces/kube-system",
            json!({"user": "bob", "resourceAttributes": log}),
            Value::Null,
        ),
        ("subjectaccessreviews", "", json!({"resourceAttributes": log}), Value::Null),
        ("selfsubjectaccessreviews", "", json!({}), Value::Null),
    ];
    for (plural, namespace, spec, allowed) in rows {
        let answer = app.post(&format!("{group}{namespace}/{plural}"), json!({"spec": spec})).await;
        let expected = if allowed.is_null() { 400..423 } else { 201..202 };
        assert!(expected.contains(&answer.code), "{plural} {spec}: {}", answer.text());
        assert_eq!(
            answer.json()["status"].get("allowed").cloned().unwrap_or_default(),
            allowed,
            "{plural} {spec}"
        );
    }
    let list = |selector: Value| {
        json!({"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes":
            {"verb": "list", "resource": "pods", "fieldSelector": selector}})
    };
    let ours = |values: Value| json!({"key": "spec.nodeName", "operator": "In", "values": values});
    let why = "can only list/watch pods with spec.nodeName field selector";
    let lost = "spec.resourceAttributes.fieldSelector ignored due to parse error";
    let cut = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
    for (selector, expected) in [
        (json!(null), json!({"allowed": false, "reason": why})),
        (json!({"rawSelector": "spec.nodeName=n1"}), json!({"allowed": true})),
        (
            json!({"rawSelector": "spec.nodeName"}),
            json!({"allowed": false, "reason": why, "evaluationError": lost}),
        ),
        (json!({"requirements": [ours(json!(["n1"]))]}), json!({"allowed": true})),
        (
            json!({"requirements": [ours(json!(["n1"])), ours(json!(["n1", "n2"]))]}),
            json!({"allowed": true, "evaluationError": cut}),
        ),
    ] {
        let answer =
            app.post(&format!("{group}/subjectaccessreviews"), json!({"spec": list(selector)})).await;
        assert_eq!(answer.json()["status"], expected, "{}", answer.text());
    }
    let rules = app
        .post(&format!("{group}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}}))
        .await;
    assert_eq!(rules.code, 201, "{}", rules.text());
    assert!(rules.json()["status"]["resourceRules"].is_array());
    let me = app.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.json();
    assert_eq!(me["status"]["userInfo"]["username"], "admin");
}

#[tokio::test]
async fn tokens_live_as_long_as_what_they_are_bound_to() {
    let app = server().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let pod = app.post("/api/v1/namespaces/default/pods", pod).await.json();
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let issued = app.post(&format!("{ACCOUNT}/token"), json!({"spec": {"boundObjectRef": reference}})).await;
    assert_eq!(issued.code, 201, "{}", issued.text());
    let token = issued.json()["status"]["token"].as_str().unwrap().to_owned();
    let bearer = format!("bearer {token}");
    let whoami = |bearer: String| {
        let app = app.clone();
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        async move {
            app.send(
                "POST",
                path,
                &[("authorization", &bearer), ("content-type", "application/json")],
                "{\"kind\":\"SelfSubjectReview\",\"apiVersion\":\"authentication.k8s.io/v1\"}",
            )
            .await
        }
    };
    let user = whoami(bearer.clone()).await.json()["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));

    let review = |token: String| {
        let app = app.clone();
        async move {
            app.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}}))
                .await
                .json()
        }
    };
    assert_eq!(review(token.clone()).await["status"]["authenticated"], true);
    let forged = format!("{}x", &token[..token.len() - 2]);
    assert_eq!(whoami(format!("Bearer {forged}")).await.code, 401);
    assert!(review(forged).await["status"].get("authenticated").is_none());

    app.send("DELETE", "/api/v1/namespaces/default/pods/p", &[ADMIN], "").await;
    assert_eq!(whoami(bearer).await.code, 401, "the pod is gone, and the token with it");
}

#[tokio::test]
async fn token_requests_are_checked() {
    let app = server().await;
    let rows = [
        (json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"expirationSeconds": 5_000_000_000_i64}), 422, "larger than 2^32"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "none"}}), 404, "not found"),
        (json!({"audiences": ["vault"], "expirationSeconds": 600}), 201, "vault"),
    ];
    for (spec, code, text) in rows {
        let answer = app.post(&format!("{ACCOUNT}/token"), json!({"spec": spec})).await;
        assert_eq!(answer.code, code, "{spec}: {}", answer.text());
        assert!(answer.text().contains(text), "{spec}: {}", answer.text());
    }
    let foreign =
        app.post(&format!("{ACCOUNT}/token"), json!({"spec": {"audiences": ["vault"]}})).await.json();
    let bearer = format!("Bearer {}", foreign["status"]["token"].as_str().unwrap());
    assert_eq!(
        app.send("GET", "/api", &[("authorization", &bearer)], "").await.code,
        401,
        "not meant for us"
    );
}

#[tokio::test]
async fn reviews_say_for_which_audiences_a_token_is() {
    let app = server().await;
    let issue = async |audiences: Value| {
        let answer = app.post(&format!("{ACCOUNT}/token"), json!({"spec": {"audiences": audiences}})).await;
        answer.json()["status"]["token"].as_str().unwrap().to_owned()
    };
    let (ours, vault) = (issue(json!([])).await, issue(json!(["vault", "other"])).await);
    let refused = |token: &str, wanted: &str| {
        json!(format!(
            "[invalid bearer token, token audiences [{token}] is invalid for the target audiences [\"{wanted}\"]]"
        ))
    };
    let none = Value::Null;
    let rows = [
        (&ours, json!([]), json!([ISSUER]), none.clone()),
        (&ours, json!(["vault", ISSUER]), json!([ISSUER]), none.clone()),
        (&ours, json!(["vault"]), none.clone(), refused(&format!("\"{ISSUER}\""), "vault")),
        (&vault, json!(["x", "vault"]), json!(["vault"]), none.clone()),
        (&vault, json!([]), none.clone(), refused("\"vault\" \"other\"", ISSUER)),
        (&"unknown".to_owned(), json!([]), none.clone(), json!("invalid bearer token")),
        (&"unknown".to_owned(), json!(["vault"]), none, json!("invalid bearer token")),
    ];
    for (token, wanted, audiences, error) in rows {
        let spec = json!({"spec": {"token": token, "audiences": wanted}});
        let status =
            app.post("/apis/authentication.k8s.io/v1/tokenreviews", spec).await.json()["status"].clone();
        assert_eq!((&status["audiences"], &status["error"]), (&audiences, &error), "{wanted}: {status}");
        let known = audiences.is_array();
        assert_eq!(status["authenticated"] == true, known, "{status}");
        let groups = &status["user"]["groups"];
        assert_eq!(groups.to_string().contains("system:authenticated"), known, "{status}");
    }
}

/// Lets `bob` write what he likes in the RBAC group and, where it says so, grant what he does not have.
struct Lenient(bool);

#[async_trait]
impl Authorizer for Lenient {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<Decision, AuthzError> {
        let Attributes::Resource { verb, group, .. } = attributes else {
            return Ok(Decision::NoOpinion(String::new()));
        };
        let grants = matches!(verb.as_str(), "escalate" | "bind");
        let allowed = user.username == "bob" && group == "rbac.authorization.k8s.io" && (self.0 || !grants);
        Ok(if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) })
    }
}

#[tokio::test]
async fn everybody_who_decides_is_asked_about_granting() {
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    for (grants, code) in [(false, 403), (true, 201)] {
        let Ok(mut app) = Arc::try_unwrap(server().await) else { panic!("somebody else has the server") };
        let members = vec![Member::Rbac, Member::Webhook(Arc::new(Lenient(grants)))];
        app.authorizer = Arc::new(ClusterAuthorizer::new(app.registry.clone(), members));
        let app = Arc::new(app);
        for (plural, object) in [("roles", &role), ("rolebindings", &binding)] {
            let headers = [("x-user", "bob"), ("content-type", "application/json")];
            let answer = app.send("POST", &format!("{roles}/{plural}"), &headers, object.to_string()).await;
            assert_eq!(answer.code, code, "{plural}: {}", answer.text());
            let text = "is attempting to grant RBAC permissions not currently held";
            assert_eq!(answer.text().contains(text), !grants, "{plural}: {}", answer.text());
        }
    }
}
