//! Compressing rotated files and deleting the oldest, beside the writer.
//!
//! A log never takes more room than its files may have ([`FileLimits`]): what is being compressed is there twice until it is
//! done, so it is only begun when the writer has been slow for as long as it takes, and the writer gives it up as soon as
//! it needs the room itself.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};

use super::{FileLimits, crash};
use crate::{
    attributes,
    generations::{LogPath, RotatedFile},
};

const BLOCK: usize = 64 * 1024;
/// What a core compresses in a second, on a slow machine. A writer that fills files faster than that is left alone.
const BYTES_PER_SECOND: u64 = 50_000_000;
/// After a failure, such as a full disk, it is tried again after so long, and after twice as long each time that fails again,
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// up to this.
const MAX_RETRY: Duration = Duration::from_secs(300);
/// Everything else goes first.
const LOWEST_PRIORITY: i32 = 19;

/// One compression at a time in a process, however many logs it writes.
static TURN: Mutex<()> = Mutex::new(());

/// Compresses all rotated files but the newest, one at a time, on a thread that ends when there is no more to do.
#[derive(Debug)]
pub(super) struct Compressor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: LogPath,
    limits: FileLimits,
    state: Mutex<State>,
    /// Wakes the thread when it is to stop, or when the log was rotated.
    wake: Condvar,
    /// Bytes of rotated files,
    rotated_bytes: AtomicU64,
    /// and of what is being made of one of them.
    target_bytes: AtomicU64,
    /// Bytes of the current file. Writer and compressor each count first and look at the other's count then, so that one of
    /// them sees that both together are too much.
    current_bytes: AtomicU64,
}

/// Held while files change their names or go away, so that nothing deleted comes back compressed.
#[derive(Debug, Default)]
struct State {
    /// The writer ends.
    stop: bool,
    /// How often the log was rotated.
    rotations: u64,
    thread: Thread,
    target: Option<Target>,
}

/// Whether the thread sees what is new.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    Works,
    #[default]
    Over,
}

/// A compressed file that is being made.
#[derive(Debug)]
struct Target {
    file: Arc<File>,
    path: PathBuf,
}

impl Compressor {
    pub(super) fn new(path: LogPath, limits: FileLimits) -> Compressor {
        let shared = Shared {
            path,
            limits,
            state: Mutex::default(),
            wake: Condvar::new(),
            rotated_bytes: AtomicU64::new(0),
            target_bytes: AtomicU64::new(0),
            current_bytes: AtomicU64::new(0),
        };
        Compressor { shared: Arc::new(shared), thread: None }
    }

