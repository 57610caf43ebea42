//! Sparse indexes of files whose records are in no promised order: from where on something is new enough.
//!
//! The clock of a foreign writer may have stepped back anywhere, so that only a look at every record tells that nothing
//! before a place is new enough. An index remembers what such a look has found, once for about each [`SPACING`] bytes:
//! a later reader begins where the first could have begun, and a file that grows is looked at only where it has grown. Of a
//! compressed file, what there is in all of it is learned by the first who reads it to its end.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memchr::memchr;
use podlog_line::{LineEnd, RecordParser, Timestamp};

use super::files::{FileStamp, LogFile, read_up_to};
use crate::generations::FileId;

/// One entry for so many bytes of a file.
const SPACING: usize = 1024 * 1024;
/// So much is held of a line that is learned.
const MAX_LINE: usize = 1024 * 1024;
/// A cache holds so many entries, for 64 GiB of log files; the files that were asked for longest ago go first.
const MAX_ENTRIES: usize = 64 * 1024;

/// What was found in the files of other writers, shared by all readers of a node. Its memory is bounded: less than 3 MiB.
#[derive(Debug, Clone, Default)]
pub struct IndexCache {
    indexes: Arc<Mutex<Indexes>>,
}

#[derive(Debug, Default)]
struct Indexes {
    by_file: HashMap<Key, (u64, Index)>,
    /// Counts uses.
    clock: u64,
}

/// A file, and what tells whether it is still as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    id: FileId,
    stamp: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stamp {
    /// What it begins with: it may be cut off and written anew.
    Begin(u64),
    /// What is compressed does not grow.
    Compressed(FileStamp),
}

/// Entries in the order of the file.
#[derive(Debug, Clone, Default)]
struct Index {
    entries: Vec<Entry>,
}

/// Where a record begins, and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    /// Which streams are inside a line; `None` for one that has no record before.
    pub(super) inside_line: [Option<bool>; 2],
    /// No record before is younger.
    latest: Timestamp,
}

const BEGINNING: Entry = Entry { offset: 0, inside_line: [None; 2], latest: Timestamp::MIN };

impl IndexCache {
    /// From where on there may be something at `since` or later: everything before is older. Looks only at what nobody
    /// has looked at before, and no further than to the first record that is new enough.
    pub(super) fn find(&self, file: &LogFile, since: Timestamp) -> io::Result<Entry> {
        let (Some(plain), Some(mark)) = (file.uncompressed(), file.mark()?) else { return Ok(BEGINNING) };
        let key = Key { id: file.id(), stamp: Stamp::Begin(mark.fingerprint) };
        let mut index = self.lock().take(&key);
        let length = plain.metadata()?.len();
        index.entries.retain(|entry| entry.offset <= length);
        if index.entries.last().is_none_or(|last| last.latest < since) {
            index.extend(plain, since)?;
        }
        let found = index.before(since);
        self.lock().put(key, index);
        Ok(found)
    }

    /// What is behind the last record of a compressed file, if somebody has read it.
    pub(super) fn end_of(&self, file: &LogFile) -> io::Result<Option<Entry>> {
        Ok(self.lock().take(&compressed_key(file)?).entries.last().copied())
    }

    /// Learns what is in a compressed file of another writer while it is read; `None` when that is known.
    pub(super) fn learner(&self, file: &LogFile) -> io::Result<Option<Learner>> {
        let is_known = file.is_ordered() || self.end_of(file)?.is_some();
        let key = compressed_key(file)?;
        Ok((!is_known).then(|| Learner {
            indexes: self.clone(),
            key,
            end: BEGINNING,
            parser: RecordParser::default(),
            line: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Indexes> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.lock().entries()
    }
}

fn compressed_key(file: &LogFile) -> io::Result<Key> {
    Ok(Key { id: file.id(), stamp: Stamp::Compressed(file.stamp()?) })
}

/// Looks at all that is read of a file, from its beginning on.
pub(super) struct Learner {
    indexes: IndexCache,
    key: Key,
    end: Entry,
    parser: RecordParser,
    /// What was read last of a line that goes on.
    line: Vec<u8>,
}

impl Learner {
    pub(super) fn look_at(&mut self, read: &[u8]) {
        self.end.offset += read.len() as u64;
        for piece in read.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) if self.line.is_empty() => self.end.pass(line, &mut self.parser),
                Some(rest) => {
                    self.hold(rest);
                    self.end_line();
                }
                None => self.hold(piece),
            }
        }
    }

