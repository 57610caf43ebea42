//! Decompressed generations: files without a name, gone when they are closed.

use std::{
    env,
    fs::File,
    io::{self, BufReader, Read, Write},
};

use flate2::read::MultiGzDecoder;
use rustix::fs::{MemfdFlags, Mode, OFlags};

const BLOCK: usize = 128 * 1024;

/// The content of a compressed file, and whether the file is damaged: then it is what could be decompressed of it.
pub(super) struct Inflated {
    pub(super) file: File,
    pub(super) damage: Option<io::Error>,
}

pub(super) fn inflate(compressed: &File) -> io::Result<Inflated> {
    let mut file = nameless_file()?;
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

/// On disk where possible, so that a large generation does not have to fit into memory.
fn nameless_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        .or_else(|_| rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC))?;
    Ok(File::from(descriptor))
}
