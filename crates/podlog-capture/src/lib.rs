//! podlog-capture
