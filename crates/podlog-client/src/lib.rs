//! podlog-client
