//! The entries of one container in one file: the chain of arrays that its data lead to.

use std::io;

use super::file::{JournalFile, MAX_OBJECT};
use super::layout::{ARRAY_ITEMS, ENTRY_ITEMS, Kind, number};

/// So many places are read at once.
const BLOCK: u64 = 256;
/// Arrays grow: there are never so many.
const MAX_ARRAYS: usize = 1 << 16;

#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// Where the data are that all of them have.
    data: u64,
    /// Where the first entry is: it is in no array.
    first: u64,
    arrays: Vec<Array>,
    /// How many there were at the last look.
    count: u64,
    /// Places that were read: the index of the first, and the places.
    block: (u64, Vec<u64>),
}

#[derive(Clone, Copy, Debug)]
struct Array {
    offset: u64,
    /// Index of its first entry.
    begin: u64,
    capacity: u64,
}

/// An entry: when it was written, and where its parts are.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seqnum: u64,
    /// Microseconds since 1970.
    pub(super) realtime: u64,
    pub(super) items: Vec<u64>,
}

impl Entries {
    /// Those that have the data at this place.
    pub(super) fn open(file: &mut JournalFile, data: u64) -> io::Result<Entries> {
        let mut entries = Entries { data, first: 0, arrays: Vec::new(), count: 0, block: (0, Vec::new()) };
        entries.refresh(file)?;
        Ok(entries)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Looks how many there are now.
    pub(super) fn refresh(&mut self, file: &mut JournalFile) -> io::Result<()> {
        let (_, data) = file.object(self.data, Kind::Data, 64)?;
        let (first, array, count) = (number(data, 40), number(data, 48), number(data, 56));
        self.first = first;
        let mut covered = self.covered();
        while covered < count {
            let (before, offset) = match self.arrays.last() {
                Some(Array { offset, .. }) => {
                    (*offset, number(file.object(*offset, Kind::EntryArray, ARRAY_ITEMS)?.1, 16))
                }
                None => (0, array),
            };
            if offset == 0 || self.arrays.len() == MAX_ARRAYS {
                break;
            }
            // What was appended later lies behind.
            if offset <= before {
                return Err(file.invalid(offset, "its arrays of entries are a ring"));
            }
            let size = number(file.object(offset, Kind::EntryArray, ARRAY_ITEMS)?.1, 8);
            let capacity = size.saturating_sub(ARRAY_ITEMS as u64) / file.layout().slot() as u64;
            if capacity == 0 {
                break;
            }
            self.arrays.push(Array { offset, begin: covered, capacity });
            covered = self.covered();
        }
        self.count = count.min(covered);
        Ok(())
    }

    /// How many entries there is room for.
    fn covered(&self) -> u64 {
        self.arrays.last().map_or(1, |last| last.begin.saturating_add(last.capacity))
    }

    /// The entry of that number, which is less than [`Entries::count`].
    pub(super) fn entry(&mut self, file: &mut JournalFile, index: u64) -> io::Result<Entry> {
        let offset = self.place(file, index)?;
        let layout = file.layout();
        let (_, entry) = file.object(offset, Kind::Entry, MAX_OBJECT as usize)?;
        let items = layout.items(entry).collect();
        Ok(Entry { seqnum: number(entry, 16), realtime: number(entry, 24), items })
    }

    /// Sequence number and time of an entry.
    pub(super) fn head(&mut self, file: &mut JournalFile, index: u64) -> io::Result<(u64, u64)> {
        let offset = self.place(file, index)?;
        let (_, entry) = file.object(offset, Kind::Entry, ENTRY_ITEMS)?;
        Ok((number(entry, 16), number(entry, 24)))
    }

    /// The number of the first entry of which `is_before` does not hold, if it holds of those before and of none behind.
    pub(super) fn partition_point(
        &mut self,
        file: &mut JournalFile,
        mut is_before: impl FnMut((u64, u64)) -> bool,
    ) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.head(file, middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn place(&mut self, file: &mut JournalFile, index: u64) -> io::Result<u64> {
        if index == 0 {
            return Ok(self.first);
        }
        if let Some(place) = self.known(index) {
            return Ok(place);
        }
        let array = self.arrays[self.arrays.partition_point(|array| array.begin <= index).saturating_sub(1)];
        // Forwards and backwards alike.
        let begin = array.begin + (index - array.begin) / BLOCK * BLOCK;
        let end = begin.saturating_add(BLOCK).min(array.begin.saturating_add(array.capacity)).min(self.count);
        let layout = file.layout();
        let slot = layout.slot();
        let within = (begin - array.begin).saturating_mul(slot as u64).saturating_add(ARRAY_ITEMS as u64);
        let offset = array.offset.saturating_add(within);
        let bytes = file.bytes(offset, (end - begin) as usize * slot)?;
        self.block = (begin, bytes.chunks_exact(slot).map(|place| layout.place(place)).collect());
        Ok(self.known(index).unwrap_or(0))
    }

    fn known(&self, index: u64) -> Option<u64> {
        let within = usize::try_from(index.checked_sub(self.block.0)?).ok()?;
        self.block.1.get(within).copied()
    }
}
