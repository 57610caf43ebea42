//! Lifecycle hooks: a command in the container, an HTTP request, or a pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::spec::{self, PodId};
use crate::go;
use crate::probes::http;
use crate::runtime::ContainerId;

/// The longest time that anything waits: `Duration::MAX` overflows timers.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How much of a hook's output its status shows.
const MAX_OUTPUT: usize = 10 * 1024;

/// Runs a hook to its end.
///
/// # Errors
/// What upstream says of it (`pkg/kubelet/lifecycle/handlers.go`), with what the hook printed: for the container's status and our log. Events
/// say only that the hook failed, as hooks print secrets.
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
        Err(_) => Err(failed(pod, container, hook, &format!("did not finish in {limit:?}"))),
    }
}

/// The sentence about a hook that failed.
fn failed(pod: &Pod, container: &Container, hook: &LifecycleHandler, why: &str) -> String {
    let what = match (&hook.exec, &hook.http_get) {
        (Some(exec), _) => {
            format!("Exec lifecycle hook ([{}])", exec.command.as_deref().unwrap_or_default().join(" "))
        }
        (None, Some(get)) => format!("HTTP lifecycle hook ({})", get.path.as_deref().unwrap_or_default()),
        (None, None) => "Sleep lifecycle hook".to_owned(),
    };
    let (container, pod) = (go::quote(&container.name), go::quote(&PodId::of(pod).to_string()));
    format!("{what} for Container {container} in Pod {pod} failed - error: {why}")
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
        let said = |why: &str, output: &[u8]| {
            let output = go::quote(&String::from_utf8_lossy(output));
            failed(pod, container, hook, &format!("{why}, message: {output}"))
        };
        let result = context.runtime.exec_sync(id, &command, limit).await;
        let result = result.map_err(|error| said(&error.to_string(), b""))?;
        if result.exit_code == 0 {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&result.stderr);
        let why = format!("command '{}' exited with {}: {errors}", command.join(" "), result.exit_code);
        let mut output = result.stdout;
        output.extend_from_slice(&result.stderr);
        output.truncate(MAX_OUTPUT);
        return Err(said(&why, &output));
    }
    if let Some(get) = &hook.http_get {
        return http::get(get, container, spec::pod_ip(pod, context.node.ip), limit)
            .await
            .map(drop)
            .map_err(|error| failed(pod, container, hook, &error.to_string()));
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(pause.seconds.unsigned_abs())).await;
        return Ok(());
    }
    Err("invalid handler: no action".into())
}
