//! Compressed generations: as a stream for whoever reads forwards, as a file without a name for whoever has to look back.

use std::{
    env,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::unix::fs::FileExt,
};

use flate2::read::MultiGzDecoder;
use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::generations::Packing;

const BLOCK: usize = 128 * 1024;

/// The content of a compressed file, from its beginning on.
pub(super) struct Unpacker {
    decoder: Decoder,
    damage: Option<String>,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Compressed>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Compressed>>),
    /// What is not compressed.
    Plain(Box<Compressed>),
    /// There is no more.
    Ended,
}

type Compressed = BufReader<FromStart>;

/// A file with a place of its own in it, whoever else reads it.
struct FromStart {
    file: File,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Unpacker {
    pub(super) fn new(file: &File, packing: Packing) -> io::Result<Unpacker> {
        let start = BufReader::with_capacity(BLOCK, FromStart { file: file.try_clone()?, offset: 0 });
        let decoder = match packing {
            Packing::Plain => Decoder::Plain(Box::new(start)),
            Packing::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(start))),
            Packing::Zstd => Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(start)?)),
        };
        Ok(Unpacker { decoder, damage: None })
    }

    /// Reads on; 0 at the end of what can be decompressed.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.damage.is_some() {
            return 0;
        }
        loop {
            let result = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.read(buffer),
                Decoder::Zstd(decoder) => decoder.read(buffer),
                Decoder::Plain(reader) => reader.read(buffer),
                Decoder::Ended => Ok(0),
            };
            match result {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.damage = Some(error.to_string());
                    return 0;
                }
            }
        }
    }

    /// Reads until the buffer is full or there is no more.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut length = 0;
        while length < buffer.len() {
            match self.read(&mut buffer[length..]) {
                0 => break,
                count => length += count,
            }
        }
        length
    }

    /// Passes over so many bytes; fewer if there are no more.
    pub(super) fn skip(&mut self, count: u64) {
        let mut block = vec![0; BLOCK];
        let mut left = count;
        while left > 0 {
            let room = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.read(&mut block[..room]) {
                0 => break,
                count => left -= count as u64,
            }
        }
    }

    /// Why there is no more, if the file is damaged. Told once.
    pub(super) fn take_damage(&mut self) -> Option<String> {
        let damage = self.damage.take()?;
        self.decoder = Decoder::Ended;
        Some(damage)
    }

    /// Why there is no more, if the file is damaged.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

/// Does not show what is read.
impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("damage", &self.damage).finish_non_exhaustive()
    }
}

/// The content of a compressed file, and why the file is damaged, if it is: then it is what could be decompressed of it.
pub(super) struct Unpacked {
    pub(super) file: File,
    pub(super) damage: Option<String>,
}

/// Decompresses to a file on disk, so that a large generation does not have to fit into memory; but in memory when the
/// disk is full, for then is when logs are read.
pub(super) fn unpack(compressed: &File, packing: Packing) -> io::Result<Unpacked> {
    let on_disk = file_on_disk().and_then(|file| unpack_to(file, Unpacker::new(compressed, packing)?));
    match on_disk {
        Ok(unpacked) => Ok(unpacked),
        Err(_) => unpack_to(file_in_memory()?, Unpacker::new(compressed, packing)?),
    }
}

fn unpack_to(mut file: File, mut unpacker: Unpacker) -> io::Result<Unpacked> {
    let mut block = vec![0; BLOCK];
    loop {
        match unpacker.read(&mut block) {
            0 => return Ok(Unpacked { file, damage: unpacker.damage }),
            count => file.write_all(&block[..count])?,
        }
    }
}

fn file_on_disk() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?))
}

/// An empty file that is nowhere on disk.
pub(super) fn file_in_memory() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC)?))
}
