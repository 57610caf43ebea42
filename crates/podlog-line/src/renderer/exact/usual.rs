//! Records as most of them are: whole lines of one second, one after another, while nothing is unfinished.

use super::{Exact, Line, LineState};
use crate::{
    Record, Stream,
    cursor::CursorsBetweenLines,
    renderer::{
        Block, RenderStats,
        filter::Time,
        template::{Headers, Template},
    },
};

/// Records of one second.
#[derive(Debug, Clone)]
pub(super) struct Usual {
    template: Template,
    time: Time,
}

/// What is done with whole lines of a stream, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Show,
    /// For their time, if one is given.
    LeaveOut(Option<Time>),
    /// It is no simple matter: the stream is inside a line.
    Stop,
}

impl Exact {
    /// Appends the output of the next records of `block`, up to one that is not a whole line, is out of the ordinary in any
    /// other way, or does not fit. `position` is that of the first of them.
    #[inline]
    pub(in crate::renderer) fn usual_lines(
        &mut self,
        block: &mut Block<'_>,
        position: u64,
        stats: &mut RenderStats,
        out: &mut Vec<u8>,
    ) {
        let Some(Usual { template, time }) = &self.usual else { return };
        let actions = Stream::ALL.map(|stream| self.usual_action(stream, *time, position));
        let Block { input, room, .. } = *block;
        // The input position of the place at the beginning of `input` is this, and its offset that.
        let input_offset = self.offset_of(position - block.done as u64);
        let mut cursors = self.filter.cursors.then_some(&mut self.between_lines);
        let cursor_room = if cursors.is_some() { CursorsBetweenLines::MAX_LENGTH } else { 0 };
        let mut headers = Headers::new(template);
        while let Some(header) = headers.read(&input[block.done..]) {
            let begin = block.done;
            let content = begin + header.length;
            let Some(end) = block.hit.end_of_line(input, content) else { break };
            match actions[header.stream.index()] {
                Action::Stop => break,
                Action::LeaveOut(why) => self.met_later |= why == Some(Time::TooLate),
                Action::Show if !self.filter.is_match_in(input, content..end, &mut block.hit) => {}
                // No line becomes longer than its record.
                Action::Show if !room.fits(out, end - begin + cursor_room) => break,
                Action::Show => {
                    if let Some(cursors) = &mut cursors {
                        cursors.append(input_offset + end as u64 + 1, out);
                    }
                    if self.filter.timestamps {
                        template.append_time(header, &input[begin..], out);
                    }
                    out.extend_from_slice(&input[content..=end]);
                }
            }
            stats.records += 1;
            block.done = end + 1;
        }
    }

    fn usual_action(&self, stream: Stream, time: Time, position: u64) -> Action {
        let is_between = |line: &Line| line.state == LineState::Start;
        let is_inside = self.open.is_some() || !is_between(&self.lines[stream.index()]);
        // Cursors say where both streams stand.
        let is_inside = is_inside || self.filter.cursors && !self.lines.iter().all(is_between);
        if !self.filter.streams.contains(stream) {
            Action::LeaveOut(None)
        } else if is_inside || position < self.ignore_before[stream.index()] {
            Action::Stop
        } else {
            match time {
                Time::Wanted => Action::Show,
                Time::TooOld | Time::TooLate => Action::LeaveOut(Some(time)),
                Time::Mixed => Action::Stop,
            }
        }
    }

    /// The records that come next probably look like this one.
    #[inline]
    pub(in crate::renderer) fn learn(&mut self, record: &Record<'_>) {
        if !self.usual.as_ref().is_some_and(|usual| usual.template.is_of(&record.time)) {
            let time = self.filter.time_of_second(record);
            self.usual = Template::of(&record.time).map(|template| Usual { template, time });
        }
    }
}
