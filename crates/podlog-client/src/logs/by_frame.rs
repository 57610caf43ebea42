//! Taking up a log where it stopped, by the cursors of its frames.

use bytes::Bytes;
use podlog_api::{FrameError, FrameReader, LogFrame, PodLogOptions};

use crate::ClientError;

/// How far a log in frames has been printed. Only whole frames are printed, so that it always stands at a cursor.
#[derive(Debug, Default)]
pub(crate) struct ByFrame {
    reader: FrameReader,
    /// Behind the last frame.
    last: Option<String>,
    printed: u64,
}

impl ByFrame {
    /// Something of the log was printed, and nobody knows where to go on.
    pub(super) fn is_lost(&self) -> bool {
        self.printed > 0 && self.last.is_none()
    }

    /// Asks for what is left of what is `wanted`.
    pub(crate) fn ask(&self, wanted: &PodLogOptions) -> PodLogOptions {
        let mut rest = wanted.clone();
        rest.extensions.frames = true;
        rest.limit_bytes = self.left(wanted);
        if let Some(last) = &self.last {
            rest.extensions.cursor = Some(last.clone());
            (rest.tail_lines, rest.since_seconds, rest.since_time) = (None, None, None);
        }
        rest
    }

    /// All that is `wanted` was printed.
    pub(super) fn is_complete(&self, wanted: &PodLogOptions) -> bool {
        self.left(wanted) == Some(0)
    }

    fn left(&self, wanted: &PodLogOptions) -> Option<i64> {
        let printed = i64::try_from(self.printed).unwrap_or(i64::MAX);
        wanted.limit_bytes.map(|limit| limit.saturating_sub(printed).max(0))
    }

    /// The stream broke off: what has come of a frame comes again.
    pub(crate) fn interrupted(&mut self) {
        self.reader = FrameReader::default();
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// When it has broken off within a frame.
    pub(crate) fn end(&self) -> Result<(), ClientError> {
        let is_whole = self.reader.is_between_frames();
        is_whole.then_some(()).ok_or_else(|| ClientError::Broken("unexpected EOF".into()))
    }

    /// Something has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.printed > 0 || self.last.is_some()
    }

    /// What is in the frames that a chunk completes.
    ///
    /// # Errors
    /// When the chunk does not go on as frames do; then all that is in it comes again.
    pub(crate) fn filter(&mut self, chunk: &[u8]) -> Result<Bytes, ClientError> {
        self.take(chunk).map_err(|error| ClientError::Broken(error.to_string()))
    }

    fn take(&mut self, mut chunk: &[u8]) -> Result<Bytes, FrameError> {
        let (mut text, mut last) = (Vec::new(), None);
        while let Some(LogFrame { cursor, content }) = self.reader.next(&mut chunk)? {
            last = cursor.or(last);
            if text.is_empty() {
                text = content;
            } else {
                text.extend_from_slice(&content);
            }
        }
        self.last = last.or(self.last.take());
        self.printed += text.len() as u64;
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"4 c1.a\none\n3 c1.b\ntwo0 c1.c\n5 -\n and\n2 c1.d\n3\n";
    const TEXT: &str = "one\ntwo and\n3\n";

    fn filter(resume: &mut ByFrame, log: &[u8], size: usize) -> String {
        log.chunks(size)
            .map(|chunk| String::from_utf8(resume.filter(chunk).unwrap().to_vec()).unwrap())
            .collect()
    }

    /// What a server sends that is asked for what comes after a cursor.
    fn after(options: &PodLogOptions) -> &'static [u8] {
        let at = |cursor: &str| match cursor {
            "c1.a" => 11,
            "c1.b" => 21,
            "c1.c" => 28,
            _ => LOG.len(),
        };
        &LOG[options.extensions.cursor.as_deref().map_or(0, at)..]
    }

    #[test]
    fn a_log_that_is_cut_anywhere_is_printed_once() {
        let wanted =
            PodLogOptions { limit_bytes: Some(100), tail_lines: Some(9), ..PodLogOptions::default() };
        for size in [1, 3, 100] {
            for cut in 0..=LOG.len() {
                let mut resume = ByFrame::default();
                let mut text = filter(&mut resume, &LOG[..cut], size);
                // What has no cursor is followed by the next one at once, or comes again.
                let has_unplaced = text.ends_with(" and\n");
                resume.interrupted();
                let rest = resume.ask(&wanted);
                assert_eq!(rest.limit_bytes, Some(100 - text.len() as i64));
                assert_eq!(rest.tail_lines.is_some(), rest.extensions.cursor.is_none());
                text += &filter(&mut resume, after(&rest), size);
                let expected =
                    if has_unplaced { TEXT.replace(" and\n", " and\n and\n") } else { TEXT.into() };
                assert_eq!(text, expected, "{cut} {size}");
                assert!(resume.end().is_ok() && !resume.is_lost() && !resume.is_complete(&wanted));
            }
        }
    }

    #[test]
    fn only_whole_frames_are_printed() {
        let mut resume = ByFrame::default();
        assert_eq!(filter(&mut resume, b"4 c1.a\non", 100), "");
        assert!(resume.end().is_err());
        assert_eq!(filter(&mut resume, b"e\n3 -\n...", 100), "one\n...");
        assert!(resume.end().is_ok() && resume.has_begun());
        assert!(resume.filter(b"0 c1.b\nerror: broken\n").is_err());
        assert_eq!(resume.last.as_deref(), Some("c1.a"));
        assert!(resume.is_complete(&PodLogOptions { limit_bytes: Some(7), ..PodLogOptions::default() }));
    }

    #[test]
    fn a_place_without_cursor_is_no_place() {
        let mut resume = ByFrame::default();
        assert_eq!(filter(&mut resume, b"0 -\n", 100), "");
        assert!(!resume.is_lost());
        assert_eq!(filter(&mut resume, b"1 -\n.", 100), ".");
        assert!(resume.is_lost());
    }
}
