//! What a line of a container log means: formats, partial records, selection.
//!
//! Everything here is pure: bytes in, bytes out. No files, no sockets, no clock. Message bytes are `&[u8]` and are never
//! required to be UTF-8.
//!
//! * [`Timestamp`], [`Rfc3339`], [`TimestampFormatter`]: the times of records
//! * [`cri`], [`json_file`]: the two record formats that container runtimes write
//! * [`Selection`]: what a reader asked for (`tail`, `since`, `limitBytes`, `timestamps`, `stream`)
//! * [`LineMatch`]: lines by what is in them
//! * [`Gap`]: what stands where something is missing
//! * [`Cursor`]: a place in a log to come back to
//! * [`Renderer`]: raw bytes of a log file to the bytes that a client sees

pub mod cri;
mod cursor;
mod gap;
pub mod json_file;
mod line_match;
mod quote;
mod record;
mod renderer;
mod selection;
mod stream;
mod timestamp;

pub use cursor::{Cursor, CursorError, FileMark, LinePlace, Place};
pub use gap::{GAP_TAG, Gap, GapReason};
pub use line_match::{LineMatch, PatternError, PatternSyntax, Patterns};
pub use quote::quote;
pub use record::{Format, LineEnd, Record, RecordParser};
pub use renderer::{MAX_HELD, RenderError, RenderState, RenderStats, Rendered, Renderer};
pub use selection::{Mode, Selection};
pub use stream::{Stream, Streams};
pub use timestamp::{Rfc3339, SecondCache, Timestamp, TimestampError, TimestampFormatter};
