//! The command against a server that answers as told.

use clap::Parser;
use serde_json::{Value, json};

use super::{LogsOptions, Streams, run};
use crate::output::tests::Captured;
use crate::testing::{Answer, FakeApi, not_found, status};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    logs: LogsOptions,
}

pub(super) fn options(arguments: &str) -> LogsOptions {
    Cli::try_parse_from(["logs"].into_iter().chain(arguments.split_whitespace())).unwrap().logs
}

/// stdout, stderr (the error's text included).
pub(super) async fn logs(api: &FakeApi, arguments: &str) -> (String, String) {
    let (out, err, _) = logs_with_code(api, arguments).await;
    (out, err)
}

/// stdout, stderr (the error's text included), exit code.
pub(super) async fn logs_with_code(api: &FakeApi, arguments: &str) -> (String, String, i32) {
    let (out, err) = (Captured::default(), Captured::default());
    let streams = Streams { out: Box::new(out.clone()), err: Box::new(err.clone()) };
    let connection = api.connect().await;
    let result = run(&connection, &options(arguments), streams).await;
    let code = i32::from(result.is_err());
    let error = result.err().map(|error| error.to_string()).unwrap_or_default();
    (out.text(), err.text() + &error, code)
}

pub(super) fn pod(name: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {"containers": containers, "nodeName": "n"}, "status": {"phase": "Running"}})
}

const POD: &str = "GET /api/v1/namespaces/default/pods/";

#[test]
fn arguments_that_make_no_sense_are_refused_in_kubectls_words() {
    let usage = "error: expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'podlog logs -h' for help and examples";
    let rows = [
        ("", usage),
        ("a b c", usage),
        (
            "a -l x=y",
            "error: only a selector (-l) or a POD name is allowed\nSee 'podlog logs -h' for help and examples",
        ),
        (
            "a --since=1s --since-time=2024-01-01T00:00:00Z",
            "error: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        (
            "a --all-containers -c x",
            "error: --all-containers=true should not be specified with container name x",
        ),
        ("a b -c d", "error: only one of -c or an inline [CONTAINER] arg is allowed"),
        ("a --limit-bytes=-1", "error: --limit-bytes must be greater than 0"),
        ("a --since=-5s", "error: --since must be greater than 0"),
        ("a --tail=-2", "error: --tail must be greater than or equal to -1"),
        ("a --tail -2", "error: --tail must be greater than or equal to -1"),
        (
            "a --since-time=abc",
            "error: parsing time \"abc\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"abc\" as \"2006\"",
        ),
        ("a --pod-running-timeout=0s", "error: --pod-running-timeout must be higher than zero"),
        ("a --until=-1s", "error: --until must be greater than or equal to 0"),
        (
            "a --until=1s --until-time=2024-01-01T00:00:00Z",
            "error: at most one of `untilTime` or `untilSeconds` may be specified",
        ),
    ];
    for (arguments, text) in rows {
        assert_eq!(options(arguments).plan().unwrap_err().to_string(), text, "{arguments}");
    }
}

