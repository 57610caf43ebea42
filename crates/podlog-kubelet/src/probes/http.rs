//! HTTP requests of probes and hooks (`pkg/probe/http`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::timeout;

use super::attempt::dial;
use crate::go;

pub(super) const AGENT: &str = "kube-probe/1.36";

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    /// The port is not one.
    #[error("{0}")]
    Port(String),
    /// The request could not be made or was not answered.
    #[error("Get {}: {why}", go::quote(.url))]
    Transport { url: String, why: String },
    /// It was answered with a status outside of 200 to 399.
    #[error("HTTP probe failed with statuscode: {}", .0.as_u16())]
    Status(StatusCode),
}

/// Makes the request; `ip` is asked when the action names no host.
pub(crate) async fn get(
    action: &HTTPGetAction,
    container: &Container,
    ip: IpAddr,
    limit: Duration,
) -> Result<StatusCode, GetError> {
    let port = port(&action.port, container).map_err(GetError::Port)?;
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string());
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let authority = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    let url = format!("{scheme}://{authority}{path}");
    let failed = |why: String| GetError::Transport { url: url.clone(), why };
    let request = request(action, &scheme, &authority, &path).map_err(|error| failed(error.to_string()))?;
    let answer = timeout(limit, send(request, &scheme, &host, port, limit));
    let status = answer
        .await
        .unwrap_or_else(|_| {
            Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
        })
        .map_err(failed)?;
    if (200..400).contains(&status.as_u16()) { Ok(status) } else { Err(GetError::Status(status)) }
}

fn request(
    action: &HTTPGetAction,
    scheme: &str,
    authority: &str,
    path: &str,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let target = if scheme == "https" { format!("https://{authority}{path}") } else { path.to_owned() };
    let mut request = Request::get(target).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        headers.insert(name, HeaderValue::from_str(&header.value)?);
    }
    Ok(request)
}

async fn send(
    request: Request<Empty<Bytes>>,
    scheme: &str,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<StatusCode, String> {
    if scheme == "https" {
        return send_tls(request, host, port).await;
    }
    let stream = dial(host, port, limit).await?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let serve = async move {
        // An error of the connection is the error of the request as well.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = sender.send_request(request) => answer.map(|answer| answer.status()).map_err(text),
        () = serve => Err("connection closed".into()),
    }
}

/// Over TLS; certificates of probed containers are not verified, as upstream has it.
async fn send_tls(request: Request<Empty<Bytes>>, host: &str, port: u16) -> Result<StatusCode, String> {
    let base = format!("https://{host}:{port}").parse().map_err(|_| format!("invalid host {host}"))?;
    let mut config = kube::Config::new(base);
    config.accept_invalid_certs = true;
    config.default_retry = false;
    let client = kube::Client::try_from(config).map_err(|error| error.to_string())?;
    let (mut parts, _) = request.into_parts();
    // Not allowed in HTTP/2, which the server may choose.
    parts.headers.remove(CONNECTION);
    parts.headers.remove(HOST);
    let request = Request::from_parts(parts, kube::client::Body::empty());
    client.send(request).await.map(|answer| answer.status()).map_err(|error| error.to_string())
}

/// The port of an action: a number, or the name of one of the container's ports.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", go::quote(name)))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}
