//! All roles and bindings of a cluster, indexed by whom they are for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{GROUP, PolicyRule};
use crate::{Attributes, Decision, Object, UserInfo, go};

/// Roles and bindings, ready to decide. Build a new one when any of them changes.
///
/// A decision costs what the bindings of the user and of its groups cost, however many others there are.
#[derive(Debug, Default)]
pub struct Policy {
    cluster: Bindings,
    namespaces: HashMap<String, Bindings>,
    roles: Roles,
}

/// What somebody may do in a namespace (`SelfSubjectRulesReview`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesFor {
    /// Rules of every role bound to the user, in the order in which they are evaluated.
    pub rules: Vec<PolicyRule>,
    /// Why there may be more: roles that bindings name and that do not exist, authorizers that cannot say.
    pub errors: Vec<String>,
    /// Somebody decides about the user who cannot say what it would allow.
    pub incomplete: bool,
}

impl Policy {
    /// Indexes Roles, ClusterRoles, RoleBindings and ClusterRoleBindings, in any order; other kinds are ignored.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Policy {
        let mut policy = Policy::default();
        let mut bindings: Vec<&Object> = Vec::new();
        for object in objects {
            match object.kind() {
                "Role" | "ClusterRole" => policy.roles.insert(object),
                "RoleBinding" | "ClusterRoleBinding" => bindings.push(object),
                _ => {}
            }
        }
        // Which of several sufficient bindings the reason names should not depend on the order of the store.
        bindings.sort_by_key(|binding| binding.name());
        for binding in bindings {
            policy.insert_binding(binding);
        }
        policy
    }

    /// Decides. Members of `system:masters` may do everything, whatever the roles say.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.is_in(UserInfo::MASTERS) {
            return Decision::Allow(String::new());
        }
        let namespace = match attributes {
            Attributes::Resource { namespace, .. } => namespace,
            Attributes::NonResource { .. } => "",
        };
        let mut errors = Vec::new();
        for binding in self.bindings_of(user, namespace) {
            match &binding.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow(format!("RBAC: allowed by {}", binding.to(user)));
                }
                Some(_) => {}
                None => errors.push(binding.role.missing()),
            }
        }
        let errors = go::aggregate(errors.iter().map(String::as_str));
        Decision::NoOpinion(errors.map(|text| format!("RBAC: {text}")).unwrap_or_default())
    }

    /// Everything that the user may do in a namespace; without one, in the cluster's scope.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> RulesFor {
        let mut found = RulesFor::default();
        for binding in self.bindings_of(user, namespace) {
            match &binding.rules {
                Some(rules) => found.rules.extend_from_slice(rules),
                None => found.errors.push(binding.role.missing()),
            }
        }
        found
    }

    /// The rules of a role that a binding in `namespace` names; `None` if it does not exist.
    pub(super) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        self.roles.rules_of(role, namespace)
    }

    /// Cluster-wide bindings first, then those of the namespace; by name each.
    fn bindings_of<'a>(
        &'a self,
        user: &UserInfo,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Binding> + use<'a> {
        let local = self.namespaces.get(namespace).map(|bindings| bindings.of(user));
        self.cluster.of(user).into_iter().chain(local.into_iter().flatten())
    }

    fn insert_binding(&mut self, object: &Object) {
        let cluster_wide = object.kind() == "ClusterRoleBinding";
        let namespace = if cluster_wide { "" } else { object.namespace() };
        let role = RoleRef::of(object);
        let binding = Binding {
            name: object.name().to_owned(),
            namespace: namespace.to_owned(),
            rules: self.roles.rules_of(&role, namespace),
            role,
            subjects: object
                .array("/subjects")
                .iter()
                .map(|subject| Subject::of(subject, namespace))
                .collect(),
        };
        if cluster_wide {
            self.cluster.insert(binding);
        } else if !namespace.is_empty() {
            self.namespaces.entry(namespace.to_owned()).or_default().insert(binding);
        }
    }
}

impl RulesFor {
    /// Notes that an authorizer of this name decides about the user, and cannot say what it would allow.
    pub fn cannot_say(&mut self, authorizer: &str) {
        self.incomplete = true;
        self.errors.push(format!("{authorizer} authorizer does not support user rule resolution"));
    }

    /// The `status` of a `SelfSubjectRulesReview`.
    pub fn to_status(&self) -> Value {
        let part = |keys: &[&str], rule: &PolicyRule| -> Value {
            let Ok(Value::Object(mut map)) = serde_json::to_value(rule) else { return Value::Null };
            map.retain(|key, _| keys.contains(&key.as_str()));
            Value::Object(map)
        };
        let resources: Vec<Value> = self
            .rules
            .iter()
            .filter(|rule| !rule.resources.is_empty())
            .map(|rule| part(&["verbs", "apiGroups", "resources", "resourceNames"], rule))
            .collect();
        let others: Vec<Value> = self
            .rules
            .iter()
            .filter(|rule| !rule.non_resource_urls.is_empty())
            .map(|rule| part(&["verbs", "nonResourceURLs"], rule))
            .collect();
        let mut status =
            json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": self.incomplete});
        if let Some(error) = go::aggregate(self.errors.iter().map(String::as_str)) {
            status["evaluationError"] = json!(error);
        }
        status
    }
}

