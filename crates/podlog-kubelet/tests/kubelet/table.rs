//! Every route of the endpoint, for everybody who may come, with every text that it refuses them with.

use std::fs;
use std::os::unix::fs::symlink;

use podlog_api::Compatibility;
use serde_json::json;

use crate::bench::Bench;

/// With the pod `web`, whose container `c` runs.
async fn running(bench: &Bench) {
    bench.api.create_pod("web", json!({"containers": [{"name": "c", "image": "x", "command": ["run"]}]}));
    bench.wait_phase("web", "Running").await;
}

const DISABLED: &str = "Debug endpoints are disabled.\n";

/// Paths, the subresources of `nodes` that let somebody in, what they answer when handlers for debugging are on, and whether
/// they are there when those are off.
const ROUTES: &[(&str, &str, u16, &str, bool)] = &[
    ("/healthz", "healthz proxy", 200, "ok", true),
    ("/healthz/ping", "healthz proxy", 200, "ok", true),
    ("/healthz/log", "healthz proxy", 200, "ok", true),
    ("/healthz/syncloop", "healthz proxy", 200, "ok", true),
    ("/healthz/none", "healthz proxy", 404, "404", true),
    ("/pods", "pods proxy", 200, "\"kind\":\"PodList\"", true),
    ("/pods/", "pods proxy", 200, "\"name\":\"web\"", true),
    ("/stats/summary", "stats", 200, "\"nodeName\":\"node-1\"", true),
    ("/stats/summary?only_cpu_and_memory=true", "stats", 200, "\"nodeName\":\"node-1\"", true),
    ("/stats/none", "stats", 404, "404", true),
    ("/metrics", "metrics", 200, "kubelet_desired_pods 1", true),
    ("/metrics/cadvisor", "metrics", 200, "machine_cpu_cores", true),
    ("/metrics/resource", "metrics", 200, "node_memory_working_set_bytes", true),
    ("/metrics/probes", "metrics", 200, "", true),
    ("/metrics/slis", "metrics", 200, "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1", true),
    ("/metrics/none", "metrics", 404, "404", true),
    ("/configz", "configz proxy", 200, "{\"kubeletconfig\":{", false),
    ("/runningpods/", "pods proxy", 200, "\"name\":\"web\"", false),
    ("/containerLogs/default/web/c", "proxy", 200, "", false),
    ("/podlog/deletedPods", "proxy", 200, "\"kind\":\"DeletedPodList\"", false),
    ("/podlog", "proxy", 404, "404", false),
    ("/logs/", "log", 405, "logs endpoint is disabled.", false),
    ("/exec/default/web/c", "proxy", 400, "you must specify at least 1 of stdin, stdout, stderr", false),
    ("/exec/default/web/c?output=1&command=id", "proxy", 400, "Upgrade request required", false),
    ("/exec/default/web/other?output=1", "proxy", 500, "container not found (\"other\")", false),
    ("/exec/default/other/c?output=1", "proxy", 404, "pod does not exist", false),
    (
        "/exec/default/web/00000000-0000-0000-0000-000000000000/c?output=1",
        "proxy",
        404,
        "pod does not exist",
        false,
    ),
    ("/exec/default/web?output=1", "proxy", 404, "404: Page Not Found", false),
    ("/attach/default/web/c?input=1", "proxy", 400, "Upgrade request required", false),
    ("/portForward/default/web", "proxy", 400, "Upgrade request required", false),
    ("/portForward/default/other", "proxy", 404, "pod does not exist", false),
    ("/run/default/web/c", "proxy", 405, "Method Not Allowed", false),
    ("/checkpoint/default/web/c", "checkpoint", 404, "404", true),
    ("/flagz", "configz", 404, "404", true),
    ("/statusz", "statusz", 404, "404", true),
    ("/debug/flags/v", "proxy", 404, "404", true),
    ("/spec", "proxy", 404, "404", true),
    ("/", "proxy", 404, "404", true),
];

#[tokio::test]
async fn every_route_answers_those_who_may_ask() {
    let bench = Bench::new().await;
    running(&bench).await;
    for (path, subresources, code, part, _) in ROUTES {
        let (found, body) = bench.get(path).await;
        assert!(found == *code && body.contains(part), "{path}: {found} {body}");
        // To run a command is to create something.
        let creates =
            ["/exec", "/attach", "/portForward", "/run/"].iter().any(|prefix| path.starts_with(prefix));
        let verb = if creates { "create" } else { "get" };
        let refusal =
            format!("Forbidden (user=eve, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n");
        assert_eq!(bench.get_as(Some("eve"), path).await, (403, refusal), "{path}");
        assert_eq!(bench.get_as(None, path).await, (401, "Unauthorized".to_owned()), "{path}");
    }
    let stranger = bench.stranger("admin");
    for path in ["/healthz", "/containerLogs/default/web/c"] {
        assert_eq!(
            bench.send(&stranger, "GET", path, None).await,
            (401, "Unauthorized".to_owned()),
            "a certificate of somebody else's authority"
        );
    }
}

