//! Certificates and keys from disk.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::pki::KeyPairFiles;

/// The process's cryptography, ours where none was installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => provider.clone(),
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

/// Every certificate of a PEM file; at least one.
pub(crate) fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(pem_reason(&error)))?;
    if certificates.is_empty() { Err(wrong("no certificate in it".into())) } else { Ok(certificates) }
}

/// A certificate with its key, known to be a pair.
pub(crate) fn load_key_pair(files: &KeyPairFiles) -> Result<CertifiedKey, TlsError> {
    let chain = load_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::File { path: files.key.clone(), reason: pem_reason(&error) })?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| TlsError::Unusable { path: files.certificate.clone(), reason: error.to_string() })
}

/// The authorities of a bundle. Certificates that cannot be one are left out, as Go does.
pub(crate) fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (good, bad) = roots.add_parsable_certificates(load_certificates(path)?);
    if bad > 0 {
        tracing::warn!(bundle = %path.display(), bad, "certificates of the bundle cannot be used");
    }
    if good > 0 {
        return Ok(roots);
    }
    Err(TlsError::Unusable { path: path.to_owned(), reason: "no usable certificate in it".into() })
}

/// What is wrong with a PEM file, without any of its content.
fn pem_reason(error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "nothing of the kind in it".into(),
        _ => "it is not PEM".into(),
    }
}
