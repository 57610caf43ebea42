//! Rotation of a log that somebody else writes: a container runtime, which is told afterwards to open its file anew.
//!
//! There is a current file at every moment, and a crash between any two steps leaves a log that is read completely: until
//! the writer goes on in the new file, it writes to the old one under its new name.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use podlog_line::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use super::{FileLimits, compress::Compressor, rotate::name_by_age, start::clean_up};
use crate::{attributes, generations::LogPath};

/// How long is waited for the writer to leave a file that it was told to leave. It takes milliseconds.
const LEAVING: Duration = Duration::from_secs(2);
/// Where leaving cannot be watched, a file that has not grown for so long has been left.
const QUIET: Duration = Duration::from_millis(50);

/// Rotates one log.
#[derive(Debug)]
pub struct LogRotator {
    path: LogPath,
    retention: LogRetention,
    /// The file that was rotated last, until its writer has left it.
    leaving: Option<Leaving>,
}

impl LogRotator {
    /// Takes up the log whose current file is at `path`, and clears away what was interrupted.
    ///
    /// # Errors
    /// When its directory cannot be read or changed.
    pub fn open(path: impl Into<PathBuf>, limits: FileLimits) -> io::Result<LogRotator> {
        let path = LogPath::new(&path.into());
        clean_up(&path)?;
        let mut compressor = Compressor::new(path.clone(), limits);
        compressor.rotated();
        let retention =
            LogRetention { path: path.clone(), limits, compressor: Arc::new(Mutex::new(compressor)) };
        Ok(LogRotator { path, retention, leaving: None })
    }

    /// What takes care of the files that were rotated away.
    pub fn retention(&self) -> LogRetention {
        self.retention.clone()
    }

    /// Bytes in the current file; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be asked.
    pub fn size(&self) -> io::Result<Option<u64>> {
        match fs::metadata(self.path.current()) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the writer may still be in a file that was rotated away: nothing is in the current one.
    pub fn may_be_unfinished(&self) -> bool {
        let is_empty = matches!(self.size(), Ok(Some(0)));
        is_empty && self.path.list().is_ok_and(|listing| !listing.rotated.is_empty())
    }

    /// Names the current file by its age and puts an empty one in its place, with the same mode. The writer is to be told.
    ///
    /// Until [`wait_until_left`](Self::wait_until_left) or [`undo`](Self::undo), followers stay in the file: the writer may append to it, and
    /// may have records in both at the same time (containerd closes a file after it has begun the next one).
    ///
    /// # Errors
    /// When files cannot be made or renamed; the log is then as it was.
    pub fn rotate(&mut self, at: Timestamp) -> io::Result<()> {
        // It takes its mark along, before the file may get another.
        self.leaving = None;
        let leaving = Leaving::begin(&self.path.current())?;
        self.put_another(&leaving.file, at).inspect_err(|_| {
            let _ = fs::remove_file(self.path.prepared());
        })?;
        attributes::mark_rotated(&leaving.file);
        self.leaving = Some(leaving);
        Ok(())
    }

    /// Puts an empty file in the place of `current`, which gets a name of its own.
    fn put_another(&self, current: &File, at: Timestamp) -> io::Result<()> {
        let (prepared, mode) = (self.path.prepared(), current.metadata()?.permissions().mode() & 0o777);
        let _ = fs::remove_file(&prepared);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&prepared)?;
        let _ = attributes::writer(current).map(|writer| attributes::mark_writer(&file, &writer));
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        name_by_age(&self.path, at)?;
        fs::rename(&prepared, self.path.current())
    }

    /// The writer refuses to go on in the new file: the newest file that was rotated away takes its place back, if nothing
    /// was written to it.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub fn undo(&mut self) -> io::Result<()> {
        if let Some(leaving) = self.leaving.take() {
            attributes::clear_rotated(&leaving.file);
        }
        let newest = self.path.list()?.rotated.pop().filter(|file| !file.compressed);
        match newest {
            Some(file) if self.size()? == Some(0) => fs::rename(file.path, self.path.current()),
            _ => Ok(()),
        }
    }

    /// The writer goes on in the new file: waits until it has left the old one.
    pub fn wait_until_left(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            leaving.wait(LEAVING);
        }
    }

    /// As [`wait_until_left`](Self::wait_until_left), and then [`LogRetention::apply`].
    pub fn settle(&mut self) {
        self.wait_until_left();
        self.retention.apply();
    }
}

