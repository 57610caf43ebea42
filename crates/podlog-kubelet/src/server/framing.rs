//! Whether a log goes out as it is, or in frames that say where they end.

use podlog_api::FrameHead;
use podlog_driver::{LogReader, ReadError, ReadState};

/// How a log goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it is.
    Plain,
    /// In frames ([`FrameHead`]).
    Frames,
}

impl Framing {
    /// Appends what the reader delivers next. A frame without content tells a reader that is behind how far it has come.
    pub(super) fn read(self, reader: &mut LogReader, out: &mut Vec<u8>) -> Result<ReadState, ReadError> {
        let begin = out.len();
        let state = reader.read_chunk(out)?;
        if out.len() > begin || state == ReadState::More {
            self.put_head(reader, out, begin);
        }
        Ok(state)
    }

    /// Appends what there is of unfinished lines, the writer having ended.
    pub(super) fn finish(self, reader: &mut LogReader, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let begin = out.len();
        reader.finish(out)?;
        if out.len() > begin {
            self.put_head(reader, out, begin);
        }
        Ok(())
    }

    fn put_head(self, reader: &LogReader, out: &mut Vec<u8>, begin: usize) {
        if self == Framing::Frames {
            let cursor = reader.cursor().map(|cursor| cursor.to_string());
            let head = FrameHead { length: out.len() - begin, cursor }.to_string();
            out.splice(begin..begin, head.into_bytes());
        }
    }
}
