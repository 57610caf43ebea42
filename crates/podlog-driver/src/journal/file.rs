//! One journal file, of which single objects are read at their places.
//!
//! The file may be written to at this moment: journald appends objects first and links them afterwards, so what is linked is whole.
//! It is read by calls and never mapped: journald cuts its files when it archives them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layout::{
    self, COMPRESSED, COMPRESSED_LZ4, COMPRESSED_ZSTD, FIELD_NAME, HEADER, Header, Kind, Layout, OBJECT_HEAD,
    number,
};
use crate::generations::FileId;

/// Of an object so much is read at first: most are smaller.
const GUESS: usize = 512;
/// No file has more bytes.
const MAX_OFFSET: u64 = i64::MAX.cast_unsigned();
/// An entry with more data, or longer data, is not read.
pub(super) const MAX_OBJECT: u64 = 16 << 20;
/// Bytes of a table of fields; journald's have 16 KiB.
const MAX_TABLE: u64 = 1 << 20;
/// Objects in one chain: more are a ring.
const MAX_CHAIN: usize = 1 << 20;
/// So much is remembered of data that many entries share.
const MAX_KNOWN: usize = 4096;

/// What a part of an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What was printed.
    Message(Vec<u8>),
    /// It was printed to stderr.
    Stderr,
    /// The line goes on.
    Partial,
    /// Whose process has written it, as journald saw it.
    User(u32),
    /// It cannot be read.
    Unreadable(String),
    /// Nothing that matters.
    Other,
}

#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
    id: FileId,
    layout: Layout,
    seqnum_id: [u8; 16],
    /// By their places.
    known: HashMap<u64, Part>,
    buffer: Vec<u8>,
}

impl JournalFile {
    pub(super) fn open(path: &Path) -> io::Result<(JournalFile, Header)> {
        let file = File::open(path)?;
        let id = FileId::of_open(&file)?;
        let mut journal = JournalFile {
            file,
            path: path.to_owned(),
            id,
            layout: Layout { is_compact: false },
            seqnum_id: [0; 16],
            known: HashMap::new(),
            buffer: Vec::new(),
        };
        let header = journal.header()?;
        journal.layout = Layout { is_compact: header.is_compact };
        journal.seqnum_id = header.seqnum_id;
        Ok((journal, header))
    }

