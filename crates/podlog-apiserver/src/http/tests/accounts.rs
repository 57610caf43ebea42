//! Pods and the account that their namespace gets.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server;

fn pod(account: &str) -> Value {
    let spec = json!({"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]});
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_its_new_namespace() {
    let app = server().await;
    assert_eq!(app.post("/api/v1/namespaces", json!({"metadata": {"name": "new"}})).await.code, 201);
    let accounts = "/api/v1/namespaces/new/serviceaccounts";
    // The pod comes first: without the account it would be refused before the second future starts.
    let (pod, account) = tokio::join!(
        app.post("/api/v1/namespaces/new/pods", pod("")),
        app.post(accounts, json!({"metadata": {"name": "default"}})),
    );
    assert_eq!((pod.code, account.code), (201, 201), "{}", pod.text());
    assert_eq!(pod.json()["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_pod_does_not_wait_forever_nor_for_any_account() {
    let app = server().await;
    assert_eq!(app.post("/api/v1/namespaces", json!({"metadata": {"name": "new"}})).await.code, 201);
    let refused = async |account: &str, waits: bool| {
        let begin = Instant::now();
        let refused = app.post("/api/v1/namespaces/new/pods", pod(account)).await;
        assert_eq!(refused.code, 403, "{}", refused.text());
        let name = if account.is_empty() { "default" } else { account };
        let text =
            format!("error looking up service account new/{name}: serviceaccount \"{name}\" not found");
        assert!(refused.json()["message"].as_str().unwrap().contains(&text), "{}", refused.text());
        // The bound from above is far off: what else runs on this machine is not the subject.
        assert!(!waits || begin.elapsed() > Duration::from_secs(1), "{account}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{account}");
    };
    tokio::join!(refused("robot", false), refused("", true), refused("default", true));
}
