//! The layout of journal files, as systemd documents it (`JOURNAL_FILE_FORMAT`): little-endian numbers at fixed places, and objects
//! that begin with their kind and size at multiples of 8.

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// The part of the header that every version has.
pub(super) const HEADER: usize = 208;
/// What every object begins with.
pub(super) const OBJECT_HEAD: usize = 16;

/// Data may be compressed by XZ or LZ4.
const XZ_OR_LZ4: u32 = 1 | 2;
/// Hashes depend on the file, which does not matter here.
const KEYED_HASH: u32 = 4;
const ZSTD: u32 = 8;
const COMPACT: u32 = 16;
const KNOWN: u32 = XZ_OR_LZ4 | KEYED_HASH | ZSTD | COMPACT;

/// Nothing is appended to a file in this state.
const ARCHIVED: u8 = 2;

/// Bits of an object's flags that say how its payload is compressed: XZ, LZ4, Zstandard.
pub(super) const COMPRESSED: u8 = 1 | 2 | 4;
pub(super) const COMPRESSED_LZ4: u8 = 2;
pub(super) const COMPRESSED_ZSTD: u8 = 4;

/// Objects that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data = 1,
    Field = 2,
    Entry = 3,
    EntryArray = 6,
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_compact: bool,
    pub(super) is_archived: bool,
    /// Sequence numbers are compared only among files that have this in common.
    pub(super) seqnum_id: [u8; 16],
    /// Where the table of fields is, and its size in bytes.
    pub(super) fields: (u64, u64),
    /// How many objects there are.
    pub(super) objects: u64,
    pub(super) tail_seqnum: u64,
    pub(super) head_seqnum: u64,
    /// When its first entry was written, in microseconds since 1970.
    pub(super) head_realtime: u64,
}

impl Header {
    /// # Errors
    /// What keeps the file from being read.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
        if bytes.len() < HEADER || !bytes.starts_with(SIGNATURE) {
            return Err("it is no journal file".into());
        }
        let flags = number(bytes, 8) >> 32;
        let unknown = flags as u32 & !KNOWN;
        if unknown != 0 {
            return Err(format!("it has features that this version does not know ({unknown:#x})"));
        }
        let mut seqnum_id = [0; 16];
        seqnum_id.copy_from_slice(&bytes[72..88]);
        Ok(Header {
            is_compact: flags as u32 & COMPACT != 0,
            is_archived: bytes[16] == ARCHIVED,
            seqnum_id,
            fields: (number(bytes, 120), number(bytes, 128)),
            objects: number(bytes, 144),
            tail_seqnum: number(bytes, 160),
            head_seqnum: number(bytes, 168),
            head_realtime: number(bytes, 184),
        })
    }
}

/// The number at a place; 0 where there is none.
pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..at + 8).and_then(|found| found.try_into().ok());
    found.map_or(0, u64::from_le_bytes)
}

/// Flags and size of the object that begins so, if it is of that kind.
pub(super) fn object(bytes: &[u8], kind: Kind) -> Option<(u8, u64)> {
    let size = number(bytes, 8);
    (bytes.first() == Some(&(kind as u8)) && size >= OBJECT_HEAD as u64).then(|| (bytes[1], size))
}

/// Places in objects that depend on the layout of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) is_compact: bool,
}

impl Layout {
    /// Where the payload of data begins.
    pub(super) fn payload(self) -> usize {
        if self.is_compact { 72 } else { 64 }
    }

    /// Bytes of a place in an array of entries.
    pub(super) fn slot(self) -> usize {
        if self.is_compact { 4 } else { 8 }
    }

    /// The place in such a slot; 0 is none.
    pub(super) fn place(self, slot: &[u8]) -> u64 {
        if self.is_compact { short(slot) } else { number(slot, 0) }
    }

    /// Where the data of an entry are.
    pub(super) fn items(self, entry: &[u8]) -> impl Iterator<Item = u64> + '_ {
        let width = if self.is_compact { 4 } else { 16 };
        let items = entry.get(ENTRY_ITEMS..).unwrap_or_default().chunks_exact(width);
        items.map(move |item| self.place(item)).filter(|place| *place > 0)
    }
}

/// Where the data of an entry begin.
pub(super) const ENTRY_ITEMS: usize = 64;
/// Where the places of an array of entries begin.
pub(super) const ARRAY_ITEMS: usize = 24;
/// Where the name in a field begins.
pub(super) const FIELD_NAME: usize = 40;

fn short(bytes: &[u8]) -> u64 {
    let found = bytes.get(..4).and_then(|found| found.try_into().ok());
    found.map_or(0, |found| u64::from(u32::from_le_bytes(found)))
}
