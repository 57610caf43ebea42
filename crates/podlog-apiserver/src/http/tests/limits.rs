//! More requests than there are places, and bodies that do not come.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use http_body_util::BodyExt;
use podlog_serving::{BodySender, Peer, empty_body, stream_body};
use serde_json::json;

use super::{Answered, App, InFlight, server};
use crate::auth::{ClusterAuthorizer, Member};
use crate::config::RequestLimits;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const BOB: (&str, &str) = ("x-user", "bob");

/// A server that lets everybody do everything, within limits.
async fn limited(limits: RequestLimits) -> Arc<App> {
    let Ok(mut app) = Arc::try_unwrap(server().await) else { panic!("somebody else has the server") };
    app.authorizer = Arc::new(ClusterAuthorizer::new(app.registry.clone(), vec![Member::AlwaysAllow]));
    app.in_flight = InFlight::new(&limits);
    app.request_timeout = limits.request_timeout;
    Arc::new(app)
}

/// Begins to create a config map; its body comes from the sender.
fn begin(app: &Arc<App>) -> (BodySender, tokio::task::JoinHandle<Answered>) {
    let (sender, body) = stream_body();
    let request = Request::post(MAPS).header(BOB.0, BOB.1).header("content-type", "application/json");
    let request = request.body(body).unwrap();
    let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
    let app = app.clone();
    let answer = tokio::spawn(async move {
        let (parts, body) = app.serve(request, peer).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answered { code: parts.status.as_u16(), headers: parts.headers, body }
    });
    (sender, answer)
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_back() {
    let app = limited(RequestLimits { max_mutating_in_flight: 1, ..RequestLimits::default() }).await;
    let (sender, first) = begin(&app);
    let json = ("content-type", "application/json");
    let refused = loop {
        let answer = app.send("POST", MAPS, &[BOB, json], "{}").await;
        if answer.code == 429 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    assert_eq!(app.send("GET", MAPS, &[BOB], "").await.code, 200, "reading has places of its own");
    assert_ne!(app.post(MAPS, json!({})).await.code, 429, "masters always get in");
    let metrics = app.metrics.registry.render();
    assert!(metrics.contains("apiserver_dropped_requests_total{request_kind=\"mutating\"}"), "{metrics}");

    sender.send(r#"{"metadata": {"name": "a"}}"#).await.unwrap();
    sender.finish().await;
    assert_eq!(first.await.unwrap().code, 201);
    let second = app.send("POST", MAPS, &[BOB, json], r#"{"metadata": {"name": "b"}}"#).await;
    assert_eq!(second.code, 201, "{}", second.text());
}

#[tokio::test]
async fn who_does_not_read_keeps_a_place() {
    let app = limited(RequestLimits { max_in_flight: 1, ..RequestLimits::default() }).await;
    let unread = app.open("GET", "/api/v1/namespaces", &[BOB], "").await;
    assert_eq!(app.send("GET", MAPS, &[BOB], "").await.code, 429);
    drop(unread);
    assert_eq!(app.send("GET", MAPS, &[BOB], "").await.code, 200);
    assert_eq!(app.send("GET", MAPS, &[BOB], "").await.code, 200, "what has been read has no place");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let limits = RequestLimits { request_timeout: Duration::from_millis(50), ..RequestLimits::default() };
    let app = limited(limits).await;
    let (sender, answer) = begin(&app);
    sender.send("{").await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!((answer.code, answer.json()["reason"].as_str()), (504, Some("Timeout")));
    // What lasts is not cut.
    let watch = app.open("GET", &format!("{MAPS}?watch=true&timeoutSeconds=1"), &[BOB], "").await;
    assert_eq!(watch.status(), 200);
    assert!(watch.into_body().collect().await.is_ok(), "the watch ends when it is asked to");
}

/// HTTP/2 lets a client ask for much at once: who is unknown gets a connection a request
/// (`TestUnauthenticatedHTTP2ClientConnectionClose` of `k8s.io/apiserver/pkg/endpoints/filters`).
#[tokio::test]
async fn who_is_unknown_is_told_to_leave() {
    let app = server().await;
    let bad = ("authorization", "Bearer made-up");
    let unknown = ("x-user", "somebody,system:unauthenticated");
    for (version, target, headers, code, connection) in [
        (Version::HTTP_2, "/version", &[BOB][..], 200, ""),
        (Version::HTTP_2, "/api/v1/pods", &[BOB], 403, ""),
        (Version::HTTP_2, "/version", &[], 401, "close"),
        (Version::HTTP_2, "/version", &[bad], 401, "close"),
        (Version::HTTP_2, "/healthz", &[], 200, "close"),
        (Version::HTTP_2, "/version", &[unknown], 200, "close"),
        (Version::HTTP_11, "/version", &[bad], 401, ""),
        (Version::HTTP_11, "/healthz", &[], 200, ""),
    ] {
        let mut request = Request::get(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: Vec::new().into() };
        let answer = app.serve(request.body(empty_body()).unwrap(), peer).await;
        let said = answer.headers().get("connection").map_or("", |value| value.to_str().unwrap());
        assert_eq!((answer.status().as_u16(), said), (code, connection), "{version:?} {target} {headers:?}");
    }
}
