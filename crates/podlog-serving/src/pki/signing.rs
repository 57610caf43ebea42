//! Certificates for others: reading what they ask for (PKCS #10), and signing it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::asn1_rs::{Any, BitString, Header, Sequence, ToDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{KeyPairFiles, PkiError};
use crate::reload::Reloading;

/// Certificates are valid from a little before now, for peers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Certificates that live shorter are not cut short by what they are backdated.
const SHORT: Duration = Duration::from_secs(8 * 60 * 60);

/// Why a request for a certificate, or a certificate, cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableRequest(String);

/// A request for a certificate. Whoever made it holds the key: its signature has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningRequest {
    /// The subject's common name; empty where it has none.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Host names that the certificate shall be valid for.
    pub dns_names: Vec<String>,
    /// Addresses that the certificate shall be valid for.
    pub addresses: Vec<IpAddr>,
    /// Mail addresses that the certificate shall be valid for.
    pub emails: Vec<String>,
    /// URIs that the certificate shall be valid for.
    pub uris: Vec<String>,
    /// The subject in DER.
    subject: Vec<u8>,
    /// The public key in DER.
    public_key: Vec<u8>,
}

impl SigningRequest {
    /// Reads the first PEM block, which must be a `CERTIFICATE REQUEST`.
    ///
    /// # Errors
    /// When it is something else, is damaged, or is not signed with its own key.
    pub fn parse(pem: &[u8]) -> Result<Self, UnreadableRequest> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| UnreadableRequest("PEM block type must be CERTIFICATE REQUEST".to_owned()))?;
        Self::from_der(&der)
    }

    /// Reads a request without its PEM.
    ///
    /// # Errors
    /// As [`SigningRequest::parse`].
    pub fn from_der(der: &[u8]) -> Result<Self, UnreadableRequest> {
        let wrong = |text: &str| UnreadableRequest(text.to_owned());
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| UnreadableRequest(format!("not a PKCS #10 request: {error}")))?;
        if !rest.is_empty() {
            return Err(wrong("there is something behind the PKCS #10 request"));
        }
        request.verify_signature().map_err(|_| wrong("the signature is not one of the request's key"))?;
        let info = &request.certification_request_info;
        let texts = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute
                .as_str()
                .map(str::to_owned)
                .map_err(|_| wrong("the subject holds something that is not text"))
        };
        let common_name = info.subject.iter_common_name().last().map(texts).transpose()?;
        let mut parsed = SigningRequest {
            common_name: common_name.unwrap_or_default(),
            organizations: info.subject.iter_organization().map(texts).collect::<Result<_, _>>()?,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..SigningRequest::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().try_for_each(|name| parsed.add(name))?;
            }
        }
        Ok(parsed)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), UnreadableRequest> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = crate::tls::ip_address(bytes);
                self.addresses
                    .push(address.ok_or_else(|| UnreadableRequest("an IP address is malformed".into()))?);
            }
            // As Go: other kinds of names are not taken over.
            _ => {}
        }
        Ok(())
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, PkiError> {
        let text =
            |name: &String| name.as_str().try_into().map_err(|_| PkiError::Name { name: name.clone() });
        let mut names = Vec::new();
        for name in &self.dns_names {
            names.push(SanType::DnsName(text(name)?));
        }
        for name in &self.emails {
            names.push(SanType::Rfc822Name(text(name)?));
        }
        for name in &self.uris {
            names.push(SanType::URI(text(name)?));
        }
        names.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        Ok(names)
    }
}

/// When the first certificate of a PEM text ends.
///
/// # Errors
/// When the text is not made of certificates: one or more PEM blocks of that kind.
pub fn certificate_end(pem: &[u8]) -> Result<SystemTime, UnreadableRequest> {
    let mut first = None;
    for block in CertificateDer::pem_slice_iter(pem) {
        let block = block.map_err(|_| UnreadableRequest("not PEM".into()))?;
        let (_, certificate) = X509Certificate::from_der(&block)
            .map_err(|error| UnreadableRequest(format!("not an X.509 certificate: {error}")))?;
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        first.get_or_insert(UNIX_EPOCH + Duration::from_secs(end));
    }
    first.ok_or_else(|| UnreadableRequest("must contain one or more CERTIFICATE PEM blocks".into()))
}

/// Signs requests with an authority of somebody's choice. Its files are loaded again when they change.
pub struct Signer {
    authority: Reloading<Arc<Authority>, PkiError>,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    end: SystemTime,
}

impl Signer {
    /// With the certificate and key of an authority.
    ///
    /// # Errors
    /// When the files cannot be read, or are not a certificate and its key.
    pub fn load(files: KeyPairFiles) -> Result<Self, PkiError> {
        let watched = vec![files.certificate.clone(), files.key.clone()];
        Ok(Signer { authority: Reloading::new(watched, move || Authority::load(&files).map(Arc::new))? })
    }

