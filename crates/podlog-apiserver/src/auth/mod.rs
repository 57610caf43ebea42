//! Who may do what: tokens of service accounts, the node authorizer, RBAC.

mod authorizer;
mod bearer;
mod bootstrap_token;
mod issuer;
mod node;
mod policy;
mod service_account;
mod token_file;

pub(crate) use authorizer::{ClusterAuthorizer, Member};
pub(crate) use bearer::BearerAuthenticator;
pub(crate) use bootstrap_token::BootstrapTokenAuthenticator;
pub(crate) use issuer::TokenIssuer;
pub(crate) use policy::PolicyKeeper;
pub(crate) use service_account::ServiceAccountAuthenticator;
pub(crate) use token_file::TokenFileAuthenticator;
