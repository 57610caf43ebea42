//! Certificates that a kubelet asks the API server for, and keeps fresh.
//!
//! Follows `k8s.io/client-go/util/certificate` and `pkg/kubelet/certificate`: requests, files and times are the same.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use podlog_serving::pki::{self, CertificateRequest, KeyPairFiles, PkiError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::objects::api_message;

/// How long an answer is waited for, before a new request is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often a request is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after a failure: doubling from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(600);
/// Longest sleep: the clock may be set, and files may be replaced by others.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The key or the request could not be made, or the answer not be kept.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The API server does not take the request.
    #[error("cannot ask the API server for a certificate: {0}")]
    Api(String),
    /// Somebody said no.
    #[error("certificate signing request {name} was {what}: {message}")]
    Refused {
        /// Name of the object.
        name: String,
        /// `denied` or `not signed`.
        what: &'static str,
        /// What was said about it.
        message: String,
    },
    /// Nobody said anything.
    #[error(
        "certificate signing request {0} was not signed in time: approve it with `kubectl certificate approve {0}`"
    )]
    Pending(String),
    /// The link to the current certificate cannot be replaced.
    #[error("cannot replace {}", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A certificate that is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    request: CertificateRequest,
    signer: &'static str,
    usages: [&'static str; 2],
}

impl Wanted {
    /// What a kubelet shows to the API server: `system:node:<node>` in group `system:nodes`.
    pub fn client(node: &str) -> Self {
        Wanted {
            request: CertificateRequest::client(user(node), Some(GROUP)),
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usages: ["digital signature", "client auth"],
        }
    }

    /// What a kubelet shows to its clients, under these names and addresses.
    pub fn serving(node: &str, names: impl IntoIterator<Item = String>) -> Self {
        let request = CertificateRequest::serving(user(node), names);
        Wanted {
            request: CertificateRequest { organization: Some(GROUP.into()), ..request },
            signer: "kubernetes.io/kubelet-serving",
            usages: ["digital signature", "server auth"],
        }
    }

    /// Makes a key, asks, and waits for the answer, a quarter of an hour at most. Returns certificate and key, PEM.
    ///
    /// # Errors
    /// When the request is refused, or not answered in time.
    pub async fn obtain(&self, client: &kube::Client) -> Result<(String, String), CertificateError> {
        let (request, key) = pki::key_and_request(&self.request)?;
        let api = Api::<CertificateSigningRequest>::all(client.clone());
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.signer.into(),
                usages: Some(self.usages.map(str::to_owned).into()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let failed = |error: kube::Error| CertificateError::Api(api_message(&error));
        let made = api.create(&PostParams::default(), &object).await.map_err(failed)?;
        let name = made.metadata.name.unwrap_or_default();
        tracing::info!(name, signer = self.signer, "asked for a certificate");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let status = api.get(&name).await.map_err(failed)?.status.unwrap_or_default();
            if let Some(certificate) = answer(&name, status)? {
                return Ok((certificate, key));
            }
            sleep(LOOK).await;
        }
        Err(CertificateError::Pending(name))
    }
}

const GROUP: &str = "system:nodes";

fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// The certificate, if there is one.
fn answer(name: &str, status: CertificateSigningRequestStatus) -> Result<Option<String>, CertificateError> {
    for condition in status.conditions.unwrap_or_default() {
        let what = match condition.type_.as_str() {
            "Denied" => "denied",
            "Failed" => "not signed",
            _ => continue,
        };
        let message = condition.message.or(condition.reason).unwrap_or_default();
        return Err(CertificateError::Refused { name: name.to_owned(), what, message });
    }
    let certificate = status.certificate.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    Ok(certificate.filter(|pem| !pem.is_empty()))
}

/// Files `<prefix>-<time>.pem`, each with certificate and key, and a link `<prefix>-current.pem` to the last one.
#[derive(Clone, Debug)]
pub struct CertificateStore {
    folder: PathBuf,
    prefix: &'static str,
}

impl CertificateStore {
    /// Of the certificate for the API server: `kubelet-client-current.pem`.
    pub fn client(folder: &Path) -> Self {
        CertificateStore { folder: folder.to_owned(), prefix: "kubelet-client" }
    }

    /// Of the endpoint's certificate: `kubelet-server-current.pem`.
    pub fn serving(folder: &Path) -> Self {
        CertificateStore { folder: folder.to_owned(), prefix: "kubelet-server" }
    }

    /// The file with the current certificate and its key.
    pub fn current(&self) -> PathBuf {
        self.folder.join(format!("{}-current.pem", self.prefix))
    }

