//! Reading a container log: every generation of it as one stream.

mod backward;
mod buffer;
mod files;
mod follow;
mod hole;
mod inflate;
mod position;
mod reader;
mod since;
mod source;
mod tail;

pub use follow::Place;
pub use reader::{LogReader, ReadState, ReadStats};
pub use source::LogSource;

#[cfg(test)]
mod tests;
