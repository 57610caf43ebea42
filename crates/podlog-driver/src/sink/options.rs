//! How a log is to be written, and what was counted while it was.

/// The longest content of a record unless something else was asked for; longer lines are split into `P` records, as
/// containerd does by default.
pub const MAX_CONTENT: usize = 16 * 1024;
/// The bounds of [`SinkOptions::max_record_bytes`].
const RECORD_BOUNDS: std::ops::RangeInclusive<usize> = 1024..=256 * 1024;

/// How large a log may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// A file is rotated before it would exceed this; only a single record can be larger. `u64::MAX`: never rotated.
    pub max_bytes: u64,
    /// Files that are kept, the current one included.
    pub max_files: u32,
}

/// The kubelet's: 10 MiB, 5 files.
impl Default for FileLimits {
    fn default() -> FileLimits {
        FileLimits { max_bytes: 10 * 1024 * 1024, max_files: 5 }
    }
}

/// What a sink does with records that cannot be written, because the disk is full or fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// All of them are kept. The caller is asked to bring no more while [`CriFileSink::is_stalled`]; what it brings all the
    /// same takes memory.
    ///
    /// [`CriFileSink::is_stalled`]: super::CriFileSink::is_stalled
    Wait,
    /// About 1 MiB is kept. What comes then is dropped, counted, and declared in the log when there is room again.
    #[default]
    Drop,
}

/// How a log is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SinkOptions {
    /// How large it may become.
    pub limits: FileLimits,
    /// The longest content of a record, in bytes; longer lines are split. 0 is 16 KiB ([`MAX_CONTENT`]); anything else is
    /// taken for at least 1 KiB and at most 256 KiB.
    pub max_record_bytes: usize,
    /// What happens when it cannot be written.
    pub when_full: WhenFull,
}

impl SinkOptions {
    /// The longest content of a record, in bytes: what is held back of an unfinished line is no longer.
    pub fn max_content(&self) -> usize {
        match self.max_record_bytes {
            0 => MAX_CONTENT,
            bytes => bytes.clamp(*RECORD_BOUNDS.start(), *RECORD_BOUNDS.end()),
        }
    }
}

/// What a sink counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SinkStats {
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Bytes that are in files, headers included.
    pub bytes_written: u64,
    /// Records that were dropped because they could not be written.
    pub dropped_records: u64,
    /// Bytes of the program in those, line feeds included.
    pub dropped_bytes: u64,
    /// Bytes of records that wait until they can be written.
    pub backlog_bytes: u64,
    /// How often the file was rotated.
    pub rotations: u64,
}
