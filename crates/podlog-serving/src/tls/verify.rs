//! Who is believed at the other end.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::certificates::provider;
use super::{GoTlsError, TlsError};

/// Checks that the peer holds the key of the certificate it shows: what remains of verification without an authority.
macro_rules! prove_possession_of_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Accepts any client that holds the key of what it shows, and clients that show nothing.
#[derive(Debug)]
pub(super) struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl AnyClient {
    pub(super) fn new() -> Self {
        AnyClient { provider: provider() }
    }
}

impl ClientCertVerifier for AnyClient {
    prove_possession_of_key!();

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hint: a client then shows what it has, and learns when that is not believed.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
}

/// Accepts any server that holds the key of what it shows (`InsecureSkipVerify`).
#[derive(Debug)]
pub(crate) struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl AnyServer {
    pub(crate) fn new() -> Self {
        AnyServer { provider: provider() }
    }
}

impl ServerCertVerifier for AnyServer {
    prove_possession_of_key!();

    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
}

/// Accepts servers that an authority vouches for. Checks in Go's order and fails with Go's texts.
#[derive(Debug)]
pub(crate) struct ServerOfAuthority {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerOfAuthority {
    pub(crate) fn new(roots: RootCertStore, bundle: &std::path::Path) -> Result<Self, TlsError> {
        let roots = Arc::new(roots);
        let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| TlsError::Unusable { path: bundle.to_owned(), reason: error.to_string() })?;
        Ok(ServerOfAuthority { provider: provider(), roots, chain })
    }
}

impl ServerCertVerifier for ServerOfAuthority {
    prove_possession_of_key!();

    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        check_validity(&parsed, now).and_then(|()| check_name(&parsed, name)).map_err(not_verified)?;
        self.chain
            .verify_server_cert(leaf, intermediates, name, ocsp, now)
            .map_err(|error| not_verified(chain_text(&error, &parsed, &self.roots)))
    }
}

fn not_verified(text: String) -> Error {
    GoTlsError(format!("tls: failed to verify certificate: x509: {text}")).into()
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), String> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (begin, end) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let expired = |relation: &str, limit: i64| {
        let (now, limit) = (rfc3339(now), rfc3339(limit));
        Err(format!("certificate has expired or is not yet valid: current time {now} is {relation} {limit}"))
    };
    match now {
        now if now < begin => expired("before", begin),
        now if now > end => expired("after", end),
        _ => Ok(()),
    }
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

/// As `src/crypto/x509/verify.go`, `HostnameError`.
fn check_name(certificate: &X509Certificate<'_>, wanted: &ServerName<'_>) -> Result<(), String> {
    let names = Names::of(certificate);
    match wanted {
        ServerName::IpAddress(wanted) => {
            let wanted = IpAddr::from(*wanted);
            if names.addresses.contains(&wanted) {
                Ok(())
            } else if names.addresses.is_empty() {
                Err(format!(
                    "cannot validate certificate for {wanted} because it doesn't contain any IP SANs"
                ))
            } else {
                let valid: Vec<String> = names.addresses.iter().map(IpAddr::to_string).collect();
                Err(format!("certificate is valid for {}, not {wanted}", valid.join(", ")))
            }
        }
        wanted => {
            let wanted = wanted.to_str();
            if names.dns.iter().any(|pattern| matches_host(pattern, &wanted)) {
                Ok(())
            } else if !names.dns.is_empty() {
                Err(format!("certificate is valid for {}, not {wanted}", names.dns.join(", ")))
            } else if names.addresses.is_empty() && names.has_common_name {
                Err("certificate relies on legacy Common Name field, use SANs instead".into())
            } else {
                Err(format!("certificate is not valid for any names, but wanted to match {wanted}"))
            }
        }
    }
}

struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    has_common_name: bool,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Names {
            dns: Vec::new(),
            addresses: Vec::new(),
            has_common_name: certificate.subject().iter_common_name().next().is_some(),
        };
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return names };
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(ip_address(bytes)),
                _ => {}
            }
        }
        names
    }
}

