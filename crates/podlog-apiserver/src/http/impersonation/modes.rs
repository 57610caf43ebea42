//! In which ways one user may act as another (`mode.go` of upstream's filter).
//!
//! The narrow ways come first: who acts as somebody of a kind for one request needs `impersonate-on:<mode>:<verb>` on what the
//! request is for, and `impersonate:<mode>` on whom they act as. The last way is the verb `impersonate`, for every request.

use podlog_api::{Attributes, Selectors, UserInfo, go};

use super::service_account;

const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many on, the right to be any of them is asked for first.
const MANY: usize = 4;

/// A way to act as somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A service account as the node that its pod runs on.
    AssociatedNode,
    /// As a node.
    ArbitraryNode,
    /// As a service account.
    ServiceAccount,
    /// As somebody else, with groups, uid and extra.
    UserInfo,
    /// As anybody, for every request.
    Legacy,
}

/// What has to be allowed, or why it is refused without asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// One right.
    Right(Attributes),
    /// One right that stands for several, or each of these.
    AnyOrEach(Attributes, Vec<Attributes>),
    /// Nobody may.
    Refused(Attributes, String),
}

impl Mode {
    pub(super) const ALL: [Mode; 5] =
        [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

    /// Whether this is the way to become somebody like that.
    pub(super) fn applies(self, wanted: &UserInfo, requestor: &UserInfo) -> bool {
        let name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.username);
        match self {
            Mode::AssociatedNode => {
                name_only
                    && service_account(&requestor.username).is_some()
                    && node.is_some_and(
                        |node| matches!(requestor.extra.get(NODE_NAME), Some(own) if own[..] == [node]),
                    )
            }
            Mode::ArbitraryNode => name_only && node.is_some(),
            Mode::ServiceAccount => name_only && service_account(&wanted.username).is_some(),
            Mode::UserInfo => node.is_none() && service_account(&wanted.username).is_none(),
            Mode::Legacy => true,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Mode::AssociatedNode => Some("associated-node"),
            Mode::ArbitraryNode => Some("arbitrary-node"),
            Mode::ServiceAccount => Some("serviceaccount"),
            Mode::UserInfo => Some("user-info"),
            Mode::Legacy => None,
        }
    }

    /// The verb on whom one acts as.
    pub(super) fn verb(self) -> String {
        self.name().map_or_else(|| "impersonate".to_owned(), |name| format!("impersonate:{name}"))
    }

    /// What the audit log calls it; the broad way has no name.
    pub(super) fn constraint(self) -> Option<String> {
        self.name().map(|_| self.verb())
    }

    /// On whose behalf authorizers are asked. They need not know on which node a service account runs: that has been seen to.
    pub(super) fn requestor(self, requestor: &UserInfo) -> UserInfo {
        let mut asking = requestor.clone();
        if self == Mode::AssociatedNode {
            let keys = requestor.extra.keys().cloned().collect();
            asking.extra = [(NODE_KEYS.to_owned(), keys)].into();
        }
        asking
    }

