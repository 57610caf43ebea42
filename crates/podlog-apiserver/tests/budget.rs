//! What many objects cost the API server, by counting: bytes held at most while it works through them.
//!
//! One test in a program of its own: what is allocated is that of the whole process.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use harness::Cluster;
use http_body_util::BodyExt;
use podlog_api::resource::find;
use podlog_api::{Compatibility, Object};
use podlog_apiserver::controllers::{self, ControllerConfig};
use podlog_serving::pki::KeyPairFiles;
use podlog_serving::{NodeClient, NodeClientConfig, Verify};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: usize = 500;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator that counts has to be an allocator")]
// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the memory came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes held at most during `work`, beyond those held before.
async fn most<T>(work: impl Future<Output = T>) -> (usize, T) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let done = work.await;
    (MOST.load(Ordering::Relaxed).saturating_sub(before), done)
}

/// Some 6 KiB as text, and fifteen times that as a tree of values.
fn pod(number: usize) -> Value {
    let variables: Vec<Value> =
        (0..40).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("{number}")})).collect();
    json!({
        "metadata": {"name": format!("pod-{number:05}"), "labels": {"odd": format!("{}", number % 2 == 1)}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "env": variables}]},
    })
}

async fn fill(cluster: &Cluster) {
    let registry = cluster.server.registry();
    let create = |plural: &'static str, namespace: &'static str, value: Value| {
        registry.create(find("", "v1", plural).unwrap(), namespace, Object::new(value))
    };
    create("serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await.unwrap();
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    create("nodes", "", json!({"metadata": {"name": "n"}, "status": ready})).await.unwrap();
    let made = stream::iter(0..PODS).map(|number| create("pods", "default", pod(number)));
    made.buffer_unordered(256).try_for_each(async |_| Ok(())).await.unwrap();
}

async fn get(client: &NodeClient, cluster: &Cluster, path: &str) -> Vec<u8> {
    let port = cluster.server.local_addr().port();
    let response = client.get("127.0.0.1", port, path, Verify::Ca).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// Reads and forgets; answers with the bytes there were.
async fn length(client: &NodeClient, cluster: &Cluster, path: &str) -> usize {
    lines(client, cluster, path, usize::MAX).await
}

/// The same up to so many lines.
async fn lines(client: &NodeClient, cluster: &Cluster, path: &str, count: usize) -> usize {
    let port = cluster.server.local_addr().port();
    let mut body = client.get("127.0.0.1", port, path, Verify::Ca).await.unwrap().into_body();
    let (mut length, mut lines) = (0, 0);
    while lines < count
        && let Some(frame) = body.frame().await
    {
        let data = frame.unwrap().into_data().unwrap();
        length += data.len();
        lines += data.iter().filter(|byte| **byte == b'\n').count();
    }
    length
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_objects_are_never_held_at_once() {
    let cluster = Cluster::start(Compatibility::Exact).await;
    fill(&cluster).await;
    let client = NodeClient::new(NodeClientConfig {
        client: Some(KeyPairFiles::in_folder(cluster.folder.path(), "admin")),
        ca: Some(cluster.authority.certificate_path().to_owned()),
        ..NodeClientConfig::default()
    });
    let client = client.unwrap();
    let list: Value = serde_json::from_slice(&get(&client, &cluster, "/api/v1/pods").await).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), PODS);
    drop(list);

    let all = "/api/v1/pods";
    let (held, text) = most(length(&client, &cluster, all)).await;
    assert!(text > PODS * 3000, "{text} bytes of list are not what this is about");
    assert!(held < text + text / 4 + MIB, "{held} bytes held for a list of {text}");

    let (held, half) = most(length(&client, &cluster, "/api/v1/pods?labelSelector=odd%3Dtrue")).await;
    assert!((text / 3..text * 2 / 3).contains(&half), "{half} of {text}");
    assert!(held < half + half / 4 + MIB, "{held} bytes held for a selected list of {half}");

    let (held, one) = most(length(&client, &cluster, "/api/v1/namespaces/default/pods/pod-00007")).await;
    assert!(held < 16 * one, "{held} bytes held for an object of {one}");

    let (held, events) = most(lines(&client, &cluster, "/api/v1/pods?watch=true", PODS)).await;
    assert!(events > text, "{events} bytes of events");
    assert!(held < 2 * text, "{held} bytes held for {events} bytes of initial events");

    // Two batches of trees, one of them the watch's, and far from all. The last pod: when it has a node, controllers have seen all others.
    let last = Object::new(
        json!({"metadata": {"name": "z"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    );
    cluster.server.registry().create(find("", "v1", "pods").unwrap(), "default", last).await.unwrap();
    let end = CancellationToken::new();
    let (held, running) = most(async {
        let running = controllers::spawn_all(cluster.server.registry(), ControllerConfig::default(), &end);
        let bound = "/api/v1/pods?watch=true&fieldSelector=metadata.name%3Dz,spec.nodeName%3Dn";
        lines(&client, &cluster, bound, 1).await;
        running
    })
    .await;
    assert!(held < 4 * text, "{held} bytes held by controllers that look at {text} bytes of pods");
    end.cancel();
    running.join_all().await;
    cluster.server.shutdown().await.unwrap();
}

const MIB: usize = 1 << 20;
