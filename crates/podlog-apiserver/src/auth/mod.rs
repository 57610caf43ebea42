//! Who may do what: tokens of service accounts, the node authorizer, RBAC.

mod authorizer;
mod bearer;
pub(crate) mod bootstrap_token;
mod cache;
mod issuer;
mod node;
pub(crate) mod oidc;
mod policy;
pub(crate) mod request_header;
mod service_account;
mod token_file;
pub(crate) mod webhook;

pub(crate) use authorizer::{ClusterAuthorizer, Member};
pub(crate) use bearer::BearerAuthenticator;
pub(crate) use bootstrap_token::BootstrapTokenAuthenticator;
pub(crate) use issuer::TokenIssuer;
pub(crate) use oidc::OidcAuthenticator;
pub(crate) use policy::PolicyKeeper;
pub(crate) use request_header::RequestHeaderAuthenticator;
pub(crate) use service_account::ServiceAccountAuthenticator;
pub(crate) use token_file::TokenFileAuthenticator;
pub use webhook::WebhookConfigError;
pub(crate) use webhook::{AccessWebhook, TokenWebhook};
