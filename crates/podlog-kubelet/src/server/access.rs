//! Who may do what at the endpoint: authentication, authorization, and the texts of refusals.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use http::{Method, StatusCode};
use podlog_api::{Attributes, Decision, Selectors, UserInfo};
use podlog_serving::{
    Authenticator, Authorizer, AuthzError, Peer, Permit, Refusal, TlsError, UnionAuthenticator,
    X509Authenticator, authorize,
};

use super::review::{TokenReviews, WebhookAuthorizer};
use crate::config::{AuthorizationMode, KubeletConfiguration};

/// Lets requests in, or says why not.
pub(crate) struct Gate {
    authenticator: UnionAuthenticator,
    authorizer: Arc<dyn Authorizer>,
    node: String,
}

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The bundle of client authorities is not usable.
    #[error("cannot load the client CA bundle")]
    ClientCa(#[from] TlsError),
    /// A setting says that the API server is asked, and there is none.
    #[error("{0} needs an API server to ask: give one with --kubeconfig, or set it to {1}")]
    NobodyToAsk(&'static str, &'static str),
}

/// A refusal: code and plain text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    pub(super) text: String,
}

impl Gate {
    /// As the configuration says; `client_ca` is used where that names no CA bundle.
    ///
    /// # Errors
    /// When the bundle cannot be used, or an API server is to be asked and there is none.
    pub(crate) fn new(
        config: &KubeletConfiguration,
        client_ca: Option<&Path>,
        client: Option<&kube::Client>,
        node: &str,
    ) -> Result<Self, GateError> {
        let mut members: Vec<Arc<dyn Authenticator>> = Vec::new();
        if let Some(bundle) = config.authentication.client_ca_file.as_deref().or(client_ca) {
            members.push(Arc::new(X509Authenticator::load(bundle)?));
        }
        if config.authentication.webhook_enabled {
            let client = client.ok_or(GateError::NobodyToAsk("authentication.webhook.enabled", "false"))?;
            let ttl = config.authentication.webhook_cache_ttl;
            members.push(Arc::new(TokenReviews::new(client.clone(), ttl)));
        }
        let mut authenticator = UnionAuthenticator::new(members);
        if config.authentication.anonymous_enabled {
            authenticator = authenticator.with_anonymous();
        }
        let authorizer: Arc<dyn Authorizer> = match config.authorization.mode {
            AuthorizationMode::AlwaysAllow => Arc::new(AlwaysAllow),
            AuthorizationMode::Webhook => Arc::new(WebhookAuthorizer::new(
                client.ok_or(GateError::NobodyToAsk("authorization.mode", "AlwaysAllow"))?.clone(),
                config.authorization.cache_authorized_ttl,
                config.authorization.cache_unauthorized_ttl,
            )),
        };
        Ok(Gate { authenticator, authorizer, node: node.to_owned() })
    }

    /// Authenticates and authorizes a request.
    pub(super) async fn admit(&self, request: &Parts, peer: &Peer) -> Result<Permit, Refused> {
        let user = match self.authenticator.authenticate(request, peer).await {
            Ok(Some(user)) => user,
            Ok(None) => return Err(unauthorized()),
            Err(error) => {
                tracing::info!(peer = %peer.address, %error, "request with a wrong credential");
                return Err(unauthorized());
            }
        };
        if !is_plain(request.uri.path()) {
            return Err(Refused { code: StatusCode::NOT_FOUND, text: "404: Page Not Found".into() });
        }
        let verb = verb(&request.method, request.uri.path());
        let subresources = subresources(request.uri.path());
        for subresource in subresources {
            match authorize(&*self.authorizer, &user, &self.attributes(verb, subresource)).await {
                Ok(permit) => return Ok(permit),
                Err(Refusal::Forbidden { .. }) => {}
                Err(Refusal::Error(error)) => {
                    tracing::warn!(user = user.username, %error, "cannot authorize a request");
                    return Err(undecided(&user, verb, subresource));
                }
            }
        }
        Err(forbidden(&user, verb, subresources))
    }

    fn attributes(&self, verb: &str, subresource: &str) -> Attributes {
        Attributes::Resource {
            verb: verb.into(),
            group: String::new(),
            version: "v1".into(),
            resource: "nodes".into(),
            subresource: subresource.into(),
            namespace: String::new(),
            name: self.node.clone(),
            selectors: Selectors::default(),
        }
    }
}

fn unauthorized() -> Refused {
    Refused { code: StatusCode::UNAUTHORIZED, text: "Unauthorized".into() }
}

fn forbidden(user: &UserInfo, verb: &str, subresources: &[&str]) -> Refused {
    let (user, list) = (&user.username, subresources.join(" "));
    let text = format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n");
    Refused { code: StatusCode::FORBIDDEN, text }
}

