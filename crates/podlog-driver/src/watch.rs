//! Hints that a log may have changed: one inotify instance and one thread for all followers.
//!
//! A hint can come without a change and, when the kernel's queue overflows or a directory cannot be watched, a change
//! without a hint. Followers therefore look for themselves, after a second at the latest. A directory that could not be
//! watched, was moved away or deleted, is tried again whenever a follower looks for itself.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::sync::Notify;

/// A follower looks after this time without a hint.
const TIMER: Duration = Duration::from_secs(1);
/// Events that come faster than this become one hint: a busy log must not keep the watching thread busy.
const PAUSE: Duration = Duration::from_millis(1);
const EVENT_BUFFER: usize = 64 * 1024;

/// Watches the directories of logs. Dropping it, its clones and all [`LogChanges`] ends its thread.
#[derive(Debug, Clone)]
pub struct LogWatcher {
    thread: Arc<WatchThread>,
}

/// The hints for one log.
#[derive(Debug)]
pub struct LogChanges {
    thread: Arc<WatchThread>,
    directory: PathBuf,
    follower: Arc<Follower>,
}

#[derive(Debug)]
struct Follower {
    /// Name of the current file; those of rotated ones begin with it.
    name: OsString,
    hint: Notify,
}

#[derive(Debug)]
struct WatchThread {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    directories: Mutex<Directories>,
}

#[derive(Debug, Default)]
struct Directories {
    by_path: HashMap<PathBuf, Directory>,
    by_watch: HashMap<i32, PathBuf>,
}

#[derive(Debug, Default)]
struct Directory {
    /// `None` when it cannot be watched.
    watch: Option<i32>,
    /// When it was tried to watch it.
    tried: Option<Instant>,
    followers: Vec<Arc<Follower>>,
}

impl LogWatcher {
    /// A change is hinted at no later than this, but for the time that the system takes to run a thread: changes that come faster
    /// become one hint.
    pub const LONGEST_DELAY: Duration = PAUSE;

    /// Fails when the system has no inotify instance or no thread left.
    pub fn new() -> io::Result<LogWatcher> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let shared = Arc::new(Shared { inotify, directories: Mutex::default() });
        let handle = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::Builder::new().name("log-watcher".to_owned()).spawn(move || shared.run(&stop))?
        };
        Ok(LogWatcher { thread: Arc::new(WatchThread { shared, stop, handle: Some(handle) }) })
    }

    /// Watches the log whose current file is at `path`, which need not exist. A directory that cannot be watched is
    /// looked at by timer alone.
    pub fn watch(&self, path: &Path) -> LogChanges {
        let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory = resolved.parent().unwrap_or(Path::new("/")).to_owned();
        self.watch_names(directory, resolved.file_name().unwrap_or(OsStr::new("")))
    }

    /// Watches everything in a directory.
    pub fn watch_directory(&self, directory: &Path) -> LogChanges {
        let resolved = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        self.watch_names(resolved, OsStr::new(""))
    }

    fn watch_names(&self, directory: PathBuf, name: &OsStr) -> LogChanges {
        let follower = Arc::new(Follower { name: name.to_owned(), hint: Notify::new() });
        self.thread.shared.add(&directory, &follower);
        LogChanges { thread: Arc::clone(&self.thread), directory, follower }
    }
}

impl LogChanges {
    /// Resolves when the log may have changed since the last call, and after a second in any case.
    pub async fn changed(&mut self) {
        // An elapsed timer is as good as a hint.
        if tokio::time::timeout(TIMER, self.follower.hint.notified()).await.is_err() {
            self.thread.shared.watch_again(&self.directory);
        }
    }
}

impl Drop for LogChanges {
    fn drop(&mut self) {
        self.thread.shared.remove(&self.directory, &self.follower);
    }
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        let woken = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let (Ok(_), Some(handle)) = (woken, self.handle.take()) {
            // A panic of that thread has been reported.
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &Path, follower: &Arc<Follower>) {
        let directories = &mut *self.lock();
        let directory = directories.by_path.entry(path.to_owned()).or_default();
        directory.followers.push(Arc::clone(follower));
        self.watch(directories, path);
    }

    /// Its followers are about to look: what changed until then is no loss.
    fn watch_again(&self, path: &Path) {
        self.watch(&mut self.lock(), path);
    }

