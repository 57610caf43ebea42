//! Where a webhook is, and as whom it is asked: a file in kubeconfig's form.

use std::path::{Path, PathBuf};

use http::Uri;
use podlog_serving::pki::KeyPairFiles;
use serde::Deserialize;

/// Why a webhook's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the webhook configuration {}: {reason}", .path.display())]
pub struct WebhookConfigError {
    path: PathBuf,
    reason: String,
}

impl WebhookConfigError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> Self {
        WebhookConfigError { path: path.to_owned(), reason: reason.into() }
    }
}

/// What the current context of the file says.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: Uri,
    pub(super) ca: Option<PathBuf>,
    pub(super) client: Option<KeyPairFiles>,
    pub(super) token: Option<Token>,
}

/// A bearer token.
pub(super) enum Token {
    Fixed(String),
    /// Read each time: such files are replaced.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    pub(super) fn read(&self) -> Result<String, String> {
        match self {
            Token::Fixed(token) => Ok(token.clone()),
            Token::File(path) => std::fs::read_to_string(path)
                .map(|token| token.trim().to_owned())
                .map_err(|error| format!("cannot read {}: {error}", path.display())),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

/// Reads the file; paths in it are relative to its folder.
pub(super) fn load(path: &Path) -> Result<Target, WebhookConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| WebhookConfigError::new(path, error.to_string()))?;
    parse(&text, path.parent().unwrap_or(Path::new("")))
        .map_err(|reason| WebhookConfigError::new(path, reason))
}

pub(crate) fn parse(text: &str, folder: &Path) -> Result<Target, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|_| "it is not a kubeconfig".to_owned())?;
    let context = file.contexts.into_iter().find(|context| context.name == file.current_context);
    let context = context.ok_or("current-context names no context")?.context;
    let cluster = file.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.ok_or("the current context names no cluster")?.cluster;
    let user = file.users.into_iter().find(|user| user.name == context.user).map(|user| user.user);
    let user = user.unwrap_or_default();
    let inline = [&cluster.certificate_authority_data, &user.client_certificate_data, &user.client_key_data];
    if inline.iter().any(|data| data.is_some()) {
        return Err("certificates and keys have to be in files of their own, not in *-data".into());
    }
    if cluster.insecure_skip_tls_verify {
        return Err("insecure-skip-tls-verify is not supported: name the authority of the webhook".into());
    }
    let url: Uri = cluster.server.parse().map_err(|_| format!("{:?} is not a URL", cluster.server))?;
    if url.scheme_str() != Some("https") || url.host().is_none() {
        return Err(format!("{:?} is not an https URL", cluster.server));
    }
    let client = match (user.client_certificate, user.client_key) {
        (Some(certificate), Some(key)) => {
            Some(KeyPairFiles { certificate: folder.join(certificate), key: folder.join(key) })
        }
        (None, None) => None,
        _ => return Err("client-certificate and client-key need each other".into()),
    };
    let token = match (user.token, user.token_file) {
        (_, Some(file)) => Some(Token::File(folder.join(file))),
        (Some(token), None) => Some(Token::Fixed(token)),
        (None, None) => None,
    };
    Ok(Target { url, ca: cluster.certificate_authority.map(|ca| folder.join(ca)), client, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "clusters: [{name: c, cluster: {server: 'https://h:1/p', certificate-authority: ca.crt}}]\n\
        users: [{name: u, user: {client-certificate: /c, client-key: k, token: t}}]\n\
        contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n";

    #[test]
    fn files_say_where_and_as_whom() {
        let target = parse(GOOD, Path::new("/etc")).unwrap();
        assert_eq!(
            (target.url.to_string().as_str(), target.ca),
            ("https://h:1/p", Some("/etc/ca.crt".into()))
        );
        let client = target.client.unwrap();
        assert_eq!((client.certificate, client.key), ("/c".into(), "/etc/k".into()));
        assert_eq!(target.token.unwrap().read().unwrap(), "t");
        let rows = [
            ("[", "it is not a kubeconfig"),
            (&GOOD.replace("current-context: x", "current-context: y"), "current-context names no context"),
            (&GOOD.replace("cluster: c", "cluster: d"), "names no cluster"),
            (&GOOD.replace("https", "http"), "is not an https URL"),
            (&GOOD.replace("client-key: k, ", ""), "need each other"),
            (&GOOD.replace("client-key", "client-key-data"), "have to be in files"),
        ];
        for (text, expected) in rows {
            let error = parse(text, Path::new("")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