    /// [`CertificateStore::current`], as both files of a pair.
    pub fn files(&self) -> KeyPairFiles {
        KeyPairFiles { certificate: self.current(), key: self.current() }
    }

    /// Whether there is a certificate that is still valid.
    pub fn is_valid(&self) -> bool {
        pki::validity(&self.current()).is_some_and(|(_, end)| SystemTime::now() < end)
    }

    /// Keeps a pair and makes it the current one.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn put(&self, certificate: &str, key: &str) -> Result<(), CertificateError> {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
        let name = format!("{}-{time}.pem", self.prefix);
        pki::write_atomically(&self.folder.join(&name), format!("{certificate}{key}").as_bytes(), 0o600)?;
        let link = self.current();
        let temporary = self.folder.join(format!(".{}.{}", self.prefix, uuid::Uuid::new_v4()));
        let replaced = symlink(name, &temporary).and_then(|()| std::fs::rename(&temporary, &link));
        replaced.map_err(|source| CertificateError::Link { path: link, source })
    }

    /// When a new certificate is to be asked for: between seven and nine tenths of this one's life, so that nodes that were
    /// made together do not ask together. The past when there is none, or it lacks a name.
    fn due(&self, wanted: &Wanted, jitter: f64) -> SystemTime {
        let current = self.current();
        if !pki::names(&current)
            .is_some_and(|names| wanted.request.alternative_names.iter().all(|name| names.contains(name)))
        {
            return SystemTime::UNIX_EPOCH;
        }
        let life = pki::validity(&current);
        life.map_or(SystemTime::UNIX_EPOCH, |(begin, end)| {
            begin + end.duration_since(begin).unwrap_or_default().mul_f64(0.7 + 0.2 * jitter)
        })
    }

    /// Asks for a certificate whenever one is due, until `stop`.
    pub async fn keep(self, client: kube::Client, wanted: Wanted, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_for_ever(&client, &wanted)).await;
    }

    async fn keep_for_ever(&self, client: &kube::Client, wanted: &Wanted) {
        let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
        let mut pause = FIRST_RETRY;
        loop {
            if let Ok(left) = self.due(wanted, jitter).duration_since(SystemTime::now()) {
                sleep(left.min(LONGEST_SLEEP)).await;
                continue;
            }
            let obtained = wanted.obtain(client).await;
            match obtained.and_then(|(certificate, key)| self.put(&certificate, &key)) {
                Ok(()) => {
                    pause = FIRST_RETRY;
                    tracing::info!(file = %self.current().display(), "there is a new certificate");
                }
                Err(error) => {
                    tracing::warn!(signer = wanted.signer, %error, "there is no new certificate yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_certificate_or_a_reason() {
        let check = |status: serde_json::Value| {
            answer("csr-1", serde_json::from_value(status).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(check(json!({})), Ok(None));
        assert_eq!(check(json!({"conditions": [{"type": "Approved", "status": "True"}]})), Ok(None));
        assert_eq!(check(json!({"certificate": "cGVt"})), Ok(Some("pem".into())));
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "message": "no"}]});
        assert_eq!(check(denied), Err("certificate signing request csr-1 was denied: no".into()));
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "SignerValidationFailure"}]});
        let text = "certificate signing request csr-1 was not signed: SignerValidationFailure";
        assert_eq!(check(failed), Err(text.into()));
    }

    #[test]
    fn the_last_certificate_is_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let authority = pki::CertificateAuthority::load_or_create(folder.path(), "ca", "ca").unwrap();
        let store = CertificateStore::serving(&folder.path().join("pki"));
        let wanted = |name: &str| Wanted::serving("n1", ["n1".to_owned(), name.to_owned()]);
        assert!(!store.is_valid());
        assert_eq!(store.due(&wanted("10.0.0.1"), 0.0), SystemTime::UNIX_EPOCH);
        let (certificate, key) = authority.issue(&wanted("10.0.0.1").request).unwrap();
        store.put(&certificate, &key).unwrap();
        assert!(store.is_valid());
        let mode = std::fs::metadata(store.current()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let day = Duration::from_secs(24 * 3600);
        for (jitter, days) in [(0.0, 255), (1.0, 328)] {
            let due = store.due(&wanted("10.0.0.1"), jitter).duration_since(SystemTime::now()).unwrap();
            assert!(due > day * days && due < day * (days + 2), "{jitter}: {due:?}");
        }
        assert_eq!(store.due(&wanted("10.0.0.2"), 0.0), SystemTime::UNIX_EPOCH, "another address");
        podlog_serving::install_crypto_provider();
        assert!(podlog_serving::ServerTls::load(store.files()).is_ok(), "both in one file");
    }
}
