//! What every [`Store`] must do, and what the embedded one does when the machine fails it.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::embedded::Purpose;
use super::etcd::testing::Etcd;
use super::shadow::Shadow;
use super::*;

fn put(key: &str, expected: Expected, value: &str) -> Write {
    Write {
        key: key.into(),
        expected,
        beside: None,
        change: Change::Put(Bytes::copy_from_slice(value.as_bytes())),
        ttl: None,
    }
}

fn remove(key: &str, revision: u64) -> Write {
    let expected = Expected::ModRevision(revision);
    Write { key: key.into(), expected, beside: None, change: Change::Delete, ttl: None }
}

async fn create(store: &dyn Store, key: &str, value: &str) -> u64 {
    store.write(put(key, Expected::Absent, value)).await.unwrap()
}

fn keys(store: &dyn Store, range: Range) -> Vec<String> {
    store.range(&range).unwrap().items.into_iter().map(|kv| kv.key).collect()
}

fn all(prefix: &str) -> Range {
    Range { prefix: prefix.into(), ..Range::default() }
}

/// A store, and what it lives in.
type Kept = (Box<dyn std::any::Any>, Arc<dyn Store>);

/// One of each kind; without the one in etcd, and saying so, where there is no etcd.
async fn stores() -> Vec<Kept> {
    let directory = tempfile::tempdir().unwrap();
    let file = RedbStore::open(&directory.path().join("s.redb"), Retention::default()).unwrap();
    let mut stores: Vec<Kept> = vec![
        (Box::new(()), Arc::new(RedbStore::in_memory().unwrap())),
        (Box::new(directory), Arc::new(file)),
    ];
    if let Some(etcd) = Etcd::start(1) {
        let store = etcd.store("").await;
        stores.push((Box::new(etcd), Arc::new(store)));
    }
    stores
}

#[tokio::test]
async fn writes_compare_before_they_swap() {
    for (_directory, store) in stores().await {
        assert_eq!(store.revision(), 1);
        assert_eq!(create(&*store, "/a", "1").await, 2);
        let conflict = store.write(put("/a", Expected::Absent, "2")).await.unwrap_err();
        assert!(
            matches!(conflict, StoreError::Conflict(Some(kv)) if kv.value == "1" && kv.mod_revision == 2)
        );
        assert_eq!(store.write(put("/a", Expected::ModRevision(2), "2")).await, Ok(3));
        assert!(matches!(
            store.write(put("/a", Expected::ModRevision(2), "3")).await,
            Err(StoreError::Conflict(_))
        ));
        assert!(matches!(store.write(remove("/b", 3)).await, Err(StoreError::Conflict(None))));
        let kv = store.get("/a").unwrap().unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, &kv.value[..]), (2, 3, &b"2"[..]));
        assert_eq!(store.write(remove("/a", 3)).await, Ok(4));
        assert_eq!(store.get("/a"), Ok(None));
        assert_eq!(create(&*store, "/a", "again").await, 5);
        assert_eq!(store.get("/a").unwrap().unwrap().create_revision, 5);
        assert_eq!(store.revision(), 5);

        let beside = |key: &str, mod_revision| Write {
            beside: Some(Unchanged { key: key.into(), mod_revision }),
            ..put("/c", Expected::Absent, "1")
        };
        assert_eq!(store.write(beside("/a", 3)).await, Err(StoreError::Overtaken));
        assert_eq!(store.write(beside("/b", 3)).await, Err(StoreError::Overtaken));
        assert_eq!(store.get("/c"), Ok(None));
        assert_eq!(store.write(beside("/a", 5)).await, Ok(6));
        assert!(matches!(store.write(beside("/a", 3)).await, Err(StoreError::Conflict(Some(_)))));
    }
}

#[tokio::test]
async fn ranges_are_pages_of_one_revision() {
    for (_directory, store) in stores().await {
        for key in ["/p/a", "/p/b", "/p/c", "/q/a"] {
            create(&*store, key, "1").await;
        }
        let first = store.range(&Range { limit: 2, ..all("/p/") }).unwrap();
        assert_eq!((first.items.len(), first.remaining, first.revision), (2, 1, 5));
        // Between the pages everything changes; the second page must not show it.
        let c = store.get("/p/c").unwrap().unwrap();
        store.write(remove("/p/c", c.mod_revision)).await.unwrap();
        create(&*store, "/p/d", "1").await;
        store.write(put("/p/a", Expected::ModRevision(2), "2")).await.unwrap();
        let rest = Range { after: Some("/p/b".into()), at: Some(first.revision), ..all("/p/") };
        assert_eq!(keys(&*store, rest), ["/p/c"]);
        assert_eq!(keys(&*store, all("/p/")), ["/p/a", "/p/b", "/p/d"]);
        assert_eq!(keys(&*store, Range { at: Some(3), ..all("/p/") }), ["/p/a", "/p/b"]);
        assert_eq!(keys(&*store, Range { at: Some(1), ..all("/") }), [""; 0]);
        let old = store.range(&Range { at: Some(7), ..all("/p/a") }).unwrap();
        assert_eq!(old.items[0].value, "1", "written at revision 8");
        let future = store.range(&Range { at: Some(99), ..all("/") }).unwrap_err();
        assert_eq!(future, StoreError::Future { requested: 99, current: 8 });
    }
}

