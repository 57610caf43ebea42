//! A log in frames, each of which says where it ends, so that whoever has read one can come back behind it, within a line
//! too.
//!
//! ```text
//! <length> <cursor>\n<so many bytes of the log>
//! ```
//!
//! Without the heads it is, byte for byte, the log that is sent without frames. The cursor is `-` where the place has
//! none.

use std::fmt;

/// Longest head: a length, a cursor, and what stands between and behind them.
pub const MAX_FRAME_HEAD: usize = 128;
/// Longest content of a frame that is read; nobody writes such long ones.
pub const MAX_FRAME: usize = 64 << 20;

/// What stands before the content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of content.
    pub length: usize,
    /// The place behind them, if it has a cursor.
    pub cursor: Option<String>,
}

/// A frame that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFrame {
    /// The place behind it, if it has a cursor.
    pub cursor: Option<String>,
    /// A piece of the log.
    pub content: Vec<u8>,
}

/// What was received is no log in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is not in frames")]
pub struct FrameError;

/// The text that goes before the content.
impl fmt::Display for FrameHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.length, self.cursor.as_deref().unwrap_or("-"))
    }
}

impl FrameHead {
    /// Reads a head without its line feed.
    fn parse(line: &[u8]) -> Option<FrameHead> {
        let (length, cursor) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|length| is_number && *length <= MAX_FRAME)?;
        let is_cursor = cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let cursor = Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty() && is_cursor)?;
        Some(FrameHead { length, cursor: (cursor != "-").then_some(cursor) })
    }
}

/// Frames out of pieces of any size.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The head of the frame whose content comes next.
    head: Option<FrameHead>,
    /// What has come of that head or content.
    held: Vec<u8>,
}

impl FrameReader {
    /// The next whole frame, if the bytes at the beginning of `input` complete one. They are taken away from it, as is
    /// all of it when they do not.
    ///
    /// # Errors
    /// When what comes is no frame.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<LogFrame>, FrameError> {
        if self.head.is_none() && !self.read_head(input)? {
            return Ok(None);
        }
        let Some(head) = self.head.take_if(|head| self.held.len() + input.len() >= head.length) else {
            self.held.extend_from_slice(std::mem::take(input));
            return Ok(None);
        };
        let (content, rest) = input.split_at(head.length - self.held.len());
        *input = rest;
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(content);
        Ok(Some(LogFrame { cursor: head.cursor, content: held }))
    }

    /// Whether nothing has come of a frame that is not complete.
    pub fn is_between_frames(&self) -> bool {
        self.head.is_none() && self.held.is_empty()
    }

    /// Whether the head is complete.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let (part, rest) = input.split_at(end.unwrap_or(input.len()));
        self.held.extend_from_slice(&part[..part.len().min(MAX_FRAME_HEAD)]);
        if self.held.len() >= MAX_FRAME_HEAD {
            return Err(FrameError);
        }
        *input = rest.strip_prefix(b"\n").unwrap_or_default();
        if end.is_some() {
            self.head = Some(FrameHead::parse(&self.held).ok_or(FrameError)?);
            self.held.clear();
        }
        Ok(end.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut FrameReader, mut input: &[u8]) -> Result<Vec<LogFrame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.next(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty());
        Ok(frames)
    }

    #[test]
    fn garbage_is_refused() {
        let long = "1".repeat(MAX_FRAME_HEAD);
        for text in [
            "\n",
            " \n",
            "1\n",
            "1 \n",
            " c1\n",
            "-1 c1\n",
            "+1 c1\n",
            "1 c 1\n",
            "1 c\u{e9}\n",
            "x c1\n",
            "67108865 c1\n",
            "99999999999999999999 c1\n",
            &long,
        ] {
            assert_eq!(read(&mut FrameReader::default(), text.as_bytes()), Err(FrameError), "{text:?}");
        }
        let head = FrameHead { length: MAX_FRAME, cursor: Some("c".repeat(100)) };
        assert!(head.to_string().len() < MAX_FRAME_HEAD);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            frames in prop::collection::vec((prop::option::of("[a-z0-9.]{1,100}"), prop::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1..60usize,
        ) {
            let frames: Vec<LogFrame> =
                frames.into_iter().map(|(cursor, content)| LogFrame { cursor, content }).collect();
            let mut text = Vec::new();
            for LogFrame { cursor, content } in &frames {
                let head = FrameHead { length: content.len(), cursor: cursor.clone() };
                text.extend_from_slice(head.to_string().as_bytes());
                text.extend_from_slice(content);
            }
            let mut reader = FrameReader::default();
            let read: Result<Vec<_>, _> = text.chunks(cut).map(|piece| read(&mut reader, piece)).collect();
            prop_assert_eq!(read.map(|frames| frames.concat()), Ok(frames));
            prop_assert!(reader.is_between_frames());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&mut FrameReader::default(), &bytes);
        }
    }
}
