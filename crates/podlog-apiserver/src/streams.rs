//! `…/pods/<name>/{exec,attach,portforward}`: finds the pod's kubelet and has the connection go on there, with whatever protocol
//! client and kubelet agree on. What goes over it is not read.
//!
//! Order of checks, texts and the kubelet's paths as `pkg/registry/core/pod/rest/subresources.go` and `streamLocation` of
//! `pkg/registry/core/pod/strategy.go`.

use std::sync::Arc;

use http::StatusCode;
use podlog_api::query::Query;
use podlog_api::{ApiError, Object, Reason};
use podlog_serving::metrics::Held;
use tokio_util::sync::CancellationToken;

use crate::audit::EndsWith;
use crate::http::{Answer, App, Call, Target};
use crate::logs::{choose_container, kubelet_of};

/// Answers with what the node's kubelet answers; where that is an agreement, the connection is its from then on.
pub(crate) async fn answer(
    app: &Arc<App>,
    call: Call,
    target: &Target,
    held: Held,
) -> Result<Answer, ApiError> {
    demand_create(&call).await?;
    let subresource = target.subresource.map_or("", |subresource| subresource.name);
    let pod = app.registry.get(target.resource, &target.namespace, &target.name)?;
    let path = kubelet_path(subresource, &pod, &call.query)?;
    let node_name = pod.text("/spec/nodeName");
    if node_name.is_empty() {
        let text = format!("pod {} does not have a host assigned", target.name);
        return Err(ApiError::bad_request(text));
    }
    let (host, port) = kubelet_of(app, node_name)?;
    pass_on(app, call, (&host, port), &path, held).await
}

/// Has the connection go on at a kubelet, for whoever may create what they ask for.
pub(crate) async fn go_on(
    app: &App,
    call: Call,
    kubelet: (&str, u16),
    path: &str,
    held: Held,
) -> Result<Answer, ApiError> {
    demand_create(&call).await?;
    pass_on(app, call, kubelet, path, held).await
}

/// Reading rights do not suffice: a WebSocket begins with GET.
async fn demand_create(call: &Call) -> Result<(), ApiError> {
    if call.info.attributes.verb() == "create" { Ok(()) } else { call.demand("create").await }
}

async fn pass_on(
    app: &App,
    call: Call,
    (host, port): (&str, u16),
    path: &str,
    held: Held,
) -> Result<Answer, ApiError> {
    let Some(upgrade) = call.upgrade else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    // Not the path: a command may hold what is nobody's business.
    tracing::debug!(user = call.permit.user().username, host, "passing a stream on");
    let end = CancellationToken::new();
    let held = (call.permit, held, end.clone().drop_guard());
    let answer = app.nodes.upgrade(host, port, path, upgrade, held).await;
    let mut answer = answer.map_err(|error| {
        tracing::warn!(host, %error, "a node did not take a stream");
        ApiError::new(500, Reason::Unknown, error.to_string())
    })?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        answer.extensions_mut().insert(EndsWith(end));
    }
    Ok(answer)
}

/// Where the kubelet has it.
fn kubelet_path(subresource: &str, pod: &Object, asked: &Query) -> Result<String, ApiError> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let mut query = Query::default();
    let path = if subresource == "portforward" {
        let ports = ports(asked)?;
        if !ports.is_empty() {
            query.add("port", ports.join(","));
        }
        format!("/portForward/{namespace}/{name}")
    } else {
        let container = choose_container(pod, asked.first("container").unwrap_or_default())?;
        let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        for (_, theirs) in flags.into_iter().filter(|(ours, _)| asked.flag(ours)) {
            query.add(theirs, "1");
        }
        if subresource == "exec" {
            asked.all("command").into_iter().for_each(|word| query.add("command", word));
        }
        format!("/{subresource}/{namespace}/{name}/{container}")
    };
    let query = query.encode();
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

/// What WebSockets have to say beforehand: with SPDY each stream names its port.
fn ports(asked: &Query) -> Result<Vec<String>, ApiError> {
    let refuse = |port: &str| ApiError::bad_request(format!("{port:?} is not a port"));
    let number = |port: String| port.parse::<i32>().map(|port| port.to_string()).map_err(|_| refuse(&port));
    asked.all("ports").into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubelets_are_asked_in_their_own_words() {
        let pod = Object::new(json!({"metadata": {"name": "web", "namespace": "prod"},
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}}));
        let rows = [
            (
                "exec",
                "command=sh&command=-c&command=a+b%26c&stdin=true&stdout=1&stderr=false&tty",
                Ok("/exec/prod/web/a?command=sh&command=-c&command=a+b%26c&input=1&output=1&tty=1"),
            ),
            ("exec", "container=i&stderr=true", Ok("/exec/prod/web/i?error=1")),
            ("attach", "stdin=true&command=ignored", Ok("/attach/prod/web/a?input=1")),
            ("attach", "", Ok("/attach/prod/web/a")),
            ("attach", "container=z", Err("container z is not valid for pod web")),
            ("portforward", "", Ok("/portForward/prod/web")),
            ("portforward", "ports=80&ports=443", Ok("/portForward/prod/web?port=80%2C443")),
            ("portforward", "ports=http", Err("\"http\" is not a port")),
        ];
        for (subresource, query, expected) in rows {
            let path = kubelet_path(subresource, &pod, &Query::parse(query)).map_err(|error| error.message);
            assert_eq!(path.as_deref().map_err(String::as_str), expected, "{subresource} {query}");
        }
    }
}
