//! Going on with the next file: what of it nobody wants, because it is too old, is not read.

use std::io;

use podlog_line::{LinePlace, Stream};

use super::{LogReader, files::LogFile, index::Entry, position::Position, since};
use crate::{ReadError, attributes::FileEnd};

impl LogReader {
    /// Goes on with this file, unless nothing in it is wanted.
    pub(super) fn enter(&mut self, mut file: LogFile) -> Result<bool, ReadError> {
        if file.start.is_none() && !self.is_inside_wanted_line() {
            if let Some(end) = self.is_too_old(&file) {
                self.renderer.begin_inside_line(end.inside_line);
                return Ok(false);
            }
            if self.leave_out_known(&file).map_err(|error| self.source.read_error(error))? {
                return Ok(false);
            }
            self.find_since(&mut file).map_err(|error| self.source.read_error(error))?;
        }
        let mut next = Position::new(file).map_err(|error| self.source.read_error(error))?;
        next.learn(&self.source.indexes).map_err(|error| self.source.read_error(error))?;
        let has_first_record = next.offset() > 0;
        self.previous = self.at.replace(next);
        self.is_marked = false;
        self.is_rotated = false;
        if has_first_record {
            self.mark_file()?;
        }
        Ok(true)
    }

    fn is_too_old(&self, file: &LogFile) -> Option<FileEnd> {
        file.end_before(self.since?)
    }

    /// Whether a line has begun that may go on in the next file, however old its records are: the clock may have been
    /// set back.
    fn is_inside_wanted_line(&self) -> bool {
        let is_wanted = |line: LinePlace| matches!(line, LinePlace::Begun { .. } | LinePlace::Broken);
        self.line_places().into_iter().any(is_wanted)
    }

    fn line_places(&self) -> [LinePlace; 2] {
        self.renderer.cursor().map(|cursor| cursor.place.lines).unwrap_or_default()
    }

    /// Leaves out the beginning of a file where that is too old.
    fn find_since(&mut self, file: &mut LogFile) -> io::Result<()> {
        let Some(since) = self.since else { return Ok(()) };
        if file.is_compressed() {
            // It has to be decompressed from its beginning in any case.
            return Ok(());
        }
        if file.is_ordered() {
            file.start = Some(since::find(file.plain()?, since)?);
            return Ok(());
        }
        let found = self.source.indexes.find(file, since)?;
        if found.offset > 0 {
            file.start = Some(found.offset);
            self.leave_out(&found);
        }
        Ok(())
    }

    /// Leaves out a compressed file of which it is known that all of it is too old.
    fn leave_out_known(&mut self, file: &LogFile) -> io::Result<bool> {
        let Some(since) = self.since.filter(|_| file.is_compressed()) else { return Ok(false) };
        let Some(end) = self.source.indexes.end_of(file)?.filter(|end| end.is_older(since)) else {
            return Ok(false);
        };
        self.leave_out(&end);
        Ok(true)
    }

    /// What is before that entry is not read.
    fn leave_out(&mut self, entry: &Entry) {
        let lines = self.line_places();
        let inside = |stream: Stream| {
            let is_left_out = lines[stream.index()] == LinePlace::Ignored;
            entry.inside_line[stream.index()].unwrap_or(is_left_out)
        };
        self.renderer.begin_inside_line(Stream::ALL.map(inside));
    }
}