/// Whether a name of a certificate, whose first label may be `*`, covers a host.
fn matches_host(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.trim_end_matches('.').to_ascii_lowercase());
    match pattern.strip_prefix("*.") {
        None => pattern == host,
        Some(rest) => host.split_once('.').is_some_and(|(label, domain)| !label.is_empty() && domain == rest),
    }
}

/// The address in a certificate: 4 or 16 bytes.
pub(crate) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn chain_text(error: &Error, leaf: &X509Certificate<'_>, roots: &RootCertStore) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => bad_signature_text(leaf, roots),
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "certificate specifies an incompatible key usage".into(),
        Error::InvalidCertificate(CertificateError::UnhandledCriticalExtension) => {
            "unhandled critical extension".into()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "certificate has expired or is not yet valid: ".into()
        }
        _ => bad_signature_text(leaf, roots),
    }
}

/// An authority of the right name with another key is worth a hint: it was probably made anew.
fn bad_signature_text(leaf: &X509Certificate<'_>, roots: &RootCertStore) -> String {
    let unknown = "certificate signed by unknown authority";
    let issuer = leaf.issuer().as_raw();
    // An anchor holds the content of its subject, the certificate the whole sequence.
    let candidate = roots.roots.iter().any(|anchor| issuer.ends_with(anchor.subject.as_ref()));
    let name = leaf.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
    match (candidate, name) {
        (true, Some(name)) => format!(
            "{unknown} (possibly because of \"{}\" while trying to verify candidate authority certificate {name:?})",
            signature_failure(leaf)
        ),
        _ => unknown.into(),
    }
}

fn signature_failure(leaf: &X509Certificate<'_>) -> &'static str {
    match leaf.signature_algorithm.algorithm.to_id_string() {
        id if id.starts_with("1.2.840.10045.") => "x509: ECDSA verification failure",
        id if id == "1.3.101.112" => "x509: Ed25519 verification failure",
        _ => "crypto/rsa: verification error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], common_name: Option<&str>) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_checked_in_gos_words() {
        let rows: &[(&[&str], Option<&str>, &str, &str)] = &[
            (&["10.0.0.5"], None, "10.0.0.5", ""),
            (&["fd00::1"], None, "fd00::1", ""),
            (
                &["node-1"],
                None,
                "10.0.0.5",
                "cannot validate certificate for 10.0.0.5 because it doesn't contain any IP SANs",
            ),
            (
                &["10.0.0.6", "10.0.0.7"],
                None,
                "10.0.0.5",
                "certificate is valid for 10.0.0.6, 10.0.0.7, not 10.0.0.5",
            ),
            (&["node-1"], None, "NODE-1", ""),
            (&["*.example.com"], None, "a.example.com", ""),
            (
                &["*.example.com"],
                None,
                "a.b.example.com",
                "certificate is valid for *.example.com, not a.b.example.com",
            ),
            (&["a", "b"], Some("c"), "c", "certificate is valid for a, b, not c"),
            (&[], Some("c"), "c", "certificate relies on legacy Common Name field, use SANs instead"),
            (&["10.0.0.6"], Some("c"), "c", "certificate is not valid for any names, but wanted to match c"),
            (&[], None, "c", "certificate is not valid for any names, but wanted to match c"),
        ];
        for (names, common_name, wanted, expected) in rows {
            let der = certificate(names, *common_name);
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            let said = check_name(&parsed, &ServerName::try_from(*wanted).unwrap()).err().unwrap_or_default();
            assert_eq!(said, *expected);
        }
    }

    #[test]
    fn validity_is_checked_in_gos_words() {
        let der = certificate(&[], None);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            let since = std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap());
            check_validity(&parsed, UnixTime::since_unix_epoch(since)).err().unwrap_or_default()
        };
        let prefix = "certificate has expired or is not yet valid: current time";
        assert_eq!(at("2020-06-01T00:00:00Z"), "");
        assert_eq!(
            at("2024-06-01T10:11:12Z"),
            format!("{prefix} 2024-06-01T10:11:12Z is after 2021-01-01T00:00:00Z")
        );
        assert_eq!(
            at("2019-06-01T10:11:12Z"),
            format!("{prefix} 2019-06-01T10:11:12Z is before 2020-01-01T00:00:00Z")
        );
    }
}
