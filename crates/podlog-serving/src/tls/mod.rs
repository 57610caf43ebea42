//! TLS as servers and clients of the log path speak it: 1.2 or newer, with aws-lc-rs.

mod certificates;
mod go_text;
mod server;
mod stream;
mod verify;

use std::path::PathBuf;

pub(crate) use certificates::{load_key_pair, load_roots, provider};
pub(crate) use go_text::{GoTlsError, alert_text};
pub use server::ServerTls;
pub(crate) use stream::{ClientStream, ServerStream};
pub(crate) use verify::{AnyServer, ServerOfAuthority, ip_address};

/// Makes aws-lc-rs the process's cryptography. First thing in every binary and test; more than once does no harm.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Why certificates and keys on disk cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM of the kind expected.
    #[error("cannot load {}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why; never its content.
        reason: String,
    },
    /// TLS refuses the certificate or key, e.g. because they are not a pair.
    #[error("cannot use {} for TLS: {reason}", .path.display())]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
