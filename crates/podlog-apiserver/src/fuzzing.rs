//! What `fuzz/` reaches and nobody else needs: the parsers of this crate that read what others wrote.

use std::path::Path;

use http::request::Parts;
use jiff::Timestamp;
use podlog_api::resource::Resource;
use podlog_api::{Attributes, Object, UserInfo};
use serde_json::{Map, Value};

use crate::audit::Policy;
use crate::auth::webhook::kubeconfig;
use crate::auth::{bootstrap_token, oidc, request_header};
use crate::config::{OidcConfig, RequestHeaderConfig};
use crate::registry::codec;

/// Reads an audit policy. What is noted of each of `asked`, from 0 for nothing to 3 for both bodies.
///
/// # Errors
/// What is wrong with it.
pub fn audit_policy(text: &str, user: &UserInfo, asked: &[Attributes]) -> Result<Vec<u8>, String> {
    let policy = Policy::parse(text)?;
    Ok(asked.iter().map(|attributes| policy.judge(Some(user), attributes).level as u8).collect())
}

/// Whom a stored bootstrap token is for, if it is this one and good at `now`.
pub fn bootstrap_token(stored: &Object, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    bootstrap_token::user(stored, id, secret, now)
}

/// Whom the claims of an id token name, if it is for us and good at `now` (seconds since 1970).
///
/// # Errors
/// What is wrong with it.
pub fn id_token(claims: &Map<String, Value>, config: &OidcConfig, now: i64) -> Result<UserInfo, String> {
    oidc::check(claims, config, now).and_then(|()| oidc::user(claims, config))
}

/// Where a provider's keys are, by its discovery document.
///
/// # Errors
/// What is wrong with it.
pub fn key_set_url<'a>(discovery: &'a Value, config: &OidcConfig) -> Result<&'a str, String> {
    oidc::key_set_url(discovery, config)
}

/// How many keys of a key set are of a kind that we know.
pub fn key_set(document: &Value) -> usize {
    oidc::keys_of(document).len()
}

/// Whom a proxy's headers name.
pub fn request_header(request: &Parts, config: &RequestHeaderConfig) -> Option<UserInfo> {
    request_header::named(request, config).ok().flatten()
}

/// The URL of a webhook, by its file.
///
/// # Errors
/// What is wrong with it.
pub fn webhook_file(text: &str) -> Result<String, String> {
    kubeconfig::parse(text, Path::new("/etc")).map(|target| target.url.to_string())
}

/// An object by its stored bytes, and as the item of a list.
///
/// # Errors
/// That they are damaged.
pub fn stored(resource: &Resource, value: &[u8], revision: u64) -> Result<(Object, Vec<u8>), String> {
    let object = codec::decode(resource, value, revision).map_err(|error| error.message)?;
    let mut item = Vec::new();
    codec::item(&mut item, resource, value, revision).map_err(|error| error.message)?;
    Ok((object, item))
}

/// The bytes that are stored of an object.
pub fn to_stored(resource: &Resource, object: &Object) -> Vec<u8> {
    codec::encode(resource, object).to_vec()
}
