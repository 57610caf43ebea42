//! `podlog kubelet --front`: in front of a kubelet that runs the pods.

use std::path::PathBuf;

use anyhow::Context as _;
use podlog_kubelet::config::KubeletConfiguration;
use podlog_kubelet::{Front, FrontOptions, internal_ip};
use podlog_serving::Forwarder;
use podlog_serving::pki::{CertificateAuthority, CertificateRequest, KeyPairFiles};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api_server::Connection;
use super::{certificates, container_runtime, listen};
use crate::cli::kubelet::{FrontArgs, KubeletArgs};
use crate::cli::up::Runtime;

/// Who we are to the kubelet behind.
const USER: &str = "podlog-front";

/// Starts it.
pub(super) async fn start(
    args: &KubeletArgs,
    url: &str,
    config: KubeletConfiguration,
    node: &str,
    connection: Option<&Connection>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<Front> {
    let api_server = connection.map(Connection::api_server);
    let api_server =
        api_server.context("--front needs --kubeconfig: it asks the API server who may do what")?;
    anyhow::ensure!(
        args.runtime == Runtime::Cri,
        "--front finds logs through a runtime that speaks CRI: with --runtime process, serve it with `podlog cri`"
    );
    let listen = listen(args, &config);
    let ip = args.node_ip().unwrap_or_else(|| internal_ip(listen, Some(api_server.address)));
    let serving = certificates::Serving { config: &config, cert_dir: &args.cert_dir(), node, ip };
    let options = FrontOptions {
        node_name: node.to_owned(),
        listen,
        serving: serving.start(Some(&api_server.client), tasks, stop)?,
        client_ca: None,
        compatibility: args.compatibility.into(),
        behind: forwarder(&args.front, url, args.cert_dir())?,
        api_server,
        config: config.clone(),
    };
    let runtime = container_runtime(args, &config)?;
    Front::start(options, runtime).await.context("cannot start in front of the kubelet")
}

fn forwarder(args: &FrontArgs, url: &str, cert_dir: PathBuf) -> anyhow::Result<Forwarder> {
    let (host, port) = host_and_port(url).with_context(|| {
        format!("--front {url:?} is no URL of a kubelet: give one as in https://127.0.0.1:10250")
    })?;
    let given = args.front_client_certificate.clone().zip(args.front_client_key.clone());
    let client = match given {
        Some((certificate, key)) => KeyPairFiles { certificate, key },
        None => own_certificate(cert_dir).context("cannot make a certificate for the kubelet behind")?,
    };
    Forwarder::new(host, port, args.front_certificate_authority.clone(), Some(client))
        .context("cannot use the certificates for the kubelet behind")
}

/// Ours, of an authority that nobody else uses: the kubelet behind, told to believe it alone, lets nobody else in.
fn own_certificate(cert_dir: PathBuf) -> anyhow::Result<KeyPairFiles> {
    let authority = CertificateAuthority::load_or_create(&cert_dir, "podlog-front-ca", "podlog-front-ca")?;
    let files = KeyPairFiles::in_folder(&cert_dir, USER);
    authority.ensure(&files, &CertificateRequest::client(USER, None))?;
    Ok(files)
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let is_bare =
        matches!(uri.path(), "" | "/") && uri.query().is_none() && uri.scheme_str() == Some("https");
    let host = uri.host().filter(|_| is_bare)?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), uri.port_u16().unwrap_or(10250)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_behind_has_a_url() {
        for (url, expected) in [
            ("https://127.0.0.1:10260", Some(("127.0.0.1", 10260))),
            ("https://[::1]:1/", Some(("::1", 1))),
            ("https://localhost", Some(("localhost", 10250))),
            ("http://127.0.0.1:10260", None),
            ("127.0.0.1:10260", None),
            ("https://127.0.0.1/pods", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }
}
