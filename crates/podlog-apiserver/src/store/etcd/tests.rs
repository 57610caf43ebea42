//! What only a store shared with others, and reached over a network, has to stand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podlog_proto::etcd::RangeRequest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{CallError, Client};
use super::compactor::{Round, compact, last_compacted};
use super::testing::Etcd;
use super::{EtcdConfig, EtcdStore};
use crate::store::{Change, Expected, Range, Retention, Store, StoreError, Watcher, Write};

fn put(key: &str, expected: Expected, value: &str) -> Write {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Write { key: key.into(), expected, beside: None, change: Change::Put(value), ttl: None }
}

async fn connect(config: &EtcdConfig) -> Arc<EtcdStore> {
    Arc::new(EtcdStore::connect(config, Retention::default()).await.unwrap())
}

async fn create(store: &EtcdStore, key: &str) -> u64 {
    store.write(put(key, Expected::Absent, "1")).await.unwrap()
}

fn count(store: &EtcdStore) -> usize {
    store.range(&Range { prefix: "/registry/".into(), ..Range::default() }).unwrap().items.len()
}

#[tokio::test]
async fn members_die_and_no_event_is_lost_or_doubled() {
    const KEYS: usize = 300;
    let Some(mut etcd) = Etcd::start(3) else { return };
    let store = connect(&etcd.config()).await;
    let mut watcher = Watcher::new(store.clone(), "/registry/pods/".into(), store.revision());
    let (sender, mut written) = tokio::sync::mpsc::channel(1);
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for key in 0..KEYS {
            create(&writing, &format!("/registry/pods/{key:04}")).await;
            sender.send(key).await.unwrap();
        }
    });
    // Each member in turn dies in the middle of writes, whichever is asked and whichever leads.
    let mut dead = None;
    while let Some(key) = written.recv().await {
        if key % 60 == 30 {
            if let Some(dead) = dead {
                etcd.revive(dead);
                assert!(etcd.wait(dead));
            }
            let next = dead.map_or(0, |dead| (dead + 1) % 3);
            etcd.kill(next);
            dead = Some(next);
        }
    }
    writer.await.unwrap();
    for key in 0..KEYS {
        assert_eq!(watcher.next().await.unwrap().key, format!("/registry/pods/{key:04}"));
    }
    assert_eq!(count(&store), KEYS);
}

#[tokio::test]
async fn servers_see_what_others_were_told_is_written() {
    let Some(etcd) = Etcd::start(1) else { return };
    let (a, b) = (connect(&etcd.config()).await, connect(&etcd.config()).await);
    for turn in 0..100 {
        let (writer, reader) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let key = format!("/registry/pods/{turn}");
        let revision = create(writer, &key).await;
        assert_eq!(writer.get(&key).unwrap().unwrap().mod_revision, revision, "its own write");
        reader.catch_up().await.unwrap();
        assert_eq!(reader.get(&key).unwrap().unwrap().mod_revision, revision, "the other's");
    }
}

