//! Certificate signing requests: who may ask, approve and sign, and what comes of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{ADMIN, Answered, server};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// `O=system:nodes, CN=system:node:n1`, made with openssl.
const NODE_REQUEST: &str = include_str!("node.csr");
/// `O=system:masters, CN=mallory`, made with openssl.
const MASTER_REQUEST: &str = include_str!("master.csr");
const JSON: (&str, &str) = ("content-type", "application/json");
const BOOTSTRAPPER: (&str, &str) =
    ("x-user", "system:bootstrap:abcdef,system:bootstrappers,system:authenticated");

fn request(name: &str, signer: &str, pem: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"signerName": signer, "request": STANDARD.encode(pem),
        "usages": ["digital signature", "client auth"], "username": "mallory", "groups": ["system:masters"]},
        "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="}})
}

fn message(answer: &Answered) -> String {
    format!("{} {}", answer.code, answer.json()["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn requests_are_made_by_those_who_ask_and_decided_by_others() {
    let app = server().await;
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let body = request("r", signer, NODE_REQUEST);
    let made = app.send("POST", PATH, &[BOOTSTRAPPER, JSON], body.to_string()).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let mut object = made.json();
    assert_eq!(object["spec"]["username"], "system:bootstrap:abcdef");
    assert_eq!(object["spec"]["groups"], json!(["system:bootstrappers", "system:authenticated"]));
    assert_eq!(object["status"], json!({}), "nobody approves their own request");

    // The main resource keeps spec and status.
    object["spec"]["signerName"] = json!("a.b/c");
    object["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    object["metadata"]["labels"] = json!({"a": "b"});
    let changed = app.send("PUT", &format!("{PATH}/r"), &[ADMIN, JSON], object.to_string()).await;
    assert_eq!(
        (changed.json()["spec"]["signerName"].as_str(), &changed.json()["status"]),
        (Some(signer), &json!({}))
    );
    assert_eq!(changed.json()["metadata"]["labels"]["a"], "b");

    // Approving needs the verb on the subresource and on the signer.
    let mut approved = changed.json();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}],
        "certificate": "eA=="});
    let approval = format!("{PATH}/r/approval");
    let role = |name: &str, rules: Value| {
        let group = "rbac.authorization.k8s.io";
        (
            json!({"metadata": {"name": name}, "rules": rules}),
            json!({"metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "User", "apiGroup": group, "name": name}]}),
        )
    };
    let may_update = json!({"apiGroups": ["certificates.k8s.io"], "verbs": ["update", "get"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let may_decide = json!({"apiGroups": ["certificates.k8s.io"], "verbs": ["approve"], "resources": ["signers"],
        "resourceNames": ["kubernetes.io/*"]});
    for (name, rules) in [("updater", json!([may_update])), ("approver", json!([may_update, may_decide]))] {
        let (role, binding) = role(name, rules);
        let group = "/apis/rbac.authorization.k8s.io/v1";
        assert_eq!(app.post(&format!("{group}/clusterroles"), role).await.code, 201);
        assert_eq!(app.post(&format!("{group}/clusterrolebindings"), binding).await.code, 201);
    }
    // Roles take effect a moment after they are written.
    while app.send("GET", &approval, &[("x-user", "approver")], "").await.code == 403 {
        tokio::task::yield_now().await;
    }
    let put = async |user: &str, path: &str, body: &Value| {
        app.send("PUT", path, &[("x-user", user), JSON], body.to_string()).await
    };
    assert_eq!(
        message(&put("updater", &approval, &approved).await),
        "403 certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve \
         requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\""
    );
    let done = put("approver", &approval, &approved).await;
    assert_eq!(done.code, 200, "{}", done.text());
    let condition = &done.json()["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    assert_eq!(done.json()["status"]["certificate"], Value::Null, "who approves does not issue");

    let mut undone = done.json();
    undone["status"]["conditions"] = json!([]);
    assert_eq!(
        message(&put("approver", &approval, &undone).await),
        "422 CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: status.conditions: Forbidden: \
         updates may not remove a condition of type \"Approved\""
    );

    // Signing needs another verb; a certificate has to be one, and stays.
    let status = format!("{PATH}/r/status");
    let mut signed = done.json();
    signed["status"]["certificate"] = json!(STANDARD.encode("no certificate"));
    assert!(
        message(&put("approver", &status, &signed).await).contains("user not permitted to sign requests")
    );
    let bad = app.send("PUT", &status, &[ADMIN, JSON], signed.to_string()).await;
    assert!(
        message(&bad)
            .contains("status.certificate: Invalid value: \"<certificate data>\": must contain one or")
    );
}

#[tokio::test]
async fn some_requests_are_refused() {
    let app = server().await;
    let kubelet = ("x-user", "system:node:n2,system:nodes");
    let client = "kubernetes.io/kube-apiserver-client";
    let rows = [
        (
            ADMIN,
            request("m", client, MASTER_REQUEST),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ),
        (
            kubelet,
            request("n", &format!("{client}-kubelet"), NODE_REQUEST),
            "can only create a node CSR with CN=system:node:n2",
        ),
        (
            ADMIN,
            request("x", client, "nonsense"),
            "spec.request: Invalid value: \"bm9uc2Vuc2U=\": PEM block type must be CERTIFICATE REQUEST",
        ),
        (
            ADMIN,
            request("x", "nobody", NODE_REQUEST),
            "spec.signerName: Invalid value: \"nobody\": must be a fully",
        ),
        (
            ("x-user", "bob,system:authenticated"),
            request("x", client, NODE_REQUEST),
            "cannot create resource",
        ),
    ];
    for (user, body, expected) in rows {
        let answer = app.send("POST", PATH, &[user, JSON], body.to_string()).await;
        assert!(message(&answer).contains(expected), "{}", message(&answer));
    }
}
