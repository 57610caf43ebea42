//! Going on where a copier was killed.

use std::io;
use std::time::Instant;

use podlog_driver::{Content, content_since};
use podlog_line::{Gap, GapReason, Stream};
use rustix::io::Errno;

use super::Drain;
use crate::journal::{Journal, Note, Work};
use crate::plumbing::Plumbing;

/// How much of what a copier had on its way when it was killed is in the log.
pub(super) fn count_written(plumbing: &Plumbing, journal: &Journal) -> io::Result<Option<Content>> {
    let note = journal.note();
    match note.stream() {
        Some(stream) => content_since(&plumbing.log.path, &note.end, stream),
        None => Ok(Some(Content::default())),
    }
}

impl Drain<'_> {
    /// Takes the place of a copier that was killed. `written`: how much of what was on its way is in the log; `None` when
    /// nobody can tell.
    pub(super) fn take_over(&mut self, written: Option<Content>) -> io::Result<()> {
        let note = self.journal.note();
        for stream in Stream::ALL.into_iter().filter(|stream| Some(*stream) != note.stream()) {
            self.hold_again(stream, 0);
        }
        match note.work {
            _ if note.gap.is_some() => self.take_over_marker(written.unwrap_or_default()),
            Work::None => {}
            Work::Flush { stream } => {
                let kept = self.hold_again(stream, written.map_or(u64::MAX, |written| written.bytes));
                self.journal.advance(Work::None, self.sink.position(), stream, &kept);
            }
            Work::Raw { stream, filled } => {
                self.fetch_missing(stream, filled)?;
                let kept = self.hold_again(stream, 0);
                self.journal.advance(note.work, self.sink.position(), stream, &kept);
                let missing = Some(self.journal.missing(stream)).filter(|bytes| *bytes > 0);
                let gap = |bytes| Gap {
                    stream: Some(stream),
                    bytes: Some(bytes),
                    ..Gap::new(GapReason::RateLimit)
                };
                let work = Work::Chunk { stream, filled, from: 0 };
                self.journal.limit(work, missing.map(gap), stream, 0);
            }
            Work::Chunk { stream, filled, from } => {
                if !self.is_buffered() {
                    self.fetch_missing(stream, filled)?;
                }
                let held = self.journal.held(stream).len();
                let written = written.map_or(usize::MAX, |written| saturating_usize(written.bytes));
                let kept = self.hold_again(stream, written as u64);
                let from = from.saturating_add(written.saturating_sub(held)).min(filled);
                let work = Work::Chunk { stream, filled, from };
                self.journal.advance(work, self.sink.position(), stream, &kept);
            }
        }
        self.owe_losses(note, written);
        self.write_out();
        Ok(())
    }

    /// Takes what is missing of a chunk in the buffer from the work pipe.
    fn fetch_missing(&mut self, stream: Stream, filled: usize) -> Result<(), Errno> {
        let Some(outlet) = self.plumbing.outlet(stream) else { return Ok(()) };
        let missing = outlet.in_work().min(filled);
        outlet.fetch(&mut self.journal.buffer_mut()[filled - missing..filled])
    }

    /// The predecessor was writing a marker.
    fn take_over_marker(&mut self, written: Content) {
        let Note { work, gap, .. } = self.journal.note();
        let Some(stream) = gap.and_then(|gap| gap.stream) else { return };
        // Of content there may be the held part of a line that the marker ends.
        let kept = self.hold_again(stream, written.bytes);
        self.journal.advance(work, self.sink.position(), stream, &kept);
        if written.markers > 0 {
            self.journal.declared(self.sink.position());
        }
    }

    /// Declares what is gone with the predecessor.
    fn owe_losses(&mut self, note: Note, written: Option<Content>) {
        let reason = if self.is_buffered() { GapReason::CaptureKilled } else { GapReason::RateLimit };
        for stream in Stream::ALL {
            let declared = self.journal.note().gap.filter(|gap| gap.stream == Some(stream));
            let missing =
                self.journal.missing(stream).saturating_sub(declared.and_then(|gap| gap.bytes).unwrap_or(0));
            if missing > 0 {
                self.owed.push(Gap { stream: Some(stream), bytes: Some(missing), ..Gap::new(reason) });
            }
        }
        // Of these nobody knows how much it is, or whether it is anything.
        let unknown = |stream| Gap { stream: Some(stream), ..Gap::new(GapReason::CaptureKilled) };
        if self.journal.is_at_terminal() && (self.is_buffered() || note.work == Work::None) {
            self.journal.set_at_terminal(false);
            self.owed.push(unknown(Stream::Stdout));
        }
        if let (None, None, Some(stream)) = (written, note.gap, note.stream()) {
            self.owed.push(unknown(stream));
        }
    }

    /// Gives the sink what was held of a stream's last line, but for the `written` bytes of it that are in the log. It is
    /// no longer than what a sink holds back: nothing is written.
    fn hold_again(&mut self, stream: Stream, written: u64) -> Vec<u8> {
        let held = self.journal.held(stream);
        let kept = held[saturating_usize(written).min(held.len())..].to_vec();
        let at = self.time();
        let result = self.sink.write(stream, &kept, at);
        self.note_error(result);
        self.held_since[stream.index()] = (!kept.is_empty()).then(Instant::now);
        kept
    }
}

fn saturating_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