#[tokio::test]
async fn scans_show_each_key_once_until_enough_was_seen() {
    for (_directory, store) in stores().await {
        for number in 0..400 {
            create(&*store, &format!("/p/{number:03}"), "1").await;
        }
        create(&*store, "/q", "1").await;
        let scan = |range: Range, enough: usize| {
            let mut seen = Vec::new();
            let revision = store.scan(&range, &mut |found| {
                seen.push(found.key.to_owned());
                if seen.len() < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            (seen, revision.unwrap())
        };
        let keys = |numbers: std::ops::Range<u32>| -> Vec<_> {
            numbers.map(|number| format!("/p/{number:03}")).collect()
        };
        let now = store.revision();
        assert_eq!(scan(all("/p/"), usize::MAX), (keys(0..400), now));
        for enough in [1, 63, 64, 65, 320, 399, 400] {
            assert_eq!(scan(all("/p/"), enough).0, keys(0..u32::try_from(enough).unwrap()), "{enough}");
        }
        let rest = Range { after: Some("/p/100".into()), at: Some(202), ..all("/p/") };
        assert_eq!(scan(rest, usize::MAX), (keys(101..201), 202));
    }
}

#[tokio::test]
async fn pages_of_large_events_are_short_and_complete() {
    for (_directory, store) in stores().await {
        let large = "x".repeat(3 << 10);
        let mut revision = create(&*store, "/a", &large).await;
        for _ in 0..20 {
            revision = store.write(put("/a", Expected::ModRevision(revision), &large)).await.unwrap();
        }
        let (mut through, mut seen) = (1, Vec::new());
        while through < revision {
            let page = store.events("/", through, 1000).unwrap();
            assert!((1..=3).contains(&page.events.len()), "{} events", page.events.len());
            seen.extend(page.events.iter().map(|event| event.revision));
            through = page.through;
        }
        assert_eq!(seen, (2..=revision).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn watchers_see_every_event_once_in_order() {
    for (_directory, store) in stores().await {
        create(&*store, "/p/a", "1").await;
        let mut watcher = Watcher::new(store.clone(), "/p/".into(), 1);
        create(&*store, "/q/a", "1").await;
        store.write(put("/p/a", Expected::ModRevision(2), "2")).await.unwrap();
        store.write(remove("/p/a", 4)).await.unwrap();
        let text = |value: &Option<Bytes>| {
            value.as_ref().map_or("-".into(), |v| String::from_utf8_lossy(v).into_owned())
        };
        for (revision, value, previous) in [(2, "1", "-"), (4, "2", "1"), (5, "-", "2")] {
            let event = watcher.next().await.unwrap();
            assert_eq!(
                (event.revision, text(&event.value), text(&event.previous)),
                (revision, value.into(), previous.into())
            );
        }
        let waiting = tokio::spawn(async move { watcher.next().await.map(|e| e.revision) });
        create(&*store, "/q/b", "1").await;
        create(&*store, "/p/z", "1").await;
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}

#[tokio::test]
async fn compaction_forgets_the_past_and_keeps_the_present() {
    for (_directory, store) in stores().await {
        create(&*store, "/a", "1").await; // 2
        store.write(put("/a", Expected::ModRevision(2), "2")).await.unwrap(); // 3
        create(&*store, "/gone", "1").await; // 4
        store.write(remove("/gone", 4)).await.unwrap(); // 5
        store.write(put("/a", Expected::ModRevision(3), "3")).await.unwrap(); // 6
        assert_eq!(store.compact(9).await, Err(StoreError::Future { requested: 9, current: 6 }));
        store.compact(5).await.unwrap();
        assert_eq!(keys(&*store, all("/")), ["/a"]);
        let at_five = store.range(&Range { at: Some(5), ..all("/") }).unwrap();
        assert_eq!(
            at_five.items[0].value, "2",
            "the version that was current at the compacted revision stays"
        );
        let compacted = StoreError::Compacted { requested: 4, oldest: 5 };
        assert_eq!(store.range(&Range { at: Some(4), ..all("/") }).unwrap_err(), compacted);
        let mut watcher = Watcher::new(store.clone(), "/".into(), 5);
        let event = watcher.next().await.unwrap();
        assert_eq!((event.revision, event.previous.as_deref()), (6, Some(&b"2"[..])));
    }
}

#[tokio::test]
async fn a_new_process_finds_history_and_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.redb");
    let store = RedbStore::open(&path, Retention::default()).unwrap();
    for i in 0..10 {
        create(&store, &format!("/k{i}"), "v").await;
    }
    store.compact(5).await.unwrap();
    store.close().await;
    assert_eq!(store.get("/k1"), Err(StoreError::Closed));
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&path, Retention::default()).unwrap());
    assert_eq!(store.revision(), 11);
    let page = store.events("/", 5, 3).unwrap();
    assert_eq!(page.events.iter().map(|e| e.revision).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(store.events("/", 4, 3).unwrap_err(), StoreError::Compacted { requested: 4, oldest: 5 });
}

#[tokio::test]
async fn history_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { events: 200, ..Retention::default() };
    let store = RedbStore::open(&directory.path().join("s.redb"), retention).unwrap();
    let mut revision = create(&store, "/a", "0").await;
    for _ in 0..400 {
        revision = store.write(put("/a", Expected::ModRevision(revision), "x")).await.unwrap();
    }
    let refused = store.range(&Range { at: Some(2), ..all("/") });
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    assert_eq!(store.get("/a").unwrap().unwrap().mod_revision, revision);
}

#[test]
fn unusable_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.redb");
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(RedbStore::open(&path, Retention::default()).is_err(), "not a store at all");
    std::fs::remove_file(&path).unwrap();
    let store = RedbStore::open(&path, Retention::default()).unwrap();
    assert!(RedbStore::open(&path, Retention::default()).is_err(), "in use");
    drop(store);
    assert!(RedbStore::open(&directory.path().join("no/such/folder"), Retention::default()).is_err());
}

/// A file on a device that fills up when told so.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room().and_then(|()| self.file.set_len(len))
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room().and_then(|()| self.file.write(offset, data))
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.redb");
    let full = Arc::new(AtomicBool::new(false));
    let for_opener = full.clone();
    let opener = Box::new(move |purpose| {
        if purpose == Purpose::ReadOnly {
            return redb::Database::builder().create_with_backend(Shadow::open(&path)?);
        }
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let disk = Disk { file: FileBackend::new(file)?, full: for_opener.clone() };
        redb::Database::builder().create_with_backend(disk)
    });
    let store = RedbStore::start(opener, "the test disk".into(), None, Retention::default()).unwrap();
    let revision = create(&store, "/a", "1").await;
    full.store(true, Ordering::SeqCst);
    let big = "x".repeat(1 << 20);
    assert_eq!(
        store.write(put("/b", Expected::Absent, &big)).await,
        Err(StoreError::Full("the test disk".into()))
    );
    assert_eq!(store.get("/a").unwrap().unwrap().value, "1", "reads go on");
    let still = store.write(put("/b", Expected::Absent, "1")).await;
    assert_eq!(still, Err(StoreError::Full("the test disk".into())));
    assert_eq!(keys(&store, all("/")), ["/a"]);
    full.store(false, Ordering::SeqCst);
    assert!(create(&store, "/c", "1").await > revision, "writes go on once there is room");
    assert_eq!(keys(&store, all("/")), ["/a", "/c"]);
}

const CHILD: &str = "PODLOG_TEST_STORE_PATH";

/// Not a test by itself: the process that the next one kills.
#[tokio::test]
async fn child_that_writes() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = Arc::new(RedbStore::open(path.as_ref(), Retention::default()).unwrap());
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0.. {
                let key = format!("/{writer}/{i}");
                create(&*store, &key, &key).await;
                println!("acknowledged {key}");
            }
        })
    });
    futures_util::future::join_all(writers).await;
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.redb");
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        acknowledged.clear();
        let _ = std::fs::remove_file(&path);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::suite::child_that_writes", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while acknowledged.len() < 200 {
            let line = lines.next().expect("the child writes for ever").unwrap();
            acknowledged.extend(line.split_once("acknowledged ").map(|(_, key)| key.to_owned()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(
            lines.map_while(Result::ok).filter_map(|l| Some(l.split_once("acknowledged ")?.1.to_owned())),
        );
        let store = RedbStore::open(&path, Retention::default()).unwrap();
        for key in &acknowledged {
            // The very last line may be cut in the pipe.
            let found = store.get(key).unwrap().is_some();
            assert!(found || Some(key) == acknowledged.last(), "{key} was acknowledged and is gone");
        }
        let mut through = 1;
        while through < store.revision() {
            let page = store.events("/", through, usize::MAX).unwrap();
            assert!(page.through > through, "no page goes beyond {through}");
            through = page.through;
        }
        assert_eq!(through, store.revision());
    }
}
