//! Values made of files, made again when the files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// How often the files are looked at, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one version of a file from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

type Load<T, E> = Box<dyn Fn() -> Result<T, E> + Send + Sync>;

/// A value made of `paths`. While the files are wrong, e.g. half replaced, the last good value stays.
pub struct Reloading<T, E> {
    paths: Vec<PathBuf>,
    load: Load<T, E>,
    current: ArcSwap<T>,
    watch: Mutex<Watch>,
    interval: Duration,
}

struct Watch {
    checked: Instant,
    loaded: Vec<Option<Stamp>>,
    /// Version of the files that was found wrong, so that it is reported once.
    refused: Option<Vec<Option<Stamp>>>,
}

impl<T, E: std::error::Error> Reloading<T, E> {
    /// Loads the value for the first time.
    ///
    /// # Errors
    /// What `load` returns.
    pub fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Stamped before reading: a change in between is then seen as one.
        let loaded = stamps(&paths);
        let current = ArcSwap::from_pointee(load()?);
        let watch = Mutex::new(Watch { checked: Instant::now(), loaded, refused: None });
        Ok(Reloading { paths, load: Box::new(load), current, watch, interval: CHECK_INTERVAL })
    }

    /// The value as of the files' current content, at most a second old.
    pub fn current(&self) -> Arc<T> {
        // Whoever finds the lock taken uses what there is: somebody else is looking right now.
        if let Some(mut watch) = self.watch.try_lock()
            && watch.checked.elapsed() >= self.interval
        {
            self.refresh(&mut watch);
        }
        self.current.load_full()
    }

    fn refresh(&self, watch: &mut Watch) {
        watch.checked = Instant::now();
        let found = stamps(&self.paths);
        if found == watch.loaded {
            return;
        }
        match (self.load)() {
            Ok(value) => {
                tracing::info!(files = ?self.paths, "files changed, loaded them again");
                self.current.store(Arc::new(value));
                watch.loaded = found;
            }
            Err(error) if watch.refused.as_ref() != Some(&found) => {
                tracing::warn!(files = ?self.paths, %error, "files changed and cannot be used, keeping what was loaded before");
                watch.refused = Some(found);
            }
            Err(_) => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn check_always(mut self) -> Self {
        self.interval = Duration::ZERO;
        self
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { inode: metadata.ino(), len: metadata.len(), modified: metadata.modified().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_file_and_survives_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let put = |text: &str| {
            let temporary = folder.path().join("new");
            std::fs::write(&temporary, text).unwrap();
            std::fs::rename(&temporary, &path).unwrap();
        };
        put("1");
        let read = path.clone();
        let load = move || std::fs::read_to_string(&read).unwrap_or_default().parse::<u32>();
        let value = Reloading::new(vec![path.clone()], load).unwrap().check_always();
        assert_eq!(*value.current(), 1);
        put("22");
        assert_eq!(*value.current(), 22);
        put("nonsense");
        assert_eq!(*value.current(), 22);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*value.current(), 22);
        put("3");
        assert_eq!(*value.current(), 3);
    }
}
