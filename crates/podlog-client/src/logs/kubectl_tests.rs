//! The command beside a real kubectl, against the same answers: same output, same words, same exit code.
//!
//! kubectl is `$KUBECTL`, or `kubectl` of the `PATH`, of a version whose words are these (1.30 to 1.35); without one the test
//! says so and passes.

use std::process::Output;

use serde_json::{Value, json};

use super::tests::{logs_with_code, pod};
use crate::testing::{Answer, FakeApi, status};

fn kubectl() -> Option<String> {
    let installed = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33".to_owned();
    let candidates = [std::env::var("KUBECTL").ok(), Some("kubectl".into()), Some(installed)];
    candidates.into_iter().flatten().find(|candidate| {
        let version = std::process::Command::new(candidate).args(["version", "--client"]).output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        (30..=35).any(|minor| version.as_ref().is_ok_and(|text| text.contains(&format!("v1.{minor}."))))
    })
}

async fn run_kubectl(program: &str, api: &FakeApi, cache: &std::path::Path, arguments: &str) -> Output {
    let kubeconfig = api.options.kubeconfig.clone().unwrap();
    let mut command = tokio::process::Command::new(program);
    command.arg("logs").args(arguments.split_whitespace()).arg("--kubeconfig").arg(kubeconfig);
    command.arg("--cache-dir").arg(cache).env_remove("KUBECONFIG").kill_on_drop(true);
    tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await.unwrap().unwrap()
}

/// Enough discovery for kubectl to find pods and deployments.
fn answer_discovery(api: &FakeApi) {
    let resource = |name: &str, singular: &str, kind: &str, short: &str| json!({"name": name, "singularName": singular, "namespaced": true, "kind": kind, "shortNames": [short], "verbs": ["get", "list", "watch"]});
    let list = |group_version: &str, resources: Vec<Value>| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
    let core = vec![
        resource("pods", "pod", "Pod", "po"),
        resource("services", "service", "Service", "svc"),
        resource("configmaps", "configmap", "ConfigMap", "cm"),
    ];
    let apps = vec![resource("deployments", "deployment", "Deployment", "deploy")];
    let version = json!({"groupVersion": "apps/v1", "version": "v1"});
    for timeout in ["", "?timeout=32s"] {
        api.script
            .on_json(&format!("GET /api{timeout}"), json!({"kind": "APIVersions", "versions": ["v1"]}))
            .on_json(&format!("GET /apis{timeout}"), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": "apps", "versions": [version], "preferredVersion": version}]}))
            .on_json(&format!("GET /api/v1{timeout}"), list("v1", core.clone()))
            .on_json(&format!("GET /apis/apps/v1{timeout}"), list("apps/v1", apps.clone()));
    }
}

fn answer_logs(api: &FakeApi) {
    let base = "GET /api/v1/namespaces/default/pods/";
    let mut many = pod("many", &["a", "b"]);
    many["spec"]["initContainers"] = json!([{"name": "i"}]);
    let mut noted = pod("noted", &["a", "b"]);
    noted["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
    let mut misnoted = pod("misnoted", &["a"]);
    misnoted["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "zzz"});
    for object in [pod("web", &["app"]), many, noted, misnoted] {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        api.script.on_json(&format!("{base}{name}"), object);
        for container in ["app", "a", "b", "i"] {
            let log = format!("{base}{name}/log?container={container}");
            api.script.on_text(&log, &format!("{container} 1\n\n{container} \u{1F980} end"));
            // kubectl asks for the first, podlog for the others.
            for query in ["follow=true", "follow=true&frames=true", "follow=true&timestamps=true"] {
                api.script.on_text(&format!("{log}&{query}"), &format!("{container} followed\n"));
            }
            api.script.on_text(&format!("{log}&tailLines=10"), &format!("{container} ten\n"));
        }
    }
    let invalid = |causes: Value| json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "x", "reason": "Invalid", "details": {"name": "web", "kind": "PodLogOptions", "causes": causes}, "code": 422});
    let cause = |field: &str, message: &str| json!({"reason": "FieldValueInvalid", "field": field, "message": message});
    let failures = [
        (
            "previous=true",
            Answer::Json(
                400,
                status(400, "BadRequest", "previous terminated container \"app\" in pod \"web\" not found"),
            ),
        ),
        ("sinceSeconds=1", Answer::Json(403, status(403, "Forbidden", "pods \"web\" is forbidden: no"))),
        (
            "sinceSeconds=2",
            Answer::Json(
                500,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Get \"https://n\": EOF", "code": 500}),
            ),
        ),
        ("sinceSeconds=3", Answer::Json(401, status(401, "Unauthorized", "Unauthorized"))),
        ("sinceSeconds=4", Answer::Json(422, invalid(json!([cause("tailLines", "Invalid value: -5: bad")])))),
        ("sinceSeconds=5", Answer::Json(422, invalid(json!([cause("a", "b"), cause("c", "d")])))),
        ("sinceSeconds=6", Answer::Text(502, "<html>bad gateway</html>".into())),
        ("sinceSeconds=7", Answer::Text(204, String::new())),
        ("sinceSeconds=8", Answer::Json(500, status(500, "InternalError", "Internal error occurred: x"))),
    ];
    for (query, answer) in failures {
        api.script.on(&format!("{base}web/log?container=app&{query}"), answer);
    }
    let selected = "GET /api/v1/namespaces/default/pods?labelSelector=app%3D";
    let list = |pods: Value| json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": pods});
    for paging in ["", "&limit=500"] {
        api.script.on_json(&format!("{selected}web{paging}"), list(json!([pod("web", &["app"])])));
        api.script.on_json(&format!("{selected}none{paging}"), list(json!([])));
        api.script.on_json(
            &format!("{selected}two{paging}"),
            list(json!([pod("many", &["a"]), pod("web", &["app"])])),
        );
    }
    let workload = |kind: &str, version: &str, selector: Value| json!({"kind": kind, "apiVersion": version, "metadata": {"name": "w", "namespace": "default"}, "spec": {"selector": selector}});
    api.script
        .on_json("GET /apis/apps/v1/namespaces/default/deployments/w", workload("Deployment", "apps/v1", json!({"matchLabels": {"app": "two"}})))
        .on_json("GET /api/v1/namespaces/default/services/w", workload("Service", "v1", json!({"app": "web"})))
        .on_json("GET /api/v1/namespaces/default/configmaps/w", json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "w", "namespace": "default"}}));
}