#[test]
fn flags_become_a_query() {
    let rows = [
        ("a", ""),
        ("a -fp", "follow=true&previous=true"),
        ("a -f=false --timestamps=true", "timestamps=true"),
        ("a --tail=0", "tailLines=0"),
        ("a --tail=-1", ""),
        ("-l x=y", "tailLines=10"),
        ("-l x=y --tail=-1", ""),
        ("-l x=y --tail 3", "tailLines=3"),
        ("a --since=90s", "sinceSeconds=90"),
        ("a --since=1400ms", "sinceSeconds=1"),
        ("a --since=100ms", "sinceSeconds=0"),
        ("a --since-time=2024-08-30T06:00:00.9+02:00", "sinceTime=2024-08-30T04%3A00%3A00Z"),
        ("a --limit-bytes=7 -c c", "container=c&limitBytes=7"),
        ("a c", "container=c"),
        ("a --stream=stderr", "stream=Stderr"),
        ("a --until=90s --match=x --match=y --exclude=z", "exclude=z&match=x&match=y&untilSeconds=90"),
        (
            "a --until-time=2024-08-30T06:00:00.9Z --cursors",
            "cursors=true&untilTime=2024-08-30T06%3A00%3A00.9Z",
        ),
        ("a --fixed-strings --cursor=c --all-instances", "allInstances=true&cursor=c&fixedStrings=true"),
        ("a --insecure-skip-tls-verify-backend", "insecureSkipTLSVerifyBackend=true"),
    ];
    for (arguments, query) in rows {
        assert_eq!(options(arguments).plan().unwrap().log.to_query(), query, "{arguments}");
    }
    for (arguments, text) in [
        ("a --since=5", "time: missing unit in duration \"5\""),
        ("a --tail=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        let parsed = Cli::try_parse_from(["logs"].into_iter().chain(arguments.split_whitespace()));
        let error = parsed.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_pods_log_is_copied_as_it_is() {
    let api = FakeApi::start().await;
    let log = "one\ntwo\n\u{1F980} no newline";
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["app"]))
        .on_text(&format!("{POD}web/log?container=app&tailLines=5"), log);
    assert_eq!(logs(&api, "web --tail=5").await, (log.to_owned(), String::new()));
    assert_eq!(api.script.requests().len(), 2);
    let headers = api.script.headers();
    assert_eq!(headers[1]["authorization"], "Bearer secret");
    assert_eq!(headers[1]["accept"], "application/vnd.podlog.log, application/json, */*");
    assert_eq!(headers[1]["user-agent"], concat!("podlog/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn impersonation_is_sent() {
    let mut api = FakeApi::start().await;
    api.options.impersonate = Some("eve".into());
    api.options.impersonate_groups = vec!["a".into(), "b".into()];
    api.script.on_json(&format!("{POD}web"), pod("web", &["app"]));
    logs(&api, "web").await;
    let headers = api.script.headers().remove(0);
    assert_eq!(headers["impersonate-user"], "eve");
    assert_eq!(headers.get_all("impersonate-group").iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn failures_read_as_kubectls() {
    let api = FakeApi::start().await;
    let forbidden = "pods \"x\" is forbidden: User \"u\" cannot get resource \"pods/log\"";
    let unreachable = "Get \"https://10.0.0.5:10250/containerLogs/default/web/app\": dial tcp 10.0.0.5:10250: connect: connection refused";
    let rows = [
        (
            Answer::Json(403, status(403, "Forbidden", forbidden)),
            "",
            format!("Error from server (Forbidden): {forbidden}"),
        ),
        (Answer::Json(500, status(500, "", unreachable)), "", format!("Error from server: {unreachable}")),
        (
            Answer::Json(401, status(401, "Unauthorized", "Unauthorized")),
            "",
            "error: You must be logged in to the server (Unauthorized)".into(),
        ),
        (Answer::Text(204, String::new()), "", String::new()),
        (Answer::Breaks("part of".into()), "part of", "error: unexpected EOF".into()),
    ];
    for (index, (answer, out, err)) in (0..).zip(rows) {
        let name = format!("web-{index}");
        api.script
            .on_json(&format!("{POD}{name}"), pod(&name, &["app"]))
            .on(&format!("{POD}{name}/log?container=app"), answer);
        assert_eq!(logs(&api, &name).await, (out.to_owned(), err));
    }
    let missing = "error: error from server (NotFound): pods \"nope\" not found in namespace \"default\"";
    assert_eq!(logs(&api, "nope").await, (String::new(), missing.to_owned()));
    let container = "error: container zzz is not valid for pod web-0 out of: app";
    assert_eq!(logs(&api, "web-0 -c zzz").await, (String::new(), container.to_owned()));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let mut api = FakeApi::start().await;
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let closed = taken.local_addr().unwrap();
    api.options.server = Some(format!("https://{closed}"));
    let said = logs(&api, "web").await.1;
    assert_eq!(
        said,
        format!(
            "The connection to the server {closed} was refused - did you specify the right host or port?"
        )
    );
    api.options.server = Some(format!("https://localhost:{}", api.port));
    let said = logs(&api, "web").await.1;
    assert!(said.starts_with("Unable to connect to the server: "), "{said}");
}

#[tokio::test]
async fn options_that_a_server_ignores_are_an_error_before_the_first_byte() {
    let api = FakeApi::start().await;
    let request = format!("{POD}web/log?allInstances=true&container=app&cursor=c1&cursors=true");
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["app"]))
        .on(&request, Answer::Honours("allInstances,cursor,cursors", "c2 a\n".into()))
        .on(&request, Answer::Honours("allInstances,cursor", "wrong\n".into()))
        .on_text(&request, "wrong\n");
    let arguments = "web --cursors --cursor=c1 --all-instances";
    assert_eq!(logs(&api, arguments).await, ("c2 a\n".to_owned(), String::new()));
    for flags in ["--cursors", "--all-instances, --cursor, --cursors"] {
        let text = format!(
            "error: the server or the kubelet behind it does not know {flags}: both have to be podlog's"
        );
        assert_eq!(logs(&api, arguments).await, (String::new(), text));
    }
}

#[tokio::test]
async fn lines_that_a_server_does_not_choose_are_chosen_here() {
    let api = FakeApi::start().await;
    let time = |second: u32| format!("2026-01-01T00:00:0{second}.5Z");
    let line = |second: u32, text: &str| format!("{} {text}\n", time(second));
    let log = line(1, "one a") + &line(2, "two b") + &line(3, "three ab") + &line(4, "four a");
    let asked = |query: &str| format!("{POD}web/log?container=app{query}");
    let rest = line(4, "four a") + &line(5, "five a") + &line(5, "five b") + &line(6, "six a");
    api.script.on_json(&format!("{POD}web"), pod("web", &["app"]));
    for query in ["&exclude=b&match=a", "&match=a&tailLines=1", "&fixedStrings=true&limitBytes=9&match=a"] {
        api.script.on_text(&asked(query), "wrong\n");
    }
    for query in [
        "&match=a&timestamps=true&untilTime=2026-01-01T00%3A00%3A03.5Z",
        "&follow=true&frames=true&match=a&tailLines=2",
        "&follow=true&match=a&tailLines=2",
    ] {
        api.script.on_text(&asked(query), "wrong\n");
    }
    // A server that honours only a part of it is no better.
    api.script
        .on(&asked("&exclude=b&match=a"), Answer::Honours("match", "wrong\n".into()))
        .on_text(&asked("&timestamps=true"), &log)
        .on_text(&asked("&follow=true&sinceTime=2026-01-01T00%3A00%3A04Z&timestamps=true"), &rest);
    for (arguments, expected) in [
        ("--match=a --exclude=b", "one a\nfour a\n".to_owned()),
        ("--match=a --exclude=b", "one a\nfour a\n".to_owned()),
        ("--match=a --tail=1", "four a\n".to_owned()),
        ("--match=a --fixed-strings --limit-bytes=9", "one a\nthr".to_owned()),
        (
            "--match=a --timestamps --until-time=2026-01-01T00:00:03.5Z",
            line(1, "one a") + &line(3, "three ab"),
        ),
        ("--match=a --tail=2 -f", "three ab\nfour a\nfive a\nsix a\n".to_owned()),
        ("--match=a --tail=2 -f --reconnect-timeout=0", "three ab\nfour a\nfive a\nsix a\n".to_owned()),
    ] {
        let told = logs(&api, &format!("web {arguments}")).await;
        assert_eq!(told, (expected, String::new()), "{arguments}\n{:#?}", api.script.requests());
    }
    let (_, refused) = logs(&api, "web --match=( --exclude=b").await;
    assert!(refused.starts_with("Error from server") || refused.contains("invalid pattern"), "{refused}");
}

#[tokio::test]
async fn lines_that_are_chosen_here_survive_broken_connections() {
    let api = FakeApi::start().await;
    let line = |second: u32, text: &str| format!("2026-01-01T00:00:0{second}.5Z {text}\n");
    let log = line(1, "one a") + &line(2, "two b") + &line(3, "three a");
    let asked = |query: &str| format!("{POD}web/log?container=app&follow=true{query}&timestamps=true");
    let first = format!("{POD}web/log?container=app&follow=true&frames=true&match=a%24");
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["app"]))
        .on_text(&first, "wrong\n")
        .on(&asked(""), Answer::Breaks(log[..log.len() - 3].to_owned()))
        .on_text(&asked("&sinceTime=2026-01-01T00%3A00%3A03Z"), &(line(3, "three a") + &line(4, "four a")));
    let (out, _) = logs(&api, "web -f --match=a$").await;
    assert_eq!(out, "one a\nthree a\nfour a\n");
}

#[tokio::test]
async fn several_containers_come_in_order() {
    let api = FakeApi::start().await;
    let mut many = pod("web", &["a", "b"]);
    many["spec"]["initContainers"] = json!([{"name": "i"}]);
    api.script.on_json(&format!("{POD}web"), many);
    for container in ["a", "b", "i"] {
        api.script.on_text(
            &format!("{POD}web/log?container={container}"),
            &format!("{container}1\n{container}2\n"),
        );
    }
    let defaulted = "Defaulted container \"a\" out of: a, b, i (init)\n".to_owned();
    assert_eq!(logs(&api, "web").await, ("a1\na2\n".into(), defaulted));
    assert_eq!(logs(&api, "web --all-containers").await, ("i1\ni2\na1\na2\nb1\nb2\n".into(), String::new()));
    let prefixed = "[pod/web/b] b1\n[pod/web/b] b2\n";
    assert_eq!(logs(&api, "web -c b --prefix").await, (prefixed.into(), String::new()));
}

#[tokio::test]
async fn errors_can_be_passed_over() {
    let api = FakeApi::start().await;
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["a", "b"]))
        .on(&format!("{POD}web/log?container=a"), Answer::Json(400, status(400, "BadRequest", "not yet")))
        .on_text(&format!("{POD}web/log?container=b"), "b1\n");
    assert_eq!(
        logs(&api, "web --all-containers --ignore-errors").await,
        ("error: not yet\nb1\n".into(), String::new())
    );
    assert_eq!(
        logs(&api, "web --all-containers").await,
        (String::new(), "Error from server (BadRequest): not yet".into())
    );
}

