//! podlog-apiserver
