//! A log that can be read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use podlog_line::Selection;

use super::{
    IndexCache, LogReader, files,
    follow::Seen,
    segment::{self, Break, Segment},
};
use crate::{ReadError, generations::LogPath};

/// The log of one container: the file its runtime writes, and the generations that were rotated away; on request also
/// the logs of earlier instances of the container.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// As it was given, for messages.
    pub(super) given: PathBuf,
    /// Where the files are.
    pub(super) path: LogPath,
    /// Where those of earlier instances are, oldest first.
    earlier: Vec<LogPath>,
    /// What is known of files of other writers.
    pub(super) indexes: IndexCache,
}

impl LogSource {
    /// The log at `path`, the current file (`…/<restart>.log`) or a link to it. Fails when neither it nor an older
    /// generation is there.
    pub fn open(path: impl Into<PathBuf>) -> Result<LogSource, ReadError> {
        let given = path.into();
        match fs::canonicalize(&given) {
            Ok(resolved) => Ok(LogSource::at(given, LogPath::new(&resolved))),
            Err(source) => match rotated_only(&given) {
                Some(path) => Ok(LogSource::at(given, path)),
                None => Err(unresolved(&given, source)),
            },
        }
    }

    fn at(given: PathBuf, path: LogPath) -> LogSource {
        LogSource { given, path, earlier: Vec::new(), indexes: IndexCache::default() }
    }

    /// Shares what is found in files of other writers with all that have the same cache. By default a source has its own.
    #[must_use]
    pub fn with_indexes(self, indexes: IndexCache) -> LogSource {
        LogSource { indexes, ..self }
    }

    /// The logs of all instances of a container as one log, oldest first: `<restart>.log` with all its generations for
    /// each restart up to `instance`, in the directory of the container's logs. A line that an instance left unfinished
    /// ends with it. Following follows `instance`.
    ///
    /// # Errors
    /// As [`LogSource::open`] when there is no log at all; when only `instance` has none yet, its log is empty.
    pub fn open_history(directory: impl AsRef<Path>, instance: u32) -> Result<LogSource, ReadError> {
        let given = directory.as_ref().join(log_name(instance));
        let directory =
            fs::canonicalize(directory).map_err(|source| ReadError::Open { path: given.clone(), source })?;
        let earlier = instances(&directory, instance)
            .map_err(|source| ReadError::Read { path: given.clone(), source })?;
        let paths = earlier.into_iter().map(|number| directory.join(log_name(number)));
        // Links of container runtimes lead elsewhere, generations and all.
        let earlier: Vec<LogPath> = paths.filter_map(|path| Some(LogSource::open(path).ok()?.path)).collect();
        match LogSource::open(&given) {
            Ok(last) => Ok(LogSource { earlier, ..last }),
            Err(_) if !earlier.is_empty() => {
                let path = LogPath::new(&directory.join(log_name(instance)));
                Ok(LogSource { earlier, ..LogSource::at(given, path) })
            }
            Err(error) => Err(error),
        }
    }

    /// A reader of the part that `selection` wants, positioned at its beginning.
    pub fn read(&self, selection: &Selection) -> Result<LogReader, ReadError> {
        LogReader::new(self.clone(), selection)
    }

    /// All files, opened, with breaks between them.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, ReadError> {
        let mut segments = Vec::new();
        for path in self.earlier.iter().chain([&self.path]) {
            let files = files::open_all(path).map_err(|error| self.open_error(error))?;
            let instance = segment::segments(None, files).map_err(|error| self.read_error(error))?;
            if !segments.is_empty() && !instance.is_empty() {
                segments.push(Segment::Break(Break::between_instances()));
            }
            segments.extend(instance);
        }
        Ok(segments)
    }

    /// What is remembered of the rotated files of the instance that is followed.
    pub(super) fn seen(&self, segments: &[Segment]) -> Result<Seen, ReadError> {
        let is_break = |segment: &Segment| matches!(segment, Segment::Break(here) if here.gap.is_none());
        let first = segments.iter().rposition(is_break).map_or(0, |index| index + 1);
        let files = segments[first..].iter().filter_map(Segment::as_file);
        Seen::new(files).map_err(|error| self.read_error(error))
    }

    /// Whether earlier instances belong to it.
    pub(super) fn has_earlier(&self) -> bool {
        !self.earlier.is_empty()
    }

    pub(super) fn open_error(&self, source: io::Error) -> ReadError {
        if source.kind() == io::ErrorKind::NotFound {
            return unresolved(&self.given, source);
        }
        ReadError::Open { path: self.given.clone(), source }
    }

    pub(super) fn read_error(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.given.clone(), source }
    }

    pub(super) fn missing(&self) -> ReadError {
        self.open_error(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()))
    }
}

/// The name of the log of an instance, as the kubelet gives it (`pkg/kubelet/kuberuntime`, `buildContainerLogsPath`).
fn log_name(instance: u32) -> String {
    format!("{instance}.log")
}

/// The instances before `last` that have left something in the directory, in order.
fn instances(directory: &Path, last: u32) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split_once(".log"));
        let number =
            number.and_then(|(number, _)| number.parse::<u32>().ok().filter(|n| *number == n.to_string()));
        numbers.extend(number.filter(|number| *number < last));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The log, if its current file is missing but older ones are there.
fn rotated_only(path: &Path) -> Option<LogPath> {
    let directory = fs::canonicalize(path.parent()?).ok()?;
    let path = LogPath::new(&directory.join(path.file_name()?));
    let files = path.old_files().ok()?;
    (!files.is_empty()).then_some(path)
}

/// Names the first part of the path that cannot be reached.
fn unresolved(path: &Path, source: io::Error) -> ReadError {
    let component = unreachable_part(path, MAX_LINKS).unwrap_or_else(|| path.to_owned());
    ReadError::Resolve { path: path.to_owned(), component, source }
}

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

fn unreachable_part(path: &Path, links: u32) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    parts.reverse();
    for part in parts {
        match fs::read_link(part) {
            Ok(target) if links > 0 => {
                let target = part.parent().unwrap_or(Path::new("")).join(target);
                if let Some(missing) = unreachable_part(&target, links - 1) {
                    return Some(missing);
                }
            }
            Ok(_) => return Some(part.to_owned()),
            // It is no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(_) => return Some(part.to_owned()),
        }
    }
    None
}
