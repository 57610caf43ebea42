//! Compressing rotated files and deleting the oldest, beside the writer.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    attributes,
    generations::{LogPath, RotatedFile},
};

const BLOCK: usize = 64 * 1024;

/// Compresses all rotated files but the newest, one at a time, on a thread that ends when there is no more to do.
#[derive(Debug)]
pub(super) struct Compressor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: LogPath,
    stop: AtomicBool,
    /// Held while files change their names or go away, so that nothing deleted comes back compressed.
    names: std::sync::Mutex<()>,
}

impl Compressor {
    pub(super) fn new(path: LogPath) -> Compressor {
        let shared = Shared { path, stop: AtomicBool::new(false), names: std::sync::Mutex::new(()) };
        Compressor { shared: Arc::new(shared), thread: None }
    }

    /// Begins to compress unless that is under way; then what is new is found when it has finished, or at the next
    /// rotation.
    pub(super) fn start(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) || !self.shared.has_work() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new().name("log-compressor".to_owned()).spawn(move || shared.run());
        self.thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "rotated logs stay uncompressed for now");
                None
            }
        };
    }

    /// Deletes the oldest files so that, with the current one, no more than `max_files` are left.
    pub(super) fn retain(&self, max_files: u32) {
        let _names = self.shared.lock();
        let Ok(listing) = self.shared.path.list() else { return };
        let mut ages: Vec<&str> = listing.rotated.iter().map(|file| file.age.as_str()).collect();
        ages.dedup();
        let surplus = ages.len().saturating_sub(max_files.saturating_sub(1) as usize);
        let too_old = &ages[..surplus];
        for file in listing.rotated.iter().filter(|file| too_old.contains(&file.age.as_str())) {
            remove(&file.path);
        }
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported; what it left is removed when the log is opened again.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn has_work(&self) -> bool {
        !self.work().is_empty()
    }

    /// The files that are to be compressed, oldest first: followers may be in the newest.
    fn work(&self) -> Vec<RotatedFile> {
        let mut plain = self.path.list().unwrap_or_default().rotated;
        plain.retain(|file| !file.compressed);
        plain.pop();
        plain
    }

    fn run(&self) {
        loop {
            let work = self.work();
            if work.is_empty() {
                return;
            }
            for file in work {
                match self.compress(&file) {
                    Ok(()) => {}
                    // Deleted for its age.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        tracing::warn!(%error, path = %file.path.display(), "a rotated log stays uncompressed");
                        return;
                    }
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    fn compress(&self, file: &RotatedFile) -> io::Result<()> {
        let temporary = file.temporary_path();
        let result = self.write_compressed(file).and_then(|finished| {
            if !finished {
                return fs::remove_file(&temporary);
            }
            let _names = self.lock();
            fs::metadata(&file.path)?;
            fs::rename(&temporary, file.compressed_path())?;
            fs::remove_file(&file.path)
        });
        if result.is_err() {
            remove(&temporary);
        }
        result
    }

    /// Whether it was finished, and not stopped.
    fn write_compressed(&self, file: &RotatedFile) -> io::Result<bool> {
        let mut source = File::open(&file.path)?;
        let metadata = source.metadata()?;
        let target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(metadata.permissions().mode())
            .open(file.temporary_path())?;
        target.set_permissions(metadata.permissions())?;
        let mut encoder = GzEncoder::new(target, Compression::fast());
        let mut block = vec![0; BLOCK];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match source.read(&mut block)? {
                0 => break,
                count => encoder.write_all(&block[..count])?,
            }
        }
        let target = encoder.finish()?;
        attributes::copy(&source, &target);
        target.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        target.sync_all()?;
        Ok(true)
    }
}

fn remove(path: &std::path::Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a file could not be removed");
    }
}
