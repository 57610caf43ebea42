//! How much may still come out.

/// The bytes of output that are still allowed, and those that are to be left out first.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    left: Option<u64>,
    skip: u64,
    /// All that came out, left out or not.
    made: u64,
}

/// What a call may append to its output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The length of the output when the call began.
    start: usize,
    /// The length at which it is full; no limit if this is `usize::MAX`.
    end: usize,
}

impl Budget {
    pub(super) fn new(limit: Option<u64>) -> Budget {
        Budget { left: limit, skip: 0, made: 0 }
    }

    /// The first bytes that come are not wanted.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.skip = bytes;
    }

    /// How many bytes are still to be left out.
    pub(super) fn skip_left(&self) -> u64 {
        self.skip
    }

    /// How many bytes came out, those included that were left out.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    pub(super) fn begin(&self, out: &[u8]) -> Room {
        let left = self.left.map_or(u64::MAX, |left| left.saturating_add(self.skip));
        let end = usize::try_from(left).map_or(usize::MAX, |left| out.len().saturating_add(left));
        Room { start: out.len(), end }
    }

    /// Cuts what is too much, takes away what is not wanted, and pays for the rest.
    pub(super) fn settle(&mut self, out: &mut Vec<u8>, room: Room) {
        out.truncate(room.end);
        self.made += room.made(out);
        if self.skip > 0 {
            let unwanted = (out.len() - room.start).min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            out.drain(room.start..room.start + unwanted);
            self.skip -= unwanted as u64;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub((out.len() - room.start) as u64);
        }
    }
}

impl Room {
    #[inline]
    pub(super) fn is_full(self, out: &[u8]) -> bool {
        out.len() >= self.end
    }

    #[inline]
    pub(super) fn is_limited(self) -> bool {
        self.end != usize::MAX
    }

    /// Whether so many more bytes surely fit, and some remain.
    #[inline]
    pub(super) fn fits(self, out: &[u8], length: usize) -> bool {
        self.end - out.len().min(self.end) > length
    }

    /// How many bytes were appended.
    pub(super) fn made(self, out: &[u8]) -> u64 {
        (out.len() - self.start) as u64
    }

    /// How many bytes still fit.
    pub(super) fn left(self, out: &[u8]) -> usize {
        self.end.saturating_sub(out.len())
    }

    /// How much fits of what was appended to `out` since it had that length; `None` if all of it.
    pub(super) fn cuts(self, length: usize, out: &[u8]) -> Option<u64> {
        (out.len() > self.end).then(|| self.end.saturating_sub(length) as u64)
    }
}
