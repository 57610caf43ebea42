//! Finding the place of a cursor again, whatever was rotated, compressed or deleted since.

use std::io;

use podlog_line::{Cursor, FileMark, Gap, GapReason, LinePlace, Place, Renderer, Timestamp};

use super::segment::{Break, Segment};

/// Whether reading began exactly behind the cursor that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resumed {
    /// It did, or no cursor was asked for.
    Exact,
    /// What the cursor stands at has been deleted, or it is none of this log. A line declares the gap, and reading began
    /// at the oldest that is left and was not delivered, as far as that is known.
    Gone {
        /// Bytes of log files that are lost between the cursor and where reading began; `None` when nobody knows.
        bytes: Option<u64>,
    },
}

/// Where to begin to read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) resumed: Resumed,
    /// The place, and how far before it the renderer is fed from.
    place: Option<(Cursor, u64)>,
}

impl Found {
    pub(super) fn prepare(&self, renderer: &mut Renderer) {
        let Some((cursor, fed_back)) = self.place else { return };
        renderer.resume(cursor, fed_back);
        if fed_back == 0 {
            renderer.begin_file(cursor.file, cursor.place.offset);
        }
    }

    /// Whether the renderer knows where it is before anything is read.
    pub(super) fn has_place(&self) -> bool {
        self.resumed == Resumed::Exact && matches!(self.place, Some((_, 0)))
    }

    /// How many markers at that place were delivered.
    pub(super) fn known_markers(&self) -> u8 {
        match (self.resumed, self.place) {
            (Resumed::Exact, Some((cursor, _))) => cursor.place.markers,
            _ => 0,
        }
    }

    fn exact(cursor: Cursor) -> Found {
        Found { resumed: Resumed::Exact, place: Some((cursor, cursor.place.back())) }
    }

    /// A line in which the output stands does not go on.
    fn gone(cursor: Cursor, bytes: Option<u64>) -> Found {
        let place = Place { open: cursor.place.open, ..Place::default() };
        Found { resumed: Resumed::Gone { bytes }, place: Some((Cursor { place, ..cursor }, 0)) }
    }
}

/// Leaves what comes after the cursor, with a declared gap before it if its place is gone. `is_one_log`: the bases of the
/// files can be compared with each other.
pub(super) fn find(segments: &mut Vec<Segment>, cursor: &Cursor, is_one_log: bool) -> io::Result<Found> {
    let Some(index) = find_file(segments, cursor)? else {
        if is_beginning(cursor) {
            return Ok(Found::exact(*cursor));
        }
        let bytes = if is_one_log { drop_delivered(segments, cursor) } else { None };
        if bytes == Some(0) && cursor.place.back() == 0 {
            // The file is gone, and was delivered to its end.
            return Ok(Found::exact(*cursor));
        }
        declare(segments, bytes)?;
        return Ok(Found::gone(*cursor, bytes));
    };
    let place = cursor.place;
    if let Some((first, start)) = step_back(segments, index, place)? {
        segments.drain(..first);
        begin_at(segments, start);
        return Ok(Found::exact(*cursor));
    }
    // The beginning of a line that had not ended is gone; its rest is a line of its own.
    segments.drain(..index);
    begin_at(segments, place.offset);
    declare(segments, None)?;
    let rest = place.lines.map(|line| match line {
        LinePlace::Begun { .. } => LinePlace::Between,
        line => line,
    });
    let place = Place { offset: place.offset, lines: rest, open: place.open, skip: 0, markers: 0 };
    let cursor = Cursor { place, ..*cursor };
    Ok(Found { resumed: Resumed::Gone { bytes: None }, place: Some((cursor, 0)) })
}

/// Nothing was read but markers.
fn is_beginning(cursor: &Cursor) -> bool {
    let Place { offset, lines, open, skip, markers } = cursor.place;
    let is_read = offset > 0 || lines != [LinePlace::Between; 2] || open.is_some() || skip > 0;
    cursor.file == FileMark::default() && markers > 0 && !is_read
}

/// The newest file that the cursor names.
fn find_file(segments: &[Segment], cursor: &Cursor) -> io::Result<Option<usize>> {
    for (index, segment) in segments.iter().enumerate().rev() {
        let Some(file) = segment.as_file() else { continue };
        let Some(mark) = file.mark()? else { continue };
        let has_same_base = mark.base.zip(cursor.file.base).is_none_or(|(here, there)| here == there);
        let is_long_enough = file.length()?.is_none_or(|length| length >= cursor.place.offset);
        if mark.fingerprint == cursor.file.fingerprint && has_same_base && is_long_enough {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Where in which file reading begins to come to the place; `None` when that has been deleted.
fn step_back(segments: &mut [Segment], index: usize, place: Place) -> io::Result<Option<(usize, u64)>> {
    let Some(mut missing) = place.back().checked_sub(place.offset).filter(|missing| *missing > 0) else {
        return Ok(Some((index, place.offset - place.back())));
    };
    for (index, segment) in segments[..index].iter_mut().enumerate().rev() {
        let Segment::File(file) = segment else { return Ok(None) };
        let length = file.plain()?.metadata()?.len();
        if let Some(start) = length.checked_sub(missing) {
            return Ok(Some((index, start)));
        }
        missing -= length;
    }
    Ok(None)
}

fn begin_at(segments: &mut [Segment], offset: u64) {
    if let Some(Segment::File(file)) = segments.first_mut() {
        file.start = Some(offset);
    }
}

/// Drops the files that were written before the place. How many bytes are missing between it and the first that is left,
/// if the writer has left word.
fn drop_delivered(segments: &mut Vec<Segment>, cursor: &Cursor) -> Option<u64> {
    let place = cursor.file.base?.checked_add(cursor.place.offset)?;
    let base = |segment: &Segment| segment.as_file().and_then(|file| file.base());
    let (index, base) = segments
        .iter()
        .enumerate()
        .find_map(|(index, segment)| Some((index, base(segment).filter(|base| *base >= place)?)))?;
    segments.drain(..index);
    Some(base - place)
}

/// Puts a gap in front of everything.
fn declare(segments: &mut Vec<Segment>, bytes: Option<u64>) -> io::Result<()> {
    let first = segments.iter().find_map(Segment::as_file);
    let to = first.map_or(Ok(None), |file| file.first_time())?;
    let gap = Gap { bytes, to, ..Gap::new(GapReason::Retention) };
    let at = to.unwrap_or(Timestamp::MIN);
    segments.insert(0, Segment::Break(Break { gap: Some(gap), at, missing_files: 0, damage: None }));
    Ok(())
}
