//! Whatever lies behind an object in a path is served by what was made for it, or refused.

use podlog_api::resource;
use serde_json::{Value, json};

use super::{ADMIN, server};

const JSON: (&str, &str) = ("content-type", "application/json");
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

/// Every subresource that has a handler, and its verbs.
const SERVED: &[(&str, &[&str])] = &[
    ("attach", &["create", "get"]),
    ("binding", &["create"]),
    ("ephemeralcontainers", &["get", "patch", "update"]),
    ("eviction", &["create"]),
    ("exec", &["create", "get"]),
    ("finalize", &["update"]),
    ("log", &["get"]),
    ("portforward", &["create", "get"]),
    ("proxy", &["create", "delete", "get", "patch", "update"]),
    ("scale", &["get", "patch", "update"]),
    ("status", &["get", "patch", "update"]),
    ("token", &["create"]),
];
/// What upstream has besides, and nonsense.
const UNSERVED: &[&str] = &["resize", "nope"];
const METHODS: &[(&str, &str)] =
    &[("GET", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch"), ("DELETE", "delete")];

#[tokio::test]
async fn every_subresource_is_served_by_its_own_handler_or_refused() {
    let app = server().await;
    for row in resource::all() {
        let names = SERVED.iter().map(|(name, _)| *name).chain(UNSERVED.iter().copied());
        for name in names {
            let offered = row.subresource(name).map_or(&[][..], |subresource| subresource.verbs);
            for (method, verb) in METHODS {
                let made = SERVED.iter().any(|(known, verbs)| *known == name && verbs.contains(verb));
                let path = format!("{}/{name}", row.object_path("default", "x"));
                let content_type = if *verb == "patch" { MERGE } else { JSON };
                let answer = app.send(method, &path, &[ADMIN, content_type], "{}").await;
                // A path or verb that is refused tells of no object; one that is served misses it, or its body.
                let refused = matches!(answer.code, 404 | 405) && answer.json()["details"] == json!({});
                assert_eq!(refused, !offered.contains(verb), "{method} {path}: {}", answer.text());
                assert!(refused || made, "{method} {path} is answered by something else: {}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn rights_to_a_subresource_are_no_rights_to_its_object() {
    let app = server().await;
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["pods/resize", "pods/ephemeralcontainers"], "verbs": ["*"]}]});
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}});
    for (kind, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let made = app.post(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}"), object).await;
        assert_eq!(made.code, 201, "{}", made.text());
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(app.post("/api/v1/namespaces/default/pods", pod).await.code, 201);
    let bob = ("x-user", "bob");
    let pod = "/api/v1/namespaces/default/pods/p";
    for (object, subresource, served) in [(pod, "resize", false), (pod, "ephemeralcontainers", true)] {
        let before = app.get(object).await.json();
        let path = format!("{object}/{subresource}");
        let mut relabelled = before.clone();
        relabelled["metadata"]["labels"] = json!({"taken": "over"});
        for (method, content_type) in [("GET", JSON), ("PUT", JSON), ("PATCH", MERGE), ("DELETE", JSON)] {
            // Rights take effect a little later.
            let answer = loop {
                let answer = app.send(method, &path, &[bob, content_type], relabelled.to_string()).await;
                if answer.code != 403 {
                    break answer;
                }
                tokio::task::yield_now().await;
            };
            match (served, method) {
                (false, _) => {
                    assert_eq!(answer.code, 404, "{method} {path}: {}", answer.text());
                    let text = "the server could not find the requested resource";
                    assert_eq!(answer.json()["message"], text);
                }
                (true, "DELETE") => assert_eq!(answer.code, 405, "{}", answer.text()),
                (true, _) => assert_eq!(answer.code, 200, "{method} {path}: {}", answer.text()),
            }
        }
        assert_eq!(app.get(object).await.json(), before);
    }
}

