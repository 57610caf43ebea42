//! etcd that is full, or stands still.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::EtcdStore;
use super::testing::Etcd;
use crate::store::{Change, Expected, Range, Retention, Store, StoreError, Watcher, Write};

const VALUE: usize = 64 << 10;

async fn connect(etcd: &Etcd) -> std::sync::Arc<EtcdStore> {
    std::sync::Arc::new(EtcdStore::connect(&etcd.config(), Retention::default()).await.unwrap())
}

fn create(number: usize, value: Vec<u8>) -> Write {
    let key = format!("/registry/pods/{number:04}");
    let change = Change::Put(Bytes::from(value));
    Write { key, expected: Expected::Absent, beside: None, change, ttl: None }
}

fn count(store: &EtcdStore) -> usize {
    store.range(&Range { prefix: "/registry/".into(), ..Range::default() }).unwrap().items.len()
}

#[tokio::test]
async fn a_full_etcd_says_so_and_goes_on_when_there_is_room() {
    let Some(etcd) = Etcd::start_with(1, &["--quota-backend-bytes=1048576"]) else { return };
    let store = connect(&etcd).await;
    let mut watcher = Watcher::new(store.clone(), "/registry/".into(), store.revision());
    let mut written = 0;
    let full = loop {
        match store.write(create(written, vec![b'x'; VALUE])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "the quota is no limit");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    assert!(full.to_string().contains("quota"), "{full}");
    // Whatever was acknowledged was told once, and nothing else.
    for number in 0..written {
        assert_eq!(watcher.next().await.unwrap().key, format!("/registry/pods/{number:04}"));
    }
    store.catch_up().await.unwrap();
    assert_eq!((count(&store), store.health()), (written, Ok(())), "reads go on");
    let again = store.write(create(written, b"small".to_vec())).await;
    assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");

    // Deleting makes room, once etcd has forgotten and somebody has cleared the alarm.
    for number in 0..written {
        let key = format!("/registry/pods/{number:04}");
        let expected = Expected::ModRevision(store.get(&key).unwrap().unwrap().mod_revision);
        store.write(Write { key, expected, beside: None, change: Change::Delete, ttl: None }).await.unwrap();
        assert!(watcher.next().await.unwrap().value.is_none());
    }
    let revision = store.revision().to_string();
    etcd.ask(0, "/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    etcd.ask(0, "/v3/maintenance/defragment", &json!({}));
    let alarms = etcd.ask(0, "/v3/maintenance/alarm", &json!({"action": "GET"}));
    let member = &alarms["alarms"][0]["memberID"];
    let clear = json!({"action": "DEACTIVATE", "memberID": member, "alarm": "NOSPACE"});
    etcd.ask(0, "/v3/maintenance/alarm", &clear);
    store.write(create(written, b"small".to_vec())).await.unwrap();
    assert_eq!(watcher.next().await.unwrap().key, format!("/registry/pods/{written:04}"));
    assert_eq!(count(&store), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_an_etcd_that_stood_still_happens_once() {
    const STILL: Duration = Duration::from_millis(700);
    let Some(etcd) = Etcd::start(1) else { return };
    let store = connect(&etcd).await;
    store.write(create(0, b"before".to_vec())).await.unwrap();
    let mut watcher = Watcher::new(store.clone(), "/registry/".into(), store.revision());
    for turn in 0..3 {
        etcd.pause(0);
        let begin = Instant::now();
        let numbers = 10 * turn + 1..10 * turn + 6;
        let writes: Vec<_> = numbers
            .clone()
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.write(create(number, b"x".to_vec())).await })
            })
            .collect();
        assert!(store.get("/registry/pods/0000").unwrap().is_some(), "reads need no etcd");
        tokio::time::sleep(STILL).await;
        assert!(writes.iter().all(|write| !write.is_finished()), "nobody has answered");
        etcd.resume(0);
        for write in writes {
            write.await.unwrap().unwrap();
        }
        assert!(begin.elapsed() >= STILL);
        let mut told = Vec::new();
        for _ in numbers.clone() {
            told.push(watcher.next().await.unwrap().key.clone());
        }
        told.sort();
        assert_eq!(told, numbers.map(|number| format!("/registry/pods/{number:04}")).collect::<Vec<_>>());
    }
    assert_eq!(count(&store), 16);
}
