//! Authenticators and authorizers as the configuration asks for them.

use std::sync::Arc;

use podlog_serving::{Authenticator, UnionAuthenticator, X509Authenticator};

use crate::auth::{
    AccessWebhook, BearerAuthenticator, BootstrapTokenAuthenticator, ClusterAuthorizer, Member,
    OidcAuthenticator, RequestHeaderAuthenticator, ServiceAccountAuthenticator, TokenFileAuthenticator,
    TokenIssuer, TokenWebhook,
};
use crate::config::{
    AnonymousRequests, ApiServerConfig, AuthorizationConfig, AuthorizationMode, BootstrapTokens,
};
use crate::registry::Registry;
use crate::server::StartError;

/// What may be asked without any credential, where anything may.
const HEALTH_PATHS: &[&str] = &["/healthz", "/livez", "/readyz"];

/// Who is believed, and who decides.
pub(crate) struct Access {
    /// Knows who sends a request.
    pub(crate) requests: Arc<dyn Authenticator>,
    /// Knows tokens, and nothing else.
    pub(crate) tokens: Arc<dyn Authenticator>,
    /// Knows the tokens of service accounts, also those for other audiences than ours.
    pub(crate) accounts: Arc<ServiceAccountAuthenticator>,
    /// Decides.
    pub(crate) authorizer: Arc<ClusterAuthorizer>,
}

impl Access {
    /// # Errors
    /// When a file cannot be used.
    pub(crate) fn new(
        config: &ApiServerConfig,
        registry: &Registry,
        issuer: &Arc<TokenIssuer>,
    ) -> Result<Self, StartError> {
        let accounts = Arc::new(ServiceAccountAuthenticator {
            registry: registry.clone(),
            issuer: issuer.clone(),
            audiences: vec![config.service_account_issuer.clone()],
        });
        let tokens: Arc<dyn Authenticator> =
            Arc::new(BearerAuthenticator(token_authenticators(config, registry, &accounts)?));
        let mut members: Vec<Arc<dyn Authenticator>> = Vec::new();
        if let Some(proxy) = &config.authentication.request_header {
            members.push(Arc::new(RequestHeaderAuthenticator::new(proxy.clone()).map_err(StartError::Tls)?));
        }
        members.push(Arc::new(X509Authenticator::load(config.client_ca.clone()).map_err(StartError::Tls)?));
        members.push(tokens.clone());
        let mut requests = UnionAuthenticator::new(members);
        if config.authentication.anonymous == AnonymousRequests::ForHealth {
            requests = requests.with_anonymous_on(HEALTH_PATHS);
        }
        Ok(Access {
            requests: Arc::new(requests),
            tokens: Arc::new(UnionAuthenticator::new(vec![tokens])),
            accounts,
            authorizer: Arc::new(authorizer(&config.authorization, registry)?),
        })
    }
}

/// Those who know bearer tokens, in upstream's order.
fn token_authenticators(
    config: &ApiServerConfig,
    registry: &Registry,
    accounts: &Arc<ServiceAccountAuthenticator>,
) -> Result<Vec<Arc<dyn Authenticator>>, StartError> {
    let wanted = &config.authentication;
    let mut known: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(path) = &wanted.token_file {
        let tokens = TokenFileAuthenticator::load(path)
            .map_err(|source| StartError::TokenFile { path: path.clone(), source })?;
        known.push(Arc::new(tokens));
    }
    known.push(accounts.clone());
    if wanted.bootstrap_tokens == BootstrapTokens::Accepted {
        known.push(Arc::new(BootstrapTokenAuthenticator { registry: registry.clone() }));
    }
    if let Some(provider) = &wanted.oidc {
        known.push(Arc::new(OidcAuthenticator::new(provider.clone()).map_err(StartError::Tls)?));
    }
    if let Some(webhook) = &wanted.webhook {
        let webhook = TokenWebhook::load(&webhook.config_file, accounts.audiences.clone(), webhook.cache_ttl);
        known.push(Arc::new(webhook.map_err(StartError::Webhook)?));
    }
    Ok(known)
}

fn authorizer(config: &AuthorizationConfig, registry: &Registry) -> Result<ClusterAuthorizer, StartError> {
    let mut members = Vec::new();
    for mode in &config.modes {
        members.push(match mode {
            AuthorizationMode::Node => Member::Node,
            AuthorizationMode::Rbac => Member::Rbac,
            AuthorizationMode::AlwaysAllow => Member::AlwaysAllow,
            AuthorizationMode::AlwaysDeny => Member::AlwaysDeny,
            AuthorizationMode::Webhook => {
                let webhook = config.webhook.as_ref().ok_or(StartError::NoWebhook)?;
                let webhook =
                    AccessWebhook::load(&webhook.config_file, webhook.allowed_ttl, webhook.refused_ttl);
                Member::Webhook(Arc::new(webhook.map_err(StartError::Webhook)?))
            }
        });
    }
    Ok(ClusterAuthorizer::new(registry.clone(), members))
}
