//! The network edge: TLS, HTTP servers and the client towards nodes, authentication, and the filter chain.
//!
//! This is the only crate that names rustls, and the only one that can make a [`Permit`]: whoever streams logs asks
//! for one, so nothing is served that was not authorized.
//!
//! Left to others: what a path means (`podlog-api`), logs and storage (the roles above).

mod seam;

pub use seam::{Authenticator, AuthnError, Authorizer, AuthzError, Body, BodyError, Handler, Peer, Permit};
