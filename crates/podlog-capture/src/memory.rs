//! Taking little memory while waiting. There are as many captures as containers, and most of them wait most of the time.

use std::fs;
use std::time::{Duration, Instant};

use crate::sys;

/// How long nothing must have happened.
const IDLE: Duration = Duration::from_secs(1);
/// How long starting takes at most: after that, what only starting needed is given back whatever happens.
const START: Duration = Duration::from_secs(2);
/// How often at most, so that a program that prints now and then does not cost more than it saves.
const INTERVAL: Duration = Duration::from_secs(30);

/// When memory is given back.
#[derive(Debug)]
pub(crate) struct Memory {
    /// When something happened since memory was given back: first and last.
    touched: Option<(Instant, Instant)>,
    /// Not again before.
    next: Instant,
}

impl Memory {
    pub(crate) fn new(now: Instant) -> Self {
        Memory { touched: Some((now, now)), next: now }
    }

    /// Something happens, for which code is needed.
    pub(crate) fn touch(&mut self, now: Instant) {
        let first = self.touched.map_or(now, |(first, _)| first);
        self.touched = Some((first, now));
    }

    /// When [`is_due`](Self::is_due) says yes; `None` while there is nothing to give back.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (first, last) = self.touched?;
        Some((last + IDLE).min(first + START).max(self.next))
    }

    /// Whether to [`release`] now. That is said once.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            *self = Memory { touched: None, next: now + INTERVAL };
        }
        is_due
    }
}

/// Gives back code and constants, most of which were needed to start.
pub(crate) fn release() {
    let mappings = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    clean_file_ranges(&mappings).into_iter().for_each(sys::release);
}

/// Part of the address space that mirrors a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRange {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// The mappings of `/proc/<pid>/smaps` that are read-only, from a file, and without a page of their own: relocated
/// constants are read-only too, but exist nowhere else.
fn clean_file_ranges(mappings: &str) -> Vec<FileRange> {
    let mut ranges = Vec::new();
    let mut candidate = None;
    for line in mappings.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(size) if size.trim() == "0 kB" => ranges.extend(candidate.take()),
            Some(_) => candidate = None,
            None if line.split_once(' ').is_some_and(|(first, _)| !first.ends_with(':')) => {
                candidate = header(line)
            }
            None => {}
        }
    }
    ranges
}

/// `<start>-<end> r-xp <offset> <device> <inode> /<path>`
fn header(line: &str) -> Option<FileRange> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_constant = ["r-xp", "r--p"].contains(&fields.next()?) && fields.nth(3)?.starts_with('/');
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    is_constant.then(|| FileRange { start, length: end.saturating_sub(start) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_file_has_is_released() {
        let mapping = |header: &str, anonymous| {
            format!("{header}\nSize: 8 kB\nRss: 4 kB\nAnonymous: {anonymous:8} kB\nVmFlags: rd ex mr mw me\n")
        };
        let rows = [
            ("1000-3000 r-xp 00000000 fe:00 7   /bin/podlog", 0, Some(0x1000)),
            ("3000-5000 r--p 00000000 fe:00 7   /bin/pod log", 0, Some(0x3000)),
            ("5000-7000 r--p 00002000 fe:00 7   /bin/podlog", 4, None),
            ("7000-9000 rw-p 00002000 fe:00 7   /bin/podlog", 0, None),
            ("9000-b000 r--s 00002000 fe:00 7   /bin/podlog", 0, None),
            ("b000-d000 r-xp 00000000 00:00 0   [vdso]", 0, None),
            ("d000-f000 r--p 00000000 00:00 0", 0, None),
        ];
        let smaps: String = rows.iter().map(|(header, anonymous, _)| mapping(header, *anonymous)).collect();
        let expected: Vec<_> =
            rows.iter().filter_map(|row| row.2).map(|start| FileRange { start, length: 0x2000 }).collect();
        assert_eq!(clean_file_ranges(&smaps), expected);
        assert_eq!(clean_file_ranges("nonsense\n\n: x"), []);
    }

    #[test]
    fn waits_for_the_right_moment() {
        let start = Instant::now();
        let mut memory = Memory::new(start);
        assert_eq!(memory.due(), Some(start + IDLE));
        let busy = start + START - IDLE / 4;
        memory.touch(busy);
        assert_eq!(memory.due(), Some(start + START), "a program that always prints");
        assert!(!memory.is_due(busy));
        let released = start + START;
        assert!(memory.is_due(released));
        assert_eq!((memory.due(), memory.is_due(released)), (None, false));
        memory.touch(released + IDLE);
        assert_eq!(memory.due(), Some(released + INTERVAL), "not again so soon");
        memory.touch(released + INTERVAL / 2);
        assert!(!memory.is_due(released + INTERVAL - IDLE));
        assert!(memory.is_due(released + INTERVAL));
        assert_eq!(memory.due(), None);
        let later = released + INTERVAL * 3;
        memory.touch(later);
        assert_eq!(memory.due(), Some(later + IDLE));
    }
}
