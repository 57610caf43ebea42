//! Files of the systemd journal, as journald never writes them.

use std::fs;

use podlog_driver::{JournalSource, ReadState};
use podlog_line::{Cursor, Selection};

use crate::parsers::way;

/// What every journal file begins with.
const SIGNATURE: &[u8] = b"LPKSHHRH";
/// Whose entries are looked for.
const CONTAINER: &str = "c0ffee";
/// Nothing that is read of a few KiB is longer.
const MAX_OUTPUT: usize = 64 << 20;

/// Whatever files say, reading ends, from either end, and goes on where it ended. A new file begins at each signature.
pub(crate) fn journal(input: &[u8]) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    for (index, file) in files_of(input).into_iter().enumerate() {
        fs::write(directory.path().join(format!("{index}.journal")), file).expect("room");
    }
    let source = JournalSource::new(vec![directory.path().to_owned()], CONTAINER);
    let all = Selection::default();
    let Some(whole) = read(&source, &all) else { return way("nothing", 0) };
    for tail in [1, u64::MAX] {
        let Some(end) = read(&source, &Selection { tail: Some(tail), ..all.clone() }) else { continue };
        if !whole.is_damaged && !end.is_damaged {
            assert!(whole.text.ends_with(&end.text), "the last {tail} lines are not the last");
        }
    }
    if let Some(cursor) = whole.cursor
        && let Some(rest) = read(&source, &Selection { after: Some(cursor), ..all })
        && !whole.is_damaged
        && !rest.is_damaged
    {
        assert!(rest.text.is_empty(), "{:?} comes after everything", String::from_utf8_lossy(&rest.text));
    }
    way(if whole.is_damaged { "damaged" } else { "read" }, whole.text.len())
}

fn files_of(input: &[u8]) -> Vec<&[u8]> {
    let mut begins: Vec<usize> = input
        .windows(SIGNATURE.len())
        .enumerate()
        .filter(|(_, window)| *window == SIGNATURE)
        .map(|(at, _)| at)
        .collect();
    begins.push(input.len());
    begins.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

struct Read {
    text: Vec<u8>,
    is_damaged: bool,
    cursor: Option<Cursor>,
}

/// `None` where there is nothing of the container, or it cannot be read.
fn read(source: &JournalSource, selection: &Selection) -> Option<Read> {
    let mut reader = source.read(selection).ok().flatten()?;
    let mut text = Vec::new();
    while reader.read_chunk(&mut text).ok()? == ReadState::More {
        assert!(text.len() < MAX_OUTPUT, "output without an end");
    }
    let cursor = reader.cursor();
    reader.finish(&mut text).ok()?;
    let stats = reader.stats();
    Some(Read { text, is_damaged: stats.damaged_files + stats.gaps > 0, cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What inputs to begin with are good for: each is read as far as it can be.
    #[test]
    fn seeds_are_what_they_are_called() {
        const ALL: &str = "one\ntwo\nthree, four\na\nb\n\n";
        let long = format!("{}\nshort\n", "x".repeat(200));
        for (name, text, is_damaged) in [
            ("plain", ALL, false),
            ("compact", ALL, false),
            ("rotated", ALL, false),
            ("strangers", "ours\nours again\n", false),
            ("zstd", &long, false),
            ("ring-of-arrays", "", true),
            ("an-array-without-end", "", true),
            ("far-away", "", true),
            ("ring-of-fields", "", true),
        ] {
            let path = format!("{}/corpus/journal/{name}", env!("CARGO_MANIFEST_DIR"));
            let directory = tempfile::tempdir().expect("a directory");
            let input = fs::read(path).expect("a seed");
            for (index, file) in files_of(&input).into_iter().enumerate() {
                fs::write(directory.path().join(format!("{index}.journal")), file).expect("room");
            }
            let source = JournalSource::new(vec![directory.path().to_owned()], CONTAINER);
            let found = read(&source, &Selection::default());
            let found = found.map(|read| (String::from_utf8_lossy(&read.text).into_owned(), read.is_damaged));
            if is_damaged {
                assert!(found.as_ref().is_none_or(|(_, is_damaged)| *is_damaged), "{name}: {found:?}");
            } else {
                assert_eq!(found, Some((text.to_owned(), false)), "{name}");
            }
        }
    }
}
