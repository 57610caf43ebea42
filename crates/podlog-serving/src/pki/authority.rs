//! A certificate authority that lives in two files.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::files::{KeyPairFiles, PUBLIC, PkiError, SECRET, read_if_present, write_atomically};

/// Life of an authority's own certificate: ten years, as kubeadm's.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Life of what it issues: a year, as kubeadm's.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Certificates are valid from a little before now, for peers whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server shows it.
    Server,
    /// A client shows it.
    Client,
    /// Either.
    ServerAndClient,
}

/// What a certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name: the user of a client certificate.
    pub common_name: String,
    /// The subject's organization: the group of a client certificate.
    pub organization: Option<String>,
    /// What it is for.
    pub usage: Usage,
    /// IP addresses and DNS names that a server answers to.
    pub alternative_names: Vec<String>,
    /// How long it is valid from now on.
    pub lifetime: Duration,
}

impl CertificateRequest {
    /// A server's certificate for the IP addresses and DNS names given, valid for a year.
    pub fn serving(
        common_name: impl Into<String>,
        alternative_names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        CertificateRequest {
            common_name: common_name.into(),
            organization: None,
            usage: Usage::Server,
            alternative_names: alternative_names.into_iter().map(Into::into).collect(),
            lifetime: LEAF_LIFETIME,
        }
    }

    /// A client's certificate, valid for a year.
    pub fn client(user: impl Into<String>, group: Option<&str>) -> Self {
        CertificateRequest {
            common_name: user.into(),
            organization: group.map(str::to_owned),
            usage: Usage::Client,
            alternative_names: Vec::new(),
            lifetime: LEAF_LIFETIME,
        }
    }
}

/// A certificate authority (ECDSA P-256).
pub struct CertificateAuthority {
    files: KeyPairFiles,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Loads `<name>.crt` and `<name>.key` of `folder`, or makes them. The certificate is made anew with the same key
    /// and name when less than a third of its life is left, so that what it issued stays valid.
    ///
    /// # Errors
    /// When the files cannot be read, written or understood, or only one of them is there.
    pub fn load_or_create(folder: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        Self::load_or_create_at(folder, name, common_name, SystemTime::now())
    }

    fn load_or_create_at(
        folder: &Path,
        name: &str,
        common_name: &str,
        now: SystemTime,
    ) -> Result<Self, PkiError> {
        let files = KeyPairFiles::in_folder(folder, name);
        let found = (read_if_present(&files.certificate)?, read_if_present(&files.key)?);
        let (certificate_pem, key) = match found {
            (Some(certificate_pem), Some(key)) => {
                (certificate_pem, KeyPair::from_pem(&key).map_err(|error| unusable(&files.key, error))?)
            }
            // A key alone is what a crash between the two files leaves.
            (None, key) => create(&files, key.as_deref(), common_name, now)?,
            (Some(_), None) => {
                return Err(unusable(&files.key, "the certificate is there, but its key is missing"));
            }
        };
        let authority = Self::assemble(files, certificate_pem, key)?;
        if is_due(&authority.certificate, now) { authority.renewed(now) } else { Ok(authority) }
    }