#[tokio::test]
async fn of_all_who_count_up_nobody_is_overwritten() {
    let Some(etcd) = Etcd::start(1) else { return };
    let stores = [connect(&etcd.config()).await, connect(&etcd.config()).await];
    let key = "/registry/configmaps/default/count";
    stores[0].write(put(key, Expected::Absent, "0")).await.unwrap();
    let mut counters = JoinSet::new();
    for counter in 0..4 {
        let store = stores[counter % 2].clone();
        counters.spawn(async move {
            for _ in 0..25 {
                loop {
                    store.catch_up().await.unwrap();
                    let kv = store.get(key).unwrap().unwrap();
                    let value: u64 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                    let next = put(key, Expected::ModRevision(kv.mod_revision), &(value + 1).to_string());
                    match store.write(next).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    counters.join_all().await;
    // The last of them may have counted at the other server.
    stores[0].catch_up().await.unwrap();
    assert_eq!(stores[0].get(key).unwrap().unwrap().value, "100");
}

#[tokio::test]
async fn a_new_server_knows_the_history() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = connect(&etcd.config()).await;
    let first = create(&store, "/registry/pods/a").await;
    store.write(put("/registry/pods/a", Expected::ModRevision(first), "2")).await.unwrap();
    store.close().await;
    let store = connect(&etcd.config()).await;
    let mut watcher = Watcher::new(store.clone(), "/registry/".into(), first);
    let event = watcher.next().await.unwrap();
    assert_eq!((event.value.as_deref(), event.previous.as_deref()), (Some(&b"2"[..]), Some(&b"1"[..])));
    let then = store.range(&Range { at: Some(first), ..Range::default() }).unwrap();
    assert_eq!(then.items[0].value, "1");
}

#[tokio::test]
async fn one_of_several_servers_compacts_each_time() {
    let Some(etcd) = Etcd::start(1) else { return };
    let client = Client::new(&etcd.config()).unwrap();
    let store = connect(&etcd.config()).await;
    assert_eq!(last_compacted(&client).await.unwrap(), None);
    let a = compact(&client, Round::default()).await.unwrap();
    let b = compact(&client, Round::default()).await.unwrap();
    assert_eq!((a.version, b.version), (1, 1), "the second learns of the first");
    assert_eq!(last_compacted(&client).await.unwrap(), None, "nobody compacts in the first round");
    for key in 0..10 {
        create(&store, &format!("/registry/pods/{key}")).await;
    }
    let b_next = compact(&client, b).await.unwrap();
    assert_eq!(last_compacted(&client).await.unwrap(), Some(b.revision));
    let a_next = compact(&client, a).await.unwrap();
    assert_eq!((a_next.version, b_next.version), (2, 2));
    let a_last = compact(&client, a_next).await.unwrap();
    assert_eq!((a_last.version, last_compacted(&client).await.unwrap()), (3, Some(a_next.revision)));
    let old = RangeRequest {
        key: "/".into(),
        revision: i64::try_from(a_next.revision).unwrap() - 1,
        ..Default::default()
    };
    assert!(matches!(client.range(old).await, Err(CallError::Compacted)));
    // A server that starts now begins its history there.
    let store = connect(&etcd.config()).await;
    assert_eq!(count(&store), 10);
    let refused = store.events("/", a_next.revision - 1, 1).unwrap_err();
    assert_eq!(refused, StoreError::Compacted { requested: a_next.revision - 1, oldest: a_next.revision });
    assert!(store.events("/", a_next.revision, 1).is_ok());
}

#[tokio::test]
async fn what_expires_hangs_on_a_lease_that_others_share() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = connect(&etcd.config()).await;
    let hour = Some(Duration::from_secs(3600));
    for (key, ttl) in [("a", hour), ("b", hour), ("c", None)] {
        let key = format!("/registry/events/{key}");
        store.write(Write { ttl, ..put(&key, Expected::Absent, "1") }).await.unwrap();
    }
    let client = Client::new(&etcd.config()).unwrap();
    let request = RangeRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    let found = client.range(request).await.unwrap().kvs;
    let leases: Vec<i64> = found.iter().map(|kv| kv.lease).collect();
    assert!(leases[0] != 0 && leases[0] == leases[1] && leases[2] == 0, "{leases:?}");
}

#[tokio::test]
async fn what_others_keep_in_the_same_etcd_is_passed_over() {
    let Some(etcd) = Etcd::start(1) else { return };
    let ours = connect(&etcd.config()).await;
    let other = EtcdConfig { prefix: "/registry-of-others".into(), ..etcd.config() };
    let theirs = connect(&other).await;
    let mut watcher = Watcher::new(ours.clone(), "/registry/".into(), ours.revision());
    let foreign = create(&theirs, "/registry/pods/x").await;
    ours.catch_up().await.unwrap();
    assert!(ours.revision() >= foreign);
    assert_eq!(count(&ours), 0);
    create(&ours, "/registry/pods/y").await;
    assert_eq!(watcher.next().await.unwrap().key, "/registry/pods/y");
}

/// A way to etcd that can be cut, and opened again.
struct Bridge {
    address: SocketAddr,
    /// Nobody else gets the address while it is closed.
    _held: TcpSocket,
    to: SocketAddr,
    open: CancellationToken,
}

impl Bridge {
    async fn build(to: SocketAddr) -> Bridge {
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = held.local_addr().unwrap();
        let mut bridge = Bridge { address, _held: held, to, open: CancellationToken::new() };
        bridge.reopen().await;
        bridge
    }

    fn carry(&mut self, listener: TcpListener) {
        self.open = CancellationToken::new();
        let (open, to) = (self.open.clone(), self.to);
        tokio::spawn(async move {
            let mut copies = JoinSet::new();
            let accept = async {
                while let Ok((mut near, _)) = listener.accept().await {
                    copies.spawn(async move {
                        let mut far = TcpStream::connect(to).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            };
            open.run_until_cancelled_owned(accept).await;
        });
    }

    async fn reopen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.carry(listener);
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_the_connection_broke() {
    let Some(etcd) = Etcd::start(1) else { return };
    let mut bridge = Bridge::build(etcd.address(0)).await;
    let direct = connect(&etcd.config()).await;
    let config = EtcdConfig { servers: vec![format!("http://{}", bridge.address)], ..etcd.config() };
    let store = connect(&config).await;
    let mut watcher = Watcher::new(store.clone(), "/registry/".into(), store.revision());
    create(&direct, "/registry/pods/before").await;
    assert_eq!(watcher.next().await.unwrap().key, "/registry/pods/before");
    bridge.open.cancel();
    create(&direct, "/registry/pods/meanwhile").await;
    while store.health().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bridge.reopen().await;
    create(&direct, "/registry/pods/after").await;
    for key in ["meanwhile", "after"] {
        assert_eq!(watcher.next().await.unwrap().key, format!("/registry/pods/{key}"));
    }
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test]
async fn whoever_missed_what_was_compacted_is_told_so() {
    let Some(etcd) = Etcd::start(1) else { return };
    let mut bridge = Bridge::build(etcd.address(0)).await;
    let direct = connect(&etcd.config()).await;
    let config = EtcdConfig { servers: vec![format!("http://{}", bridge.address)], ..etcd.config() };
    let store = connect(&config).await;
    create(&direct, "/registry/pods/old").await;
    let mut watcher = Watcher::new(store.clone(), "/registry/".into(), store.revision());
    bridge.open.cancel();
    while store.health().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    create(&direct, "/registry/pods/missed").await;
    let newest = create(&direct, "/registry/pods/new").await;
    direct.compact(newest).await.unwrap();
    bridge.reopen().await;
    let told = loop {
        match watcher.next().await {
            Ok(event) => assert_eq!(event.key, "/registry/pods/old"),
            Err(error) => break error,
        }
    };
    assert!(matches!(told, StoreError::Compacted { oldest, .. } if oldest == newest), "{told}");
    assert_eq!(count(&store), 3, "the new start has everything");
    create(&store, "/registry/pods/goes-on").await;
}

#[tokio::test]
async fn without_etcd_reads_go_on_and_say_how_old_they_may_be() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    let store = connect(&etcd.config()).await;
    create(&store, "/registry/pods/a").await;
    etcd.kill(0);
    let (write, read) =
        tokio::join!(store.write(put("/registry/pods/b", Expected::Absent, "1")), store.catch_up());
    assert!(matches!(write, Err(StoreError::Unavailable(_))), "{write:?}");
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(store.health().is_err());
    assert!(store.get("/registry/pods/a").unwrap().is_some());
    etcd.revive(0);
    assert!(etcd.wait(0));
    create(&store, "/registry/pods/c").await;
    assert_eq!(count(&store), 2);
}
