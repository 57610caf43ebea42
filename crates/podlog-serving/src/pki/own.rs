//! Certificates that a node makes for itself, or asks others for.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::authority::{CertificateRequest, alternative_names_of, is_due, leaf_parameters, parse, says};
use super::files::{KeyPairFiles, PUBLIC, PkiError, SECRET, read_if_present, write_atomically};

/// A new key (ECDSA P-256) and the request for its certificate (PKCS #10) that names the subject and the alternative names
/// of `wanted`; both PEM, the request first.
///
/// # Errors
/// When a name cannot stand in a certificate.
pub fn key_and_request(wanted: &CertificateRequest) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate()?;
    let leaf = leaf_parameters(wanted, SystemTime::now())?;
    // What a certificate is for is said beside the request, and how long it lives is not ours to say.
    let mut asked = CertificateParams::default();
    asked.distinguished_name = leaf.distinguished_name;
    asked.subject_alt_names = leaf.subject_alt_names;
    Ok((asked.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

/// Makes sure that `files` hold a certificate that says what `request` wants, signed with its own key and fresh. Returns
/// whether it was made.
///
/// # Errors
/// When the files cannot be read or written, or a name cannot stand in a certificate.
pub fn ensure_self_signed(files: &KeyPairFiles, request: &CertificateRequest) -> Result<bool, PkiError> {
    let now = SystemTime::now();
    if is_good(files, request, now)? {
        return Ok(false);
    }
    let key = KeyPair::generate()?;
    let mut parameters = leaf_parameters(request, now)?;
    parameters.use_authority_key_identifier_extension = false;
    let certificate = parameters.self_signed(&key)?;
    // The key first: whoever reads in between finds a pair that does not match, and keeps the old one.
    write_atomically(&files.key, key.serialize_pem().as_bytes(), SECRET)?;
    write_atomically(&files.certificate, certificate.pem().as_bytes(), PUBLIC)?;
    Ok(true)
}

fn is_good(files: &KeyPairFiles, request: &CertificateRequest, now: SystemTime) -> Result<bool, PkiError> {
    let pair = (read_if_present(&files.certificate)?, read_if_present(&files.key)?);
    let (Some(certificate), Some(key)) = pair else { return Ok(false) };
    let (Ok(certificate), Ok(key)) =
        (CertificateDer::from_pem_slice(certificate.as_bytes()), KeyPair::from_pem(&key))
    else {
        return Ok(false);
    };
    let Some(parsed) = parse(&certificate) else { return Ok(false) };
    let is_pair =
        parsed.public_key().subject_public_key.data.as_ref() == rcgen::PublicKeyData::der_bytes(&key);
    Ok(is_pair && says(&parsed, request) && !is_due(&certificate, now))
}

/// From when until when the first certificate of a PEM file is valid; `None` when there is none to be read.
pub fn validity(file: &Path) -> Option<(SystemTime, SystemTime)> {
    let certificate = CertificateDer::from_pem_file(file).ok()?;
    let parsed = parse(&certificate)?;
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    Some((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

/// DNS names and IP addresses in the first certificate of a PEM file; `None` when there is none to be read.
pub fn names(file: &Path) -> Option<BTreeSet<String>> {
    let certificate = CertificateDer::from_pem_file(file).ok()?;
    Some(alternative_names_of(&parse(&certificate)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_its_subject_and_is_signed_with_its_key() {
        let wanted = CertificateRequest {
            organization: Some("system:nodes".into()),
            ..CertificateRequest::serving("system:node:n1", ["n1", "10.0.0.1"])
        };
        let (request, key) = key_and_request(&wanted).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.as_bytes()).unwrap();
        assert_eq!(pem.label, "CERTIFICATE REQUEST");
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        let info = &parsed.certification_request_info;
        assert_eq!(info.subject.to_string(), "O=system:nodes, CN=system:node:n1");
        let key = KeyPair::from_pem(&key).unwrap();
        let public = info.subject_pki.subject_public_key.data.as_ref();
        assert_eq!(public, rcgen::PublicKeyData::der_bytes(&key));
        let names = parsed.requested_extensions().unwrap().find_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.len()),
            _ => None,
        });
        assert_eq!(names, Some(2));
    }

    #[test]
    fn a_node_signs_for_itself_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeyPairFiles::in_folder(folder.path(), "kubelet");
        let request = CertificateRequest::serving("n1", ["n1", "127.0.0.1"]);
        assert!(ensure_self_signed(&files, &request).unwrap());
        assert!(!ensure_self_signed(&files, &request).unwrap());
        let mode = std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let (begin, end) = validity(&files.certificate).unwrap();
        assert!(begin <= SystemTime::now() && end > SystemTime::now() + Duration::from_secs(300 * 24 * 3600));
        let other = CertificateRequest::serving("n1", ["n1", "127.0.0.2"]);
        assert!(ensure_self_signed(&files, &other).unwrap(), "other names");
        assert!(crate::ServerTls::load(files).is_ok());
    }
}
