//! podlog-driver
