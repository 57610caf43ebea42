//! The key that signs service account tokens.

use std::path::Path;

use rcgen::{KeyPair, PKCS_RSA_SHA256};

use super::files::{PUBLIC, PkiError, SECRET, read_if_present, write_atomically};

/// Loads the key that signs tokens, ECDSA or RSA, or makes one of ECDSA P-256: the private one as PEM, the public one as SPKI PEM,
/// which is written where it is missing; a file that holds another key is left alone. Returns both texts: private, public.
///
/// # Errors
/// When the files cannot be read, written or understood.
pub fn load_or_create_signing_key(private: &Path, public: &Path) -> Result<(String, String), PkiError> {
    let (private_pem, key) = match read_if_present(private)? {
        Some(pem) => {
            let key = KeyPair::from_pem(&pem)
                .map_err(|error| PkiError::Content { path: private.to_owned(), reason: error.to_string() })?;
            // What may be PKCS #1 stays as it is.
            let is_rsa = key.is_compatible(&PKCS_RSA_SHA256);
            (if is_rsa { pem } else { key.serialize_pem() }, key)
        }
        None => {
            let key = KeyPair::generate()?;
            write_atomically(private, key.serialize_pem().as_bytes(), SECRET)?;
            (key.serialize_pem(), key)
        }
    };
    let public_pem = key.public_key_pem();
    if read_if_present(public)?.is_none() {
        write_atomically(public, public_pem.as_bytes(), PUBLIC)?;
    }
    Ok((private_pem, public_pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("sa.key"), folder.path().join("sa.pub"));
        let first = load_or_create_signing_key(&private, &public).unwrap();
        std::fs::remove_file(&public).unwrap();
        assert_eq!(load_or_create_signing_key(&private, &public).unwrap(), first);
        assert!(first.0.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(first.1.starts_with("-----BEGIN PUBLIC KEY-----"));
        assert_eq!(std::fs::read_to_string(&public).unwrap(), first.1);
        std::fs::write(&public, "another key").unwrap();
        assert_eq!(load_or_create_signing_key(&private, &public).unwrap(), first);
        assert_eq!(
            std::fs::read_to_string(&public).unwrap(),
            "another key",
            "it may verify tokens of before"
        );
    }
}
