//! Users that a proxy in front of us names in headers (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use async_trait::async_trait;
use http::HeaderValue;
use http::request::Parts;
use podlog_api::{UserInfo, query};
use podlog_serving::{Authenticator, AuthnError, Peer, TlsError, X509Authenticator};

use crate::config::RequestHeaderConfig;

/// Believes the headers of those who show a certificate of the proxies' authority.
pub(crate) struct RequestHeaderAuthenticator {
    proxies: X509Authenticator,
    config: RequestHeaderConfig,
}

impl RequestHeaderAuthenticator {
    /// # Errors
    /// When the authority's file cannot be used.
    pub(crate) fn new(config: RequestHeaderConfig) -> Result<Self, TlsError> {
        Ok(RequestHeaderAuthenticator { proxies: X509Authenticator::load(config.client_ca.clone())?, config })
    }
}

#[async_trait]
impl Authenticator for RequestHeaderAuthenticator {
    async fn authenticate(&self, request: &Parts, peer: &Peer) -> Result<Option<UserInfo>, AuthnError> {
        // Somebody else's certificate is for the next authenticator.
        let Ok(Some(proxy)) = self.proxies.authenticate(request, peer).await else { return Ok(None) };
        let names = &self.config.allowed_names;
        if !names.is_empty() && !names.contains(&proxy.username) {
            return Err(AuthnError(format!("subject with cn={} is not in the allowed list", proxy.username)));
        }
        named(request, &self.config)
    }
}

/// Whom the headers name; an error where a name cannot be read, which must not be taken for none: the request would be the proxy's.
pub(crate) fn named(request: &Parts, config: &RequestHeaderConfig) -> Result<Option<UserInfo>, AuthnError> {
    let values = |names: &[String]| -> Result<Vec<String>, AuthnError> {
        names.iter().flat_map(|name| request.headers.get_all(name.as_str())).map(text).collect()
    };
    let first = |names: &[String]| Ok(values(names)?.into_iter().find(|value| !value.is_empty()));
    let Some(username) = first(&config.username_headers)? else { return Ok(None) };
    let mut user = UserInfo {
        username,
        uid: first(&config.uid_headers)?.unwrap_or_default(),
        groups: values(&config.group_headers)?,
        ..UserInfo::default()
    };
    for (name, value) in &request.headers {
        let key = config
            .extra_header_prefixes
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
        if let Some(key) = key {
            let key = query::unescape_path(key).unwrap_or_else(|| key.to_owned());
            user.extra.entry(key).or_default().push(text(value)?);
        }
    }
    Ok(Some(user))
}

fn text(value: &HeaderValue) -> Result<String, AuthnError> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| AuthnError("a header of the proxy is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_users() {
        let config = RequestHeaderConfig {
            client_ca: "ca".into(),
            allowed_names: Vec::new(),
            username_headers: vec!["X-Remote-User".into()],
            uid_headers: vec!["X-Remote-Uid".into()],
            group_headers: vec!["X-Remote-Group".into()],
            extra_header_prefixes: vec!["X-Remote-Extra-".into()],
        };
        let request = http::Request::builder()
            .header("X-Remote-User", "ann")
            .header("X-Remote-Uid", "7")
            .header("X-Remote-Group", "a")
            .header("X-Remote-Group", "b")
            .header("X-Remote-Extra-Example.com%2fscope", "s");
        let parts = request.body(()).unwrap().into_parts().0;
        let user = named(&parts, &config).unwrap().unwrap();
        assert_eq!((user.username.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["example.com/scope"], ["s"]);
        let nobody = http::Request::builder().header("X-Remote-Group", "a").body(()).unwrap().into_parts().0;
        assert_eq!(named(&nobody, &config).unwrap(), None);
        let called = |name: &[u8]| {
            let request = http::Request::builder().header("X-Remote-User", name).body(()).unwrap();
            named(&request.into_parts().0, &config).map(|user| user.map(|user| user.username))
        };
        assert_eq!(called("jürgen".as_bytes()).unwrap().as_deref(), Some("jürgen"));
        assert!(called(b"j\xfcrgen").is_err());
    }
}
