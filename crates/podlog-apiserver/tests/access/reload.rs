//! Files that are replaced while the server runs.

use std::time::{Duration, Instant};

use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};

use crate::harness::Cluster;
use crate::kubectl;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_authorities_and_certificates_are_taken_up_while_serving() {
    let Some(kubectl) = kubectl::any() else { return };
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: there is no openssl to see certificates with.");
        return;
    }
    let tokens = |folder: &std::path::Path, text: &str| {
        let path = folder.join("tokens.csv");
        std::fs::write(&path, text).unwrap();
        path
    };
    let cluster = Cluster::start_with(|config, folder| {
        config.authentication.token_file = Some(tokens(folder, "first,ann,1\n"));
    })
    .await;
    let folder = cluster.folder.path();
    let eventually = |what: &str, condition: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        }
    };
    let knows = |token: &str| {
        let kubeconfig = cluster.kubeconfig_with_token(token, token);
        kubectl::run(&kubectl, &kubeconfig, "auth whoami").0 == 0
    };
    assert!(knows("first") && !knows("second"));
    tokens(folder, "second,ann,1\n");
    eventually("the new token is known", &|| knows("second"));
    assert!(!knows("first"));
    // Half a file changes nothing.
    tokens(folder, "third");
    assert!(knows("second"));

    // Another authority joins the bundle of those that vouch for clients.
    let other = CertificateAuthority::load_or_create(folder, "other-ca", "other").unwrap();
    let pair = KeyPairFiles::in_folder(folder, "bob");
    other.ensure(&pair, &CertificateRequest::client("bob", None)).unwrap();
    let bob = cluster.kubeconfig_with("bob");
    let bob_is_known = || kubectl::run(&kubectl, &bob, "auth whoami").0 == 0;
    assert!(!bob_is_known());
    let bundle = format!("{}{}", cluster.authority.certificate_pem(), other.certificate_pem());
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, bundle).unwrap();
    eventually("bob's authority is believed", &bob_is_known);

    // The server's own certificate is replaced: clients see the new one.
    let serial = || {
        let said = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &cluster.server.local_addr().to_string()])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let begin = text.find("-----BEGIN CERTIFICATE").unwrap_or_default();
        text[begin..].split("-----END").next().unwrap_or_default().to_owned()
    };
    let before = serial();
    let files = KeyPairFiles::in_folder(folder, "apiserver");
    std::fs::remove_file(&files.certificate).unwrap();
    cluster
        .authority
        .ensure(&files, &CertificateRequest::serving("apiserver", ["localhost", "127.0.0.1"]))
        .unwrap();
    eventually("the new certificate is served", &|| serial() != before);
    assert!(knows("second"));
    cluster.server.shutdown().await.unwrap();
}
