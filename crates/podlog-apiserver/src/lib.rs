//! The API server: resources, storage, watch, admission, and the relay of log bytes from nodes.
//!
//! Left to others: what a request means (`podlog-api`), TLS and HTTP (`podlog-serving`), what a log line is: bytes of a log
//! pass through here unread.

pub mod controllers;
pub mod registry;
pub mod store;
