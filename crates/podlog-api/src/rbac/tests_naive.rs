//! The indexed policy against one that looks at every object for every question.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{ask, binding, role, user};
use super::*;
use crate::{Attributes, Decision, Object, UserInfo};

/// The same meaning without any index: every object is looked at for every question.
mod naive {
    use super::*;

    pub(super) fn authorize(objects: &[Object], user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.groups.iter().any(|group| group == "system:masters") {
            return Decision::Allow(String::new());
        }
        let namespace = match attributes {
            Attributes::Resource { namespace, .. } => namespace.as_str(),
            Attributes::NonResource { .. } => "",
        };
        let mut problems: Vec<String> = Vec::new();
        for scope in ["ClusterRoleBinding", "RoleBinding"] {
            let mut bindings: Vec<&Object> = objects.iter().filter(|object| object.kind() == scope).collect();
            bindings.sort_by(|a, b| a.name().cmp(b.name()));
            for binding in bindings {
                if scope == "RoleBinding" && (namespace.is_empty() || binding.namespace() != namespace) {
                    continue;
                }
                let Some(subject) = binding.array("/subjects").iter().find(|s| reaches(s, binding, user))
                else {
                    continue;
                };
                let (kind, name) = (binding.text("/roleRef/kind"), binding.text("/roleRef/name"));
                let role = objects.iter().find(|role| {
                    role.kind() == kind
                        && role.name() == name
                        && (kind == "ClusterRole" || role.namespace() == binding.namespace())
                });
                match role {
                    None => {
                        let problem =
                            format!("{}.rbac.authorization.k8s.io \"{name}\" not found", kind.to_lowercase());
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                    }
                    Some(role) if role.array("/rules").iter().any(|rule| permits(rule, attributes)) => {
                        return Decision::Allow(format!(
                            "RBAC: allowed by {}",
                            describe(scope, binding, subject)
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        Decision::NoOpinion(match problems.len() {
            0 => String::new(),
            1 => format!("RBAC: {}", problems[0]),
            _ => format!("RBAC: [{}]", problems.join(", ")),
        })
    }

    fn reaches(subject: &Value, binding: &Object, user: &UserInfo) -> bool {
        let name = subject["name"].as_str().unwrap();
        match subject["kind"].as_str().unwrap() {
            "User" => name == user.username,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                let of = match subject["namespace"].as_str().unwrap() {
                    "" => binding.namespace(),
                    namespace => namespace,
                };
                !of.is_empty() && user.username == format!("system:serviceaccount:{of}:{name}")
            }
            _ => false,
        }
    }

    fn permits(rule: &Value, attributes: &Attributes) -> bool {
        let lists = |key: &str, wanted: &[&str]| {
            rule[key].as_array().into_iter().flatten().any(|one| wanted.contains(&one.as_str().unwrap()))
        };
        match attributes {
            Attributes::NonResource { verb, path } => {
                lists("verbs", &["*", verb])
                    && rule["nonResourceURLs"].as_array().into_iter().flatten().any(|url| {
                        let url = url.as_str().unwrap();
                        url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
                    })
            }
            Attributes::Resource { verb, group, resource, subresource, name, .. } => {
                let (exact, any) = match subresource.as_str() {
                    "" => (resource.clone(), "*".to_owned()),
                    subresource => (format!("{resource}/{subresource}"), format!("*/{subresource}")),
                };
                lists("verbs", &["*", verb])
                    && lists("apiGroups", &["*", group])
                    && lists("resources", &["*", &exact, &any])
                    && (rule["resourceNames"].as_array().is_none_or(Vec::is_empty)
                        || lists("resourceNames", &[name]))
            }
        }
    }

    fn describe(scope: &str, binding: &Object, subject: &Value) -> String {
        let text = |key: &str| subject[key].as_str().unwrap().to_owned();
        let own = match scope {
            "RoleBinding" => format!("{}/{}", binding.name(), binding.namespace()),
            _ => binding.name().to_owned(),
        };
        let to = match text("kind").as_str() {
            "ServiceAccount" if text("namespace").is_empty() => {
                format!("{}/{}", text("name"), binding.namespace())
            }
            "ServiceAccount" => format!("{}/{}", text("name"), text("namespace")),
            _ => text("name"),
        };
        let (kind, role) = (binding.text("/roleRef/kind"), binding.text("/roleRef/name"));
        format!("{scope} \"{own}\" of {kind} \"{role}\" to {} \"{to}\"", text("kind"))
    }
}

fn some_of(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(choices, 0..=choices.len().min(3))
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(choices)
}

fn any_rule() -> impl Strategy<Value = Value> {
    let resources = some_of(&["*", "pods", "pods/log", "*/log", "pods/*", "deployments"]);
    let named = (some_of(&["get", "list", "create", "*"]), some_of(&["", "apps", "*"]), resources, {
        some_of(&["web", "db"])
    });
    let of_resources = named.prop_map(|(verbs, groups, resources, names)| {
        json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names})
    });
    let of_paths = (some_of(&["get", "post", "*"]), some_of(&["/metrics", "/healthz/*", "/heal*", "*"]))
        .prop_map(|(verbs, urls)| json!({"verbs": verbs, "nonResourceURLs": urls}));
    prop_oneof![4 => of_resources, 1 => of_paths]
}

fn any_policy() -> impl Strategy<Value = Vec<Object>> {
    const ROLES: [&str; 4] = ["r1", "r2", "r1/n", "r3/n"];
    let roles = proptest::collection::vec(
        proptest::option::of(proptest::collection::vec(any_rule(), 0..3)),
        ROLES.len(),
    )
    .prop_map(|rules| -> Vec<Object> {
        ROLES.iter().zip(rules).filter_map(|(name, rules)| Some(role(name, Value::Array(rules?)))).collect()
    });
    let subjects = some_of(&[
        "User/u1",
        "User/system:serviceaccount:n:bot",
        "Group/g1",
        "Group/g2",
        "ServiceAccount/bot",
        "ServiceAccount/bot/m",
        "Robot/u1",
    ]);
    let bindings = proptest::collection::vec(
        (
            one_of(&["", "/n", "/m"]),
            one_of(&["ClusterRole/r1", "ClusterRole/r2", "Role/r1", "Role/r3"]),
            subjects,
        ),
        0..8,
    )
    .prop_map(|rows| -> Vec<Object> {
        let name = |at: usize, scope: &str| format!("b{}{scope}", (at * 5) % 8);
        rows.into_iter()
            .enumerate()
            .map(|(at, (scope, role, subjects))| binding(&name(at, scope), role, &subjects))
            .collect()
    });
    (roles, bindings).prop_map(|(roles, bindings)| roles.into_iter().chain(bindings).collect())
}

fn any_question() -> impl Strategy<Value = (UserInfo, Attributes)> {
    let users = one_of(&["u1", "u2", "system:serviceaccount:n:bot", "system:serviceaccount:m:bot"]);
    let questions = one_of(&[
        "get pods web@n",
        "get pods/log web@n",
        "get pods/log db@m",
        "list pods@n",
        "list pods",
        "create deployments.apps@n",
        "get deployments.apps web@m",
        "get /metrics",
        "get /healthz/log",
        "post /healthz",
    ]);
    (users, some_of(&["g1", "g2", "system:masters"]), questions)
        .prop_map(|(username, groups, question)| (user(username, &groups), ask(question)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_index_changes_no_decision(objects in any_policy(), questions in proptest::collection::vec(any_question(), 8)) {
        let policy = Policy::new(&objects);
        for (user, attributes) in questions {
            let expected = naive::authorize(&objects, &user, &attributes);
            prop_assert_eq!(policy.authorize(&user, &attributes), expected);
        }
    }

    /// Whoever may write a role gains nothing by being bound to it.
    #[test]
    fn granting_never_adds_rights(objects in any_policy(), rules in proptest::collection::vec(any_rule(), 1..3), question in any_question()) {
        let policy = Policy::new(&objects);
        let (user, attributes) = question;
        let wanted = role("new", Value::Array(rules));
        let held = policy.rules_for(&user, match &attributes {
            Attributes::Resource { namespace, .. } => namespace,
            Attributes::NonResource { .. } => "",
        });
        let missing = escalation::uncovered(&held.rules, &PolicyRule::all_of(&wanted));
        let gains = PolicyRule::all_of(&wanted).iter().any(|rule| rule.allows(&attributes));
        if missing.is_empty() && gains {
            prop_assert!(matches!(policy.authorize(&user, &attributes), Decision::Allow(_)));
        }
    }
}
