//! What clients count on and no other test looks at: orders of checks, whole messages, headers of documents, and numbers.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use podlog_serving::{Peer, stream_body};
use serde_json::{Value, json};

use super::{ADMIN, Answered, App, ISSUER, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: (&str, &str) = ("content-type", "application/json");
const BOB: (&str, &str) = ("x-user", "bob");
const TEXT: (&str, &str) = ("accept", "text/plain");

/// Code, reason and message.
fn said(answer: &Answered) -> String {
    let status = answer.json();
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", answer.code, text("reason"), text("message"))
}

async fn pod(app: &Arc<App>, name: &str, spec: Value) {
    let made = app.post(PODS, json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.text());
}

#[tokio::test]
async fn the_first_thing_that_is_wrong_with_a_request_for_a_log_is_told() {
    let app = server().await;
    let two = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    pod(&app, "homeless", json!({"containers": two})).await;
    pod(&app, "orphan", json!({"containers": two, "nodeName": "gone"})).await;
    assert_eq!(app.post("/api/v1/nodes", json!({"metadata": {"name": "nowhere"}})).await.code, 201);
    pod(&app, "lost", json!({"containers": two, "nodeName": "nowhere"})).await;
    let acting = ("impersonate-group", "g");
    for (target, headers, expected) in [
        ("no/log?tailLines=x&limitBytes=0", &[][..], "401 Unauthorized: Unauthorized"),
        ("no/log?tailLines=x", &[ADMIN, acting, TEXT], "400 BadRequest: requested &user.DefaultInfo"),
        (
            "no/log?tailLines=x",
            &[BOB, TEXT],
            "403 Forbidden: pods \"no\" is forbidden: User \"bob\" cannot get",
        ),
        (
            "no/log?tailLines=x",
            &[ADMIN, TEXT],
            "406 NotAcceptable: only the following media types are accepted",
        ),
        ("no/log?tailLines=x&limitBytes=0", &[ADMIN], "400 BadRequest: strconv.ParseInt: parsing \"x\""),
        (
            "no/log?tailLines=-1&container=z",
            &[ADMIN],
            "422 Invalid: PodLogOptions \"no\" is invalid: tailLines",
        ),
        ("no/log?container=z", &[ADMIN], "404 NotFound: pods \"no\" not found"),
        ("homeless/log?container=z", &[ADMIN], "400 BadRequest: container z is not valid for pod homeless"),
        (
            "homeless/log",
            &[ADMIN],
            "400 BadRequest: a container name must be specified for pod homeless, choose",
        ),
        ("homeless/log?container=a", &[ADMIN], "204 : "),
        ("orphan/log?container=a", &[ADMIN], "404 NotFound: nodes \"gone\" not found"),
        ("lost/log?container=a", &[ADMIN], "500 : no preferred addresses found; known addresses: []"),
    ] {
        let answer = app.send("GET", &format!("{PODS}/{target}"), headers, "").await;
        let found = if answer.code == 204 { "204 : ".to_owned() } else { said(&answer) };
        assert!(found.starts_with(expected), "{target} {headers:?}: {found}");
    }
    assert_eq!(app.send("HEAD", &format!("{PODS}/homeless/log"), &[ADMIN], "").await.code, 405);
    let metrics = app.metrics.registry.render();
    for line in [
        "apiserver_request_total{verb=\"CONNECT\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"log\",\
         scope=\"resource\",component=\"apiserver\",code=\"204\"} 1",
        "kube_apiserver_pod_logs_insecure_backend_total{usage=\"enforce_tls\"} 6",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn requests_take_as_long_as_they_say() {
    let app = server().await;
    for (target, code, message) in [
        ("/api/v1/namespaces?timeout=32s", 200, ""),
        ("/api/v1/namespaces?timeout=0s", 200, ""),
        ("/api/v1/namespaces?timeout=", 200, ""),
        (
            "/api/v1/namespaces?timeout=soon",
            400,
            "invalid timeout specified in the request URL - time: invalid duration \"soon\"",
        ),
        ("/api/v1/namespaces/default/pods/p/log?timeout=soon", 404, "pods \"p\" not found"),
    ] {
        let answer = app.get(target).await;
        assert_eq!(answer.code, code, "{target}: {}", answer.text());
        assert_eq!(answer.json()["message"].as_str().unwrap_or_default(), message, "{target}");
    }
    // A body that does not come is not waited for as long as we would.
    let (_sender, body) = stream_body();
    let request = Request::post(format!("{MAPS}?timeout=20ms")).header(ADMIN.0, ADMIN.1).body(body).unwrap();
    let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
    assert_eq!(app.serve(request, peer).await.status(), 504);
}

#[tokio::test]
async fn documents_are_known_again() {
    let app = server().await;
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let beta = v2.replace("v=v2", "v=v2beta1");
    for path in ["/api", "/apis"] {
        let accept = format!("{v2},{beta},application/json");
        let all = app.send("GET", &format!("{path}?timeout=32s"), &[BOB, ("accept", &accept)], "").await;
        let headers = ["content-type", "vary", "cache-control"].map(|name| all.header(name));
        assert_eq!((all.code, headers), (200, [v2, "Accept", "public"]), "{path}");
        let tag = all.header("etag").to_owned();
        let again = [BOB, ("accept", accept.as_str()), ("if-none-match", tag.as_str())];
        let same = app.send("GET", path, &again, "").await;
        assert_eq!((same.code, same.header("etag"), same.body.len()), (304, tag.as_str(), 0), "{path}");
        let other = [BOB, ("accept", accept.as_str()), ("if-none-match", "\"other\"")];
        assert_eq!(app.send("GET", path, &other, "").await.code, 200);
        let legacy = app.send("GET", path, &[BOB, ("accept", "application/json, */*")], "").await;
        assert_eq!((legacy.header("content-type"), legacy.header("etag")), ("application/json", ""));
    }
    let index = app.send("GET", "/openapi/v3", &[BOB], "").await.json();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let core = app.send("GET", &url, &[BOB], "").await;
    assert_eq!((core.code, core.header("cache-control")), (200, "public, immutable"));
    let tag = core.header("etag").to_owned();
    assert_eq!(app.send("GET", &url, &[BOB, ("if-none-match", &tag)], "").await.code, 304);
}

#[tokio::test]
async fn refusals_of_writes_are_upstreams_in_full() {
    let app = server().await;
    let made = app.post(MAPS, json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "1"}})).await.json();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let apply = |manager: &str| format!("{MAPS}/c?fieldManager={manager}");
    let yaml = ("content-type", "application/apply-patch+yaml");
    let both = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"2","b":"2"}}"#;
    let taken = app.send("PATCH", &format!("{}&force=true", apply("one")), &[ADMIN, yaml], both).await;
    assert_eq!(taken.code, 200, "{}", taken.text());
    let rows = [
        (
            app.send("PATCH", &apply("two"), &[ADMIN, yaml], both.replace('2', "3")).await,
            "409 Conflict: Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b".to_owned(),
        ),
        (
            app.send("PATCH", &format!("{MAPS}/c"), &[ADMIN, yaml], both).await,
            "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
                .into(),
        ),
        (
            app.send("PATCH", &format!("{MAPS}/c"), &[ADMIN, JSON], "{}").await,
            "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml"
                .into(),
        ),
        (
            app.send("PUT", &format!("{MAPS}/c"), &[ADMIN, JSON], r#"{"metadata":{"name":"c","resourceVersion":"1"}}"#).await,
            "409 Conflict: Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your \
             changes to the latest version and try again"
                .into(),
        ),
        (
            app.post(MAPS, json!({"metadata": {"name": "c"}})).await,
            "409 AlreadyExists: configmaps \"c\" already exists".into(),
        ),
        (
            app.send("DELETE", &format!("{MAPS}/c"), &[ADMIN, JSON], r#"{"preconditions":{"uid":"x"}}"#).await,
            format!(
                "409 Conflict: Operation cannot be fulfilled on configmaps \"c\": Precondition failed: UID in precondition: x, \
                 UID in object meta: {uid}"
            ),
        ),
    ];
    for (answer, expected) in rows {
        assert_eq!(said(&answer), expected);
    }
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let bogus = app.send("GET", &format!("{MAPS}?includeObject=Bogus"), &[ADMIN, table], "").await;
    let why = "includeObject: Invalid value: \"Bogus\": must be 'Metadata', 'Object', 'None', or empty";
    assert_eq!(said(&bogus), format!("400 BadRequest: Unable to convert to Table as requested: {why}"));
    assert_eq!(app.get(&format!("{MAPS}?includeObject=Bogus")).await.code, 200, "no table, no rows");
}

#[tokio::test]
async fn versions_that_are_not_there_are_told_with_when_to_come_back() {
    let app = server().await;
    app.post(MAPS, json!({"metadata": {"name": "c"}})).await;
    let current = app.registry.store().revision();
    for target in [format!("{MAPS}?resourceVersion=99999"), format!("{MAPS}?watch=1&resourceVersion=99999")] {
        let future = app.get(&target).await;
        let message = format!("504 Timeout: Timeout: Too large resource version: 99999, current: {current}");
        assert_eq!((said(&future), future.header("retry-after")), (message, "1"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        assert_eq!(future.json()["details"], json!({"causes": [cause], "retryAfterSeconds": 1}));
    }
    app.registry.store().compact(current).await.unwrap();
    let old = app.get(&format!("{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=5")).await;
    let event: Value = serde_json::from_str(old.text().trim()).unwrap();
    assert_eq!((old.code, event["type"].as_str()), (200, Some("ERROR")));
    let text = format!("too old resource version: 1 ({})", current - 1);
    assert_eq!((&event["object"]["message"], &event["object"]["reason"]), (&json!(text), &json!("Expired")));
    // No bookmarks for who does not ask for them: neither now and then nor before the end.
    let watch = app.get(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watch.text().lines().count(), 1, "{}", watch.text());
}

#[tokio::test]
async fn questions_that_are_none_are_told_why() {
    let app = server().await;
    let group = "/apis/authorization.k8s.io/v1";
    let about = json!({"verb": "get", "resource": "pods"});
    let path = json!({"verb": "get", "path": "/x"});
    let kind = "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid";
    for (body, expected) in [
        (
            json!({"spec": {}}),
            format!(
                "{kind}: spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or \
                 resourceAttributes must be specified"
            ),
        ),
        (
            json!({"spec": {"resourceAttributes": about, "nonResourceAttributes": path}}),
            format!("{kind}: spec.nonResourceAttributes: Invalid value: "),
        ),
        (
            json!({"metadata": {"name": "n"}, "spec": {"resourceAttributes": about}}),
            format!("{kind}: metadata: Invalid value: "),
        ),
    ] {
        let answer = app.post(&format!("{group}/selfsubjectaccessreviews"), body).await;
        assert!(said(&answer).starts_with(&format!("422 Invalid: {expected}")), "{}", said(&answer));
    }
    let elsewhere =
        json!({"metadata": {"namespace": "other"}, "spec": {"user": "u", "resourceAttributes": about}});
    let local = app.post(&format!("{group}/namespaces/default/localsubjectaccessreviews"), elsewhere).await;
    assert_eq!(local.code, 400, "{}", local.text());
}

#[tokio::test]
async fn tokens_say_whose_they_are_and_by_which_key() {
    let app = server().await;
    let answer =
        app.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({"spec": {}})).await;
    let answered = answer.json();
    assert_eq!((answer.code, &answered["spec"]["expirationSeconds"]), (201, &json!(3600)));
    let token = answered["status"]["token"].as_str().unwrap();
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let (header, claims) = (&parts[0], &parts[1]);
    let keys = app.get("/openid/v1/jwks").await.json();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &keys["keys"][0]["kid"]));
    let account = app.get("/api/v1/namespaces/default/serviceaccounts/default").await.json();
    let named = json!({"name": "default", "uid": account["metadata"]["uid"]});
    assert_eq!(claims["kubernetes.io"], json!({"namespace": "default", "serviceaccount": named}));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!([ISSUER])));
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    let number = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!((number("exp") - number("iat"), number("nbf")), (3600, number("iat")));
    assert_eq!(claims["jti"].as_str().map(str::len), Some(36));
}