fn undecided(user: &UserInfo, verb: &str, subresource: &str) -> Refused {
    let user = &user.username;
    let text =
        format!("Authorization error (user={user}, verb={verb}, resource=nodes, subresource={subresource})");
    Refused { code: StatusCode::INTERNAL_SERVER_ERROR, text }
}

/// Whether everybody who reads a path reads the same: servers decode and shorten paths, each in its way, and what is asked for
/// is what was allowed only if none of that changes its first part, which says what it is.
fn is_plain(path: &str) -> bool {
    let Some((first, rest)) = path.strip_prefix('/').map(|path| path.split_once('/').unwrap_or((path, "")))
    else {
        return false;
    };
    let leads_elsewhere = |part: &str| {
        let decoded = part.to_ascii_lowercase().replace("%2e", ".");
        matches!(decoded.as_str(), "." | "..") || decoded.contains("%2f")
    };
    let is_first_plain = !first.contains('%') && (!first.is_empty() || path == "/");
    is_first_plain && !leads_elsewhere(first) && !rest.split('/').any(leads_elsewhere)
}

/// The verb that a method stands for; empty for others, which nobody may. Whoever runs commands creates something, also where
/// a WebSocket makes it a GET: upstream lets those do so who may only read (`nodes/proxy`).
fn verb(method: &Method, path: &str) -> &'static str {
    match *method {
        _ if ["/exec", "/attach", "/portForward", "/run"].iter().any(|prefix| is_below(path, prefix)) => {
            "create"
        }
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources of `nodes` that stand for a path; any of them suffices (`pkg/kubelet/server/auth.go`).
fn subresources(path: &str) -> &'static [&'static str] {
    let below = |prefix: &str| is_below(path, prefix);
    if below("/stats") {
        &["stats"]
    } else if below("/metrics") {
        &["metrics"]
    } else if below("/logs") {
        &["log"]
    } else if below("/checkpoint") {
        &["checkpoint"]
    } else if below("/statusz") {
        &["statusz"]
    } else if below("/flagz") {
        &["configz"]
    } else if below("/pods") || below("/runningpods") {
        &["pods", "proxy"]
    } else if below("/healthz") {
        &["healthz", "proxy"]
    } else if below("/configz") {
        &["configz", "proxy"]
    } else {
        &["proxy"]
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `authorization.mode: AlwaysAllow`.
struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Result<Decision, AuthzError> {
        Ok(Decision::Allow(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_subresources() {
        for (path, expected) in [
            ("/containerLogs/ns/pod/c", "proxy"),
            ("/exec/ns/pod/c", "proxy"),
            ("/", "proxy"),
            ("/pods", "pods proxy"),
            ("/pods/", "pods proxy"),
            ("/podsx", "proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/metrics/cadvisor", "metrics"),
            ("/stats/summary", "stats"),
            ("/logs/messages", "log"),
        ] {
            assert_eq!(subresources(path).join(" "), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_others_read_otherwise_are_none() {
        for (path, expected) in [
            ("/", true),
            ("/pods", true),
            ("/pods/", true),
            ("/logs/a%20b/..c", true),
            ("/containerLogs//web/c", true),
            ("", false),
            ("*", false),
            ("//exec/ns/pod/c", false),
            ("///exec/ns/pod/c", false),
            ("/./exec/ns/pod/c", false),
            ("/%65xec/ns/pod/c", false),
            ("/pods%2f../exec/ns/pod/c", false),
            ("/pods/../exec/ns/pod/c", false),
            ("/pods/%2E%2e/exec/ns/pod/c", false),
            ("/pods/.%2e%2Fexec", false),
            ("/logs/.", false),
        ] {
            assert_eq!(is_plain(path), expected, "{path}");
        }
    }

    #[test]
    fn who_runs_commands_creates() {
        for (method, path, expected) in [
            (Method::GET, "/exec/ns/pod/c", "create"),
            (Method::GET, "/portForward/ns/pod", "create"),
            (Method::POST, "/run/ns/pod/c", "create"),
            (Method::GET, "/runningpods/", "get"),
            (Method::GET, "/containerLogs/ns/pod/c", "get"),
            (Method::DELETE, "/pods", "delete"),
            (Method::OPTIONS, "/pods", ""),
        ] {
            assert_eq!(verb(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn refusals_read_as_upstreams() {
        let user = UserInfo { username: "ann".into(), ..UserInfo::default() };
        assert_eq!(
            forbidden(&user, "get", subresources("/pods")).text,
            "Forbidden (user=ann, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
        );
        assert_eq!(
            undecided(&user, "get", "proxy").text,
            "Authorization error (user=ann, verb=get, resource=nodes, subresource=proxy)"
        );
    }
}