    /// Signs what is requested: subject, alternative names and key as the request has them, usages by the names that
    /// `certificates.k8s.io` has for them, valid for `lifetime` at most.
    ///
    /// # Errors
    /// When the authority's certificate has ended, or the kind of key is not supported.
    pub fn sign(
        &self,
        request: &SigningRequest,
        usages: &[&str],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        self.authority.current().sign(request, usages, lifetime, SystemTime::now())
    }
}

impl Authority {
    fn load(files: &KeyPairFiles) -> Result<Self, PkiError> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
        };
        let unusable =
            |path: &std::path::Path, reason: String| PkiError::Content { path: path.to_owned(), reason };
        let pem = read(&files.certificate)?;
        let key =
            KeyPair::from_pem(&read(&files.key)?).map_err(|error| unusable(&files.key, error.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| unusable(&files.certificate, error.to_string()))?;
        let end = certificate_end(pem.as_bytes())
            .map_err(|error| unusable(&files.certificate, error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|error| unusable(&files.certificate, error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(unusable(&files.key, "it is not the key of the certificate beside it".into()));
        }
        Ok(Authority { issuer: Issuer::from_ca_cert_der(&certificate, key)?, end })
    }

    /// As `pkg/controller/certificates/authority`.
    fn sign(
        &self,
        request: &SigningRequest,
        usages: &[&str],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, PkiError> {
        if now >= self.end {
            return Err(PkiError::AuthorityEnded);
        }
        let backdate = if lifetime > SHORT { BACKDATE } else { Duration::ZERO };
        let end = (now + lifetime - backdate).min(self.end);
        let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.not_before = epoch + since_epoch(now).saturating_sub(BACKDATE);
        parameters.not_after = epoch + since_epoch(end);
        parameters.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes()));
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.subject_alt_names = request.alternative_names()?;
        parameters.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
        parameters.extended_key_usages = usages.iter().filter_map(|usage| extended_usage(usage)).collect();
        let key = SubjectPublicKeyInfo::from_der(&request.public_key)?;
        let unnamed = parameters.signed_by(&key, &self.issuer)?;
        let named = with_subject(unnamed.der(), &request.subject, self.issuer.key())?;
        Ok(pem("CERTIFICATE", &named))
    }
}

/// The certificate with another subject, signed anew. A library that builds subjects from parts has no way to say
/// which parts belong together, or that one comes twice.
fn with_subject(certificate: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let unreadable = || PkiError::Generate(rcgen::Error::CouldNotParseCertificate);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    let tbs = parsed.tbs_certificate.as_ref();
    let placeholder = parsed.tbs_certificate.subject.as_raw();
    let start = placeholder.as_ptr().addr() - tbs.as_ptr().addr();
    let (_, head) = Header::from_der(tbs).map_err(|_| unreadable())?;
    let head = head.to_der_vec().map_err(|_| unreadable())?.len();
    let signed = sequence(&[&tbs[head..start], subject, &tbs[start + placeholder.len()..]])?;
    let signature = BitString::new(0, &key.sign(&signed)?).to_der_vec().map_err(|_| unreadable())?;
    sequence(&[&signed, &algorithm(&parsed).ok_or_else(unreadable)?, &signature])
}

/// The signature algorithm of a certificate in DER.
fn algorithm(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let (_, outer) = Sequence::from_der(certificate.as_raw()).ok()?;
    let behind_tbs = &outer.content[certificate.tbs_certificate.as_ref().len()..];
    let (signature, _) = Any::from_der(behind_tbs).ok()?;
    Some(behind_tbs[..behind_tbs.len() - signature.len()].to_vec())
}

