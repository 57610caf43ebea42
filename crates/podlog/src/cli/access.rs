//! Flags of `podlog apiserver` about who is believed and who may do what.

use std::path::PathBuf;
use std::time::Duration;

use podlog_apiserver::{
    AccessWebhookConfig, AnonymousRequests, AuthenticationConfig, AuthorizationConfig, AuthorizationMode,
    BootstrapTokens, OidcAlgorithm, OidcConfig, RequestHeaderConfig, TokenWebhookConfig,
};

use super::apiserver::duration;

/// Who is believed, and who decides.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Authentication and authorization")]
pub(super) struct AccessArgs {
    /// Static tokens, `token,user,uid[,"groups"]` a line.
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Let requests without any credential see /healthz, /livez and /readyz.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    anonymous_auth: bool,
    /// Believe the tokens in secrets of type bootstrap.kubernetes.io/token in kube-system: kubelets join with them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    enable_bootstrap_token_auth: bool,
    /// URL of an OpenID Connect provider whose id tokens are believed.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Who its tokens have to be meant for (`aud`).
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Authorities of its certificate [default: those that the system trusts].
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name.
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What user names begin with; `-` for nothing [default: the issuer and #, unless the claim is email].
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups.
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What group names begin with.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    oidc_groups_prefix: String,
    /// Algorithms of signatures that are believed: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
    /// A claim that tokens must have, and its value, as key=value; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    oidc_required_claim: Vec<(String, String)>,
    /// Whom to ask about tokens that nobody here knows: a file in kubeconfig's form.
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are believed.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Authorities of the client certificate of a proxy that names users in headers.
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that certificate may have [default: any].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers that name the user.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Headers that hold the user's uid.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers that name groups.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// What headers of extra facts begin with.
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Who decides, in this order.
    #[arg(long, value_name = "MODES", value_delimiter = ',', value_enum, default_values_t = [ModeName::Node, ModeName::Rbac])]
    authorization_mode: Vec<ModeName>,
    /// Whom to ask in mode Webhook: a file in kubeconfig's form.
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// How long it is believed that something is allowed.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it is believed that something is not allowed.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

/// As kube-apiserver spells them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeName {
    #[value(name = "Node")]
    Node,
    #[value(name = "RBAC")]
    Rbac,
    #[value(name = "Webhook")]
    Webhook,
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
}

impl AccessArgs {
    /// Who is believed.
    ///
    /// # Errors
    /// When a flag about the OpenID provider is wrong.
    pub(super) fn authentication(&self) -> anyhow::Result<AuthenticationConfig> {
        let webhook = self.authentication_token_webhook_config_file.clone().map(|config_file| {
            TokenWebhookConfig { config_file, cache_ttl: self.authentication_token_webhook_cache_ttl }
        });
        Ok(AuthenticationConfig {
            oidc: self.oidc()?,
            webhook,
            request_header: self.request_header(),
            token_file: self.token_auth_file.clone(),
            anonymous: match self.anonymous_auth {
                true => AnonymousRequests::ForHealth,
                false => AnonymousRequests::Refused,
            },
            bootstrap_tokens: match self.enable_bootstrap_token_auth {
                true => BootstrapTokens::Accepted,
                false => BootstrapTokens::Refused,
            },
        })
    }

    /// Who decides.
    pub(super) fn authorization(&self) -> AuthorizationConfig {
        let modes = self.authorization_mode.iter().map(|mode| match mode {
            ModeName::Node => AuthorizationMode::Node,
            ModeName::Rbac => AuthorizationMode::Rbac,
            ModeName::Webhook => AuthorizationMode::Webhook,
            ModeName::AlwaysAllow => AuthorizationMode::AlwaysAllow,
            ModeName::AlwaysDeny => AuthorizationMode::AlwaysDeny,
        });
        let webhook = self.authorization_webhook_config_file.clone().map(|config_file| AccessWebhookConfig {
            config_file,
            allowed_ttl: self.authorization_webhook_cache_authorized_ttl,
            refused_ttl: self.authorization_webhook_cache_unauthorized_ttl,
        });
        AuthorizationConfig { modes: modes.collect(), webhook }
    }

    fn oidc(&self) -> anyhow::Result<Option<OidcConfig>> {
        let Some((issuer, client_id)) = self.oidc_issuer_url.clone().zip(self.oidc_client_id.clone()) else {
            return Ok(None);
        };
        anyhow::ensure!(
            issuer.starts_with("https://"),
            "--oidc-issuer-url {issuer:?}: must begin with https://"
        );
        let algorithms = self.oidc_signing_algs.iter().map(|name| algorithm(name));
        Ok(Some(OidcConfig {
            ca: self.oidc_ca_file.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            algorithms: algorithms.collect::<anyhow::Result<_>>()?,
            required_claims: self.oidc_required_claim.iter().cloned().collect(),
            ..OidcConfig::new(issuer, client_id)
        }))
    }

    fn request_header(&self) -> Option<RequestHeaderConfig> {
        Some(RequestHeaderConfig {
            client_ca: self.requestheader_client_ca_file.clone()?,
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: self.requestheader_username_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_header_prefixes: self.requestheader_extra_headers_prefix.clone(),
        })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("needs the form key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Secrets that both sides know are not for this: the provider alone makes tokens.
fn algorithm(name: &str) -> anyhow::Result<OidcAlgorithm> {
    let known = name.parse().ok().filter(|_| !name.starts_with("HS"));
    known.ok_or_else(|| anyhow::anyhow!("--oidc-signing-algs: {name:?} is not an algorithm of signatures"))
}