#[tokio::test]
async fn methods_become_verbs() {
    let bench = Bench::new().await;
    running(&bench).await;
    let (admin, eve) = (bench.dialer(Some("admin")), bench.dialer(Some("eve")));
    for (method, verb) in [
        ("GET", "get"),
        ("POST", "create"),
        ("PUT", "update"),
        ("PATCH", "patch"),
        ("DELETE", "delete"),
        ("OPTIONS", ""),
    ] {
        let refusal = format!("Forbidden (user=eve, verb={verb}, resource=nodes, subresource(s)=[proxy])\n");
        let path = "/containerLogs/default/web/c";
        assert_eq!(bench.send(&eve, method, path, None).await, (403, refusal), "{method}");
        if method != "GET" {
            let answer = bench.send(&admin, method, path, None).await;
            assert_eq!(answer, (405, "Method Not Allowed".to_owned()), "{method}");
        }
    }
    let (code, body) = bench.send(&admin, "POST", "/stats/summary", None).await;
    assert!(code == 200 && body.contains("node-1"), "{body}");
    bench.runtime.set_exec("fail", 3);
    for (path, expected) in [
        ("/run/default/web/c?cmd=say+it", (200, "said\n")),
        ("/run/default/web/c?cmd=fail+now", (500, "command 'fail now' exited with 3: ")),
        ("/run/default/web/other?cmd=id", (500, "container not found (\"other\")")),
    ] {
        assert_eq!(
            bench.send(&admin, "POST", path, None).await,
            (expected.0, expected.1.to_owned()),
            "{path}"
        );
    }
}

