//! Routes, representations and the answers to what is wrong.

use std::io::Read;

use serde_json::json;

use super::{ADMIN, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Method, target, headers and body; code and part of the answer.
type Wrong<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

/// Target and headers; code and part of the answer.
type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str);

#[tokio::test]
async fn what_is_wrong_is_answered_as_upstream_answers() {
    let app = server().await;
    app.post(MAPS, json!({"metadata": {"name": "c"}, "data": {"a": "b"}})).await;
    let rows: &[Wrong<'_>] = &[
        ("GET", "/nope", &[], "", 404, "404 page not found\n"),
        ("GET", "/apis/nope/v1/things", &[], "", 404, "404 page not found\n"),
        ("GET", "/api/v1/nope", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/configmaps/c", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/configmaps/c/status", &[], "", 404, "could not find"),
        ("GET", "/api/v1/namespaces/default/pods/p/log/more", &[], "", 404, "could not find"),
        ("PUT", MAPS, &[], "{}", 405, r#""reason":"MethodNotAllowed""#),
        ("POST", "/api/v1/configmaps", &[], "{}", 405, "does not allow this method"),
        ("POST", "/api/v1/namespaces/default/configmaps/c", &[], "{}", 405, "does not allow this method"),
        ("HEAD", "/api/v1/namespaces", &[], "", 405, ""),
        ("POST", "/version", &[], "", 405, "Method Not Allowed"),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/x",
            &[],
            "",
            404,
            r#""message":"configmaps \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"configmaps"},"code":404}"#,
        ),
        ("GET", "/api/v1/namespaces", &[("accept", "text/plain")], "", 406, "NotAcceptable"),
        (
            "POST",
            MAPS,
            &[("content-type", "text/foo")],
            "x",
            415,
            "accepted media types include: application/json, application/yaml",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/c",
            &[("content-type", "application/json")],
            "{}",
            415,
            "application/json-patch+json",
        ),
        ("POST", MAPS, &[], "{", 400, "BadRequest"),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            &[],
            r#"{"metadata":{"name":"x"},"dta":{}}"#,
            400,
            r#"strict decoding error: unknown field \"dta\""#,
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=No",
            &[],
            "{}",
            422,
            r#"CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"No\""#,
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?dryRun=No",
            &[],
            "{}",
            422,
            r#"CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"No\"]: supported values: \"All\""#,
        ),
        ("POST", MAPS, &[], r#"{"metadata":{"name":"c"}}"#, 409, r#"configmaps \"c\" already exists"#),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/c",
            &[],
            r#"{"metadata":{"name":"d"}}"#,
            400,
            "does not match the name on the URL (c)",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/c",
            &[],
            r#"{"metadata":{"name":"c","resourceVersion":"1"}}"#,
            409,
            "the object has been modified",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/x",
            &[],
            r#"{"metadata":{"name":"x"}}"#,
            404,
            "not found",
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=spec.nope=1",
            &[],
            "",
            400,
            "field label not supported: spec.nope",
        ),
        (
            "GET",
            "/api/v1/pods?resourceVersion=x",
            &[],
            "",
            400,
            "invalid resource version: resourceVersion: Invalid value",
        ),
        (
            "GET",
            "/api/v1/pods?watch=1&resourceVersion=x",
            &[],
            "",
            500,
            r#""message":"resourceVersion: Invalid value"#,
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/c?resourceVersion=x",
            &[],
            "",
            500,
            "resourceVersion: Invalid value",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/c?resourceVersion=99999",
            &[],
            "",
            504,
            "Too large resource version",
        ),
        (
            "GET",
            "/api/v1/pods?timeoutSeconds=x",
            &[],
            "",
            400,
            r#"strconv.ParseInt: parsing \"x\": invalid syntax"#,
        ),
        (
            "GET",
            "/api/v1/pods?sendInitialEvents=true",
            &[],
            "",
            422,
            "sendInitialEvents is forbidden for list",
        ),
        (
            "GET",
            "/api/v1/pods?watch=1&sendInitialEvents=true",
            &[],
            "",
            422,
            "requires setting resourceVersionMatch",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/%2e%2e/log",
            &[],
            "",
            400,
            r#"Name parameter invalid: \"..\": may not be '..'"#,
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/a%25b",
            &[],
            "",
            400,
            r#"Name parameter invalid: \"a%b\": may not contain '%'"#,
        ),
        ("DELETE", "/api/v1/namespaces/default/pods/.", &[], "", 400, "may not be '.'"),
        ("GET", "/api/v1/proxy/nodes/n", &[], "", 404, "could not find the requested resource"),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/c?dryRun=x",
            &[],
            "",
            422,
            r#"DeleteOptions.meta.k8s.io"#,
        ),
        (
            "GET",
            "/api/v1/pods?resourceVersion=99999",
            &[],
            "",
            504,
            "Too large resource version: 99999, current: ",
        ),
        (
            "GET",
            "/api/v1/pods?resourceVersionMatch=Exact",
            &[],
            "",
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "GET",
            "/api/v1/pods?continue=x",
            &[],
            "",
            400,
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 1",
        ),
        ("GET", "/api/v1/pods?limit=x", &[], "", 400, r#"strconv.ParseInt: parsing \"x\": invalid syntax"#),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/c",
            &[],
            r#"{"preconditions":{"uid":"other"}}"#,
            409,
            "UID in precondition: other",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/c?propagationPolicy=No",
            &[],
            "",
            422,
            "Unsupported value",
        ),
    ];
    for (method, target, headers, body, code, text) in rows {
        let headers = [&[ADMIN, ("content-type", "application/json")][..], headers].concat();
        // The last header of a name wins here, as no client sends two.
        let mut sent: Vec<(&str, &str)> = Vec::new();
        for header in headers {
            sent.retain(|(name, _)| *name != header.0);
            sent.push(header);
        }
        let answer = app.send(method, target, &sent, *body).await;
        assert_eq!(answer.code, *code, "{method} {target}: {}", answer.text());
        assert!(answer.text().contains(text), "{method} {target}: {}", answer.text());
    }
    let long = app.send("POST", MAPS, &[ADMIN], vec![b' '; (3 << 20) + 1]).await;
    assert_eq!((long.code, long.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
}

#[tokio::test]
async fn nobody_gets_what_he_may_not_have() {
    let app = server().await;
    let bob = ("x-user", "bob");
    let rows: &[Refused<'_>] = &[
        (
            "/api/v1/pods",
            &[bob],
            403,
            r#"pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" at the cluster scope"#,
        ),
        ("/metrics", &[bob], 403, r#"forbidden: User \"bob\" cannot get path \"/metrics\""#),
        ("/version", &[bob], 200, "{"),
        // Without a credential there is nothing but health.
        ("/healthz", &[], 200, "ok"),
        ("/version", &[], 401, r#""reason":"Unauthorized""#),
        ("/api", &[], 401, r#""reason":"Unauthorized""#),
        ("/api", &[bob], 200, "APIVersions"),
        (
            "/api",
            &[("authorization", "Bearer nonsense")],
            401,
            r#""message":"Unauthorized","reason":"Unauthorized","code":401}"#,
        ),
        ("/api/v1/pods", &[ADMIN, ("impersonate-user", "bob")], 403, r#"User \"bob\" cannot list"#),
        (
            "/api/v1/pods",
            &[bob, ("impersonate-user", "admin")],
            403,
            r#"pods is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope"#,
        ),
        ("/api/v1/pods", &[ADMIN, ("impersonate-group", "g")], 400, "without impersonating a user name"),
    ];
    for (target, headers, code, text) in rows {
        let answer = app.send("GET", target, headers, "").await;
        assert_eq!(answer.code, *code, "{target} {headers:?}: {}", answer.text());
        assert!(answer.text().contains(text), "{target} {headers:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn common_headers() {
    let app = server().await;
    let answer = app.send("GET", "/api/v1/namespaces", &[ADMIN, ("audit-id", "my-own")], "").await;
    assert_eq!((answer.header("audit-id"), answer.header("cache-control")), ("my-own", "no-cache, private"));
    assert_eq!(app.get("/version").await.header("audit-id").len(), 36);
    let warned = app.post(MAPS, json!({"metadata": {"name": "w"}, "dta": {}})).await;
    assert_eq!(warned.header("warning"), r#"299 - "unknown field \"dta\"""#);
}

#[tokio::test]
async fn lists_come_in_consistent_pages() {
    let app = server().await;
    for name in ["a", "b", "c", "d", "e"] {
        let labels = json!({"odd": (name == "a" || name == "c" || name == "e").to_string()});
        app.post(MAPS, json!({"metadata": {"name": name, "labels": labels}})).await;
    }
    let names = |list: &serde_json::Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = app.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(
        (first["kind"].as_str(), first["metadata"]["remainingItemCount"].as_i64()),
        (Some("ConfigMapList"), Some(3))
    );
    assert!(first["items"][0].get("kind").is_none());
    // What happens between two pages does not show.
    app.send("DELETE", &format!("{MAPS}/c"), &[ADMIN], "").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = app.get(&format!("{MAPS}?limit=9&continue={token}")).await.json();
    assert_eq!(names(&rest), ["c", "d", "e"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let odd = app.get("/api/v1/configmaps?limit=1&labelSelector=odd%3Dtrue").await.json();
    assert_eq!(names(&odd), ["a"]);
    let token = odd["metadata"]["continue"].as_str().unwrap();
    let next = app
        .get(&format!("/api/v1/configmaps?limit=1&labelSelector=odd%3Dtrue&continue={token}"))
        .await
        .json();
    assert_eq!(names(&next), ["e"], "c is gone by now");
    app.registry.store().compact(app.registry.store().revision()).await.unwrap();
    let late = app.get(&format!("/api/v1/configmaps?continue={token}")).await;
    assert!(late.code == 410 || late.code == 200, "{}", late.text());
    let old = first["metadata"]["continue"].as_str().unwrap();
    let gone = app.get(&format!("{MAPS}?continue={old}")).await;
    let gone = gone.json();
    assert_eq!((gone["code"].as_u64(), gone["reason"].as_str()), (Some(410), Some("Expired")));
    // It says how to go on with what there is now.
    app.post(MAPS, json!({"metadata": {"name": "cc"}})).await;
    let token = gone["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&app.get(&format!("{MAPS}?continue={token}")).await.json()), ["cc", "d", "e"]);
}

#[tokio::test]
async fn objects_have_many_faces() {
    let app = server().await;
    app.post(MAPS, json!({"metadata": {"name": "c"}, "data": {"a": "b"}})).await;
    let with = |accept: &'static str| {
        let app = app.clone();
        async move {
            app.send("GET", "/api/v1/namespaces/default/configmaps/c", &[ADMIN, ("accept", accept)], "").await
        }
    };
    let table = with("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.json();
    assert_eq!(
        (table["kind"].as_str(), table["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    assert_eq!(table["rows"][0]["cells"][0], "c");
    let old = with("application/json;as=Table;v=v1beta1;g=meta.k8s.io").await.json();
    assert_eq!(old["apiVersion"], "meta.k8s.io/v1beta1");
    let metadata = with("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.json();
    assert_eq!((metadata["kind"].as_str(), metadata.get("data")), (Some("PartialObjectMetadata"), None));
    let yaml = with("application/yaml").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(yaml.text().contains("\ndata:\n  a: b\n"), "{}", yaml.text());
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    let app = server().await;
    let value = "x".repeat(200_000);
    app.post(MAPS, json!({"metadata": {"name": "big"}, "data": {"v": value}})).await;
    let zipped = app.send("GET", MAPS, &[ADMIN, ("accept-encoding", "gzip")], "").await;
    assert_eq!((zipped.header("content-encoding"), zipped.header("vary")), ("gzip", "Accept-Encoding"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains(&value) && zipped.body.len() < 20_000);
    assert_eq!(app.get(MAPS).await.header("content-encoding"), "");
}

#[tokio::test]
async fn deletions_say_what_is_gone() {
    let app = server().await;
    let made = app.post(MAPS, json!({"metadata": {"name": "c"}})).await.json();
    let tried = app.send("DELETE", &format!("{MAPS}/c?dryRun=All"), &[ADMIN], "").await;
    assert_eq!((tried.code, app.get(&format!("{MAPS}/c")).await.code), (200, 200));
    let gone =
        app.send("DELETE", &format!("{MAPS}/c"), &[ADMIN], r#"{"propagationPolicy":"Background"}"#).await;
    let details = json!({"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]});
    assert_eq!(
        gone.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    );
    for name in ["a", "b"] {
        app.post(MAPS, json!({"metadata": {"name": name, "labels": {"n": name}}})).await;
    }
    let some = app.send("DELETE", &format!("{MAPS}?labelSelector=n%3Da"), &[ADMIN], "").await.json();
    assert_eq!(
        (some["kind"].as_str(), some["items"].as_array().map(Vec::len)),
        (Some("ConfigMapList"), Some(1))
    );
    assert_eq!(app.get(MAPS).await.json()["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn events_are_one_kind_in_two_groups() {
    let app = server().await;
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reason": "Started", "action": "Start", "note": "hello", "type": "Normal", "reportingController": "x/y", "reportingInstance": "z",
        "eventTime": "2026-01-02T03:04:05.000006Z"});
    let made = app.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let core =
        app.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dweb").await.json();
    assert_eq!(
        (core["items"][0]["message"].as_str(), core["items"].as_array().map(Vec::len)),
        (Some("hello"), Some(1))
    );
    let new = app.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.json();
    assert_eq!((new["note"].as_str(), new["apiVersion"].as_str()), (Some("hello"), Some("events.k8s.io/v1")));
}

#[tokio::test]
async fn leases_are_created_by_update() {
    let app = server().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let headers = [ADMIN, ("content-type", "application/json")];
    let lease = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "me"}});
    let made = app.send("PUT", path, &headers, lease.to_string()).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let blind = app.send("PUT", path, &headers, lease.to_string()).await;
    assert_eq!(blind.code, 422, "{}", blind.text());
    let mut renewed = made.json();
    renewed["spec"]["holderIdentity"] = json!("you");
    assert_eq!(app.send("PUT", path, &headers, renewed.to_string()).await.code, 200);
}
