//! The files that stand at a path one after another.
//!
//! The kernel tells what is made and renamed in the directory, in order: so it is known which file is the how-manieth, under whatever
//! name it is found, and which are gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::events::{Change, Events};
use super::root::ContainerRoot;
use super::tail::{FileId, Tail};

/// How often a file is looked at when nothing is heard of it.
const LOOK: Duration = Duration::from_millis(200);
/// How often files are opened again because they were renamed meanwhile.
const PASSES: usize = 1000;

/// What has stood at the path.
#[derive(Debug)]
pub(super) enum Generation {
    /// A file.
    File(Tail),
    /// One or more that are gone.
    Missing,
}

/// A file that was found by its name.
enum Opened {
    New(Tail),
    /// It was seen before it was heard of.
    Known(FileId),
}

impl Opened {
    fn id(&self) -> FileId {
        match self {
            Opened::New(file) => file.id(),
            Opened::Known(id) => *id,
        }
    }
}

/// A path that is followed.
pub(super) struct Generations {
    directory: String,
    name: String,
    /// `None` where the kernel tells nothing.
    events: Option<Events>,
    history: History,
    /// Files that were read, or that are older than those that are: what counts where nothing is told.
    known: HashSet<FileId>,
    /// The file that stood at the path when it was looked at last.
    newest: FileId,
    /// Another that stood there at the last look, of which nothing was told yet.
    untold: Option<FileId>,
}

