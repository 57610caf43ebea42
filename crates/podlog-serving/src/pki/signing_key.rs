//! The key that signs service account tokens.

use std::path::Path;

use rcgen::KeyPair;

use super::files::{PUBLIC, PkiError, SECRET, read_if_present, write_atomically};

/// Loads or makes an ECDSA P-256 key (for ES256): the private one as PKCS #8 PEM, the public one as SPKI PEM, which is
/// written where it is missing; a file that holds another key is left alone. Returns both texts: private, public.
///
/// # Errors
/// When the files cannot be read, written or understood.
pub fn load_or_create_signing_key(private: &Path, public: &Path) -> Result<(String, String), PkiError> {
    let key = match read_if_present(private)? {
        Some(pem) => KeyPair::from_pem(&pem)
            .map_err(|error| PkiError::Content { path: private.to_owned(), reason: error.to_string() })?,
        None => {
            let key = KeyPair::generate()?;
            write_atomically(private, key.serialize_pem().as_bytes(), SECRET)?;
            key
        }
    };
    let public_pem = key.public_key_pem();
    if read_if_present(public)?.is_none() {
        write_atomically(public, public_pem.as_bytes(), PUBLIC)?;
    }
    Ok((key.serialize_pem(), public_pem))
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
