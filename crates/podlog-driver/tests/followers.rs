//! Many followers of several logs, woken by hints, while the logs are rotated.

use std::{fs, path::Path, sync::Arc};

use podlog_driver::{CriFileSink, FileLimits, LogChanges, LogReader, LogSource, LogWatcher, ReadState};
use podlog_line::{Selection, Stream, Timestamp};

const LOGS: usize = 4;
const FOLLOWERS: usize = 10;
const LINES: usize = 3000;

/// Reads until the last line has come.
async fn follow(mut reader: LogReader, mut changes: LogChanges) -> String {
    let mut out = Vec::new();
    let last = format!("{}\n", LINES - 1);
    loop {
        while reader.read_chunk(&mut out).expect("a log") == ReadState::More {}
        if out.ends_with(last.as_bytes()) {
            return String::from_utf8(out).expect("text");
        }
        changes.changed().await;
    }
}

fn write(path: &Path) {
    let mut sink =
        CriFileSink::open(path, FileLimits { max_bytes: 3000, max_files: 10_000 }).expect("a sink");
    for number in 0..LINES {
        let at = Timestamp::from_seconds(1_767_225_600 + number as i64, 0);
        sink.write(Stream::Stdout, format!("{number}\n").as_bytes(), at).expect("room");
    }
}

/// How many inotify instances this process has.
fn inotify_instances() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").expect("Linux");
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:inotify").count()
}

#[tokio::test]
async fn followers_share_one_watcher_and_miss_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let watcher = Arc::new(LogWatcher::new().expect("inotify"));
    let (mut followers, mut writers) = (Vec::new(), Vec::new());
    for log in 0..LOGS {
        let path = directory.path().join(format!("{log}/0.log"));
        drop(CriFileSink::open(&path, FileLimits::default()).expect("a sink"));
        for _ in 0..FOLLOWERS {
            let source = LogSource::open(&path).expect("a log");
            let reader = source.read(&Selection { follow: true, ..Selection::default() }).expect("a log");
            followers.push(tokio::spawn(follow(reader, watcher.watch(&path))));
        }
        writers.push(std::thread::spawn(move || write(&path)));
    }
    assert_eq!(inotify_instances(), 1);
    let expected: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    for follower in followers {
        assert!(follower.await.expect("no panic") == expected);
    }
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    drop(watcher);
    assert_eq!(inotify_instances(), 0, "nobody follows any more");
}
