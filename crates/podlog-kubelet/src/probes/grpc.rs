//! gRPC health checks of probes (`pkg/probe/grpc`): in plain text, as upstream has it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::GRPCAction;
use podlog_proto::health::health_check_response::ServingStatus;
use podlog_proto::health::health_client::HealthClient;
use podlog_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::attempt::Answer;
use super::http::AGENT;
use crate::go;
use crate::runtime::cri::code_name;

/// Pause before a connection is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Asks once.
pub(super) async fn check(action: &GRPCAction, ip: IpAddr, limit: Duration) -> Answer {
    let Some(port) = u16::try_from(action.port).ok().filter(|port| *port > 0) else {
        return Answer::Unknown(format!("invalid port number: {}", action.port));
    };
    let address = SocketAddr::new(ip, port);
    let request = HealthCheckRequest { service: action.service.clone().unwrap_or_default() };
    let begun = Instant::now();
    let Ok(Some(channel)) = timeout(limit, connect(address)).await else {
        let address = go::quote(&address.to_string());
        let limit = go::duration(limit);
        return Answer::Failure(format!(
            "timeout: failed to connect service {address} within {limit}: context deadline exceeded"
        ));
    };
    match timeout(limit.saturating_sub(begun.elapsed()), HealthClient::new(channel).check(request)).await {
        Ok(Ok(answer)) => told(answer.get_ref()),
        Ok(Err(status)) => Answer::Failure(refused(&status)),
        Err(_) => {
            Answer::Failure(format!("timeout: health rpc did not complete within {}", go::duration(limit)))
        }
    }
}

/// A connection, tried for until there is one; `None` when there can be none.
async fn connect(address: SocketAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?.user_agent(AGENT).ok()?;
    let dial = service_fn(move |_: Uri| async move { TcpStream::connect(address).await.map(TokioIo::new) });
    loop {
        match endpoint.connect_with_connector(dial).await {
            Ok(channel) => return Some(channel),
            Err(_) => sleep(RETRY).await,
        }
    }
}

fn told(answer: &HealthCheckResponse) -> Answer {
    match answer.status() {
        ServingStatus::Serving => Answer::Success,
        other => {
            Answer::Failure(format!("service unhealthy (responded with {})", go::quote(other.as_str_name())))
        }
    }
}

fn refused(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        ),
        code => format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {}",
            code_name(code),
            status.message()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_upstreams() {
        let check = |status: ServingStatus, expected: &str| {
            let answer = told(&HealthCheckResponse { status: status.into() });
            assert_eq!(answer, Answer::Failure(expected.to_owned()));
        };
        check(ServingStatus::NotServing, "service unhealthy (responded with \"NOT_SERVING\")");
        check(ServingStatus::Unknown, "service unhealthy (responded with \"UNKNOWN\")");
        assert_eq!(told(&HealthCheckResponse { status: ServingStatus::Serving.into() }), Answer::Success);
        for (status, expected) in [
            (
                Status::not_found("who?"),
                "error: health rpc probe failed: rpc error: code = NotFound desc = who?",
            ),
            (
                Status::unimplemented("no"),
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no",
            ),
        ] {
            assert_eq!(refused(&status), expected);
        }
    }
}
