//! Flags of `podlog apiserver` about who is believed and who may do what.

use std::path::PathBuf;

use podlog_apiserver::{
    AnonymousRequests, AuthenticationConfig, AuthorizationConfig, AuthorizationMode, BootstrapTokens,
};

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
    /// Who decides, in this order.
    #[arg(long, value_name = "MODES", value_delimiter = ',', value_enum, default_values_t = [ModeName::Node, ModeName::Rbac])]
    authorization_mode: Vec<ModeName>,
}

/// As kube-apiserver spells them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeName {
    #[value(name = "Node")]
    Node,
    #[value(name = "RBAC")]
    Rbac,
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
}

impl AccessArgs {
    /// Who is believed.
    pub(super) fn authentication(&self) -> AuthenticationConfig {
        AuthenticationConfig {
            token_file: self.token_auth_file.clone(),
            anonymous: match self.anonymous_auth {
                true => AnonymousRequests::ForHealth,
                false => AnonymousRequests::Refused,
            },
            bootstrap_tokens: match self.enable_bootstrap_token_auth {
                true => BootstrapTokens::Accepted,
                false => BootstrapTokens::Refused,
            },
        }
    }

    /// Who decides.
    pub(super) fn authorization(&self) -> AuthorizationConfig {
        let modes = self.authorization_mode.iter().map(|mode| match mode {
            ModeName::Node => AuthorizationMode::Node,
            ModeName::Rbac => AuthorizationMode::Rbac,
            ModeName::AlwaysAllow => AuthorizationMode::AlwaysAllow,
            ModeName::AlwaysDeny => AuthorizationMode::AlwaysDeny,
        });
        AuthorizationConfig { modes: modes.collect() }
    }
}