    /// Watches a directory that is not watched, unless that was tried a moment ago.
    fn watch(&self, directories: &mut Directories, path: &Path) {
        let Some(directory) = directories.by_path.get_mut(path) else { return };
        if directory.watch.is_some() || directory.tried.is_some_and(|tried| tried.elapsed() < TIMER / 2) {
            return;
        }
        directory.tried = Some(Instant::now());
        directory.watch = self.add_watch(path);
        if let Some(watch) = directory.watch {
            directories.by_watch.insert(watch, path.to_owned());
        }
    }

    fn add_watch(&self, path: &Path) -> Option<i32> {
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "a log directory cannot be watched");
                None
            }
        }
    }

    fn remove(&self, path: &Path, follower: &Arc<Follower>) {
        let directories = &mut *self.lock();
        let Some(directory) = directories.by_path.get_mut(path) else { return };
        directory.followers.retain(|other| !Arc::ptr_eq(other, follower));
        if !directory.followers.is_empty() {
            return;
        }
        if let Some(watch) = directory.watch {
            directories.by_watch.remove(&watch);
            // It is gone already when the directory is.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
        directories.by_path.remove(path);
    }

    fn run(&self, stop: &OwnedFd) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER];
        while self.wait(stop) {
            self.read_events(&mut buffer);
            thread::sleep(PAUSE);
        }
    }

    /// False when it is time to stop.
    fn wait(&self, stop: &OwnedFd) -> bool {
        let mut descriptors = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut descriptors, None) {
            Ok(_) => descriptors[1].revents().is_empty(),
            Err(Errno::INTR) => true,
            Err(error) => {
                tracing::error!(%error, "logs are followed by timer from now on");
                false
            }
        }
    }

    fn read_events(&self, buffer: &mut [MaybeUninit<u8>]) {
        let mut events = inotify::Reader::new(&self.inotify, buffer);
        while let Ok(event) = events.next() {
            self.lock().hint(event.wd(), event.events(), event.file_name());
            if event.events().contains(ReadFlags::MOVE_SELF) {
                // What stands at the path now is another directory. The watch may have gone already.
                let _ = inotify::remove_watch(&self.inotify, event.wd());
            }
        }
    }
}