    fn assemble(files: KeyPairFiles, certificate_pem: String, key: KeyPair) -> Result<Self, PkiError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| unusable(&files.certificate, error))?;
        let parsed =
            parse(&certificate).ok_or_else(|| unusable(&files.certificate, "not an X.509 certificate"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(unusable(&files.key, "it is not the key of the certificate beside it"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(CertificateAuthority { files, certificate_pem, certificate, issuer })
    }

    fn renewed(self, now: SystemTime) -> Result<Self, PkiError> {
        let subject = parse(&self.certificate).and_then(|c| common_name_of(&c)).unwrap_or_default();
        let key_pem = read_if_present(&self.files.key)?.unwrap_or_default();
        let (certificate_pem, key) = create(&self.files, Some(&key_pem), &subject, now)?;
        Self::assemble(self.files, certificate_pem, key)
    }

    /// The file of the authority's certificate: the CA bundle for its peers.
    pub fn certificate_path(&self) -> &Path {
        &self.files.certificate
    }

    /// The authority's certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes sure that `files` hold a certificate of this authority that says what `request` wants and is fresh: issues
    /// it when it is missing, says something else, or less than a third of its life is left. Returns whether it did.
    ///
    /// # Errors
    /// When the files cannot be read or written, or a name cannot stand in a certificate.
    pub fn ensure(&self, files: &KeyPairFiles, request: &CertificateRequest) -> Result<bool, PkiError> {
        self.ensure_at(files, request, SystemTime::now())
    }

    fn ensure_at(
        &self,
        files: &KeyPairFiles,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<bool, PkiError> {
        if self.is_good(files, request, now)? {
            return Ok(false);
        }
        let (certificate, key) = self.issue_at(request, now)?;
        // The key first: whoever reads in between finds a pair that does not match, and keeps the old one.
        write_atomically(&files.key, key.as_bytes(), SECRET)?;
        write_atomically(&files.certificate, certificate.as_bytes(), PUBLIC)?;
        tracing::info!(certificate = %files.certificate.display(), subject = %request.common_name, "issued a certificate");
        Ok(true)
    }

    /// A new certificate and its key, both PEM.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue(&self, request: &CertificateRequest) -> Result<(String, String), PkiError> {
        self.issue_at(request, SystemTime::now())
    }

    pub(crate) fn issue_at(
        &self,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate()?;
        let certificate = leaf_parameters(request, now)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn is_good(
        &self,
        files: &KeyPairFiles,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<bool, PkiError> {
        let (Some(certificate), Some(key)) =
            (read_if_present(&files.certificate)?, read_if_present(&files.key)?)
        else {
            return Ok(false);
        };
        let (Ok(certificate), Ok(key)) =
            (CertificateDer::from_pem_slice(certificate.as_bytes()), KeyPair::from_pem(&key))
        else {
            return Ok(false);
        };
        let Some(parsed) = parse(&certificate) else { return Ok(false) };
        let Some(authority) = parse(&self.certificate) else { return Ok(false) };
        Ok(parsed.public_key().subject_public_key.data.as_ref() == rcgen::PublicKeyData::der_bytes(&key)
            && parsed.verify_signature(Some(authority.public_key())).is_ok()
            && says(&parsed, request)
            && !is_due(&certificate, now))
    }
}

fn create(
    files: &KeyPairFiles,
    key_pem: Option<&str>,
    common_name: &str,
    now: SystemTime,
) -> Result<(String, KeyPair), PkiError> {
    let key = match key_pem {
        Some(pem) => KeyPair::from_pem(pem).map_err(|error| unusable(&files.key, error))?,
        None => {
            let key = KeyPair::generate()?;
            write_atomically(&files.key, key.serialize_pem().as_bytes(), SECRET)?;
            key
        }
    };
    let certificate = authority_parameters(common_name, now).self_signed(&key)?;
    write_atomically(&files.certificate, certificate.pem().as_bytes(), PUBLIC)?;
    tracing::info!(certificate = %files.certificate.display(), "made a certificate authority");
    Ok((certificate.pem(), key))
}

fn authority_parameters(common_name: &str, now: SystemTime) -> CertificateParams {
    let mut parameters = parameters(common_name, None, now, AUTHORITY_LIFETIME);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

pub(super) fn leaf_parameters(
    request: &CertificateRequest,
    now: SystemTime,
) -> Result<CertificateParams, PkiError> {
    let mut parameters =
        parameters(&request.common_name, request.organization.as_deref(), now, request.lifetime);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    parameters.extended_key_usages = match request.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::ServerAndClient => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    parameters.subject_alt_names =
        request.alternative_names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    Ok(parameters)
}

fn alternative_name(name: &str) -> Result<SanType, PkiError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name
            .to_owned()
            .try_into()
            .map(SanType::DnsName)
            .map_err(|_| PkiError::Name { name: name.to_owned() }),
    }
}

fn parameters(
    common_name: &str,
    organization: Option<&str>,
    now: SystemTime,
    lifetime: Duration,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    parameters.distinguished_name = subject;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    parameters.not_after = epoch + now + lifetime;
    parameters.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes()));
    parameters
}

/// Whether less than a third of a certificate's life is left, or it has not begun (the clock has jumped back).
pub(super) fn is_due(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    let Some(parsed) = parse(certificate) else { return true };
    let validity = parsed.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    now < begin || (end - now) < (end - begin) / 3
}

pub(super) fn says(certificate: &X509Certificate<'_>, request: &CertificateRequest) -> bool {
    let organizations: Vec<&str> =
        certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let usage =
        certificate.extended_key_usage().ok().flatten().map(|e| (e.value.server_auth, e.value.client_auth));
    let wanted_usage = match request.usage {
        Usage::Server => (true, false),
        Usage::Client => (false, true),
        Usage::ServerAndClient => (true, true),
    };
    common_name_of(certificate).as_deref() == Some(&request.common_name)
        && organizations == Vec::from_iter(request.organization.as_deref())
        && usage == Some(wanted_usage)
        && alternative_names_of(certificate) == request.alternative_names.iter().cloned().collect()
}

fn common_name_of(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

pub(super) fn alternative_names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    extension.value.general_names.iter().filter_map(general_name).collect()
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => crate::tls::ip_address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed)
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> PkiError {
    PkiError::Content { path: PathBuf::from(path), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn authority(folder: &Path, now: SystemTime) -> CertificateAuthority {
        CertificateAuthority::load_or_create_at(folder, "ca", "podlog", now).unwrap()
    }

    #[test]
    fn leaves_are_kept_until_something_asks_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let ca = authority(folder.path(), start);
        let files = KeyPairFiles::in_folder(folder.path(), "apiserver");
        let request = CertificateRequest::serving("apiserver", ["127.0.0.1", "::1", "localhost"]);
        let with = |change: fn(&mut CertificateRequest)| {
            let mut request = request.clone();
            change(&mut request);
            request
        };
        let after = |days: u32| start + DAY * days;
        let rows = [
            ("there is none", request.clone(), after(0), true),
            ("it is good", request.clone(), after(0), false),
            ("still more than a third", request.clone(), after(242), false),
            ("less than a third", request.clone(), after(245), true),
            ("the clock jumped back", request.clone(), after(3), true),
            ("other names", with(|r| r.alternative_names.push("podlog.local".into())), after(3), true),
            ("other groups", with(|r| r.organization = Some("g".into())), after(3), true),
            ("other use", with(|r| r.usage = Usage::ServerAndClient), after(3), true),
            ("other subject", with(|r| r.common_name = "x".into()), after(3), true),
            ("order of names is nothing", with(|r| r.alternative_names.reverse()), after(3), true),
            ("order of names is nothing", request.clone(), after(3), false),
        ];
        for (why, request, now, issued) in rows {
            assert_eq!(ca.ensure_at(&files, &request, now).unwrap(), issued, "{why}");
        }
        let mode = std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn damaged_or_foreign_leaves_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ca = authority(folder.path(), now);
        let other = CertificateAuthority::load_or_create_at(folder.path(), "other", "podlog", now).unwrap();
        let files = KeyPairFiles::in_folder(folder.path(), "leaf");
        let request = CertificateRequest::client("ann", Some("devs"));
        assert!(other.ensure(&files, &request).unwrap());
        assert!(ca.ensure(&files, &request).unwrap(), "another authority issued it");
        let second = KeyPairFiles::in_folder(folder.path(), "second");
        ca.ensure(&second, &request).unwrap();
        std::fs::copy(&second.key, &files.key).unwrap();
        assert!(ca.ensure(&files, &request).unwrap(), "the key is not the certificate's");
        std::fs::write(&files.certificate, "nonsense").unwrap();
        assert!(ca.ensure(&files, &request).unwrap(), "not a certificate");
        std::fs::remove_file(&files.key).unwrap();
        assert!(ca.ensure(&files, &request).unwrap(), "no key");
        assert!(!ca.ensure(&files, &request).unwrap());
    }

    #[test]
    fn an_authority_survives_and_renews_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let first = authority(folder.path(), start);
        let pem = first.certificate_pem().to_owned();
        assert_eq!(authority(folder.path(), start + DAY).certificate_pem(), pem);
        let files = KeyPairFiles::in_folder(folder.path(), "leaf");
        let request = CertificateRequest::client("ann", Some("devs"));
        first.ensure(&files, &request).unwrap();
        let later = start + DAY * 365 * 7;
        let renewed = authority(folder.path(), later);
        assert_ne!(renewed.certificate_pem(), pem);
        assert!(!renewed.ensure_at(&files, &request, start + DAY).unwrap(), "what it issued is still good");
        std::fs::remove_file(renewed.certificate_path()).unwrap();
        authority(folder.path(), start);
        assert!(!first.ensure(&files, &request).unwrap(), "a key that was left alone is used again");
    }

    #[test]
    fn an_authority_does_not_start_from_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let load = || CertificateAuthority::load_or_create(folder.path(), "ca", "podlog").map(|_| ());
        load().unwrap();
        let files = KeyPairFiles::in_folder(folder.path(), "ca");
        std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(error.ends_with("is not usable: it is not the key of the certificate beside it"), "{error}");
        std::fs::remove_file(&files.key).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(error.ends_with("the certificate is there, but its key is missing"), "{error}");
    }
}
