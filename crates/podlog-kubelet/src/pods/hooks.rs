//! Lifecycle hooks: a command in the container, an HTTP request, or a pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::spec;
use crate::probes::http;
use crate::runtime::ContainerId;

/// The longest time that anything waits: `Duration::MAX` overflows timers.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs a hook to its end.
///
/// # Errors
/// A text for our log; users see that the hook failed, not why, as upstream has it since hooks print secrets.
pub(super) async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &ContainerId,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let limit = limit.min(FOREVER);
    match timeout(limit, act(context, pod, container, id, hook, limit)).await {
        Ok(result) => result,
        Err(_) => Err(format!("did not finish in {limit:?}")),
    }
}

async fn act(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &ContainerId,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result =
            context.runtime.exec_sync(id, &command, limit).await.map_err(|error| error.to_string())?;
        return match result.exit_code {
            0 => Ok(()),
            code => Err(format!("exited with {code}")),
        };
    }
    if let Some(get) = &hook.http_get {
        return http::get(get, container, spec::pod_ip(pod, context.node.ip), limit)
            .await
            .map(drop)
            .map_err(|error| error.to_string());
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(pause.seconds.unsigned_abs())).await;
        return Ok(());
    }
    Err("invalid handler: no action".into())
}
