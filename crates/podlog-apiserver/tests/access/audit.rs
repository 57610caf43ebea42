//! What the audit log says of kubectl's requests.

use std::path::Path;

use podlog_apiserver::{ApiServerConfig, AuditConfig, AuditLogConfig};
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::kubectl;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, nonResourceURLs: ['/openapi*', '/api*', /version]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], omitManagedFields: true, omitStages: [RequestReceived]}
- {level: RequestResponse, resources: [{group: '', resources: [secrets, serviceaccounts/token]}]}
- {level: Metadata}
";

fn audited(log: &str) -> impl FnOnce(&mut ApiServerConfig, &Path) + '_ {
    move |config, folder| {
        let policy = folder.join("policy.yaml");
        std::fs::write(&policy, POLICY).unwrap();
        let log = AuditLogConfig {
            path: folder.join(log),
            max_bytes: 100 << 20,
            max_backups: None,
            max_age_days: None,
        };
        config.audit = Some(AuditConfig { policy, log });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_who_did_what_and_no_secret() {
    let Some(kubectl) = kubectl::any() else { return };
    let cluster = Cluster::start_with(audited("audit.log")).await;
    let admin = cluster.kubeconfig();
    let run = |command: &str| kubectl::run(&kubectl, &admin, command);
    let settings = cluster.folder.path().join("settings.yaml");
    std::fs::write(
        &settings,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n",
    )
    .unwrap();
    std::fs::write(
        cluster.folder.path().join("account.yaml"),
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n",
    )
    .unwrap();
    let commands = [
        (format!("create -f {}", settings.display()), 0),
        (format!("create -f {}/account.yaml", cluster.folder.path().display()), 0),
        ("create secret generic passwords --from-literal=admin=hunter2".into(), 0),
        ("get secret passwords -o yaml".into(), 0),
        ("create token robot".into(), 0),
        ("get pods --as=jane --as-group=devs".into(), 1),
        ("get --raw /api/v1/pods?watch=true&timeoutSeconds=1".into(), 0),
    ];
    let mut token = String::new();
    for (command, exit) in commands {
        let found = run(&command);
        assert_eq!(found.0, exit, "{command}: {}", found.1);
        if command.starts_with("create token") {
            token = found.1.trim().to_owned();
        }
    }
    let stranger = cluster.kubeconfig_with_token("stranger", "made-up-token");
    assert_eq!(kubectl::run(&kubectl, &stranger, "get pods").0, 1);
    let log = cluster.folder.path().join("audit.log");
    cluster.server.shutdown().await.unwrap();

    let text = std::fs::read_to_string(&log).unwrap();
    for secret in ["hunter2", "aHVudGVyMg==", "made-up-token", &token] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |resource: &str, verb: &str| -> Vec<&Value> {
        events.iter().filter(|e| e["objectRef"]["resource"] == resource && e["verb"] == verb).collect()
    };
    let stages = |events: &[&Value]| events.iter().map(|e| e["stage"].clone()).collect::<Vec<_>>();

    let created = of("configmaps", "create");
    assert_eq!(stages(&created), ["ResponseComplete"]);
    let created = created[0];
    assert_eq!(created["kind"], "Event");
    assert_eq!(created["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(created["level"], "RequestResponse");
    assert_eq!(created["user"]["username"], "admin");
    assert!(created["user"]["groups"].as_array().unwrap().contains(&json!("system:masters")));
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    assert!(created["userAgent"].as_str().unwrap().starts_with("kubectl"));
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["requestObject"]["data"], json!({"colour": "red"}));
    assert!(created["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(created["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    for field in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = created[field].as_str().unwrap();
        assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    }

    let secret = of("secrets", "create");
    assert_eq!(stages(&secret), ["RequestReceived", "ResponseComplete"]);
    assert_eq!((&secret[1]["level"], &secret[1]["requestObject"]), (&json!("Metadata"), &Value::Null));

    let refused = of("pods", "list").into_iter().rfind(|e| e["impersonatedUser"].is_object()).unwrap();
    assert_eq!(
        refused["impersonatedUser"],
        json!({"username": "jane", "groups": ["devs", "system:authenticated"]})
    );
    assert_eq!(refused["user"]["username"], "admin");
    assert_eq!(
        refused["authenticationMetadata"],
        json!({"impersonationConstraint": "impersonate:user-info"})
    );
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert!(
        refused["responseStatus"]["message"]
            .as_str()
            .unwrap()
            .starts_with("pods is forbidden: User \"jane\"")
    );

    let watched = of("pods", "watch");
    assert_eq!(stages(&watched), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(watched[2]["responseStatus"]["code"], 200);
    let ids: std::collections::BTreeSet<_> = watched.iter().map(|e| e["auditID"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "one request, one id");

    let unknown = events.iter().find(|e| e["responseStatus"]["code"] == 401).unwrap();
    assert_eq!(unknown["stage"], "ResponseStarted");
    assert_eq!(unknown["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert!(!events.iter().any(|e| e["requestURI"].as_str().unwrap().starts_with("/version")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_stop_serving() {
    let Some(kubectl) = kubectl::any() else { return };
    let cluster = Cluster::start_with(audited("/dev/full")).await;
    let run = |command: &str| kubectl::run(&kubectl, &cluster.kubeconfig(), command);
    assert_eq!(run("get pods").0, 0);
    loop {
        let (exit, metrics) = run("get --raw /metrics");
        assert_eq!(exit, 0);
        let lost = metrics
            .lines()
            .find_map(|line| line.strip_prefix("apiserver_audit_error_total{plugin=\"log\"} "));
        if lost.is_some_and(|count| count.parse::<f64>().unwrap() > 0.0) {
            break;
        }
    }
    cluster.server.shutdown().await.unwrap();
}
