//! Certificates on request: approved by people through kubectl, by nobody for kubelets, and good for what they say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use podlog_api::Compatibility;
use podlog_apiserver::controllers::{self, CertificateSigning, ControllerConfig};
use podlog_apiserver::{ApiServerConfig, BootstrapTokens};
use podlog_serving::pki::{KeyPairFiles, Signer};
use tokio_util::sync::CancellationToken;

use crate::harness::Cluster;
use crate::kubectl;

/// A key and a request for it, made with openssl; `None` where there is none.
fn request(folder: &Path, name: &str, subject: &str, names: &str) -> Option<String> {
    let key = folder.join(format!("{name}.key"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
        ])
        .arg(&key)
        .args(["-subj", subject])
        .args(if names.is_empty() {
            vec![]
        } else {
            vec!["-addext".to_owned(), format!("subjectAltName={names}")]
        })
        .output();
    let Ok(made) = made else {
        eprintln!("SKIPPED: there is no openssl to make requests with.");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(STANDARD.encode(made.stdout))
}

fn manifest(name: &str, signer: &str, usage: &str, request: &str) -> String {
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec: {{signerName: kubernetes.io/{signer}, usages: [digital signature, {usage}], request: {request}}}\n"
    )
}

/// Waits for the certificate of a request; it is in base64.
fn issued(run: &dyn Fn(&str) -> String, name: &str) -> String {
    let begin = std::time::Instant::now();
    loop {
        let certificate = run(&format!("get csr {name} -o jsonpath={{.status.certificate}}"));
        if !certificate.is_empty() {
            return certificate;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", run(&format!("get csr {name} -o yaml")));
    }
}

struct Signed {
    cluster: Cluster,
    stop: CancellationToken,
    controllers: tokio::task::JoinSet<()>,
}

/// The cluster with controllers that approve and sign.
fn with_controllers(cluster: Cluster) -> Signed {
    let signer = Signer::load(KeyPairFiles::in_folder(cluster.folder.path(), "ca")).unwrap();
    let signing = CertificateSigning { signer: Arc::new(signer), duration: Duration::from_secs(3600) };
    let config = ControllerConfig {
        root_ca_pem: cluster.authority.certificate_pem().to_owned(),
        authorizer: Some(cluster.server.authorizer()),
        signing: Some(signing),
    };
    let stop = CancellationToken::new();
    let controllers = controllers::spawn_all(cluster.server.registry(), config, &stop);
    Signed { cluster, stop, controllers }
}

impl Signed {
    async fn stop(self) {
        self.stop.cancel();
        self.controllers.join_all().await;
        self.cluster.server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_approves_and_denies() {
    let Some(newest) = kubectl::any() else { return };
    let signed = with_controllers(Cluster::start(Compatibility::Exact).await);
    let (folder, admin) = (signed.cluster.folder.path(), signed.cluster.kubeconfig());
    for (i, kubectl) in kubectl::all().iter().enumerate() {
        let run = |command: &str| {
            let (exit, said) = kubectl::run(kubectl, &admin, command);
            assert_eq!(exit, 0, "{} {command}: {said}", kubectl.display());
            said
        };
        for verb in ["approve", "deny"] {
            let name = format!("{verb}-{i}");
            let Some(asked) = request(folder, &name, "/O=devs/O=ops/O=more/CN=jane", "") else { return };
            let path = folder.join(format!("{name}.yaml"));
            std::fs::write(&path, manifest(&name, "kube-apiserver-client", "client auth", &asked)).unwrap();
            run(&format!("create -f {}", path.display()));
            let pending = run(&format!("get csr {name}"));
            assert!(
                pending.contains("kubernetes.io/kube-apiserver-client") && pending.contains("Pending"),
                "{pending}"
            );
            run(&format!("certificate {verb} {name}"));
        }
        let certificate = issued(&run, &format!("approve-{i}"));
        let list = run("get csr");
        assert!(list.contains("Approved,Issued") && list.contains("Denied"), "{list}");
        let described = run(&format!("describe csr approve-{i}"));
        assert!(described.contains("Common Name:    jane"), "{described}");

        std::fs::write(folder.join(format!("approve-{i}.crt")), STANDARD.decode(certificate).unwrap())
            .unwrap();
        let jane = signed.cluster.kubeconfig_with(&format!("approve-{i}"));
        let (_, who) = kubectl::run(&newest, &jane, "auth whoami -o yaml");
        for part in ["username: jane", "- devs", "- ops", "- more", "- system:authenticated"] {
            assert!(who.contains(part), "{}: {who}", kubectl.display());
        }
    }
    signed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_joins_with_a_bootstrap_token_and_renews_by_itself() {
    let Some(kubectl) = kubectl::any() else { return };
    let accept = |config: &mut ApiServerConfig, _: &Path| {
        config.authentication.bootstrap_tokens = BootstrapTokens::Accepted;
    };
    let signed = with_controllers(Cluster::start_with(accept).await);
    let (folder, admin) = (signed.cluster.folder.path(), signed.cluster.kubeconfig());
    let run = |kubeconfig: &Path, command: &str| {
        let (exit, said) = kubectl::run(&kubectl, kubeconfig, command);
        assert_eq!(exit, 0, "{command}: {said}");
        said
    };
    run(
        &admin,
        "create secret generic bootstrap-token-abcdef -n kube-system --type=bootstrap.kubernetes.io/token \
         --from-literal=token-id=abcdef --from-literal=token-secret=0123456789abcdef \
         --from-literal=usage-bootstrap-authentication=true",
    );
    let joining = signed.cluster.kubeconfig_with_token("joining", "abcdef.0123456789abcdef");
    let Some(asked) = request(folder, "client", "/O=system:nodes/CN=system:node:n1", "") else { return };
    let ask = |kubeconfig: &Path, name: &str, text: String| {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        run(kubeconfig, &format!("create -f {}", path.display()));
        let certificate = issued(&|command: &str| run(kubeconfig, command), name);
        std::fs::write(folder.join(format!("{name}.crt")), STANDARD.decode(certificate).unwrap()).unwrap();
    };
    ask(&joining, "client", manifest("client", "kube-apiserver-client-kubelet", "client auth", &asked));
    let (exit, _) = kubectl::run(&kubectl, &joining, "get nodes");
    assert_eq!(exit, 1, "who joins may ask for a certificate and nothing else");

    // With it, it is the node, and gets its next certificate and the one that it serves with.
    let node = signed.cluster.kubeconfig_with("client");
    let path = folder.join("node.yaml");
    std::fs::write(&path, "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n").unwrap();
    run(&node, &format!("create -f {}", path.display()));
    run(
        &admin,
        r#"patch node n1 --subresource=status -p {"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}"#,
    );
    let next = request(folder, "next", "/O=system:nodes/CN=system:node:n1", "").unwrap();
    ask(&node, "next", manifest("next", "kube-apiserver-client-kubelet", "client auth", &next));
    let serving = request(folder, "serving", "/O=system:nodes/CN=system:node:n1", "IP:10.0.0.1").unwrap();
    ask(&node, "serving", manifest("serving", "kubelet-serving", "server auth", &serving));
    signed.stop().await;
}
