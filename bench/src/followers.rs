//! Many followers in one process: memory and inotify instances.

use std::sync::Arc;

use podlog_driver::{CriFileSink, FileLimits, LogReader, LogSource, LogWatcher, ReadState};
use podlog_line::{Selection, Stream, Timestamp};

use crate::{
    Options,
    report::{Row, Target},
    usage,
};

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let count: usize = options.size(10_000, 100);
    let directory = options.directory()?;
    let path = directory.path().join("0.log");
    let mut sink = CriFileSink::open(&path, FileLimits::default())?;
    let at = Timestamp::from_seconds(1_767_225_600, 0);
    sink.write(Stream::Stdout, b"a line\n", at)?;
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new()?;
    let watcher = Arc::new(LogWatcher::new()?);
    let before = usage::memory(std::process::id())?.resident;
    let (done, mut all_done) = tokio::sync::mpsc::channel(count);
    let mut tasks = Vec::new();
    for _ in 0..count {
        let reader = LogSource::open(&path)?.read(&Selection { follow: true, ..Selection::default() })?;
        let (changes, done) = (watcher.watch(&path), done.clone());
        tasks.push(runtime.spawn(follow(reader, changes, done)));
    }
    let wait = |all_done: &mut tokio::sync::mpsc::Receiver<()>| {
        runtime.block_on(async {
            for _ in 0..count {
                all_done.recv().await;
            }
        });
    };
    wait(&mut all_done);
    let first = usage::memory(std::process::id())?.resident;
    let cpu = usage::process_time(std::process::id())?;
    sink.write(Stream::Stdout, b"another line\n", at)?;
    wait(&mut all_done);
    let cpu = usage::process_time(std::process::id())?.saturating_sub(cpu);
    let instances = inotify_instances(std::process::id());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let each = |value: f64| value / count as f64;
    Ok(vec![
        Row::new("followers", format!("{count} followers, memory of each"), each(first - before), "KiB")
            .target(Target::AtMost(20.0)),
        Row::new("followers", format!("{count} followers, inotify instances"), instances as f64, "")
            .target(Target::AtMost(1.0)),
        Row::new("followers", "one line to each of them", each(cpu.as_secs_f64() * 1e6), "CPU-µs"),
    ])
}

/// Says when it has caught up after each output.
async fn follow(
    mut reader: LogReader,
    mut changes: podlog_driver::LogChanges,
    done: tokio::sync::mpsc::Sender<()>,
) {
    loop {
        let mut out = Vec::new();
        while let Ok(ReadState::More) = reader.read_chunk(&mut out) {}
        if !out.is_empty() && done.send(()).await.is_err() {
            return;
        }
        drop(out);
        changes.changed().await;
    }
}

/// A follower holds its file open.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Then opening fails, and says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

pub(crate) fn inotify_instances(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:inotify").count()
}
