//! Who asks for what: the input of every authorizer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Object;
use crate::selector::Selectors;

/// The identity of a client after authentication.
///
/// Shape as `k8s.io/apiserver/pkg/authentication/user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, e.g. `system:serviceaccount:prod:ci-bot`.
    pub username: String,
    /// Opaque id; empty where the authenticator has none.
    pub uid: String,
    /// Group memberships, `system:authenticated` among them once authenticated.
    pub groups: Vec<String>,
    /// Further facts by key, e.g. `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Group that every rule lets through (`system:masters`).
    pub const MASTERS: &str = "system:masters";
    /// Group of everyone who presented a valid credential.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Group of requests without any credential.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// User name of requests without any credential.
    pub const ANONYMOUS: &str = "system:anonymous";

    /// The user whom the `spec` of a review or of a request for a certificate describes by `uid`, `groups` and `extra`, and by `name`,
    /// the key of the user name. What is of another type is passed over.
    pub fn described(object: &Object, name: &str) -> Self {
        let text = |key: &str| object.text(&format!("/spec/{key}")).to_owned();
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_owned())).collect()
        };
        let extra = object.at("/spec/extra").and_then(Value::as_object).into_iter().flatten();
        UserInfo {
            username: text(name),
            uid: text("uid"),
            groups: object.at("/spec/groups").map(strings).unwrap_or_default(),
            extra: extra.map(|(key, value)| (key.clone(), strings(value))).collect(),
        }
    }

    /// Whether the user is a member of `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether this may be anybody.
    pub fn is_anonymous(&self) -> bool {
        self.username == Self::ANONYMOUS || self.is_in(Self::UNAUTHENTICATED)
    }

    /// The user name of a service account: `system:serviceaccount:<namespace>:<name>`.
    pub fn service_account_name(namespace: &str, name: &str) -> String {
        format!("system:serviceaccount:{namespace}:{name}")
    }
}

/// What a request asks for, as authorizers see it.
///
/// Shape as `k8s.io/apiserver/pkg/authorization/authorizer.Attributes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// A request for an API resource, `/api/<version>/…` or `/apis/<group>/<version>/…`.
    Resource {
        /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` or a special verb.
        verb: String,
        /// API group; empty for the core group.
        group: String,
        /// API version, e.g. `v1`.
        version: String,
        /// Plural resource name, e.g. `pods`.
        resource: String,
        /// E.g. `log`; empty for the resource itself.
        subresource: String,
        /// Empty for cluster-scoped requests and for all namespaces.
        namespace: String,
        /// Empty where no single object is named.
        name: String,
        /// By what a `list`, `watch` or `deletecollection` is narrowed.
        selectors: Selectors,
    },
    /// Any other path, e.g. `/healthz`.
    NonResource {
        /// The HTTP method in lower case.
        verb: String,
        /// The path as requested.
        path: String,
    },
}

impl Attributes {
    /// The verb of either form.
    pub fn verb(&self) -> &str {
        match self {
            Attributes::Resource { verb, .. } | Attributes::NonResource { verb, .. } => verb,
        }
    }
}

/// The answer of an authorizer, with the reason that is shown in audit records and refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed; no other authorizer is asked.
    Allow(String),
    /// Refused; no other authorizer is asked.
    Deny(String),
    /// Not this authorizer's business; refused if nobody allows.
    NoOpinion(String),
}