    /// There is a new rotated file, perhaps: deletes the oldest so that, with the current one, no more than
    /// [`FileLimits::max_files`] are left, and begins to compress unless that is under way.
    pub(super) fn rotated(&mut self) {
        if self.shared.retain() == Thread::Works || self.shared.work().is_empty() {
            return;
        }
        self.shared.lock().thread = Thread::Works;
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().name("log-compressor".to_owned()).spawn(move || shared.run());
        self.thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "rotated logs stay uncompressed for now");
                self.shared.lock().thread = Thread::Over;
                None
            }
        };
    }

    /// The current file is about to have so many bytes: gives up what is being compressed if there is no room for both.
    #[inline]
    pub(super) fn make_room(&self, length: u64) {
        self.shared.current_bytes.store(length, Ordering::SeqCst);
        if self.shared.target_bytes.load(Ordering::SeqCst) > 0 && !self.shared.has_room() {
            self.shared.give_up();
        }
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported; what it left is removed when the log is opened again.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all files are within what the log may take, and no more than a twentieth above it.
    fn has_room(&self) -> bool {
        let limit = self.limits.max_bytes.saturating_mul(u64::from(self.limits.max_files.max(1)));
        let limit = limit.saturating_add(limit / 20);
        let [rotated, target, current] = [&self.rotated_bytes, &self.target_bytes, &self.current_bytes]
            .map(|bytes| bytes.load(Ordering::SeqCst));
        rotated.saturating_add(target).saturating_add(current) <= limit
    }

    fn retain(&self) -> Thread {
        let mut state = self.lock();
        state.rotations += 1;
        self.wake.notify_all();
        let Ok(listing) = self.path.list() else { return state.thread };
        let mut ages: Vec<&str> = listing.rotated.iter().map(|file| file.age.as_str()).collect();
        ages.dedup();
        let surplus = ages.len().saturating_sub(self.limits.max_files.saturating_sub(1) as usize);
        let too_old = &ages[..surplus];
        let mut bytes = 0;
        for file in &listing.rotated {
            if too_old.contains(&file.age.as_str()) {
                remove(&file.path);
                if state.target.as_ref().is_some_and(|target| target.path == file.temporary_path()) {
                    self.discard(state.target.take());
                }
            } else {
                bytes += fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
            }
        }
        self.rotated_bytes.store(bytes, Ordering::SeqCst);
        state.thread
    }

    fn give_up(&self) {
        self.discard(self.lock().target.take());
    }

    fn discard(&self, target: Option<Target>) {
        let Some(target) = target else { return };
        remove(&target.path);
        // The thread may still have it open for a while.
        let _ = target.file.set_len(0);
        self.target_bytes.store(0, Ordering::SeqCst);
    }

    /// The files that are to be compressed, oldest first: followers may be in the newest.
    fn work(&self) -> Vec<RotatedFile> {
        let mut plain = self.path.list().unwrap_or_default().rotated;
        plain.retain(|file| !file.compressed);
        plain.pop();
        plain
    }

    fn run(&self) {
        // Of this thread alone, on Linux. It is a courtesy.
        let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        let mut delay = FIRST_RETRY;
        loop {
            let rotations = self.lock().rotations;
            match self.compress_next() {
                Next::Again => delay = FIRST_RETRY,
                Next::Stop => return,
                Next::Retry => {
                    self.pause(delay, rotations);
                    delay = (delay * 2).min(MAX_RETRY);
                }
                Next::Rest => {
                    let mut state = self.lock();
                    if state.rotations == rotations {
                        state.thread = Thread::Over;
                        return;
                    }
                }
            }
        }
    }

    fn compress_next(&self) -> Next {
        let Some(file) = self.work().into_iter().next() else { return Next::Rest };
        if self.wait_for_a_lull(&file) == Lull::Stop {
            return Next::Stop;
        }
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        match self.compress(&file) {
            Ok(Progress::Done) => Next::Again,
            Ok(Progress::Stopped) => Next::Stop,
            Ok(Progress::GivenUp) => Next::Rest,
            // Deleted for its age.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Next::Again,
            Err(error) => {
                tracing::warn!(%error, path = %file.path.display(), "a rotated log stays uncompressed for now");
                Next::Retry
            }
        }
    }

    /// Waits for so long, or until the writer ends or rotates, which may have made room.
    fn pause(&self, delay: Duration, rotations: u64) {
        let is_same = |state: &mut State| !state.stop && state.rotations == rotations;
        drop(self.wake.wait_timeout_while(self.lock(), delay, is_same));
    }

    /// Waits until the writer has not rotated for as long as it takes to compress a file.
    fn wait_for_a_lull(&self, file: &RotatedFile) -> Lull {
        let bytes = fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        let patience = Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / BYTES_PER_SECOND));
        let mut state = self.lock();
        loop {
            let rotations = state.rotations;
            let waited = self.wake.wait_timeout_while(state, patience, |state| !state.stop);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.stop {
                return Lull::Stop;
            }
            if state.rotations == rotations {
                return Lull::Now;
            }
        }
    }

    fn compress(&self, file: &RotatedFile) -> io::Result<Progress> {
        let result = self.write_compressed(file);
        let mut state = self.lock();
        let target = state.target.take();
        let made = self.target_bytes.swap(0, Ordering::SeqCst);
        let result = match (result, target) {
            (Ok(Progress::Done), Some(target)) => self.put_in_place(file, &target.path, made),
            // It has been discarded.
            (Ok(_), None) => Ok(Progress::GivenUp),
            (Err(error), None) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(Progress::GivenUp),
            (result, _) => result,
        };
        if !matches!(result, Ok(Progress::Done)) {
            remove(&file.temporary_path());
        }
        result
    }

    fn put_in_place(&self, file: &RotatedFile, temporary: &Path, made: u64) -> io::Result<Progress> {
        let plain = fs::metadata(&file.path)?.len();
        crash::step()?;
        fs::rename(temporary, file.compressed_path())?;
        crash::step()?;
        fs::remove_file(&file.path)?;
        let bytes = self.rotated_bytes.load(Ordering::SeqCst);
        self.rotated_bytes.store((bytes + made).saturating_sub(plain), Ordering::SeqCst);
        Ok(Progress::Done)
    }

    fn write_compressed(&self, file: &RotatedFile) -> io::Result<Progress> {
        let mut source = File::open(&file.path)?;
        let metadata = source.metadata()?;
        let path = file.temporary_path();
        crash::step()?;
        let target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(metadata.permissions().mode())
            .open(&path)?;
        target.set_permissions(metadata.permissions())?;
        let target = Arc::new(target);
        self.lock().target = Some(Target { file: Arc::clone(&target), path });
        let mut encoder = GzEncoder::new(Output { shared: self, target: &target }, Compression::fast());
        let mut block = vec![0; BLOCK];
        loop {
            if let Some(end) = self.reason_to_end() {
                return Ok(end);
            }
            match source.read(&mut block)? {
                0 => break,
                count => encoder.write_all(&block[..count])?,
            }
        }
        crash::step()?;
        encoder.finish()?;
        crash::step()?;
        attributes::copy(&source, &target);
        target.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        target.sync_all()?;
        Ok(Progress::Done)
    }

    fn reason_to_end(&self) -> Option<Progress> {
        let state = self.lock();
        if state.stop {
            Some(Progress::Stopped)
        } else if state.target.is_none() {
            Some(Progress::GivenUp)
        } else {
            None
        }
    }
}

