//! Hints that a log has changed.

use std::path::PathBuf;
use std::time::Duration;

use podlog_driver::{LogChanges, LogWatcher};
use tokio::time::sleep;

/// How often a follower looks that gets no hints.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two looks at a log that grows all the time: what came meanwhile goes out together.
pub(super) const PACE: Duration = Duration::from_millis(3);

/// What is written reaches a follower that has caught up within this time, as far as that is up to us.
const PROMPT: Duration = Duration::from_millis(5);
const _: () = assert!(PACE.as_micros() + LogWatcher::LONGEST_DELAY.as_micros() < PROMPT.as_micros());

/// A log that can be watched.
#[derive(Clone)]
pub(super) struct Watching {
    pub(super) watcher: Option<LogWatcher>,
    pub(super) watched: Watched,
}

/// What changes when there is more of a log.
#[derive(Clone)]
pub(super) enum Watched {
    /// Its current file, and those that take its place.
    File(PathBuf),
    /// Anything in a directory.
    Directory(PathBuf),
}

impl Watching {
    /// Hints from now on: whoever asks for them looks once afterwards.
    pub(super) fn hints(&self) -> Hints {
        let watched = self.watcher.as_ref().map(|watcher| match &self.watched {
            Watched::File(path) => watcher.watch(path),
            Watched::Directory(directory) => watcher.watch_directory(directory),
        });
        watched.map_or(Hints::Timer, Hints::Watched)
    }
}

/// Hints for one follower, or for a group of them.
pub(super) enum Hints {
    Watched(LogChanges),
    /// The system has no watch left: look every now and then.
    Timer,
}

impl Hints {
    pub(super) async fn changed(&mut self) {
        match self {
            Hints::Watched(changes) => changes.changed().await,
            Hints::Timer => sleep(LOOK).await,
        }
    }
}