fn sequence(parts: &[&[u8]]) -> Result<Vec<u8>, PkiError> {
    Sequence::new(parts.concat().into())
        .to_der_vec()
        .map_err(|_| PkiError::Generate(rcgen::Error::CouldNotParseCertificate))
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key_usage(name: &str) -> Option<KeyUsagePurpose> {
    Some(match name {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_usage(name: &str) -> Option<ExtendedKeyUsagePurpose> {
    // Arcs below which RFC 5280, Microsoft and Netscape keep the others.
    const PKIX: [u64; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
    let pkix = |last: u64| ExtendedKeyUsagePurpose::Other([&PKIX[..], &[last]].concat());
    Some(match name {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "ipsec end system" => pkix(5),
        "ipsec tunnel" => pkix(6),
        "ipsec user" => pkix(7),
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        "microsoft sgc" => ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => ExtendedKeyUsagePurpose::Other(vec![2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, PublicKeyData};

    use super::*;
    use crate::pki::CertificateAuthority;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// A request in PEM, made by another hand than the one that reads it would be better; this is the library's.
    fn request(key: &KeyPair, organizations: &[&str], names: &[SanType]) -> String {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        for (i, organization) in organizations.iter().enumerate() {
            let kind =
                if i == 0 { DnType::OrganizationName } else { DnType::CustomDnType(vec![2, 5, 4, 10]) };
            parameters.distinguished_name.push(kind, *organization);
        }
        parameters.distinguished_name.push(DnType::CommonName, "system:node:n1");
        parameters.subject_alt_names = names.to_vec();
        parameters.serialize_request(key).unwrap().pem().unwrap()
    }

    fn signer(folder: &std::path::Path) -> (CertificateAuthority, Signer) {
        let authority = CertificateAuthority::load_or_create(folder, "ca", "podlog").unwrap();
        let signer = Signer::load(KeyPairFiles::in_folder(folder, "ca")).unwrap();
        (authority, signer)
    }

    #[test]
    fn requests_say_whom_they_are_for() {
        let key = KeyPair::generate().unwrap();
        let names = [
            SanType::DnsName("n1".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
            SanType::Rfc822Name("a@b".try_into().unwrap()),
            SanType::URI("spiffe://x".try_into().unwrap()),
        ];
        let pem = request(&key, &["system:nodes", "more"], &names);
        let parsed = SigningRequest::parse(pem.as_bytes()).unwrap();
        assert_eq!(parsed.common_name, "system:node:n1");
        assert_eq!(parsed.organizations, ["system:nodes", "more"]);
        assert_eq!(parsed.dns_names, ["n1"]);
        assert_eq!(parsed.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!((parsed.emails, parsed.uris), (vec!["a@b".to_owned()], vec!["spiffe://x".to_owned()]));
    }

    #[test]
    fn what_is_no_good_request_is_refused() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key, &["o"], &[]);
        let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
        let with = |change: fn(&mut Vec<u8>)| {
            let mut der = der.clone();
            change(&mut der);
            pem("CERTIFICATE REQUEST", &der)
        };
        let rows = [
            (good.replace(" REQUEST", ""), "PEM block type must be CERTIFICATE REQUEST"),
            (String::new(), "PEM block type must be CERTIFICATE REQUEST"),
            (with(|der| der.truncate(50)), "not a PKCS #10 request"),
            (with(|der| der.push(0)), "something behind"),
            // The last byte belongs to the signature, this one to the subject.
            (with(|der| *der.last_mut().unwrap() ^= 1), "the signature is not one of the request's key"),
            (with(|der| der[20] ^= 1), ""),
        ];
        for (pem, expected) in rows {
            let error = SigningRequest::parse(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn certificates_say_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, signer) = signer(folder.path());
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let names =
                [SanType::DnsName("n1".try_into().unwrap()), SanType::IpAddress([10, 0, 0, 1].into())];
            let asked = SigningRequest::parse(request(&key, &["a", "b"], &names).as_bytes()).unwrap();
            let issued =
                signer.sign(&asked, &["digital signature", "server auth", "ipsec user"], HOUR).unwrap();
            let der = CertificateDer::from_pem_slice(issued.as_bytes()).unwrap();
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            let ca = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap();
            let (_, ca) = X509Certificate::from_der(&ca).unwrap();
            parsed.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(parsed.issuer(), ca.subject());
            assert_eq!(parsed.subject().to_string(), "O=a, O=b, CN=system:node:n1");
            assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
            let usage = parsed.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.server_auth && !usage.client_auth && usage.other.len() == 1);
            let usage = parsed.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_encipherment());
            assert!(!parsed.is_ca());
            let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert_eq!(names.len(), 2);
            // An hour from now, and valid for clocks that are five minutes behind.
            let validity = parsed.validity();
            assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 65 * 60);
            let end = certificate_end(issued.as_bytes()).unwrap();
            assert_eq!(end, UNIX_EPOCH + Duration::from_secs(validity.not_after.timestamp().unsigned_abs()));
        }
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let folder = tempfile::tempdir().unwrap();
        let (_authority, signer) = signer(folder.path());
        let asked = request(&KeyPair::generate().unwrap(), &["a"], &[]);
        let asked = SigningRequest::parse(asked.as_bytes()).unwrap();
        let long = signer.sign(&asked, &["client auth"], 20 * 365 * 24 * HOUR).unwrap();
        let authority = signer.authority.current();
        assert_eq!(certificate_end(long.as_bytes()).unwrap(), authority.end);
        let late = authority.sign(&asked, &["client auth"], HOUR, authority.end);
        assert!(matches!(late, Err(PkiError::AuthorityEnded)));
    }

    #[test]
    fn an_authority_needs_its_key() {
        let folder = tempfile::tempdir().unwrap();
        signer(folder.path());
        CertificateAuthority::load_or_create(folder.path(), "other", "other").unwrap();
        let mixed =
            KeyPairFiles { certificate: folder.path().join("ca.crt"), key: folder.path().join("other.key") };
        let error = Signer::load(mixed).err().unwrap().to_string();
        assert!(error.contains("it is not the key of the certificate beside it"), "{error}");
    }
}
