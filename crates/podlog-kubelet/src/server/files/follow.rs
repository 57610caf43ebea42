//! Following a path: the file that stands there, and those that take its place.
//!
//! A program or a rotator renames the file and makes it anew, maybe several times between two looks. A file that was renamed is
//! found again under its new name by what it is, not by how it is called; one that is gone before anybody has seen it is known of
//! because the kernel tells each file that is made.

use std::collections::VecDeque;
use std::io;

use super::generations::{Generation, Generations};
use super::root::ContainerRoot;
use super::tail::Tail;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// More of the file.
    Bytes(Vec<u8>),
    /// More of the file before, which its writer had not left yet.
    Late(Vec<u8>),
    /// Another file begins.
    NextFile,
    /// Files have come and gone unseen.
    Missing,
}

/// A path that is followed, or a file that is read to its end.
pub(super) struct Follow {
    at: Tail,
    /// Where in it reading ends.
    end: u64,
    /// The file before.
    previous: Option<Tail>,
    /// What has taken its place, oldest first.
    upcoming: VecDeque<Generation>,
    /// The file was read to its end since something was in the next one.
    is_left: bool,
    /// Only where it is followed.
    generations: Option<Generations>,
}

impl Follow {
    /// The part of a file that is there.
    pub(super) fn to_end(at: Tail) -> io::Result<Self> {
        let end = at.length()?;
        Ok(Follow { end, ..Follow::new(at, None) })
    }

    /// The file at `path` and all that take its place.
    pub(super) fn of_path(root: &ContainerRoot, path: &str) -> io::Result<Self> {
        let (at, generations) = Generations::begin(root, path)?;
        Ok(Follow::new(at, Some(generations)))
    }

    fn new(at: Tail, generations: Option<Generations>) -> Self {
        Follow { at, end: u64::MAX, previous: None, upcoming: VecDeque::new(), is_left: false, generations }
    }

    /// The file itself, to begin where it is wanted.
    pub(super) fn file(&mut self) -> &mut Tail {
        &mut self.at
    }

    /// Looks which files have taken the place of those that are known.
    pub(super) fn look(&mut self, root: &ContainerRoot) -> io::Result<()> {
        if let Some(generations) = &mut self.generations {
            self.upcoming.extend(generations.look(root)?);
        }
        Ok(())
    }