    pub(super) fn try_clone(&self) -> io::Result<JournalFile> {
        Ok(JournalFile {
            file: self.file.try_clone()?,
            path: self.path.clone(),
            known: HashMap::new(),
            buffer: Vec::new(),
            ..*self
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn seqnum_id(&self) -> [u8; 16] {
        self.seqnum_id
    }

    /// Whether it has no name any more: journald has deleted it for its age.
    pub(super) fn is_deleted(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.nlink() == 0)
    }

    pub(super) fn header(&mut self) -> io::Result<Header> {
        self.fill(0, HEADER)?;
        Header::parse(&self.buffer).map_err(|why| self.invalid(0, &why))
    }

    /// Reads up to `length` bytes, fewer at the end of the file.
    fn fill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        // What says that it is long, or far away, need not be there.
        let room = match length {
            0..=GUESS => MAX_OFFSET.saturating_sub(offset),
            _ => self.file.metadata()?.len().saturating_sub(offset),
        };
        let length = length.min(usize::try_from(room).unwrap_or(usize::MAX));
        self.buffer.resize(length, 0);
        let mut done = 0;
        while done < length {
            match self.file.read_at(&mut self.buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.truncate(done);
        Ok(())
    }

    /// Bytes at a place.
    pub(super) fn bytes(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        self.fill(offset, length)?;
        if self.buffer.len() < length {
            return Err(self.invalid(offset, "it ends there"));
        }
        Ok(&self.buffer)
    }

    /// The object at a place, and its flags; of one that is longer than `most` only its beginning.
    pub(super) fn object(&mut self, offset: u64, kind: Kind, most: usize) -> io::Result<(u8, &[u8])> {
        if offset < HEADER as u64 || !offset.is_multiple_of(8) {
            return Err(self.invalid(offset, "no object can be there"));
        }
        self.fill(offset, most.min(GUESS))?;
        let found = layout::object(&self.buffer, kind);
        let (flags, size) = found.ok_or_else(|| self.invalid(offset, &format!("no {kind:?} is there")))?;
        let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(most);
        if wanted > self.buffer.len() {
            self.bytes(offset, wanted)?;
        }
        self.buffer.truncate(wanted);
        Ok((flags, &self.buffer))
    }

    /// The data `field=value`, if some entry has them. Fields and their values are walked through, which needs none of the hash
    /// functions that files differ in, and takes a microsecond for each value.
    pub(super) fn find_data(&mut self, field: &[u8], value: &[u8]) -> io::Result<Option<u64>> {
        let wanted = [field, b"=", value].concat();
        let length = self.layout.payload() + wanted.len();
        let mut at = self.find_field(field)?;
        for _ in 0..MAX_CHAIN {
            if at == 0 {
                return Ok(None);
            }
            let payload = self.layout.payload();
            let (flags, data) = self.object(at, Kind::Data, length + 1)?;
            if flags & COMPRESSED == 0 && data.get(payload..) == Some(&wanted) {
                return Ok(Some(at));
            }
            at = number(data, 32);
        }
        Err(self.invalid(at, "its values are a ring"))
    }

    /// Where the values of a field begin; 0 when it has none.
    fn find_field(&mut self, name: &[u8]) -> io::Result<u64> {
        let (table, size) = self.header()?.fields;
        let table = self.bytes(table, size.min(MAX_TABLE) as usize)?.to_vec();
        for bucket in table.chunks_exact(16) {
            let mut at = number(bucket, 0);
            while at > 0 {
                let (_, field) = self.object(at, Kind::Field, FIELD_NAME + name.len() + 1)?;
                if field.get(FIELD_NAME..) == Some(name) {
                    return Ok(number(field, 32));
                }
                let next = number(field, 24);
                // What was appended later lies behind.
                if next > 0 && next <= at {
                    return Err(self.invalid(at, "its fields are a ring"));
                }
                at = next;
            }
        }
        Ok(0)
    }

    /// What the data at a place say.
    pub(super) fn part(&mut self, offset: u64) -> io::Result<Part> {
        if let Some(part) = self.known.get(&offset) {
            return Ok(part.clone());
        }
        let begin = self.layout.payload();
        let (flags, data) = self.object(offset, Kind::Data, GUESS)?;
        let size = number(data, 8);
        let payload = data.get(begin..).unwrap_or_default();
        let is_whole = size <= GUESS as u64;
        let part = if flags & COMPRESSED != 0 {
            self.compressed(offset, flags, size)?
        } else if is_whole || !payload.starts_with(MESSAGE) {
            // Nothing else that matters is long.
            Part::parse(payload)
        } else if size > MAX_OBJECT {
            Part::Unreadable(format!("{size} bytes are too many"))
        } else {
            let (_, data) = self.object(offset, Kind::Data, size as usize)?;
            Part::parse(&data[begin..])
        };
        let is_shared = !matches!(part, Part::Message(_) | Part::Unreadable(_));
        if is_shared {
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(offset, part.clone());
        }
        Ok(part)
    }

    fn compressed(&mut self, offset: u64, flags: u8, size: u64) -> io::Result<Part> {
        if size > MAX_OBJECT {
            return Ok(Part::Unreadable(format!("{size} bytes are too many")));
        }
        let begin = self.layout.payload();
        let (_, data) = self.object(offset, Kind::Data, size as usize)?;
        let compressed = data.get(begin..).unwrap_or_default();
        let payload = match flags & COMPRESSED {
            COMPRESSED_ZSTD => unpack_zstd(compressed),
            COMPRESSED_LZ4 => unpack_lz4(compressed),
            // Which field it is cannot be seen; only messages matter that are as long as what journald compresses.
            _ => Err("it is compressed by XZ".into()),
        };
        Ok(payload.map_or_else(Part::Unreadable, |payload| Part::parse(&payload)))
    }

    /// It cannot be as the file says.
    pub(super) fn invalid(&self, offset: u64, why: &str) -> io::Error {
        let text = format!("{} at byte {offset}: {why}", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

fn unpack_zstd(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    let read = zstd::stream::read::Decoder::with_buffer(compressed)
        .and_then(|decoder| decoder.take(MAX_OBJECT + 1).read_to_end(&mut payload));
    match read {
        Ok(_) if payload.len() as u64 > MAX_OBJECT => {
            Err(format!("more than {MAX_OBJECT} bytes are too many"))
        }
        Ok(_) => Ok(payload),
        Err(error) => Err(error.to_string()),
    }
}

/// One block, behind the number of its bytes.
fn unpack_lz4(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let length = number(compressed, 0);
    if length > MAX_OBJECT {
        return Err(format!("{length} bytes are too many"));
    }
    let block = compressed.get(8..).unwrap_or_default();
    let payload = lz4_flex::block::decompress(block, length as usize).map_err(|error| error.to_string())?;
    if payload.len() as u64 == length { Ok(payload) } else { Err("it is shorter than it says".into()) }
}

const MESSAGE: &[u8] = b"MESSAGE=";

impl Part {
    fn parse(payload: &[u8]) -> Part {
        if let Some(message) = payload.strip_prefix(MESSAGE) {
            return Part::Message(message.to_vec());
        }
        match payload {
            b"PRIORITY=3" => Part::Stderr,
            b"CONTAINER_PARTIAL_MESSAGE=true" => Part::Partial,
            _ => payload.strip_prefix(b"_UID=").map_or(Part::Other, |uid| {
                let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok());
                Part::User(uid.unwrap_or(u32::MAX))
            }),
        }
    }
}

/// Objects are no smaller than what they all begin with.
const _: () = assert!(OBJECT_HEAD <= FIELD_NAME);