impl Generations {
    /// The file that stands at the path, and what comes after it.
    pub(super) fn begin(root: &ContainerRoot, path: &str) -> io::Result<(Tail, Self)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (directory, name) = (format!("{directory}/"), name.to_owned());
        let events = root.open_directory(&directory).and_then(|directory| Events::of(&directory, &name));
        let events = events
            .inspect_err(|error| tracing::debug!(%error, "a directory in a container is looked at by time"));
        let mut generations = Generations {
            directory,
            name,
            events: events.ok(),
            history: History::default(),
            known: HashSet::new(),
            newest: FileId::default(),
            untold: None,
        };
        // What is made from now on is heard of.
        let at = generations.open(root, &generations.name)?;
        generations.newest = at.id();
        generations.know_all(root)?;
        generations.known.insert(at.id());
        // Had it been made anew meanwhile, it is the one that was opened that is read first.
        generations.hear();
        let stands_there = generations.current(root)?.is_some_and(|file| file.id() == at.id());
        if stands_there {
            generations.history.forget();
        }
        Ok((at, generations))
    }

    /// Waits until there may be more.
    pub(super) fn wait(&mut self) {
        match &mut self.events {
            Some(events) => events.wait(LOOK),
            None => std::thread::sleep(LOOK),
        }
    }

    /// What has taken the place of the files that are known, oldest first.
    pub(super) fn look(&mut self, root: &ContainerRoot) -> io::Result<Vec<Generation>> {
        let is_complete = self.hear();
        if self.events.is_none() || !is_complete {
            self.history.forget();
            return self.look_by_time(root, !is_complete);
        }
        if self.history.is_quiet() {
            return self.look_where_links_lead(root);
        }
        let (mut found, mut has_lost) = (BTreeMap::<u64, (String, Opened)>::new(), false);
        for _ in 0..PASSES {
            self.history.take_changed();
            let opened = self.open_all(root, &found);
            let ids: HashSet<FileId> = opened.iter().map(|(_, (_, opened))| opened.id()).collect();
            found.retain(|_, (_, before)| !ids.contains(&before.id()));
            found.extend(opened);
            has_lost |= !self.hear();
            // Renamed while they were opened: their names were those of others.
            if !self.history.take_changed() {
                break;
            }
        }
        let found = found.into_iter().map(|(number, (_, opened))| (number, opened)).collect();
        let mut generations = self.history.take_all(found);
        generations.extend(has_lost.then_some(Generation::Missing));
        let files = generations.iter().filter_map(|generation| match generation {
            Generation::File(file) => Some(file.id()),
            Generation::Missing => None,
        });
        let files: Vec<FileId> = files.collect();
        self.newest = files.last().copied().unwrap_or(self.newest);
        self.known.extend(files);
        Ok(generations)
    }

    /// Takes note of what the kernel tells. Whether it told everything.
    fn hear(&mut self) -> bool {
        let Some(events) = &mut self.events else { return true };
        let heard = events.take();
        for change in &heard.changes {
            self.history.apply(change, &self.name);
        }
        !heard.has_lost
    }

    /// The files of the history that have a name, but for those that were found under it.
    fn open_all(
        &self,
        root: &ContainerRoot,
        found: &BTreeMap<u64, (String, Opened)>,
    ) -> Vec<(u64, (String, Opened))> {
        let open = |(name, number): (&String, &u64)| {
            if found.get(number).is_some_and(|(before, _)| before == name) {
                return None;
            }
            let file = self.open(root, name).ok()?;
            // Only of a file that is open no other can have the number.
            let is_known = file.id() == self.newest;
            let opened = if is_known { Opened::Known(file.id()) } else { Opened::New(file) };
            Some((*number, (name.clone(), opened)))
        };
        self.history.names.iter().filter_map(open).collect()
    }

    /// A link at the path may lead elsewhere now, of which nothing is told. A file that was made this moment is told of soon.
    fn look_where_links_lead(&mut self, root: &ContainerRoot) -> io::Result<Vec<Generation>> {
        let other = self.current(root)?.filter(|file| file.id() != self.newest);
        let before = std::mem::replace(&mut self.untold, other.as_ref().map(Tail::id));
        match other {
            Some(file) if before == Some(file.id()) && file.length()? > 0 => {
                self.untold = None;
                self.newest = file.id();
                self.known.insert(file.id());
                Ok(vec![Generation::File(file)])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Where nothing is told: files that nobody knew, in the order in which they were written; the one that stands at the path is the last.
    fn look_by_time(&mut self, root: &ContainerRoot, has_missed: bool) -> io::Result<Vec<Generation>> {
        let current = self.current(root)?;
        if current.as_ref().is_some_and(|file| file.id() == self.newest) && !has_missed {
            // Others beside it are copies of what was read.
            self.know_all(root)?;
            return Ok(Vec::new());
        }
        let mut files = self.unknown(root)?;
        files.extend(current.filter(|file| self.known.insert(file.id())));
        let current = self.current(root)?.map(|file| file.id());
        files.sort_by_cached_key(|file| (Some(file.id()) == current, file.modified().ok()));
        self.newest = files.last().map_or(self.newest, Tail::id);
        let missing = has_missed.then_some(Generation::Missing);
        Ok(missing.into_iter().chain(files.into_iter().map(Generation::File)).collect())
    }

    /// Files that are gone are forgotten: others get their numbers.
    fn know_all(&mut self, root: &ContainerRoot) -> io::Result<()> {
        self.known = HashSet::from([self.newest]);
        self.unknown(root).map(drop)
    }

    fn unknown(&mut self, root: &ContainerRoot) -> io::Result<Vec<Tail>> {
        let mut files = Vec::new();
        for name in self.names(root)? {
            if let Ok(file) = self.open(root, &name)
                && self.known.insert(file.id())
            {
                files.push(file);
            }
        }
        Ok(files)
    }

    /// The names that rotators have given to what stood at the path.
    fn names(&self, root: &ContainerRoot) -> io::Result<Vec<String>> {
        let mut names = match root.names_in(&self.directory) {
            Ok(names) => names,
            Err(_) if !root.is_alive() => Vec::new(),
            // It may be entered, and not read: only the file itself is known.
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => Vec::new(),
                _ => return Err(error),
            },
        };
        names.retain(|name| is_generation(&self.name, name));
        Ok(names)
    }

    /// The file that stands there now. `None` between a renaming and what follows.
    fn current(&self, root: &ContainerRoot) -> io::Result<Option<Tail>> {
        match self.open(root, &self.name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) if !root.is_alive() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, root: &ContainerRoot, name: &str) -> io::Result<Tail> {
        root.open_file(&format!("{}{name}", self.directory)).and_then(Tail::new)
    }
}

/// Which file is the how-manieth, and how it is called now.
#[derive(Debug, Default)]
struct History {
    /// How many were made at the path.
    made: u64,
    /// How many of them were given out.
    given: u64,
    /// Names of those that were not given out.
    names: HashMap<String, u64>,
    /// Something was renamed since it was asked last.
    has_changed: bool,
}

impl History {
    fn apply(&mut self, change: &Change, path: &str) {
        self.has_changed = true;
        match change {
            Change::Made(name) => {
                self.names.remove(name);
                if name == path {
                    self.made += 1;
                    self.names.insert(name.clone(), self.made);
                }
            }
            Change::Renamed(from, to) => {
                let number = self.names.remove(from);
                self.names.remove(to);
                if let Some(number) = number {
                    self.names.insert(to.clone(), number);
                } else if to == path && !is_generation(path, from) {
                    self.made += 1;
                    self.names.insert(to.clone(), self.made);
                }
            }
            Change::Gone(name) => drop(self.names.remove(name)),
        }
        self.names.retain(|name, _| name == path || is_generation(path, name));
    }

    /// Whether no file was made that was not given out.
    fn is_quiet(&self) -> bool {
        self.made == self.given
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    fn forget(&mut self) {
        (self.given, self.has_changed) = (self.made, false);
        self.names.clear();
    }

    /// All that were made and not given out. What was not found has gone before it could be.
    fn take_all(&mut self, mut found: BTreeMap<u64, Opened>) -> Vec<Generation> {
        let mut all: Vec<Generation> = Vec::new();
        for number in self.given + 1..=self.made {
            match found.remove(&number) {
                Some(Opened::New(file)) => all.push(Generation::File(file)),
                Some(Opened::Known(_)) => {}
                None if matches!(all.last(), Some(Generation::Missing)) => {}
                None => all.push(Generation::Missing),
            }
        }
        self.forget();
        all
    }
}

/// Whether `other` is how a rotator calls what was `name`: a number or a time behind it. What is compressed was read before.
fn is_generation(name: &str, other: &str) -> bool {
    let Some(suffix) = other.strip_prefix(name) else { return false };
    suffix.starts_with(['.', '-', '_'])
        && suffix.bytes().any(|byte| byte.is_ascii_digit())
        && suffix
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_' | b'T' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_known_by_their_names() {
        for (other, expected) in [
            ("a.log.1", true),
            ("a.log-20261122", true),
            ("a.log.2026-11-22T10:00", true),
            ("a.log", false),
            ("a.log.1.gz", false),
            ("a.log.", false),
            ("a.log1", false),
            ("a.log.key", false),
            ("b.log.1", false),
        ] {
            assert_eq!(is_generation("a.log", other), expected, "{other}");
        }
    }
}
