//! What the kernel tells of a directory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// Files that grow all the time are looked at so often.
const PACE: Duration = Duration::from_millis(3);
const BUFFER: usize = 16 * 1024;

/// Events of one directory, as far as they concern names that begin with one.
pub(super) struct Events {
    inotify: OwnedFd,
    name: String,
}

/// What has become of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A file was made under it, or came from another directory.
    Made(String),
    /// The file has another name.
    Renamed(String, String),
    /// The file was deleted, or went to another directory.
    Gone(String),
}

/// What has happened, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) changes: Vec<Change>,
    /// There was more than the kernel keeps.
    pub(super) has_lost: bool,
}

impl Events {
    /// Of the file `name` in that directory, and of those whose names begin so.
    pub(super) fn of(directory: &OwnedFd, name: &str) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, format!("/proc/self/fd/{}", directory.as_raw_fd()), flags)?;
        Ok(Events { inotify, name: name.to_owned() })
    }

    /// What has happened since the last time.
    pub(super) fn take(&mut self) -> Heard {
        let mut heard = Heard::default();
        // The first half of a renaming, and its cookie.
        let mut moved: Option<(u32, String)> = None;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let flags = event.events();
            heard.has_lost |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
            let from = moved.take_if(|(cookie, _)| *cookie == event.cookie()).map(|(_, name)| name);
            // The halves of a renaming follow one another.
            heard.changes.extend(moved.take().map(|(_, name)| Change::Gone(name)));
            if flags.contains(ReadFlags::CREATE) {
                heard.changes.push(Change::Made(name));
            } else if flags.contains(ReadFlags::MOVED_FROM) {
                moved = Some((event.cookie(), name));
            } else if flags.contains(ReadFlags::MOVED_TO) {
                heard.changes.push(match from {
                    Some(from) => Change::Renamed(from, name),
                    None => Change::Made(name),
                });
            } else if flags.contains(ReadFlags::DELETE) {
                heard.changes.push(Change::Gone(name));
            }
        }
        heard.changes.extend(moved.map(|(_, name)| Change::Gone(name)));
        heard.changes.retain(|change| match change {
            Change::Made(name) | Change::Gone(name) => name.starts_with(&self.name),
            Change::Renamed(from, to) => from.starts_with(&self.name) || to.starts_with(&self.name),
        });
        heard
    }

    /// Waits until something happens, for so long at most.
    pub(super) fn wait(&mut self, most: Duration) {
        std::thread::sleep(PACE);
        let timeout = Timespec::try_from(most.saturating_sub(PACE)).ok();
        // Whatever becomes of it, the next look shows what there is.
        let _ = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], timeout.as_ref());
    }
}
