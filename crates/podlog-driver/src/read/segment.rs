//! A log as a sequence of files, and of breaks between them where something is missing.

use std::io;

use podlog_line::{Gap, GapReason, Timestamp};

use super::files::LogFile;

/// A piece of a log.
#[derive(Debug)]
pub(super) enum Segment {
    /// One generation.
    File(Box<LogFile>),
    /// Lines do not go on from what is before to what is behind.
    Break(Break),
}

impl Segment {
    pub(super) fn file(file: LogFile) -> Segment {
        Segment::File(Box::new(file))
    }

    /// The same piece once more.
    pub(super) fn try_clone(&self) -> io::Result<Segment> {
        match self {
            Segment::File(file) => file.try_clone().map(Segment::file),
            Segment::Break(here) => Ok(Segment::Break(here.clone())),
        }
    }

    pub(super) fn as_file(&self) -> Option<&LogFile> {
        match self {
            Segment::File(file) => Some(file),
            Segment::Break(_) => None,
        }
    }

    /// In which streams what comes behind goes on with a line, as far as the writer has left word.
    pub(super) fn inside_at_end(&self) -> [bool; 2] {
        self.as_file().and_then(LogFile::end).map_or([false; 2], |end| end.inside_line)
    }
}

/// Where a log does not go on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Break {
    /// What is missing; `None` where another instance of the container begins.
    pub(super) gap: Option<Gap>,
    /// When the log goes on behind it.
    pub(super) at: Timestamp,
    /// Files that are missing here.
    pub(super) missing_files: u64,
    /// Why the file before could not be read to its end.
    pub(super) damage: Option<String>,
}

impl Break {
    /// Another instance of the container begins.
    pub(super) fn between_instances() -> Break {
        Break { gap: None, at: Timestamp::MIN, missing_files: 0, damage: None }
    }

    /// The rest of the file `age` cannot be decompressed; the log goes on with `next`.
    pub(super) fn damaged(file: &LogFile, why: &str, next: Option<&Segment>) -> io::Result<Break> {
        let to = first_time(next)?;
        let from = file.first_time()?;
        let gap = Gap { from, to, ..Gap::new(GapReason::Damaged) };
        let name = file.age().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(age = name, why, "a compressed log is damaged");
        let damage = Some(format!("{name}: {why}"));
        Ok(Break { gap: Some(gap), at: to.or(from).unwrap_or(Timestamp::MIN), missing_files: 0, damage })
    }

    /// Files between `before` and `next` have been deleted, if the numbers of the two say so.
    fn deleted(before: &LogFile, next: &LogFile) -> io::Result<Option<Break>> {
        let numbers = before.generation().zip(next.generation());
        let missing_files = numbers.map_or(0, |(before, next)| next.saturating_sub(before.saturating_add(1)));
        if missing_files == 0 {
            return Ok(None);
        }
        let end = before.base().zip(before.length()?).and_then(|(base, length)| base.checked_add(length));
        let bytes = next.base().zip(end).and_then(|(next, end)| next.checked_sub(end));
        let has_nothing_between = before.base().is_some() && before.base() == next.base();
        if bytes == Some(0) || has_nothing_between {
            return Ok(None);
        }
        let (from, to) = (before.last_time(), next.first_time()?);
        let gap = Gap { bytes, from, to, ..Gap::new(GapReason::Retention) };
        let at = to.or(from).unwrap_or(Timestamp::MIN);
        Ok(Some(Break { gap: Some(gap), at, missing_files, damage: None }))
    }

    /// What a reader of the time from `since` to `until` is shown, and the time it stands at.
    pub(super) fn shown(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Option<(Gap, Timestamp)> {
        let gap = self.gap?;
        // Not knowing is no reason to hide something.
        let from = gap.from.unwrap_or(Timestamp::MIN);
        let is_within = since.is_none_or(|since| self.at >= since) && until.is_none_or(|until| from <= until);
        is_within.then(|| (gap, until.map_or(self.at, |until| self.at.min(until))))
    }
}

fn first_time(segment: Option<&Segment>) -> io::Result<Option<Timestamp>> {
    segment.and_then(Segment::as_file).map_or(Ok(None), LogFile::first_time)
}

/// The files of one log, which come after `before`, with breaks where some are missing.
pub(super) fn segments(before: Option<&LogFile>, files: Vec<LogFile>) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::with_capacity(files.len());
    for file in files {
        let previous = segments.last().and_then(Segment::as_file).or(before);
        let missing = previous.map_or(Ok(None), |previous| Break::deleted(previous, &file))?;
        segments.extend(missing.map(Segment::Break));
        segments.push(Segment::file(file));
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_shown_to_whoever_might_miss_something() {
        let at = |second| Timestamp::from_seconds(second, 0);
        let gap = Gap { from: Some(at(10)), to: Some(at(20)), ..Gap::new(GapReason::Retention) };
        let here = Break { gap: Some(gap), at: at(20), missing_files: 1, damage: None };
        for (since, until, expected) in [
            (None, None, Some(20)),
            (Some(20), None, Some(20)),
            (Some(21), None, None),
            (None, Some(15), Some(15)),
            (None, Some(10), Some(10)),
            (None, Some(9), None),
            (Some(12), Some(15), Some(15)),
        ] {
            let shown = here.shown(since.map(at), until.map(at)).map(|(_, at)| at.as_seconds());
            assert_eq!(shown, expected, "{since:?} {until:?}");
        }
        assert_eq!(Break::between_instances().shown(None, None), None);
    }
}
