//! Users that a proxy in front of us names in headers (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use async_trait::async_trait;
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
        Ok(named(request, &self.config))
    }
}

pub(crate) fn named(request: &Parts, config: &RequestHeaderConfig) -> Option<UserInfo> {
    let values = |name: &String| {
        let values = request.headers.get_all(name.as_str());
        values.iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = |names: &[String]| names.iter().flat_map(values).find(|value| !value.is_empty());
    let mut user = UserInfo {
        username: first(&config.username_headers)?,
        uid: first(&config.uid_headers).unwrap_or_default(),
        groups: config.group_headers.iter().flat_map(values).collect(),
        ..UserInfo::default()
    };
    for (name, value) in &request.headers {
        let key = config
            .extra_header_prefixes
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
        if let (Some(key), Ok(value)) = (key, value.to_str()) {
            let key = query::unescape_path(key).unwrap_or_else(|| key.to_owned());
            user.extra.entry(key).or_default().push(value.to_owned());
        }
    }
    Some(user)
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
        let user = named(&parts, &config).unwrap();
        assert_eq!((user.username.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["example.com/scope"], ["s"]);
        let nobody = http::Request::builder().header("X-Remote-Group", "a").body(()).unwrap().into_parts().0;
        assert_eq!(named(&nobody, &config), None);
    }
}
