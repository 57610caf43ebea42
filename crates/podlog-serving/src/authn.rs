//! Who asks: client certificates, and asking several authenticators.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::request::Parts;
use parking_lot::Mutex;
use podlog_api::UserInfo;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::reload::Reloading;
use crate::server::room::Stranger;
use crate::tls::{load_roots, provider};
use crate::{Authenticator, AuthnError, Peer, TlsError};

/// How long a verified chain is believed without verifying its signatures again.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);
/// Chains that are remembered at once.
const REMEMBERED_CHAINS: usize = 1024;
/// Key of [`UserInfo::extra`] that says which credential it was.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Believes client certificates of an authority: the common name is the user, organizations are groups.
///
/// As `k8s.io/apiserver/pkg/authentication/request/x509`.
pub struct X509Authenticator {
    authority: Reloading<Arc<dyn ClientCertVerifier>, TlsError>,
    remembered: Mutex<Remembered>,
}

/// Answers of one state of the CA bundle.
struct Remembered {
    authority: Option<Arc<dyn ClientCertVerifier>>,
    users: HashMap<[u8; 32], (Instant, Option<UserInfo>)>,
}

impl X509Authenticator {
    /// Believes the authorities of a PEM bundle, which is loaded again when it changes.
    ///
    /// # Errors
    /// When the bundle cannot be read or holds no usable certificate.
    pub fn load(client_ca: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let bundle = client_ca.into();
        let load = {
            let bundle = bundle.clone();
            move || -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
                let roots = Arc::new(load_roots(&bundle)?);
                WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
                    .map_err(|error| TlsError::Unusable { path: bundle.clone(), reason: error.to_string() })
            }
        };
        let authority = Reloading::new(vec![bundle], load)?;
        Ok(X509Authenticator {
            authority,
            remembered: Mutex::new(Remembered { authority: None, users: HashMap::new() }),
        })
    }

    fn user_of(&self, chain: &[Vec<u8>]) -> Result<Option<UserInfo>, AuthnError> {
        let Some(leaf) = chain.first() else { return Ok(None) };
        let authority: Arc<dyn ClientCertVerifier> = Arc::clone(&*self.authority.current());
        let id = digest(chain);
        if let Some(user) = self.remembered.lock().recall(&authority, &id) {
            return Ok(user);
        }
        let user = verify(authority.as_ref(), leaf, &chain[1..])?;
        self.remembered.lock().keep(authority, id, user.clone());
        Ok(user)
    }
}

#[async_trait]
impl Authenticator for X509Authenticator {
    async fn authenticate(&self, _: &Parts, peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        self.user_of(&peer.certificate_chain)
    }
}

impl Remembered {
    fn recall(&self, authority: &Arc<dyn ClientCertVerifier>, id: &[u8; 32]) -> Option<Option<UserInfo>> {
        let same = self.authority.as_ref().is_some_and(|known| Arc::ptr_eq(known, authority));
        let (verified, user) = self.users.get(id)?;
        (same && verified.elapsed() < REMEMBERED_FOR).then(|| user.clone())
    }

    fn keep(&mut self, authority: Arc<dyn ClientCertVerifier>, id: [u8; 32], user: Option<UserInfo>) {
        let same = self.authority.as_ref().is_some_and(|known| Arc::ptr_eq(known, &authority));
        if !same || self.users.len() >= REMEMBERED_CHAINS {
            self.users.clear();
            self.authority = Some(authority);
        }
        self.users.insert(id, (Instant::now(), user));
    }
}

fn digest(chain: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for certificate in chain {
        digest.update(certificate.len().to_le_bytes());
        digest.update(certificate);
    }
    digest.finalize().into()
}

fn verify(
    authority: &dyn ClientCertVerifier,
    leaf: &[u8],
    issuers: &[Vec<u8>],
) -> Result<Option<UserInfo>, AuthnError> {
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|_| AuthnError("the client certificate is not an X.509 certificate".into()))?;
    let issuers: Vec<CertificateDer<'_>> =
        issuers.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    authority.verify_client_cert(&CertificateDer::from(leaf), &issuers, UnixTime::now()).map_err(
        |error| {
            AuthnError(format!(
                "verifying the client certificate of {:?} failed: {error}",
                parsed.subject().to_string()
            ))
        },
    )?;
    Ok(user_named_by(&parsed, leaf))
}