const LIST: &str = "GET /api/v1/namespaces/default/pods?labelSelector=app%3Dweb";

#[tokio::test]
async fn labels_select_pods() {
    let api = FakeApi::start().await;
    api.script.on_json(LIST, json!({"items": [pod("b", &["app"]), pod("a", &["app"])]}));
    for name in ["a", "b"] {
        api.script.on_text(&format!("{POD}{name}/log?container=app&tailLines=10"), &format!("{name}1\n"));
    }
    let both = "[pod/a/app] a1\n[pod/b/app] b1\n";
    assert_eq!(logs(&api, "-l app=web --prefix").await, (both.into(), String::new()));
    api.script.on_json("GET /api/v1/namespaces/default/pods?labelSelector=app%3Dnone", json!({"items": []}));
    assert_eq!(
        logs(&api, "-l app=none").await,
        (String::new(), "No resources found in default namespace.\n".into())
    );
    let too_many = "error: you are attempting to follow 2 log streams, but maximum allowed concurrency is 1, use --max-log-requests to increase the limit";
    assert_eq!(logs(&api, "-l app=web -f --max-log-requests=1").await, (String::new(), too_many.into()));
}

#[tokio::test]
async fn workloads_lead_to_their_pods() {
    let api = FakeApi::start().await;
    let deployment = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}});
    let mut pending = pod("a", &["app"]);
    pending["status"]["phase"] = "Pending".into();
    api.script
        .on_json("GET /apis/apps/v1/namespaces/default/deployments/web", deployment)
        .on_json(LIST, json!({"items": [pending, pod("b", &["app"])]}))
        .on_text(&format!("{POD}a/log?container=app"), "a1\n")
        .on_text(&format!("{POD}b/log?container=app"), "b1\n");
    assert_eq!(logs(&api, "deploy/web").await, ("b1\n".into(), "Found 2 pods, using pod/b\n".into()));
    let all = "[pod/a/app] a1\n[pod/b/app] b1\n";
    assert_eq!(logs(&api, "deploy/web --all-pods").await, (all.into(), String::new()));
}

