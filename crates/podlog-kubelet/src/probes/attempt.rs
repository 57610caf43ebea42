//! One attempt of a probe: exec, HTTP, TCP or gRPC.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe, TCPSocketAction};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::task::seconds;
use super::{grpc, http};
use crate::go;
use crate::pods::{Context, pod_ip};
use crate::runtime::ContainerId;

/// Output of a failed command that goes into an event (`pkg/probe/exec`).
const MAX_OUTPUT: usize = 10 * 1024;

/// What a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Success,
    /// Not well; the text is for people.
    Failure(String),
    /// The probe itself could not be made.
    Unknown(String),
}

/// Probes once.
pub(super) async fn attempt(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &ContainerId,
    probe: &Probe,
) -> Answer {
    let limit = seconds(probe.timeout_seconds, 1);
    if let Some(exec) = &probe.exec {
        return command(context, id, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match http::get(get, container, pod_ip(pod, context.node.ip), limit).await {
            Ok(_) => Answer::Success,
            Err(http::GetError::Port(text)) => Answer::Unknown(text),
            Err(error) => Answer::Failure(error.to_string()),
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp(container, socket, pod_ip(pod, context.node.ip), limit).await;
    }
    if let Some(check) = &probe.grpc {
        return grpc::check(check, pod_ip(pod, context.node.ip), limit).await;
    }
    Answer::Unknown("missing probe handler".into())
}

async fn command(context: &Context, id: &ContainerId, command: &[String], limit: Duration) -> Answer {
    let call = context.runtime.exec_sync(id, command, limit);
    let result = match timeout(limit, call).await {
        Err(_) => {
            let text = go::quote(&command.join(" "));
            return Answer::Failure(format!(
                "command timed out: {text} timed out after {}",
                go::duration(limit)
            ));
        }
        Ok(Err(error)) => return Answer::Unknown(error.to_string()),
        Ok(Ok(result)) => result,
    };
    if result.exit_code == 0 {
        return Answer::Success;
    }
    let mut output = result.stdout;
    output.extend_from_slice(&result.stderr);
    output.truncate(MAX_OUTPUT);
    Answer::Failure(String::from_utf8_lossy(&output).into_owned())
}

async fn tcp(container: &Container, socket: &TCPSocketAction, ip: IpAddr, limit: Duration) -> Answer {
    let port = match http::port(&socket.port, container) {
        Ok(port) => port,
        Err(text) => return Answer::Unknown(text),
    };
    let host = socket.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string());
    match dial(&host, port, limit).await {
        Ok(_) => Answer::Success,
        Err(text) => Answer::Failure(text),
    }
}

/// Connects; the error is Go's text.
pub(super) async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let address = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    match timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", os_text(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// An operating system's error as Go words it.
fn os_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        _ => error.to_string(),
    }
}
