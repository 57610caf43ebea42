//! Decompressed generations: files without a name, gone when they are closed.

use std::{
    env,
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
};

use flate2::read::MultiGzDecoder;
use rustix::fs::{MemfdFlags, Mode, OFlags};

const BLOCK: usize = 128 * 1024;

/// The content of a compressed file, and whether the file is damaged: then it is what could be decompressed of it.
pub(super) struct Inflated {
    pub(super) file: File,
    pub(super) damage: Option<io::Error>,
}

/// Decompresses to a file on disk, so that a large generation does not have to fit into memory; but in memory when the
/// disk is full, for then is when logs are read.
pub(super) fn inflate(compressed: &File) -> io::Result<Inflated> {
    match file_on_disk().and_then(|file| inflate_to(file, compressed)) {
        Ok(inflated) => Ok(inflated),
        Err(_) => inflate_to(file_in_memory()?, compressed),
    }
}

fn inflate_to(mut file: File, mut compressed: &File) -> io::Result<Inflated> {
    compressed.rewind()?;
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(BLOCK, compressed));
    let mut block = vec![0; BLOCK];
    loop {
        match decoder.read(&mut block) {
            Ok(0) => return Ok(Inflated { file, damage: None }),
            Ok(count) => file.write_all(&block[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Inflated { file, damage: Some(error) }),
        }
    }
}

fn file_on_disk() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?))
}

fn file_in_memory() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC)?))
}