const ROWS: &[&str] = &[
    "",
    "web",
    "web app",
    "pod/web",
    "web -c zzz",
    "nope",
    "many",
    "many -c i",
    "many --prefix",
    "noted",
    "misnoted",
    "web -f",
    "-l app=web",
    "-l app=web --prefix",
    "-l app=none",
    "deploy/w",
    "svc/w",
    "cm/w",
    "foo/w",
    "deploy/nope",
    "web -p",
    "web --since=1s",
    "web --since=2s",
    "web --since=3s",
    "web --since=4s",
    "web --since=5s",
    "web --since=6s",
    "web --since=7s",
    "web --since=8s",
    "web --since=8s --ignore-errors",
    "web --tail=-2",
    "web --since=-5s",
    "web --limit-bytes=-1",
    "web -l app=web",
    "web app -c app",
    "web --all-containers -c app",
    "web --since-time=abc",
    "web --pod-running-timeout=0s",
    "a/b/c",
    "deploy/",
];

#[tokio::test]
async fn says_what_kubectl_says() {
    let Some(program) = kubectl() else {
        eprintln!("no kubectl found: set KUBECTL to compare with it");
        return;
    };
    let api = FakeApi::start().await;
    answer_discovery(&api);
    answer_logs(&api);
    let cache = tempfile::tempdir().unwrap();
    let mut differences = Vec::new();
    for arguments in ROWS {
        let theirs = run_kubectl(&program, &api, cache.path(), arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let theirs = (text(&theirs.stdout), text(&theirs.stderr), theirs.status.code().unwrap_or(-1));
        let (out, err, code) = logs_with_code(&api, arguments).await;
        // Since 1.36 kubectl names the containers that there are.
        let err = err
            .replace("'podlog", "'kubectl")
            .replace(" is not valid for pod web out of: app", " is not valid for pod web");
        let ours = (out.trim_end().to_owned(), err.trim_end().to_owned(), code);
        if ours != theirs {
            differences.push(format!("logs {arguments}\n  kubectl {theirs:?}\n  podlog  {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