/// The rules of every role.
#[derive(Debug, Default)]
struct Roles {
    cluster: HashMap<String, Arc<[PolicyRule]>>,
    namespaces: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
}

impl Roles {
    fn insert(&mut self, role: &Object) {
        let rules = PolicyRule::all_of(role).into();
        let scope = match role.kind() {
            "ClusterRole" => &mut self.cluster,
            _ => self.namespaces.entry(role.namespace().to_owned()).or_default(),
        };
        scope.insert(role.name().to_owned(), rules);
    }

    fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster.get(&role.name).cloned(),
            "Role" => self.namespaces.get(namespace)?.get(&role.name).cloned(),
            _ => None,
        }
    }
}

/// The bindings of one scope, by name, and who is bound by which.
#[derive(Debug, Default)]
struct Bindings {
    list: Vec<Binding>,
    by_user: HashMap<String, Vec<usize>>,
    by_group: HashMap<String, Vec<usize>>,
}

impl Bindings {
    fn insert(&mut self, binding: Binding) {
        let at = self.list.len();
        for subject in &binding.subjects {
            let places = match &subject.identity {
                Identity::User(name) => self.by_user.entry(name.clone()).or_default(),
                Identity::Group(name) => self.by_group.entry(name.clone()).or_default(),
                Identity::Nobody => continue,
            };
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
        self.list.push(binding);
    }

    fn of(&self, user: &UserInfo) -> Vec<&Binding> {
        let by_group = user.groups.iter().filter_map(|group| self.by_group.get(group));
        let mut places: Vec<usize> =
            self.by_user.get(&user.username).into_iter().chain(by_group).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|at| &self.list[at]).collect()
    }
}

#[derive(Debug)]
struct Binding {
    name: String,
    /// Empty for ClusterRoleBindings.
    namespace: String,
    role: RoleRef,
    /// `None` when the role does not exist.
    rules: Option<Arc<[PolicyRule]>>,
    subjects: Vec<Subject>,
}

impl Binding {
    /// Says how the binding reaches a user that it applies to.
    fn to(&self, user: &UserInfo) -> impl fmt::Display {
        let subject = self.subjects.iter().find(|subject| subject.is(user));
        let to = subject.map(|subject| subject.shown.as_str()).unwrap_or_default();
        let binding = if self.namespace.is_empty() {
            format!("ClusterRoleBinding {}", go::quote(&self.name))
        } else {
            format!("RoleBinding {}", go::quote(&format!("{}/{}", self.name, self.namespace)))
        };
        format!("{binding} of {} {} to {to}", self.role.kind, go::quote(&self.role.name))
    }
}

/// The role that a binding grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoleRef {
    pub(super) kind: String,
    pub(super) name: String,
}

impl RoleRef {
    pub(super) fn of(binding: &Object) -> RoleRef {
        RoleRef {
            kind: binding.text("/roleRef/kind").to_owned(),
            name: binding.text("/roleRef/name").to_owned(),
        }
    }

    fn missing(&self) -> String {
        match self.kind.as_str() {
            "Role" | "ClusterRole" => {
                format!("{}.{GROUP} {} not found", self.kind.to_ascii_lowercase(), go::quote(&self.name))
            }
            other => format!("unsupported role reference kind: {}", go::quote(other)),
        }
    }
}

#[derive(Debug)]
struct Subject {
    identity: Identity,
    /// E.g. `ServiceAccount "ci/prod"`.
    shown: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Identity {
    User(String),
    Group(String),
    /// A subject that nobody can be: an unknown kind, or a service account without namespace.
    Nobody,
}

impl Subject {
    fn of(value: &Value, binding_namespace: &str) -> Subject {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        let namespace = if text("namespace").is_empty() { binding_namespace } else { text("namespace") };
        let identity = match kind {
            "User" => Identity::User(name.to_owned()),
            "Group" => Identity::Group(name.to_owned()),
            "ServiceAccount" if !namespace.is_empty() => {
                Identity::User(UserInfo::service_account_name(namespace, name))
            }
            _ => Identity::Nobody,
        };
        let shown = match kind {
            "ServiceAccount" => format!("{kind} {}", go::quote(&format!("{name}/{namespace}"))),
            _ => format!("{kind} {}", go::quote(name)),
        };
        Subject { identity, shown }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match &self.identity {
            Identity::User(name) => *name == user.username,
            Identity::Group(name) => user.is_in(name),
            Identity::Nobody => false,
        }
    }
}
