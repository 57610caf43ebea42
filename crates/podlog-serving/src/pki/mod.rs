//! Certificates and keys: an authority of our own, what it issues, and the files they live in.
//!
//! Keys are readable by their owner only, and every file is replaced atomically, so that a crash leaves the old or
//! the new one.

mod authority;
mod files;
mod own;
mod signing;
mod signing_key;

pub use authority::{CertificateAuthority, CertificateRequest, Usage};
pub use files::{KeyPairFiles, PkiError, write_atomically};
pub use own::{ensure_self_signed, key_and_request, names, validity};
pub use signing::{Signer, SigningRequest, UnreadableRequest, certificate_end};
pub use signing_key::load_or_create_signing_key;
