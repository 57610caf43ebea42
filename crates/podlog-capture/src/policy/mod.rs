//! What is kept when a program prints more than may be, or can be, written.
//!
//! Everything here is pure: bytes and times in, bytes and [`Gap`](podlog_line::Gap)s out. What is dropped is dropped in
//! whole lines, is counted, and is declared at the place where it is missing.
//!
//! * [`RateLimit`] lets so many lines and bytes a second through.
//! * [`Buffer`] stands between the pipes and a log that is slower than they are, for containers that must not wait for it.
//!   Those that may wait have none: their pipes fill, and the program waits.

mod buffer;
mod losses;
mod rate;

pub use buffer::{Buffer, MAX_POPPED, Overflow, Popped};
pub use rate::{Admitted, RateLimit};
