//! What a request to a Kubernetes API means, as pure functions and values: no files, no sockets, no clock.
//!
//! Every other crate speaks in these types: an [`Object`] is a Kubernetes object as JSON, an [`ApiError`] is the one
//! list of failures that a client can see, [`Attributes`] say what a request asks for and [`UserInfo`] who asks.
//!
//! ```
//! use podlog_api::ApiError;
//!
//! let status = ApiError::not_found("", "pods", "web").to_status();
//! assert_eq!(status["message"], r#"pods "web" not found"#);
//! assert_eq!(status["code"], 404);
//! ```
//!
//! What a request is: [`request_info`] (its path), [`query`], [`accept`] (which form of answer), [`log_options`].
//! Who may: [`rbac`], [`bootstrap_roles`].
//! What a body says: [`strict`] (into an object, with every complaint), [`protobuf`], [`patch`], [`quantity`].
//! What objects must be: [`resource`] (the table of kinds), [`defaults`], [`validation`].
//! How they are found and shown: [`selector`], [`table`], [`json`], [`discovery`], [`openapi`].
//! What others said, in Kubernetes' words: [`node_response`] (a kubelet's refusal), [`go`] (Go's texts).
//!
//! Left to others: transport, TLS and who a certificate belongs to (`podlog-serving`), storage and admission
//! (`podlog-apiserver`), what a log line is (`podlog-line`).

pub mod accept;
mod attributes;
pub mod bootstrap_roles;
mod compatibility;
pub mod defaults;
pub mod deleted_pods;
pub mod discovery;
mod error;
pub mod go;
pub mod json;
mod log_extensions;
mod log_frames;
pub mod log_options;
mod log_resumed;
mod names;
pub mod node_labels;
pub mod node_response;
mod object;
pub mod openapi;
pub mod ownership;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod query;
pub mod rbac;
pub mod request_info;
pub mod resource;
mod schema;
pub mod selector;
pub mod strict;
pub mod table;
pub mod validation;

pub use attributes::{Attributes, Decision, UserInfo};
pub use compatibility::Compatibility;
pub use error::{ApiError, Cause, Details, Reason};
pub use log_extensions::{LOG_OPTIONS_HEADER, LogExtensions};
pub use log_frames::{FrameError, FrameHead, FrameReader, LogFrame, MAX_FRAME, MAX_FRAME_HEAD};
pub use log_options::{PodLogOptions, StreamRules};
pub use log_resumed::{LOG_RESUMED_HEADER, LogResumed, LogResumedError};
pub use names::is_dns_subdomain;
pub use object::{Object, child_map};
pub use request_info::RequestInfo;
pub use selector::Selectors;