    /// All of it was read.
    pub(super) fn finish(mut self) {
        self.end_line();
        self.indexes.lock().put(self.key, Index { entries: vec![self.end] });
    }

    /// Of a line that is longer than any writer makes, the beginning is held.
    fn hold(&mut self, piece: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.end.pass(&line, &mut self.parser);
        if line.len() == MAX_LINE {
            // Nobody knows whether that was all of it.
            self.end.latest = Timestamp::MAX;
        }
    }
}

/// Does not show what is read.
impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Entry {
    /// Whether all before it is older.
    pub(super) fn is_older(&self, since: Timestamp) -> bool {
        self.latest < since
    }

    fn pass(&mut self, line: &[u8], parser: &mut RecordParser) {
        if let Some(record) = parser.parse(line) {
            self.latest = self.latest.max(record.time.timestamp());
            self.inside_line[record.stream.index()] = Some(record.end == LineEnd::Partial);
        }
    }
}

impl Indexes {
    /// A copy: looking at a file takes time, and others must not wait for it.
    fn take(&self, key: &Key) -> Index {
        self.by_file.get(key).map(|(_, index)| index.clone()).unwrap_or_default()
    }

    fn put(&mut self, key: Key, index: Index) {
        self.clock += 1;
        let is_better =
            self.by_file.get(&key).is_none_or(|(_, old)| old.entries.len() <= index.entries.len());
        if is_better {
            self.by_file.insert(key, (self.clock, index));
        }
        while self.entries() > MAX_ENTRIES {
            let oldest = self.by_file.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            self.by_file.remove(&oldest);
        }
    }

    /// A file without entries counts as well.
    fn entries(&self) -> usize {
        self.by_file.values().map(|(_, index)| index.entries.len() + 1).sum()
    }
}

impl Index {
    /// The last entry before which everything is older.
    fn before(&self, since: Timestamp) -> Entry {
        let older = self.entries.partition_point(|entry| entry.latest < since);
        older.checked_sub(1).map_or(BEGINNING, |index| self.entries[index])
    }

    /// Looks on from the last entry to the first record at `since` or later.
    fn extend(&mut self, file: &File, since: Timestamp) -> io::Result<()> {
        let mut entry = self.entries.last().copied().unwrap_or(BEGINNING);
        let mut parser = RecordParser::default();
        let mut block = vec![0; SPACING];
        loop {
            let length = read_up_to(file, &mut block, entry.offset)?;
            let mut start = 0;
            while let Some(count) = memchr(b'\n', &block[start..length]) {
                entry.pass(&block[start..start + count], &mut parser);
                start += count + 1;
            }
            // The end of the file, or a record that is longer than any writer makes.
            if start == 0 {
                return Ok(());
            }
            entry.offset += start as u64;
            if length == block.len() || entry.latest >= since {
                self.entries.push(entry);
            }
            if length < block.len() || entry.latest >= since {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_was_used_last() {
        let mut indexes = Indexes::default();
        let directory = tempfile::tempdir().expect("a directory");
        let keys: Vec<Key> = (0..10)
            .map(|number| {
                let file = File::create(directory.path().join(number.to_string())).expect("a file");
                Key { id: FileId::of_open(&file).expect("a file"), stamp: Stamp::Begin(number) }
            })
            .collect();
        for key in &keys {
            indexes.put(*key, Index { entries: vec![BEGINNING; MAX_ENTRIES / 4] });
            assert!(indexes.entries() <= MAX_ENTRIES);
        }
        assert!(indexes.take(&keys[0]).entries.is_empty());
        assert_eq!(indexes.take(&keys[9]).entries.len(), MAX_ENTRIES / 4);
    }
}
