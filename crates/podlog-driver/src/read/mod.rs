//! Reading a container log: every generation of it as one stream.

mod backward;
mod buffer;
mod enter;
mod files;
mod follow;
mod hole;
mod index;
mod mark;
mod position;
mod reader;
mod resume;
mod segment;
mod since;
mod source;
mod tail;
mod unpack;
mod until;

pub use follow::Place;
pub use index::IndexCache;
pub use reader::{LogReader, ReadState, ReadStats};
pub use resume::Resumed;
pub use source::LogSource;

pub(crate) use mark::fingerprint;
pub(crate) use reader::MAX_OUTPUT;
pub(crate) use tail::TailSearch;

#[cfg(test)]
mod tests;