/// Whether it is time to compress.
#[derive(Debug, PartialEq, Eq)]
enum Lull {
    Now,
    Stop,
}

/// What the thread does next.
enum Next {
    Again,
    /// Nothing, before the next rotation.
    Rest,
    /// The same after a while.
    Retry,
    Stop,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// The writer needed the room.
    GivenUp,
    /// The writer ends.
    Stopped,
}

/// The compressed file, and how much is in it.
struct Output<'a> {
    shared: &'a Shared,
    target: &'a File,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shared.target_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        if !self.shared.has_room() {
            self.shared.give_up();
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut target = self.target;
        target.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a file could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with a compressible file at each of three ages.
    fn log() -> (tempfile::TempDir, LogPath) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = LogPath::new(&directory.path().join("0.log"));
        for name in ["0.log.20260101-000000", "0.log.20260101-000001", "0.log"] {
            let content = format!("2026-01-01T00:00:00Z stdout F {name}\n").repeat(5000);
            fs::write(directory.path().join(name), content).expect("a file");
        }
        (directory, path)
    }

    fn content(path: &LogPath) -> Vec<u8> {
        let mut content = Vec::new();
        for file in path.list().expect("a listing").rotated {
            let plain = File::open(&file.path).expect("a file");
            let mut reader: Box<dyn Read> = if file.compressed {
                Box::new(flate2::read::MultiGzDecoder::new(plain))
            } else {
                Box::new(plain)
            };
            reader.read_to_end(&mut content).expect("a whole file");
        }
        content
    }

    #[test]
    fn a_compression_that_is_killed_at_any_step_leaves_everything_once() {
        for step in 0.. {
            let (_directory, path) = log();
            let expected = content(&path);
            let compressor = Compressor::new(path.clone(), FileLimits::default());
            let was_killed = crash::kill_at(step, || {
                let file = compressor.shared.work().remove(0);
                assert_eq!(compressor.shared.compress(&file).expect("room"), Progress::Done);
            });
            drop(compressor);
            super::super::start::open(&path).expect("a log");
            assert!(content(&path) == expected, "killed at step {step}");
            assert_eq!(path.list().expect("a listing").temporary.len(), 0);
            if !was_killed {
                assert!(step > 4 && path.list().expect("a listing").rotated[0].compressed);
                break;
            }
        }
    }

    #[test]
    fn what_is_compressed_is_given_up_when_there_is_no_room_for_it() {
        let (_directory, path) = log();
        let expected = content(&path);
        let tight = FileLimits { max_bytes: expected.len() as u64 / 2, max_files: 3 };
        let compressor = Compressor::new(path.clone(), tight);
        compressor.shared.retain();
        let file = compressor.shared.work().remove(0);
        compressor.make_room(tight.max_bytes + tight.max_bytes / 6);
        assert_eq!(compressor.shared.compress(&file).expect("a discarded file"), Progress::GivenUp);
        assert!(content(&path) == expected && path.list().expect("a listing").temporary.is_empty());
        compressor.make_room(0);
        assert_eq!(compressor.shared.compress(&file).expect("room"), Progress::Done);
        assert!(content(&path) == expected && path.list().expect("a listing").rotated[0].compressed);
    }
}