    /// Each of them must be allowed.
    pub(super) fn checks(self, wanted: &UserInfo, request: &Attributes) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(name) = self.name() {
            checks.push(Check::Right(with_verb(request, |verb| format!("impersonate-on:{name}:{verb}"))));
        }
        checks.push(Check::Right(self.user(wanted)));
        if !wanted.uid.is_empty() {
            checks.push(Check::Right(self.right(AUTHENTICATION, "uids", &wanted.uid)));
        }
        checks.extend(self.groups(wanted));
        checks.extend(self.extra(wanted));
        checks
    }

    /// The groups that come with being a user.
    pub(super) fn completed(self, mut user: UserInfo) -> UserInfo {
        if user.groups.is_empty() {
            if let Some((namespace, _)) = service_account(&user.username) {
                user.groups =
                    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            } else if self != Mode::Legacy && node_of(&user.username).is_some() {
                user.groups = vec!["system:nodes".into()];
            }
        }
        let anonymous = user.username == UserInfo::ANONYMOUS;
        if anonymous && !user.is_in(UserInfo::UNAUTHENTICATED) {
            user.groups.push(UserInfo::UNAUTHENTICATED.into());
        } else if !anonymous && !user.is_in(UserInfo::AUTHENTICATED) && !user.is_in(UserInfo::UNAUTHENTICATED)
        {
            user.groups.push(UserInfo::AUTHENTICATED.into());
        }
        user
    }

    fn right(self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes::Resource {
            verb: self.verb(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: String::new(),
            name: name.into(),
            selectors: Selectors::default(),
        }
    }

    /// Users and groups are of the core group in the broad way only.
    fn group(self) -> &'static str {
        if self == Mode::Legacy { "" } else { AUTHENTICATION }
    }

    fn user(self, wanted: &UserInfo) -> Attributes {
        if let Some((account_namespace, account)) = service_account(&wanted.username) {
            let mut right = self.right(self.group(), "serviceaccounts", account);
            if let Attributes::Resource { namespace, .. } = &mut right {
                *namespace = account_namespace.to_owned();
            }
            return right;
        }
        match node_of(&wanted.username) {
            // The rights of a service account are the same on every node.
            Some(_) if self == Mode::AssociatedNode => self.right(self.group(), "nodes", "*"),
            Some(node) if self != Mode::Legacy => self.right(self.group(), "nodes", node),
            _ => self.right(self.group(), "users", &wanted.username),
        }
    }

    fn groups(self, wanted: &UserInfo) -> Vec<Check> {
        let right = |name: &str| self.right(self.group(), "groups", name);
        let each: Vec<Attributes> = wanted.groups.iter().map(|group| right(group)).collect();
        if self == Mode::Legacy {
            return each.into_iter().map(Check::Right).collect();
        }
        if wanted.is_in("") {
            let why = "impersonating the empty string group is not allowed";
            return vec![Check::Refused(right(""), why.into())];
        }
        if wanted.is_in(UserInfo::MASTERS) {
            let why = "impersonating the system:masters group is not allowed";
            return vec![Check::Refused(right(UserInfo::MASTERS), why.into())];
        }
        any_or_each(right("*"), each)
    }

    fn extra(self, wanted: &UserInfo) -> Vec<Check> {
        let right = |key: &str, value: &str| {
            let mut right = self.right(AUTHENTICATION, "userextras", value);
            if let Attributes::Resource { subresource, .. } = &mut right {
                *subresource = key.to_owned();
            }
            right
        };
        let pairs =
            wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let each: Vec<Attributes> = pairs.map(|(key, value)| right(key, value)).collect();
        if self == Mode::Legacy {
            return each.into_iter().map(Check::Right).collect();
        }
        match wanted.extra.iter().find_map(|(key, values)| refused_extra(key, values)) {
            Some(why) => vec![Check::Refused(right("", ""), why)],
            None => any_or_each(right("*", "*"), each),
        }
    }
}

fn any_or_each(any: Attributes, each: Vec<Attributes>) -> Vec<Check> {
    if each.len() >= MANY {
        return vec![Check::AnyOrEach(any, each)];
    }
    each.into_iter().map(Check::Right).collect()
}

/// Why nobody may have such extra information.
fn refused_extra(key: &str, values: &[String]) -> Option<String> {
    let invalid = || {
        format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {}: must be a domain-prefixed path (such as \"acme.io/foo\")",
            go::quote(key)
        )
    };
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    match key.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {}
        _ => return Some(invalid()),
    }
    if key.chars().any(char::is_uppercase) {
        let quoted = go::quote(key);
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {quoted}"));
    }
    let empty = values.iter().any(String::is_empty);
    empty.then(|| "impersonating the empty string value in extra is not allowed".into())
}

fn with_verb(attributes: &Attributes, verb_of: impl Fn(&str) -> String) -> Attributes {
    let mut attributes = attributes.clone();
    let (Attributes::Resource { verb, .. } | Attributes::NonResource { verb, .. }) = &mut attributes;
    *verb = verb_of(verb);
    attributes
}

/// The node that a user is, where its name can be that of a node.
fn node_of(username: &str) -> Option<&str> {
    let name = username.strip_prefix("system:node:")?;
    podlog_api::is_dns_subdomain(name).then_some(name)
}
