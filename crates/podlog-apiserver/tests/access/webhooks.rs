//! Others who know tokens and decide.

use std::path::Path;
use std::time::Duration;

use podlog_apiserver::{AccessWebhookConfig, AuthorizationMode, TokenWebhookConfig};
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::kubectl;
use crate::outside::Outside;

fn answer(path: &str, review: &Value) -> Option<Value> {
    let spec = &review["spec"];
    let status = match path {
        "/tokens" if spec["token"] == "good" => {
            json!({"authenticated": true, "user": {"username": "ann", "uid": "7", "groups": ["devs"],
                "extra": {"example.com/scope": ["s"]}}})
        }
        "/tokens" if spec["token"] == "broken" => return None,
        "/tokens" => json!({"authenticated": false}),
        "/access" => match (spec["user"].as_str(), spec["resourceAttributes"]["resource"].as_str()) {
            (Some("ann"), Some("pods" | "selfsubjectreviews" | "selfsubjectaccessreviews")) => {
                json!({"allowed": true, "reason": "pods are fine"})
            }
            (Some("ann"), Some("secrets")) => json!({"denied": true, "reason": "not these"}),
            (Some("ann"), Some("nodes")) => return None,
            _ => json!({"allowed": false}),
        },
        _ => return None,
    };
    Some(json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status}))
}

#[tokio::test(flavor = "multi_thread")]
async fn others_know_tokens_and_decide() {
    let Some(kubectl) = kubectl::any() else { return };
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(folder.path(), answer).await;
    let minute = Duration::from_secs(60);
    let cluster = Cluster::start_with(|config, _| {
        config.authentication.webhook = Some(TokenWebhookConfig {
            config_file: outside.webhook_file(folder.path(), "tokens"),
            cache_ttl: minute,
        });
        config.authorization.modes = vec![AuthorizationMode::Webhook, AuthorizationMode::Rbac];
        config.authorization.webhook = Some(AccessWebhookConfig {
            config_file: outside.webhook_file(folder.path(), "access"),
            allowed_ttl: minute,
            refused_ttl: minute,
        });
    })
    .await;
    let run = |kubeconfig: &Path, command: &str| kubectl::run(&kubectl, kubeconfig, command);
    let ann = cluster.kubeconfig_with_token("ann", "good");
    let (exit, said) = run(&ann, "auth whoami -o yaml");
    assert_eq!(exit, 0, "{said}");
    for part in ["username: ann", "uid: \"7\"", "- devs", "example.com/scope:", "- system:authenticated"] {
        assert!(said.contains(part), "{said}");
    }
    for name in ["bad", "broken"] {
        let (exit, said) = run(&cluster.kubeconfig_with_token(name, name), "get pods");
        assert!(exit == 1 && said.contains("You must be logged in"), "{said}");
    }
    let rows = [
        ("get pods -n default", 0, "No resources found"),
        (
            "get secrets -n default",
            1,
            "User \"ann\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": not these",
        ),
        ("get configmaps -n default", 1, "cannot list resource \"configmaps\""),
        ("get nodes", 1, "/access: 404 Not Found"),
        // Discovery is RBAC's: the webhook has no opinion on it.
        ("get --raw /api", 0, "APIVersions"),
        ("auth can-i get pods", 0, "yes"),
    ];
    for (command, exit, says) in rows {
        let found = run(&ann, command);
        assert!(found.0 == exit && found.1.contains(says), "{command}: {found:?}");
    }
    // Asked once, believed afterwards; what failed is asked again.
    let (asked_tokens, asked_access) = (outside.count("/tokens"), outside.count("/access"));
    run(&ann, "get pods -n default");
    run(&ann, "get secrets -n default");
    assert_eq!((outside.count("/tokens"), outside.count("/access")), (asked_tokens, asked_access));
    let good = |(path, review): &&(String, Value)| path == "/tokens" && review["spec"]["token"] == "good";
    assert_eq!(outside.asked.lock().iter().filter(good).count(), 1);
    // Masters are not asked about.
    assert_eq!(run(&cluster.kubeconfig(), "get secrets -n default").0, 0);
    cluster.server.shutdown().await.unwrap();
}