#[tokio::test]
async fn a_workload_without_pods_is_waited_for() {
    let api = FakeApi::start().await;
    let service =
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
    api.script
        .on_json("GET /api/v1/namespaces/default/services/web", service)
        .on_json(LIST, json!({"items": []}))
        .on_json(LIST, json!({"items": [pod("late", &["app"])]}))
        .on_text(&format!("{POD}late/log?container=app"), "at last\n");
    let watched = "GET /api/v1/namespaces/default/pods?&labelSelector=app%3Dweb&limit=500";
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [pod("late", &["app"])]});
    api.script.on_json(watched, list);
    let said = logs(&api, "svc/web").await;
    assert_eq!(said, ("at last\n".into(), String::new()), "{:?}", api.script.requests());
    api.script.on_json("GET /api/v1/namespaces/default/pods?labelSelector=app%3Dnone", json!({"items": []}));
    let none =
        json!({"metadata": {"name": "none", "namespace": "default"}, "spec": {"selector": {"app": "none"}}});
    api.script.on_json("GET /api/v1/namespaces/default/services/none", none);
    let said = logs(&api, "svc/none --pod-running-timeout=50ms").await.1;
    assert_eq!(said, "error: timed out waiting for the condition");
}

/// What is asked for first when a log of the pod `web` is followed.
fn followed(container: &str) -> String {
    format!("{POD}web/log?container={container}&follow=true&frames=true")
}

