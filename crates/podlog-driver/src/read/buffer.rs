//! The raw bytes between a file and the renderer.

/// Read from a file at once.
const BLOCK: usize = 64 * 1024;
/// A record longer than this is rendered in pieces.
const MAX_RECORD: usize = 1024 * 1024;

/// Bytes that were read and are to be rendered, from `start` to `end`.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What is to be rendered.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// What is to be rendered, once more.
    pub(super) fn rest_only(&self) -> Buffer {
        let bytes = self.rest().to_vec();
        Buffer { end: bytes.len(), start: 0, bytes }
    }

    /// Where to read to; call [`Buffer::filled`] afterwards.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < self.end + BLOCK {
            self.bytes.resize(self.end + BLOCK, 0);
        }
        &mut self.bytes[self.end..]
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Whether it holds as much of a record as it ever will.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= MAX_RECORD
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Gives memory back when there is nothing in it.
    pub(super) fn shrink(&mut self) {
        if self.start == self.end {
            *self = Buffer::default();
        }
    }
}