impl Directories {
    fn hint(&mut self, watch: i32, flags: ReadFlags, name: Option<&CStr>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.hint_all();
        }
        let Some(directory) = self.by_watch.get(&watch).and_then(|path| self.by_path.get_mut(path)) else {
            return;
        };
        let name = name.map_or(&b""[..], CStr::to_bytes);
        for follower in &directory.followers {
            if name.is_empty() || name.starts_with(follower.name.as_bytes()) {
                follower.hint.notify_one();
            }
        }
        if flags.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
            (directory.watch, directory.tried) = (None, None);
            self.by_watch.remove(&watch);
        }
    }

    /// Events were lost.
    fn hint_all(&self) {
        for follower in self.by_path.values().flat_map(|directory| &directory.followers) {
            follower.hint.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    /// Whether a hint comes well before the timer would.
    async fn is_hinted(changes: &LogChanges) -> bool {
        tokio::time::timeout(Duration::from_secs(20), changes.follower.hint.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn every_kind_of_change_is_hinted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let watcher = LogWatcher::new().expect("inotify");
        let changes = watcher.watch(&path);
        let other = watcher.watch(&directory.path().join("1.log"));
        type Change = fn(&Path);
        let steps: [Change; 4] = [
            |path| fs::write(path, "a").expect("a file"),
            |path| fs::write(path, "ab").expect("a file"),
            |path| fs::rename(path, path.with_extension("log.20260101-000000")).expect("a rename"),
            |path| fs::remove_file(path.with_extension("log.20260101-000000")).expect("a file"),
        ];
        for (index, step) in steps.into_iter().enumerate() {
            step(&path);
            assert!(is_hinted(&changes).await, "step {index}");
        }
        let other_hint = tokio::time::timeout(Duration::ZERO, other.follower.hint.notified()).await;
        assert!(other_hint.is_err(), "the other log has not changed");
    }

    #[tokio::test]
    async fn without_a_hint_the_timer_helps() {
        let watcher = LogWatcher::new().expect("inotify");
        let mut changes = watcher.watch(Path::new("/does/not/exist/0.log"));
        let before = std::time::Instant::now();
        changes.changed().await;
        assert!(before.elapsed() >= TIMER);
    }

    #[tokio::test]
    async fn an_overflow_is_a_hint_for_everybody() {
        let directory = tempfile::tempdir().expect("a directory");
        let watcher = LogWatcher::new().expect("inotify");
        let changes = watcher.watch(&directory.path().join("0.log"));
        watcher.thread.shared.lock().hint(-1, ReadFlags::QUEUE_OVERFLOW, None);
        assert!(is_hinted(&changes).await);
    }

    /// Nobody reads events while the lock is held, and the kernel keeps so many.
    #[tokio::test]
    async fn events_that_the_kernel_drops_are_hints_too() {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
        let limit: usize = limit.trim().parse().expect("a number");
        if limit > 1 << 20 {
            eprintln!("SKIPPED: the kernel keeps {limit} events");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let watcher = LogWatcher::new().expect("inotify");
        let quiet = watcher.watch(&directory.path().join("quiet.log"));
        let names = ["1.log", "2.log"].map(|name| directory.path().join(name));
        {
            let _held = watcher.thread.shared.lock();
            // Equal events that follow each other are one. What the thread has read meanwhile is one buffer.
            let files = names.map(|name| fs::File::create(name).expect("a file"));
            for _ in 0..limit / 2 + EVENT_BUFFER / 16 {
                for mut file in &files {
                    file.write_all(b"x").expect("a write");
                }
            }
        }
        assert!(is_hinted(&quiet).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_made_anew_is_watched_again() {
        type Removal = fn(&Path);
        let removals: [Removal; 2] = [
            |path| fs::remove_dir_all(path).expect("a directory"),
            |path| fs::rename(path, path.with_extension("old")).expect("a rename"),
        ];
        for removal in removals {
            let parent = tempfile::tempdir().expect("a directory");
            let directory = parent.path().join("pod");
            fs::create_dir(&directory).expect("a directory");
            let watcher = LogWatcher::new().expect("inotify");
            let mut changes = watcher.watch(&directory.join("0.log"));
            removal(&directory);
            assert!(is_hinted(&changes).await);
            let is_watched = |path: &Path| watcher.thread.shared.lock().by_path[path].watch.is_some();
            while is_watched(&directory) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fs::create_dir(&directory).expect("a directory");
            while !is_watched(&directory) {
                changes.changed().await;
            }
            fs::write(directory.join("0.log"), "a").expect("a file");
            assert!(is_hinted(&changes).await);
            assert_eq!(watcher.thread.shared.lock().by_watch.len(), 1);
        }
    }

    /// In a user namespace of its own, where the limit can be set.
    #[test]
    fn without_watches_the_timer_helps_until_there_are_some() {
        let script = r#"echo 1 > /proc/sys/user/max_inotify_watches && exec "$0" --ignored --exact watch::tests::one_watch_is_left"#;
        let test = std::env::current_exe().expect("a test");
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(test);
        let output = command.output().expect("unshare");
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.contains("running 1 test") {
            eprintln!("SKIPPED: no user namespace: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        assert!(output.status.success(), "{said}");
    }

    #[tokio::test]
    #[ignore = "another test runs it where only one watch may be had"]
    async fn one_watch_is_left() {
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let [first, second] = directories.each_ref().map(|directory| directory.path().join("0.log"));
        let watcher = LogWatcher::new().expect("inotify");
        let watched = watcher.watch(&first);
        let mut other = watcher.watch(&second);
        let is_watched = || watcher.thread.shared.lock().by_path[directories[1].path()].watch.is_some();
        assert!(!is_watched());
        let before = Instant::now();
        other.changed().await;
        assert!(before.elapsed() >= TIMER && !is_watched());
        drop(watched);
        other.changed().await;
        assert!(is_watched());
        fs::write(&second, "a").expect("a file");
        assert!(is_hinted(&other).await);
    }

    #[test]
    fn watches_go_with_their_last_follower() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let watcher = LogWatcher::new().expect("inotify");
        let first = watcher.watch(&path);
        let second = watcher.watch(&path);
        let shared = Arc::clone(&watcher.thread.shared);
        drop(first);
        assert_eq!(shared.lock().by_watch.len(), 1);
        drop(second);
        assert!(shared.lock().by_watch.is_empty() && shared.lock().by_path.is_empty());
    }
}