/// Servers decode and shorten paths, each in its way: what was allowed is what is asked for.
#[tokio::test]
async fn paths_that_can_be_read_otherwise_are_none() {
    let bench = Bench::new().await;
    running(&bench).await;
    let admin = bench.dialer(Some("admin"));
    for path in
        ["//exec/default/web/c?command=id&output=1", "/%65xec/default/web/c", "/pods/../exec/default/web/c"]
    {
        let answer = bench.send(&admin, "GET", path, None).await;
        assert_eq!(answer, (404, "404: Page Not Found".to_owned()), "{path}");
    }
    assert_eq!(bench.send(&bench.dialer(None), "GET", "//pods", None).await.0, 401);
    // Nor do names that somebody comes up with become numbers to be kept.
    for method in ["BREW", "WHEN"] {
        bench.send(&admin, method, "/healthz", None).await;
    }
    let (_, metrics) = bench.get("/metrics").await;
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("kubelet_http_requests_total") && line.contains(r#"method="other""#));
    assert!(counted.is_some_and(|line| line.ends_with(" 2")), "{counted:?}");
    assert!(!metrics.contains("BREW"));
}

#[tokio::test]
async fn tokens_are_the_api_servers_business() {
    let bench = Bench::new().await;
    running(&bench).await;
    let nobody = bench.dialer(None);
    for (token, code, part) in [
        (Some("token-of-ann"), 200, "ok"),
        (Some("token-of-eve"), 403, "user=eve"),
        (Some("nonsense"), 401, "Unauthorized"),
        (None, 401, "Unauthorized"),
    ] {
        for _ in 0..2 {
            let (found, body) = bench.send(&nobody, "GET", "/healthz", token).await;
            assert!(found == code && body.contains(part), "{token:?}: {found} {body}");
        }
    }
    bench.api.set_down(true);
    let text = "Authorization error (user=bob, verb=get, resource=nodes, subresource=stats)";
    assert_eq!(bench.get_as(Some("bob"), "/stats/summary").await, (500, text.to_owned()));
    let (code, _) = bench.send(&nobody, "GET", "/healthz", Some("token-of-bob")).await;
    assert_eq!(code, 401, "nobody knows the token");
    let (code, _) = bench.send(&nobody, "GET", "/healthz", Some("token-of-ann")).await;
    assert_eq!(code, 200, "what was answered is remembered");
}

#[tokio::test]
async fn anonymous_and_always_allow_are_settings() {
    let mut bench = Bench::idle().await;
    bench.config.authentication.anonymous_enabled = true;
    bench.config.authentication.webhook_enabled = false;
    bench.config.authorization.mode = podlog_kubelet::config::AuthorizationMode::AlwaysAllow;
    bench.start().await;
    running(&bench).await;
    assert_eq!(bench.get_as(None, "/containerLogs/default/web/c").await.0, 200);
    let stranger = bench.stranger("admin");
    let answer = bench.send(&stranger, "GET", "/healthz", None).await;
    assert_eq!(answer, (401, "Unauthorized".to_owned()), "a wrong credential is not none");
    assert!(bench.api.reviews().is_empty());
}

#[tokio::test]
async fn debugging_can_be_turned_off() {
    let mut bench = Bench::idle().await;
    bench.config.enable_debugging_handlers = false;
    bench.start().await;
    running(&bench).await;
    for (path, _, code, part, is_always_there) in ROUTES {
        let (found, body) = bench.get(path).await;
        match (is_always_there, *path) {
            (true, _) => assert!(found == *code && body.contains(part), "{path}: {found} {body}"),
            (false, "/configz") => assert_eq!(found, 404, "it is not among those that are named"),
            (false, _) => assert_eq!((found, body.as_str()), (405, DISABLED), "{path}"),
        }
    }
}

/// What is refused before the runtime is asked, in order.
#[tokio::test]
async fn requests_for_logs_that_cannot_be() {
    let bench = Bench::new().await;
    running(&bench).await;
    bench
        .api
        .create_pod("pull", json!({"containers": [{"name": "c", "image": "x", "command": ["missing"]}]}));
    bench
        .wait("a container that cannot be started", |bench| {
            let statuses = bench.api.pod("pull")?["status"]["containerStatuses"].clone();
            (statuses[0]["state"]["waiting"]["reason"] == "RunContainerError"
                || statuses[0]["lastState"]["terminated"].is_object()
                || statuses[0]["state"]["terminated"].is_object())
            .then_some(())
        })
        .await;
    let path = |rest: &str| format!("/containerLogs/default/{rest}");
    for (path, code, body) in [
        ("/containerLogs".to_owned(), 400, r#"{"message": "Missing podID."}"#),
        ("/containerLogs//web/c".into(), 400, r#"{"message": "Missing podNamespace."}"#),
        (path("/c"), 400, r#"{"message": "Missing podID."}"#),
        (path("web/"), 400, r#"{"message": "Missing container name."}"#),
        (path("web"), 400, r#"{"message": "Missing container name."}"#),
        (path("web/c/more"), 404, "404: Page Not Found"),
        (path("web/c?tailLines=many"), 400, r#"{"message": "Unable to decode query."}"#),
        (path("none/c?tailLines=many"), 400, r#"{"message": "Unable to decode query."}"#),
        (path("web/c?tail=all"), 200, ""),
        (path("web/c?tailLines=-1"), 422, r#"{"message": "Invalid request."}"#),
        (path("web/c?limitBytes=0"), 422, r#"{"message": "Invalid request."}"#),
        (path("web/c?sinceSeconds=0"), 422, r#"{"message": "Invalid request."}"#),
        (
            path("web/c?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"),
            422,
            r#"{"message": "Invalid request."}"#,
        ),
        (path("web/c?stream=stdout"), 422, r#"{"message": "Invalid request."}"#),
        (path("none/c"), 404, r#"pod "none" does not exist"#),
        ("/containerLogs/other/web/c".into(), 404, r#"pod "web" does not exist"#),
        (path("web/none"), 404, r#"container "none" not found in pod "web""#),
        (path("web/c?previous=true"), 400, r#"previous terminated container "c" in pod "web" not found"#),
    ] {
        assert_eq!(bench.get(&path).await, (code, body.to_owned()), "{path}");
    }
}

/// What upstream finds out after it has said 200: a 400 with the same text here, and a 200 where that is wanted.
#[tokio::test]
async fn logs_that_cannot_be_read() {
    for compatibility in [Compatibility::Exact, Compatibility::Upstream] {
        let bench = Bench::with(compatibility).await;
        running(&bench).await;
        let status = bench.runtime.newest("c").unwrap();
        let (log, id) = (status.log_path.clone(), status.container.id.clone());
        let code = if compatibility == Compatibility::Exact { 400 } else { 200 };
        let check = async |expected: String| {
            let path = "/containerLogs/default/web/c";
            assert_eq!(bench.get(path).await, (code, expected.clone()), "{compatibility:?}");
            assert_eq!(bench.get(&format!("{path}?tailLines=5&follow=true")).await, (code, expected));
        };
        let quoted = format!("{:?}", log.display().to_string());

        fs::remove_file(&log).unwrap();
        let text = format!(
            "failed to try resolving symlinks in path {quoted}: lstat {}: no such file or directory",
            log.display()
        );
        check(text).await;
        // A loop of links.
        symlink(&log, &log).unwrap();
        let (found, text) = bench.get("/containerLogs/default/web/c").await;
        assert!(found == code && text.contains("failed to"), "{found} {text}");
        fs::remove_file(&log).unwrap();

        fs::write(&log, "what is this\n").unwrap();
        let (found, text) = bench.get("/containerLogs/default/web/c").await;
        match compatibility {
            Compatibility::Upstream => {
                let expected = "failed to get parse function: unsupported log format: \"what is this\\n\"";
                assert_eq!((found, text.as_str()), (200, expected));
            }
            // A damaged line is declared, or refused; it is never shown as if it were a log.
            Compatibility::Exact => assert!(!text.starts_with("what is this"), "{found} {text}"),
        }

        bench.runtime.fail_statuses("the runtime is down");
        check(format!("unable to retrieve container logs for fake://{}", id.0)).await;
    }
}