    /// What comes next; `None` when there is nothing for now.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        let late = self.previous.as_mut().map(|previous| previous.next(u64::MAX)).transpose()?.flatten();
        if let Some(late) = late {
            return Ok(Some(Piece::Late(late)));
        }
        loop {
            if let Some(bytes) = self.at.next(self.end)? {
                return Ok(Some(Piece::Bytes(bytes)));
            }
            if !self.is_next_in_use()? {
                return Ok(None);
            }
            // What its writer wrote before it went on is read first.
            if !std::mem::replace(&mut self.is_left, true) {
                continue;
            }
            match self.upcoming.pop_front() {
                Some(Generation::File(next)) => {
                    self.is_left = false;
                    self.previous = Some(std::mem::replace(&mut self.at, next));
                    return Ok(Some(Piece::NextFile));
                }
                Some(Generation::Missing) => return Ok(Some(Piece::Missing)),
                None => return Ok(None),
            }
        }
    }

    /// Whether its writer has gone on: something is in the next file, or behind it.
    fn is_next_in_use(&self) -> io::Result<bool> {
        Ok(match (self.upcoming.front(), self.upcoming.len()) {
            (None, _) => false,
            (Some(Generation::File(next)), 1) => next.length()? > 0,
            _ => true,
        })
    }

    /// Waits until there may be more.
    pub(super) fn wait(&mut self) {
        if let Some(generations) = &mut self.generations {
            generations.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new(text: &str) -> Self {
            let log = Log(tempfile::tempdir().unwrap());
            log.write(text);
            log
        }

        fn path(&self, suffix: &str) -> PathBuf {
            self.0.path().join(format!("a.log{suffix}"))
        }

        fn write(&self, text: &str) {
            let mut options = fs::File::options();
            options
                .create(true)
                .append(true)
                .open(self.path(""))
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }

        /// As a rotator that keeps so many.
        fn rotate(&self, kept: usize) {
            for number in (1..kept).rev() {
                let _ = fs::rename(self.path(&format!(".{number}")), self.path(&format!(".{}", number + 1)));
            }
            fs::rename(self.path(""), self.path(".1")).unwrap();
        }

        fn follow(&self) -> (ContainerRoot, Follow) {
            let root = ContainerRoot::open(std::process::id() as i32).unwrap();
            let follow = Follow::of_path(&root, self.path("").to_str().unwrap()).unwrap();
            (root, follow)
        }
    }

    /// Everything there is, files parted by `|`, and what is missing shown as `?`.
    fn read(root: &ContainerRoot, follow: &mut Follow) -> String {
        follow.look(root).unwrap();
        let mut text = String::new();
        while let Some(piece) = follow.next().unwrap() {
            text += &match piece {
                Piece::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                Piece::Late(bytes) => format!("({})", String::from_utf8(bytes).unwrap()),
                Piece::NextFile => "|".to_owned(),
                Piece::Missing => "?".to_owned(),
            };
        }
        text
    }

    #[test]
    fn however_often_a_file_is_made_anew_between_two_looks() {
        for rotations in 1..6 {
            let log = Log::new("0");
            let (root, mut follow) = log.follow();
            assert_eq!(read(&root, &mut follow), "0");
            let mut expected = String::from("a");
            log.write("a");
            for number in 1..=rotations {
                log.rotate(9);
                log.write(&number.to_string());
                expected += &format!("|{number}");
            }
            assert_eq!(read(&root, &mut follow), expected);
            assert_eq!(read(&root, &mut follow), "", "nothing twice");
        }
    }

    #[test]
    fn what_is_gone_is_declared() {
        let log = Log::new("0");
        let (root, mut follow) = log.follow();
        assert_eq!(read(&root, &mut follow), "0");
        for number in 1..=4 {
            log.rotate(2);
            log.write(&number.to_string());
        }
        assert_eq!(read(&root, &mut follow), "?|2|3|4", "the first has come and gone");
        log.rotate(2);
        assert_eq!(read(&root, &mut follow), "");
        log.write("5");
        assert_eq!(read(&root, &mut follow), "|5");
    }

    #[test]
    fn a_file_is_left_when_its_writer_has_left_it() {
        let log = Log::new("0");
        let (root, mut follow) = log.follow();
        let mut writer = fs::File::options().append(true).open(log.path("")).unwrap();
        log.rotate(9);
        writer.write_all(b"1").unwrap();
        assert_eq!(read(&root, &mut follow), "01");
        fs::write(log.path(""), "").unwrap();
        writer.write_all(b"2").unwrap();
        assert_eq!(read(&root, &mut follow), "2", "nothing is in the next one yet");
        writer.write_all(b"3").unwrap();
        log.write("new");
        assert_eq!(read(&root, &mut follow), "3|new");
        writer.write_all(b"late").unwrap();
        assert_eq!(read(&root, &mut follow), "(late)");
    }

    #[test]
    fn a_file_may_be_put_in_place_ready_made() {
        let log = Log::new("0");
        let (root, mut follow) = log.follow();
        for number in 1..=3 {
            fs::write(log.path("next"), number.to_string()).unwrap();
            fs::rename(log.path("next"), log.path("")).unwrap();
        }
        assert_eq!(read(&root, &mut follow), "0?|3", "two were overwritten");
        fs::rename(log.path(""), log.path(".1")).unwrap();
        fs::rename(log.path(".1"), log.path("")).unwrap();
        assert_eq!(read(&root, &mut follow), "", "back again");
        log.write("4");
        assert_eq!(read(&root, &mut follow), "4");
    }

    #[test]
    fn copies_are_not_read_again() {
        let log = Log::new("one\n");
        let (root, mut follow) = log.follow();
        assert_eq!(read(&root, &mut follow), "one\n");
        fs::copy(log.path(""), log.path(".1")).unwrap();
        fs::File::options().write(true).truncate(true).open(log.path("")).unwrap();
        log.write("two\n");
        assert_eq!(read(&root, &mut follow), "two\n");
        fs::write(log.path(".1.gz"), "compressed").unwrap();
        log.rotate(9);
        log.write("three\n");
        assert_eq!(read(&root, &mut follow), "|three\n");
    }

    /// Lines of numbers, in files that are renamed at any moment, several times between two looks.
    #[test]
    fn no_line_is_lost_in_a_storm_of_renamings() {
        const LINES: u32 = 20_000;
        let log = Log::new("");
        let (root, mut follow) = log.follow();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..LINES {
                    log.write(&format!("{number}\n"));
                    if number % 7 == 0 {
                        fs::rename(log.path(""), log.path(&format!(".{number}"))).unwrap();
                    }
                    if number % 2_000 == 0 {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
            let mut text = String::new();
            while !text.ends_with(&format!("{}\n", LINES - 1)) && !text.contains('?') {
                follow.wait();
                text += &read(&root, &mut follow).replace('|', "");
            }
            assert!(!text.contains('?'), "something is missing after {} bytes", text.len());
            let lines: Vec<u32> = text.lines().map(|line| line.parse().expect(line)).collect();
            assert!(lines.iter().copied().eq(0..LINES), "{} lines", lines.len());
        });
    }
}