/// `None` without a common name: such a certificate names nobody.
fn user_named_by(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<UserInfo> {
    let subject = certificate.subject();
    let username = subject.iter_common_name().last()?.as_str().ok().filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned));
    let hash: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(UserInfo {
        username: username.to_owned(),
        uid: String::new(),
        groups: groups.collect(),
        extra: [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hash}")])].into(),
    })
}

/// Asks authenticators in turn; the first that knows the user wins, and the user becomes a member of
/// `system:authenticated`. Without any, the last error stands: a wrong credential is not the same as none.
pub struct UnionAuthenticator {
    members: Vec<Arc<dyn Authenticator>>,
    anonymous: Anonymous,
}

enum Anonymous {
    Refused,
    Allowed,
    /// On these paths.
    AllowedOn(&'static [&'static str]),
}

impl UnionAuthenticator {
    /// Asks `members` in their order; requests without any credential are nobody's.
    pub fn new(members: Vec<Arc<dyn Authenticator>>) -> Self {
        UnionAuthenticator { members, anonymous: Anonymous::Refused }
    }

    /// Requests without any credential are `system:anonymous`'s.
    pub fn with_anonymous(mut self) -> Self {
        self.anonymous = Anonymous::Allowed;
        self
    }

    /// Requests without any credential are `system:anonymous`'s, if they are for one of `paths`.
    ///
    /// As the conditions of `AnonymousAuthConfig` in `k8s.io/apiserver/pkg/apis/apiserver`.
    pub fn with_anonymous_on(mut self, paths: &'static [&'static str]) -> Self {
        self.anonymous = Anonymous::AllowedOn(paths);
        self
    }
}