/// Deletes the oldest files of a log that somebody else writes, and compresses those between. It is in nobody's way: a rotation
/// need not wait for it.
#[derive(Debug, Clone)]
pub struct LogRetention {
    path: LogPath,
    limits: FileLimits,
    compressor: Arc<Mutex<Compressor>>,
}

impl LogRetention {
    /// After a rotation: deletes the oldest so that no more than [`FileLimits::max_files`] are left of all instances of the container,
    /// whose logs are `<number>.log` in the same directory, and begins to compress older ones.
    pub fn apply(&self) {
        let mut compressor = self.compressor.lock().unwrap_or_else(PoisonError::into_inner);
        let others = other_instances(&self.path);
        let current_files = others.iter().filter(|log| log.current().exists()).count();
        let allowed = usize::try_from(self.limits.max_files).unwrap_or(usize::MAX);
        let rotated = allowed.saturating_sub(current_files + 1);
        let logs: Vec<LogPath> = std::iter::once(self.path.clone()).chain(others).collect();
        retain_rotated(&logs, rotated);
        compressor.rotated();
    }
}

/// A file that its writer is to leave, and says so to its readers as long as this lives.
#[derive(Debug)]
struct Leaving {
    file: File,
    /// Tells when somebody who could write to the file closes it.
    inotify: Option<OwnedFd>,
}

impl Leaving {
    fn begin(path: &Path) -> io::Result<Leaving> {
        let file = File::open(path)?;
        attributes::mark_leaving(&file);
        // Without, the file's size is watched.
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        let inotify = inotify
            .filter(|fd| inotify::add_watch(fd, path, WatchFlags::CLOSE_WRITE | WatchFlags::ONESHOT).is_ok());
        Ok(Leaving { file, inotify })
    }

    /// Waits until the writer has closed the file, but not for longer than `limit`.
    fn wait(self, limit: Duration) {
        let Some(inotify) = &self.inotify else { return self.wait_for_quiet(limit) };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { return };
            match poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }

    fn wait_for_quiet(&self, limit: Duration) {
        let (deadline, mut length) = (Instant::now() + limit, u64::MAX);
        while let Ok(metadata) = self.file.metadata()
            && metadata.len() != length
            && Instant::now() < deadline
        {
            length = metadata.len();
            thread::sleep(QUIET);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        attributes::clear_leaving(&self.file);
    }
}

/// The logs of the container's other instances, newest first.
fn other_instances(own: &LogPath) -> Vec<LogPath> {
    let number = |name: &str| name.split_once(".log").and_then(|(number, _)| number.parse::<u32>().ok());
    let entries = fs::read_dir(own.directory()).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    let paths =
        numbers.into_iter().map(|number| LogPath::new(&own.directory().join(format!("{number}.log"))));
    paths.filter(|path| path != own).collect()
}

/// Keeps so many rotated files of these logs, the newest.
fn retain_rotated(logs: &[LogPath], count: usize) {
    let rotated = logs.iter().filter_map(|log| log.list().ok());
    let newest_first = rotated.flat_map(|listing| listing.rotated.into_iter().rev());
    for file in newest_first.skip(count) {
        remove(&file.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "an old log file could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use podlog_line::Selection;

    use super::*;
    use crate::{LogSource, ReadState};

    struct Log {
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Log {
            Log { directory: tempfile::tempdir().expect("a directory") }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("1.log")
        }

        fn append(&self, text: &str) -> File {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path());
            let mut file = file.expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            file
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path()).expect("a directory");
            let mut names: Vec<_> = entries
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.directory.path().join(name)).expect("a file")
        }
    }