#[tokio::test]
async fn who_may_only_read_runs_no_commands() {
    let app = server().await;
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["pods/exec", "pods/portforward"], "verbs": ["get"]}]});
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}});
    for (kind, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        assert_eq!(app.post(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}"), object).await.code, 201);
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(app.post("/api/v1/namespaces/default/pods", pod).await.code, 201);
    let pod = "/api/v1/namespaces/default/pods/p";
    for subresource in ["exec", "portforward"] {
        // Rights take effect a little later: first not even reading is allowed.
        let said = loop {
            let answer = app.send("GET", &format!("{pod}/{subresource}"), &[("x-user", "bob")], "").await;
            assert_eq!(answer.code, 403, "{}", answer.text());
            let said = answer.json()["message"].as_str().unwrap().to_owned();
            if !said.contains("cannot get") {
                break said;
            }
            tokio::task::yield_now().await;
        };
        assert!(said.contains(&format!("cannot create resource \"pods/{subresource}\"")), "{said}");
    }
    for (query, message) in [
        ("exec?container=other", "container other is not valid for pod p"),
        ("exec?command=id&stdout=true", "pod p does not have a host assigned"),
        ("attach?container=c", "pod p does not have a host assigned"),
        ("portforward", "pod p does not have a host assigned"),
    ] {
        let answer = app.send("POST", &format!("{pod}/{query}"), &[ADMIN], "").await;
        assert_eq!((answer.code, answer.json()["message"].as_str()), (400, Some(message)), "{query}");
    }
}

#[tokio::test]
async fn ephemeral_containers_only_become_more() {
    let app = server().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(app.post("/api/v1/namespaces/default/pods", pod).await.code, 201);
    let path = "/api/v1/namespaces/default/pods/p/ephemeralcontainers";
    let strategic = ("content-type", "application/strategic-merge-patch+json");
    let patch = |container: Value| json!({"spec": {"ephemeralContainers": [container]}}).to_string();
    let debug = json!({"name": "debug", "image": "i", "targetContainerName": "c"});
    let answer = app.send("PATCH", path, &[ADMIN, strategic], patch(debug)).await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    let added = &answer.json()["spec"]["ephemeralContainers"][0];
    assert_eq!(
        (&added["terminationMessagePath"], &added["name"]),
        (&json!("/dev/termination-log"), &json!("debug"))
    );
    for (change, words) in [
        (
            json!({"name": "debug", "image": "other"}),
            "existing ephemeral containers \"debug\" may not be changed",
        ),
        (
            json!({"name": "debug", "$patch": "delete"}),
            "existing ephemeral containers \"debug\" may not be removed",
        ),
        (json!({"name": "c", "image": "i"}), "name: Duplicate value: \"c\""),
        (
            json!({"name": "e", "image": "i", "ports": [{"containerPort": 1}]}),
            "cannot be set for an Ephemeral Container",
        ),
    ] {
        let answer = app.send("PATCH", path, &[ADMIN, strategic], patch(change)).await;
        assert_eq!(answer.code, 422, "{}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap().contains(words), "{}", answer.text());
    }
    let more = json!({"spec": {"ephemeralContainers": [{"name": "more", "image": "i"}]}}).to_string();
    let through_the_pod =
        app.send("PATCH", path.trim_end_matches("/ephemeralcontainers"), &[ADMIN, strategic], more).await;
    assert_eq!(through_the_pod.code, 422, "{}", through_the_pod.text());
}

#[tokio::test]
async fn scales_are_read_replaced_and_patched() {
    let app = server().await;
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let workloads = "/apis/apps/v1/namespaces/default/deployments";
    let made = app.post(workloads, json!({"metadata": {"name": "w"}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let scale = format!("{workloads}/w/scale");
    let replace =
        |replicas: Value| json!({"metadata": {"name": "w"}, "spec": {"replicas": replicas}}).to_string();
    let rows = [
        ("PUT", "json", replace(json!(2)), 200, 2),
        ("PUT", "json", replace(json!("3")), 400, 2),
        ("PUT", "json", replace(json!(-1)), 422, 2),
        ("PATCH", "merge-patch+json", r#"{"spec":{"replicas":4}}"#.into(), 200, 4),
        ("PATCH", "strategic-merge-patch+json", r#"{"spec":{"replicas":5}}"#.into(), 200, 5),
        (
            "PATCH",
            "json-patch+json",
            r#"[{"op":"replace","path":"/spec/replicas","value":6}]"#.into(),
            200,
            6,
        ),
        ("PATCH", "merge-patch+json", r#"{"spec":{"replicas":"7"}}"#.into(), 400, 6),
        ("PATCH", "merge-patch+json", r#"{"spec":{"replicas":-7}}"#.into(), 422, 6),
    ];
    for (method, format, body, code, replicas) in rows {
        let content_type = format!("application/{format}");
        let answer = app.send(method, &scale, &[ADMIN, ("content-type", &content_type)], body.clone()).await;
        assert_eq!(answer.code, code, "{method} {format} {body}: {}", answer.text());
        let now = app.get(&scale).await.json();
        assert_eq!((now["kind"].as_str(), now["spec"]["replicas"].as_i64()), (Some("Scale"), Some(replicas)));
    }
}

#[tokio::test]
async fn who_may_only_read_from_a_kubelet_runs_nothing_there() {
    let app = server().await;
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]});
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}});
    for (kind, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        assert_eq!(app.post(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}"), object).await.code, 201);
    }
    let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}});
    assert_eq!(app.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.code, 201);
    let patch = json!({"status": status}).to_string();
    assert_eq!(app.send("PATCH", "/api/v1/nodes/n/status", &[ADMIN, MERGE], patch).await.code, 200);
    let path = "/api/v1/nodes/n/proxy/exec/default/p/c?command=sh";
    let bob = ("x-user", "bob");
    // The policy follows the store within a moment. Nobody listens on port 1: that is as far as who may gets.
    let mut read = app.send("GET", path, &[bob], "").await;
    while read.code == 403 {
        tokio::task::yield_now().await;
        read = app.send("GET", path, &[bob], "").await;
    }
    assert_eq!(read.code, 503, "{}", read.text());
    let upgrade = [bob, ("connection", "Upgrade"), ("upgrade", "websocket")];
    let refused = app.send("GET", path, &upgrade, "").await;
    assert_eq!(refused.code, 403, "{}", refused.text());
    assert!(refused.text().contains(r#"cannot create resource \"nodes/proxy\""#), "{}", refused.text());
    assert_eq!(app.send("POST", path, &[bob], "").await.code, 403);
}

#[tokio::test]
async fn who_means_a_certain_object_gets_no_other() {
    let app = server().await;
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workloads = "/apis/apps/v1/namespaces/default/deployments";
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    assert_eq!(app.post(workloads, json!({"metadata": {"name": "w"}, "spec": spec})).await.code, 201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let uid = app.post(pods, pod).await.json()["metadata"]["uid"].as_str().unwrap().to_owned();
    let meant = |name: &str, uid: &str| json!({"name": name, "uid": uid});
    let bound = |metadata: Value| json!({"metadata": metadata, "target": {"kind": "Node", "name": "n"}});
    let none = "Precondition failed: UID in precondition: u, UID in object meta: ";
    let (roles, apply) =
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/r", "application/apply-patch+yaml");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meant("r", "u"), "rules": []});
    let rows = [
        ("PUT", roles.to_owned(), JSON.1, role.clone(), (409, none)),
        (
            "PATCH",
            format!("{roles}?fieldManager=m"),
            apply,
            role,
            (409, "uid mismatch: the provided object specified uid u, and no existing object was found"),
        ),
        (
            "PUT",
            format!("{workloads}/w/scale"),
            JSON.1,
            json!({"metadata": meant("w", "u"), "spec": {"replicas": 3}}),
            (409, none),
        ),
        ("POST", format!("{pods}/p/binding"), JSON.1, bound(meant("p", "u")), (409, none)),
        (
            "POST",
            format!("{pods}/p/binding"),
            JSON.1,
            bound(json!({"name": "p", "resourceVersion": "1"})),
            (409, "ResourceVersion in precondition: 1"),
        ),
        (
            "POST",
            format!("{pods}/p/binding"),
            JSON.1,
            bound(meant("q", &uid)),
            (400, "name in URL does not match name in Binding object"),
        ),
        (
            "POST",
            format!("{pods}/p/eviction"),
            JSON.1,
            json!({"metadata": {"name": "q"}}),
            (400, "name in URL does not match name in Eviction object"),
        ),
        ("POST", format!("{pods}/p/binding"), JSON.1, bound(meant("p", &uid)), (201, "")),
    ];
    for (method, path, content_type, body, (code, words)) in rows {
        let headers = [ADMIN, ("content-type", content_type)];
        let answer = app.send(method, &path, &headers, body.to_string()).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == code && message.contains(words), "{method} {path} {body}: {}", answer.text());
    }
    assert_eq!(app.get(roles).await.code, 404);
    assert_eq!(app.get(&format!("{workloads}/w/scale")).await.json()["spec"]["replicas"], 1);
}