#[async_trait]
impl Authenticator for UnionAuthenticator {
    async fn authenticate(&self, request: &Parts, peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        let mut errors = Vec::new();
        for member in &self.members {
            match member.authenticate(request, peer).await {
                Ok(Some(user)) => {
                    if !user.is_anonymous()
                        && let Some(stranger) = request.extensions.get::<Stranger>()
                    {
                        stranger.is_introduced();
                    }
                    return Ok(Some(authenticated(user)));
                }
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        match (errors.is_empty(), &self.anonymous) {
            (false, _) => Err(AuthnError(errors.join("; "))),
            (true, Anonymous::Allowed) => Ok(Some(anonymous())),
            (true, Anonymous::AllowedOn(paths)) if paths.contains(&request.uri.path()) => {
                Ok(Some(anonymous()))
            }
            (true, _) => Ok(None),
        }
    }
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    if user.username != UserInfo::ANONYMOUS
        && !user.is_in(UserInfo::AUTHENTICATED)
        && !user.is_in(UserInfo::UNAUTHENTICATED)
    {
        user.groups.push(UserInfo::AUTHENTICATED.into());
    }
    user
}

fn anonymous() -> UserInfo {
    UserInfo {
        username: UserInfo::ANONYMOUS.into(),
        groups: vec![UserInfo::UNAUTHENTICATED.into()],
        ..UserInfo::default()
    }
}

/// The token of `Authorization: Bearer <token>`; `None` without one.
///
/// As `k8s.io/apiserver/pkg/authentication/request/bearertoken`.
pub fn bearer_token(request: &Parts) -> Option<&str> {
    let header = request.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
    let mut words = header.split(' ');
    let scheme = words.next()?;
    let token = words.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{CertificateAuthority, CertificateRequest, Usage};
    use rustls_pki_types::pem::PemObject;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn parts(authorization: Option<&str>) -> Parts {
        let mut request = http::Request::builder();
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn peer(chain: Vec<Vec<u8>>) -> Peer {
        Peer { address: ([127, 0, 0, 1], 1).into(), certificate_chain: chain.into() }
    }

    #[test]
    fn tokens_are_found_as_upstream_finds_them() {
        let rows = [
            (None, None),
            (Some("Bearer abc"), Some("abc")),
            (Some("bearer abc"), Some("abc")),
            (Some(" BEARER abc "), Some("abc")),
            (Some("Bearer abc def"), Some("abc")),
            (Some("Bearer  abc"), None),
            (Some("Bearer"), None),
            (Some("Basic abc"), None),
        ];
        for (header, token) in rows {
            assert_eq!(bearer_token(&parts(header)), token, "{header:?}");
        }
    }

    #[tokio::test]
    async fn certificates_name_users_or_are_wrong() {
        crate::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let authority =
            |name: &str| CertificateAuthority::load_or_create(folder.path(), name, "podlog").unwrap();
        let (ours, foreign) = (authority("ours"), authority("foreign"));
        let x509 = X509Authenticator::load(ours.certificate_path()).unwrap();
        let issue = |authority: &CertificateAuthority, request: &CertificateRequest| {
            let (pem, _) = authority.issue(request).unwrap();
            vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()]
        };
        let issue_long_ago = |authority: &CertificateAuthority, request: &CertificateRequest| {
            let (pem, _) = authority.issue_at(request, std::time::UNIX_EPOCH + 40 * 365 * DAY).unwrap();
            vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()]
        };
        let ann = CertificateRequest::client("ann", Some("devs"));
        let rows = [
            ("nobody shows one", vec![], Ok(None)),
            ("good", issue(&ours, &ann), Ok(Some("ann"))),
            ("no common name", issue(&ours, &CertificateRequest::client("", Some("devs"))), Ok(None)),
            ("another authority", issue(&foreign, &ann), Err(())),
            ("expired", issue_long_ago(&ours, &ann), Err(())),
            (
                "a server's",
                issue(&ours, &CertificateRequest { usage: Usage::Server, ..ann.clone() }),
                Err(()),
            ),
            ("nonsense", vec![b"nonsense".to_vec()], Err(())),
        ];
        for (why, chain, expected) in rows {
            // Twice: the second answer is a remembered one.
            for _ in 0..2 {
                let user = x509.authenticate(&parts(None), &peer(chain.clone())).await;
                let name = user.as_ref().map(|user| user.as_ref().map(|user| user.username.as_str()));
                assert_eq!(name.map_err(|_| ()), expected, "{why}");
            }
        }
        let user = x509.authenticate(&parts(None), &peer(issue(&ours, &ann))).await.unwrap().unwrap();
        assert_eq!(user.groups, ["devs"]);
        let id = &user.extra[CREDENTIAL_ID][0];
        assert!(id.starts_with("X509SHA256=") && id.len() == "X509SHA256=".len() + 64, "{id}");
    }

    #[test]
    fn every_organization_is_a_group() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
        parameters.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "ann");
        let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        let user = user_named_by(&parsed, certificate.der()).unwrap();
        assert_eq!((user.username.as_str(), user.groups), ("ann", vec!["devs".to_owned(), "ops".to_owned()]));
    }

    struct Fixed(Result<Option<&'static str>, ()>);

    #[async_trait]
    impl Authenticator for Fixed {
        async fn authenticate(&self, _: &Parts, _: &Peer) -> Result<Option<UserInfo>, AuthnError> {
            let user = |name: &str| UserInfo { username: name.into(), ..UserInfo::default() };
            self.0.map(|name| name.map(user)).map_err(|()| AuthnError("wrong".into()))
        }
    }

    #[tokio::test]
    async fn a_wrong_credential_is_never_anonymous() {
        type Answer = Result<Option<&'static str>, ()>;
        let (here, elsewhere): (&'static [&'static str], &'static [&'static str]) = (&["/x", "/"], &["/x"]);
        let rows: [(&[Answer], &'static [&'static str], Answer); 7] = [
            (&[Ok(None), Ok(Some("ann"))], here, Ok(Some("ann"))),
            (&[Err(()), Ok(Some("ann"))], here, Ok(Some("ann"))),
            (&[Err(()), Ok(None)], here, Err(())),
            (&[Ok(None)], here, Ok(Some("system:anonymous"))),
            (&[Ok(None)], elsewhere, Ok(None)),
            (&[Ok(None)], &[], Ok(None)),
            (&[], &[], Ok(None)),
        ];
        for (members, paths, expected) in rows {
            let members = members.iter().map(|answer| Arc::new(Fixed(*answer)) as Arc<dyn Authenticator>);
            let union = UnionAuthenticator::new(members.collect()).with_anonymous_on(paths);
            let user = union.authenticate(&parts(None), &peer(vec![])).await.map_err(|_| ());
            let name = user.as_ref().map(|user| user.as_ref().map(|user| user.username.as_str()));
            assert_eq!(name, expected.as_ref().map(|name| *name));
            if let Ok(Some(user)) = user {
                let group =
                    if user.username == "ann" { UserInfo::AUTHENTICATED } else { UserInfo::UNAUTHENTICATED };
                assert_eq!(user.groups, [group]);
            }
        }
    }
}