    fn limits(max_files: u32) -> FileLimits {
        FileLimits { max_files, ..FileLimits::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_seconds(1_767_225_600 + second, 0)
    }

    #[test]
    fn the_writer_goes_on_in_the_old_file_until_it_is_told() {
        let log = Log::new();
        let mut writer = log.append("a\n");
        let mut rotator = LogRotator::open(log.path(), limits(5)).expect("a log");
        rotator.rotate(at(0)).expect("rotated");
        writer.write_all(b"b\n").expect("written");
        assert_eq!(log.names(), ["1.log", "1.log.20260101-000000"]);
        assert_eq!((log.read("1.log"), log.read("1.log.20260101-000000")), (String::new(), "a\nb\n".into()));
        assert!(rotator.may_be_unfinished());
        let mode = fs::metadata(log.path()).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        log.append("c\n");
        assert!(!rotator.may_be_unfinished());
    }

    /// As containerd does it: the end of a line that was begun in the old file comes into the new one first.
    #[test]
    fn followers_stay_until_the_writer_has_left() {
        let record = |text: &str| format!("2026-01-01T00:00:00Z stdout {text}\n");
        let log = Log::new();
        let mut old = log.append(&record("F 1"));
        let mut rotator = LogRotator::open(log.path(), limits(5)).expect("a log");
        let selection = Selection { follow: true, ..Selection::default() };
        let mut reader = LogSource::open(log.path()).expect("a log").read(&selection).expect("a reader");
        let mut read = move || {
            let mut out = Vec::new();
            while reader.read_chunk(&mut out).expect("readable") == ReadState::More {}
            String::from_utf8(out).expect("text")
        };
        assert_eq!(read(), "1\n");
        rotator.rotate(at(0)).expect("rotated");
        drop(log.append(&record("F rest")));
        assert_eq!(read(), "", "the writer has not left the old file");
        old.write_all(record("P be").as_bytes()).expect("written");
        assert_eq!(read(), "");
        let closing = thread::spawn(move || {
            old.write_all(record("P gun ").as_bytes()).expect("written");
            drop(old);
        });
        rotator.settle();
        closing.join().expect("closed");
        assert_eq!(read(), "begun rest\n");
    }

    #[test]
    fn a_refused_rotation_is_undone_unless_the_new_file_is_in_use() {
        let log = Log::new();
        log.append("a\n");
        let mut rotator = LogRotator::open(log.path(), limits(5)).expect("a log");
        rotator.rotate(at(0)).expect("rotated");
        rotator.undo().expect("undone");
        assert_eq!((log.names(), log.read("1.log")), (vec!["1.log".to_owned()], "a\n".into()));
        rotator.rotate(at(0)).expect("rotated");
        log.append("b\n");
        rotator.undo().expect("nothing to do");
        assert_eq!(log.names().len(), 2);
    }

    /// As on a disk that was full.
    #[test]
    fn a_rotation_after_one_that_failed_is_as_any_other() {
        let log = Log::new();
        log.append("a\n");
        let mut rotator = LogRotator::open(log.path(), limits(5)).expect("a log");
        let prepared = LogPath::new(&log.path()).prepared();
        fs::create_dir(&prepared).expect("in the way");
        rotator.rotate(at(0)).expect_err("in the way");
        let file = File::open(log.path()).expect("a file");
        assert!(!attributes::is_being_left(&file));
        fs::remove_dir(&prepared).expect("not in the way");
        for second in 1..3 {
            let file = File::open(log.path()).expect("a file");
            rotator.rotate(at(second)).expect("rotated");
            assert!(attributes::is_being_left(&file) || !attributes_are_kept(&log));
            log.append("b\n");
        }
        assert_eq!(log.names().len(), 3);
    }

    /// Whether the file system has any.
    fn attributes_are_kept(log: &Log) -> bool {
        let file = log.append("");
        attributes::mark_writer(&file, "x");
        attributes::writer(&file).is_some()
    }

    #[test]
    fn all_instances_share_the_files_that_are_allowed() {
        let check = |max_files: u32, expected: &[&str]| {
            let log = Log::new();
            for name in ["0.log", "0.log.20250101-000000.gz", "0.log.20250101-000001", "other"] {
                fs::write(log.directory.path().join(name), "x").expect("a file");
            }
            let writer = log.append("a\n");
            let mut rotator = LogRotator::open(log.path(), limits(max_files)).expect("a log");
            rotator.rotate(at(0)).expect("rotated");
            drop(writer);
            rotator.settle();
            drop(rotator);
            assert_eq!(log.names(), expected, "{max_files}");
        };
        let all = [
            "0.log",
            "0.log.20250101-000000.gz",
            "0.log.20250101-000001",
            "1.log",
            "1.log.20260101-000000",
            "other",
        ];
        check(5, &all);
        check(4, &["0.log", "0.log.20250101-000001", "1.log", "1.log.20260101-000000", "other"]);
        check(3, &["0.log", "1.log", "1.log.20260101-000000", "other"]);
        check(2, &["0.log", "1.log", "other"]);
    }

    #[test]
    fn a_crash_between_the_two_names_is_cleared_away() {
        let log = Log::new();
        log.append("a\n");
        fs::hard_link(log.path(), log.directory.path().join("1.log.20260101-000000")).expect("a link");
        fs::write(log.directory.path().join("1.log.tmp"), "").expect("a file");
        LogRotator::open(log.path(), limits(5)).expect("a log");
        assert_eq!(log.names(), ["1.log"]);
    }
}