#[tokio::test]
async fn several_followed_logs_keep_their_lines_whole() {
    let api = FakeApi::start().await;
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["a", "b"]))
        .on(&followed("a"), Answer::Honours("frames", "5 c2\na1\na2".into()))
        .on(&followed("b"), Answer::Honours("frames", "5 c2\nb1\nb2".into()));
    let (out, err) = logs(&api, "web --all-containers -f --prefix").await;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (lines, err.as_str()),
        (vec!["[pod/web/a] a1", "[pod/web/a] a2", "[pod/web/b] b1", "[pod/web/b] b2"], "")
    );
}

#[tokio::test]
async fn the_first_failure_ends_all_followed_logs() {
    let api = FakeApi::start().await;
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["a", "b"]))
        .on(&format!("{POD}web/log?container=a&follow=true"), Answer::Hangs("a1\n".into()))
        .on(&format!("{POD}web/log?container=b&follow=true"), Answer::Breaks("b1\n".into()));
    let (out, err) = logs(&api, "web --all-containers -f --reconnect-timeout=0").await;
    assert!(out.contains("b1\n"), "{out}");
    assert_eq!(err, "error: unexpected EOF");
}

#[tokio::test]
async fn a_container_that_has_not_started_is_waited_for_when_followed() {
    let api = FakeApi::start().await;
    let unknown = "the server could not find the requested resource ( pods/log web)";
    let waiting = "container \"app\" in pod \"web\" is waiting to start: ContainerCreating";
    let request = followed("app");
    api.script
        .on_json(&format!("{POD}web"), pod("web", &["app"]))
        .on(&request, Answer::Json(404, status(404, "NotFound", unknown)))
        .on(&request, Answer::Json(400, status(400, "BadRequest", waiting)))
        .on(&request, Answer::Honours("frames", "8 c1\nstarted\n".into()));
    let note =
        format!("Error from server (NotFound): {unknown}\nError from server (BadRequest): {waiting}\n");
    assert_eq!(logs(&api, "web -f").await, ("started\n".into(), note));
    let (_, err) = logs(&api, "gone -f").await;
    assert!(err.contains(not_found("gone")["message"].as_str().unwrap()), "{err}");
}
