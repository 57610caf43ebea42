//! ConfigMaps, Secrets and service account tokens that pods refer to.

mod watches;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{Api, PostParams};

use crate::config::ChangeDetection;
use crate::go;
use crate::pods::PodId;
pub(crate) use watches::Changes;
use watches::Watches;

/// What a ConfigMap or Secret holds: keys to bytes.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// As error texts name it when the object is missing.
    fn singular(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }

    /// As error texts name it when a key is missing.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectName {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// It does not exist.
    #[error("{} {} not found", .kind.singular(), go::quote(.name))]
    NotFound { kind: Kind, name: String },
    /// A key is not in it.
    #[error("couldn't find key {key} in {} {namespace}/{name}", .kind.word())]
    NoKey { kind: Kind, namespace: String, name: String, key: String },
    /// The API server does not answer or refuses.
    #[error("{0}")]
    Api(String),
}

/// A token for a service account.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
}

impl Token {
    /// When it is time for a new one: when four fifths of its life are over, or a day (`requiresRefresh` of
    /// `pkg/kubelet/token/token_manager.go`).
    pub(crate) fn renewal(&self) -> Timestamp {
        let life = self.expires.duration_since(self.issued);
        let used = (life * 4 / 5).min(SignedDuration::from_hours(24));
        self.issued.saturating_add(used).unwrap_or(self.expires)
    }
}

/// What a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenQuery {
    pub(crate) pod: PodId,
    pub(crate) service_account: String,
    pub(crate) audience: Option<String>,
    pub(crate) expiration_seconds: i64,
}

/// Where they come from: the API server, or a test.
#[async_trait]
pub(crate) trait ObjectSource: Send + Sync + 'static {
    async fn data(&self, kind: Kind, namespace: &str, name: &str) -> Result<Data, ObjectError>;

    async fn token(&self, query: &TokenQuery) -> Result<Token, ObjectError>;

    /// What changes with an object from now on; `None` where nobody tells.
    fn changes(&self, _object: &ObjectName) -> Option<Changes> {
        None
    }
}

/// Where there is no API server there are no objects.
pub(crate) struct NoObjects;

const NO_API_SERVER: &str = "this kubelet has no API server: it runs static pods alone";

#[async_trait]
impl ObjectSource for NoObjects {
    async fn data(&self, _: Kind, _: &str, _: &str) -> Result<Data, ObjectError> {
        Err(ObjectError::Api(NO_API_SERVER.into()))
    }

    async fn token(&self, _: &TokenQuery) -> Result<Token, ObjectError> {
        Err(ObjectError::Api(NO_API_SERVER.into()))
    }
}

/// Objects of an API server.
pub(crate) struct ApiObjects {
    client: kube::Client,
    watches: Watches,
    detection: ChangeDetection,
}

impl ApiObjects {
    /// As this client may read them.
    pub(crate) fn new(client: kube::Client, detection: ChangeDetection) -> Self {
        ApiObjects { client, watches: Watches::default(), detection }
    }
}

#[async_trait]
impl ObjectSource for ApiObjects {
    async fn data(&self, kind: Kind, namespace: &str, name: &str) -> Result<Data, ObjectError> {
        let missing = || ObjectError::NotFound { kind, name: name.to_owned() };
        match kind {
            Kind::ConfigMap => {
                let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
                let found = api.get_opt(name).await.map_err(|error| api_error(&error))?;
                Ok(config_map_data(found.ok_or_else(missing)?))
            }
            Kind::Secret => {
                let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
                let found = api.get_opt(name).await.map_err(|error| api_error(&error))?;
                let data = found.ok_or_else(missing)?.data.unwrap_or_default();
                Ok(data.into_iter().map(|(key, value)| (key, value.0)).collect())
            }
        }
    }

    async fn token(&self, query: &TokenQuery) -> Result<Token, ObjectError> {
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), &query.pod.namespace);
        let answer: TokenRequest = api
            .create_subresource(
                "token",
                &query.service_account,
                &PostParams::default(),
                &token_request(query),
            )
            .await
            .map_err(|error| ObjectError::Api(format!("failed to fetch token: {}", api_error(&error))))?;
        let incomplete = || ObjectError::Api("failed to fetch token: answer without a token".into());
        let status = answer.status.ok_or_else(incomplete)?;
        Ok(Token {
            token: status.token.ok_or_else(incomplete)?,
            issued: Timestamp::now(),
            expires: status.expiration_timestamp.ok_or_else(incomplete)?.0,
        })
    }

    fn changes(&self, object: &ObjectName) -> Option<Changes> {
        match self.detection {
            ChangeDetection::Watch => self.watches.of(&self.client, object),
            ChangeDetection::Look => None,
        }
    }
}

fn config_map_data(map: ConfigMap) -> Data {
    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

fn token_request(query: &TokenQuery) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(query.audience.iter().cloned().collect()),
            expiration_seconds: Some(query.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(query.pod.name.clone()),
                uid: Some(query.pod.uid.clone()),
            }),
        }),
        ..TokenRequest::default()
    }
}

/// The text of a client error as users see it: the server's message, or what went wrong on the way.
pub(crate) fn api_error(error: &kube::Error) -> ObjectError {
    ObjectError::Api(api_message(error))
}

/// The server's message, or what went wrong on the way with its causes.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => api_text(other),
    }
}

/// An error with those of its causes that it does not name itself.
fn api_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod fake {
    //! Objects from a table.

    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;

    /// Objects from a table; tokens count up.
    #[derive(Default)]
    pub(crate) struct FakeObjects {
        pub(crate) objects: Mutex<BTreeMap<(Kind, String), Data>>,
        pub(crate) tokens: Mutex<u32>,
    }

    impl FakeObjects {
        pub(crate) fn put(&self, kind: Kind, name: &str, data: &[(&str, &str)]) {
            let data = data.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
            self.objects.lock().insert((kind, name.to_owned()), data);
        }
    }

    #[async_trait]
    impl ObjectSource for FakeObjects {
        async fn data(&self, kind: Kind, _namespace: &str, name: &str) -> Result<Data, ObjectError> {
            let found = self.objects.lock().get(&(kind, name.to_owned())).cloned();
            found.ok_or_else(|| ObjectError::NotFound { kind, name: name.to_owned() })
        }

        async fn token(&self, query: &TokenQuery) -> Result<Token, ObjectError> {
            let mut count = self.tokens.lock();
            *count += 1;
            let issued = Timestamp::now();
            let life = SignedDuration::from_secs(query.expiration_seconds);
            Ok(Token { token: format!("token-{count}"), issued, expires: issued + life })
        }
    }
}
