//! podlog-line
