//! A file that is read, and written in memory only: a store whose disk is full can still be read, although opening it after
//! a failure has to write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;
use redb::StorageBackend;

const PAGE: u64 = 4096;

/// The file, and the pages that differ from it.
#[derive(Debug)]
pub(super) struct Shadow {
    file: File,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    length: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Shadow {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    pub(super) fn of(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Shadow { file, memory: Mutex::new(Memory { length, pages: BTreeMap::new() }) })
    }

    /// What the file has at `offset`; zeros beyond its end.
    fn original(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        out[done..].fill(0);
        Ok(())
    }
}

/// Calls `each` with every page that a range touches: its number, the range within the page, and the range's part.
fn pages(
    offset: u64,
    length: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE).unwrap_or(0);
        let take = (PAGE as usize - within).min(length - done);
        each(at / PAGE, within..within + take, done..done + take)?;
        done += take;
    }
    Ok(())
}

impl StorageBackend for Shadow {
    fn len(&self) -> io::Result<u64> {
        Ok(self.memory.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let memory = self.memory.lock();
        pages(offset, out.len(), |number, within, part| match memory.pages.get(&number) {
            Some(page) => {
                out[part].copy_from_slice(&page[within]);
                Ok(())
            }
            None => self.original(number * PAGE + within.start as u64, &mut out[part]),
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.memory.lock().length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut memory = self.memory.lock();
        pages(offset, data.len(), |number, within, part| {
            let page = match memory.pages.entry(number) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let mut page = vec![0; PAGE as usize].into_boxed_slice();
                    self.original(number * PAGE, &mut page)?;
                    new.insert(page)
                }
            };
            page[within].copy_from_slice(&data[part]);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_seen_and_the_file_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let original: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        std::fs::write(&path, &original).unwrap();
        let shadow = Shadow::open(&path).unwrap();
        let mut expected = original.clone();
        expected.resize(12_000, 0);
        for (offset, data) in
            [(0_u64, &b"abc"[..]), (4094, b"across a page"), (9_990, &[7; 40]), (11_000, b"beyond the end")]
        {
            shadow.write(offset, data).unwrap();
            let start = usize::try_from(offset).unwrap();
            expected[start..start + data.len()].copy_from_slice(data);
        }
        let mut read = vec![1; 12_000];
        shadow.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        assert_eq!(std::fs::read(&path).unwrap(), original);
    }
}
