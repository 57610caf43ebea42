use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Attributes, Decision, Object, UserInfo};

fn user(username: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { username: username.into(), groups, ..UserInfo::default() }
}

/// `verb resource[/subresource][.group][ name][@namespace]`, or `verb /path`.
fn ask(text: &str) -> Attributes {
    let (verb, rest) = text.split_once(' ').expect("verb");
    if rest.starts_with('/') {
        return Attributes::NonResource { verb: verb.into(), path: rest.into() };
    }
    let (rest, namespace) = rest.split_once('@').unwrap_or((rest, ""));
    let (rest, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let (rest, group) = rest.split_once('.').unwrap_or((rest, ""));
    let (resource, subresource) = rest.split_once('/').unwrap_or((rest, ""));
    Attributes::Resource {
        verb: verb.into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// A Role when `name` is `name/namespace`, a ClusterRole otherwise.
fn role(name: &str, rules: Value) -> Object {
    Object::new(match name.split_once('/') {
        Some((name, namespace)) => {
            json!({"kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules})
        }
        None => json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
    })
}

/// `role` is `Kind/name`; subjects are `Kind/name` or `ServiceAccount/name/namespace`.
fn binding(name: &str, role: &str, subjects: &[&str]) -> Object {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|subject| {
            let mut parts = subject.split('/');
            let (kind, name, namespace) = (parts.next(), parts.next(), parts.next());
            json!({"kind": kind, "name": name, "namespace": namespace.unwrap_or_default()})
        })
        .collect();
    let (role_kind, role_name) = role.split_once('/').expect("Kind/name");
    let mut object = json!({"roleRef": {"kind": role_kind, "name": role_name}, "subjects": subjects});
    match name.split_once('/') {
        Some((name, namespace)) => {
            object["kind"] = json!("RoleBinding");
            object["metadata"] = json!({"name": name, "namespace": namespace});
        }
        None => {
            object["kind"] = json!("ClusterRoleBinding");
            object["metadata"] = json!({"name": name});
        }
    }
    Object::new(object)
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn policy(objects: &[Object]) -> Policy {
    Policy::new(objects)
}

#[test]
fn one_rule_matches_as_upstream() {
    let pods = rule(&[""], &["pods"], &["get", "list"]);
    let named = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"], "resourceNames": ["web"]});
    let paths = |urls: &[&str]| json!({"nonResourceURLs": urls, "verbs": ["get"]});
    for (rule, asked, expected) in [
        (pods.clone(), "get pods web@n", true),
        (pods.clone(), "list pods", true),
        (pods.clone(), "watch pods", false),
        (pods.clone(), "get pods/log web@n", false),
        (pods.clone(), "get pods.apps web@n", false),
        (pods.clone(), "get nodes n1", false),
        (pods, "get /pods", false),
        (rule(&[""], &["pods/log"], &["get"]), "get pods/log web@n", true),
        (rule(&[""], &["pods/log"], &["get"]), "get pods web@n", false),
        (rule(&[""], &["pods/log"], &["get"]), "get pods/status web@n", false),
        (rule(&[""], &["pods/*"], &["get"]), "get pods/log web@n", false),
        (rule(&[""], &["pods/*"], &["get"]), "get pods web@n", false),
        (rule(&[""], &["*/log"], &["get"]), "get pods/log web@n", true),
        (rule(&[""], &["*/log"], &["get"]), "get nodes/log n1", true),
        (rule(&[""], &["*/log"], &["get"]), "get pods web@n", false),
        (rule(&[""], &["*/*"], &["get"]), "get pods/log web@n", false),
        (rule(&[""], &["*"], &["get"]), "get pods/log web@n", true),
        (rule(&[""], &["*"], &["get"]), "get pods web@n", true),
        (rule(&["*"], &["deployments"], &["*"]), "deletecollection deployments.apps", true),
        (rule(&["apps"], &["deployments"], &["*"]), "get deployments.extensions d@n", false),
        (rule(&[], &["pods"], &["get"]), "get pods web@n", false),
        (rule(&[""], &["pods"], &[]), "get pods web@n", false),
        (named.clone(), "get pods web@n", true),
        (named.clone(), "get pods other@n", false),
        (named.clone(), "list pods@n", false),
        (named.clone(), "create pods@n", false),
        (named, "watch pods web@n", true),
        (paths(&["/metrics"]), "get /metrics", true),
        (paths(&["/metrics"]), "get /metrics/slis", false),
        (paths(&["/metrics"]), "post /metrics", false),
        (paths(&["/healthz/*"]), "get /healthz/log", true),
        (paths(&["/healthz/*"]), "get /healthz", false),
        (paths(&["/healthz*"]), "get /healthz", true),
        (paths(&["*"]), "get /anything", true),
        (paths(&["/a*b"]), "get /axb", false),
        (paths(&["*"]), "get pods web@n", false),
        (json!("nonsense"), "get pods web@n", false),
        (json!({"verbs": "get", "resources": ["pods"], "apiGroups": [""]}), "get pods web@n", false),
    ] {
        let role = role("r", json!([rule]));
        let allowed = PolicyRule::all_of(&role)[0].allows(&ask(asked));
        assert_eq!(allowed, expected, "{} asked {asked}", role.0["rules"][0]);
    }
}

#[test]
fn decisions_say_why() {
    let objects = [
        role("reader", json!([rule(&[""], &["pods", "pods/log"], &["get"])])),
        role("reader/prod", json!([rule(&[""], &["pods"], &["get"])])),
        role("paths", json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}])),
        binding("b-local/prod", "Role/reader", &["User/jane", "Group/devs"]),
        binding("b-shared/prod", "ClusterRole/reader", &["Group/ops", "ServiceAccount/ci-bot"]),
        binding("b-other/prod", "ClusterRole/reader", &["ServiceAccount/ci-bot/tools"]),
        binding("b-all", "ClusterRole/reader", &["User/nobody", "Group/admins"]),
        binding("b-paths", "ClusterRole/paths", &["User/jane", "ServiceAccount/ci-bot"]),
        binding("b-gone", "ClusterRole/gone", &["User/lost"]),
        binding("b-gone/prod", "Role/gone", &["User/lost"]),
        binding("b-gone-too/prod", "Role/gone", &["User/lost"]),
        binding("b-odd/prod", "Kind/odd", &["User/odd"]),
        binding("b-twice/prod", "ClusterRole/reader", &["Group/both", "User/both"]),
    ];
    let allow = |by: &str| Decision::Allow(format!("RBAC: allowed by {by}"));
    let nothing = || Decision::NoOpinion(String::new());
    let because = |why: &str| Decision::NoOpinion(format!("RBAC: {why}"));
    let ci_bot = "system:serviceaccount:prod:ci-bot";
    for (username, groups, asked, expected) in [
        ("jane", &[][..], "get pods web@prod", {
            allow(r#"RoleBinding "b-local/prod" of Role "reader" to User "jane""#)
        }),
        ("joe", &["devs"], "get pods web@prod", {
            allow(r#"RoleBinding "b-local/prod" of Role "reader" to Group "devs""#)
        }),
        ("joe", &["ops"], "get pods/log web@prod", {
            allow(r#"RoleBinding "b-shared/prod" of ClusterRole "reader" to Group "ops""#)
        }),
        (ci_bot, &[], "get pods/log web@prod", {
            allow(r#"RoleBinding "b-shared/prod" of ClusterRole "reader" to ServiceAccount "ci-bot/prod""#)
        }),
        ("system:serviceaccount:tools:ci-bot", &[], "get pods web@prod", {
            allow(r#"RoleBinding "b-other/prod" of ClusterRole "reader" to ServiceAccount "ci-bot/tools""#)
        }),
        ("ann", &["admins"], "get pods web@test", {
            allow(r#"ClusterRoleBinding "b-all" of ClusterRole "reader" to Group "admins""#)
        }),
        ("both", &["both"], "get pods web@prod", {
            allow(r#"RoleBinding "b-twice/prod" of ClusterRole "reader" to Group "both""#)
        }),
        // Bindings of the cluster come before those of the namespace.
        ("joe", &["admins", "ops"], "get pods web@prod", {
            allow(r#"ClusterRoleBinding "b-all" of ClusterRole "reader" to Group "admins""#)
        }),
        ("jane", &[], "get /metrics", {
            allow(r#"ClusterRoleBinding "b-paths" of ClusterRole "paths" to User "jane""#)
        }),
        ("root", &["system:masters"], "delete nodes n1", Decision::Allow(String::new())),
        ("jane", &[], "get pods web@test", nothing()),
        ("jane", &[], "get pods web", nothing()),
        ("jane", &[], "get pods/log web@prod", nothing()),
        ("jane", &[], "get secrets s@prod", nothing()),
        // A service account without namespace in a ClusterRoleBinding is nobody.
        (ci_bot, &[], "get /metrics", nothing()),
        ("stranger", &[], "get pods web@prod", nothing()),
        ("lost", &[], "get pods web", because(r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#)),
        ("lost", &[], "get pods web@prod", {
            because(
                r#"[clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "gone" not found]"#,
            )
        }),
        ("odd", &[], "get pods web@prod", because(r#"unsupported role reference kind: "Kind""#)),
    ] {
        let user = user(username, groups);
        assert_eq!(policy(&objects).authorize(&user, &ask(asked)), expected, "{username} asked {asked}");
        let backwards = Policy::new(objects.iter().rev());
        assert_eq!(backwards.authorize(&user, &ask(asked)), expected, "{username} asked {asked}, backwards");
    }
}

#[test]
fn refusals_say_what_was_asked() {
    for (asked, reason, name, group, kind, message) in [
        ("get pods/log web@n", "", "web", "", "pods", {
            r#"pods "web" is forbidden: User "u<" cannot get resource "pods/log" in API group "" in the namespace "n""#
        }),
        ("list pods@n", "", "", "", "pods", {
            r#"pods is forbidden: User "u<" cannot list resource "pods" in API group "" in the namespace "n""#
        }),
        ("get nodes n1", "", "n1", "", "nodes", {
            r#"nodes "n1" is forbidden: User "u<" cannot get resource "nodes" in API group "" at the cluster scope"#
        }),
        ("patch deployments.apps d@n", "", "d", "apps", "deployments", {
            r#"deployments.apps "d" is forbidden: User "u<" cannot patch resource "deployments" in API group "apps" in the namespace "n""#
        }),
        ("get /metrics", "", "", "", "", r#"forbidden: User "u<" cannot get path "/metrics""#),
        ("get /a&b>c", "", "", "", "", r#"forbidden: User "u<" cannot get path "/a&amp;b&gt;c""#),
        ("get pods web@n", r#"RBAC: role "<x>" not found"#, "web", "", "pods", {
            r#"pods "web" is forbidden: User "u<" cannot get resource "pods" in API group "" in the namespace "n": RBAC: role "<x>" not found"#
        }),
    ] {
        let error = forbidden(&user("u<", &[]), &ask(asked), reason);
        assert_eq!(error.message, message.replace("u<", "u&lt;"), "{asked}");
        assert_eq!((error.code, error.reason.as_str()), (403, "Forbidden"));
        let details = error.details.expect("details");
        assert_eq!(
            (details.name.as_str(), details.group.as_str(), details.kind.as_str()),
            (name, group, kind),
            "{asked}"
        );
    }
}

#[test]
fn rules_for_lists_what_a_user_may() {
    let objects = [
        role(
            "a",
            json!([rule(&[""], &["pods"], &["get"]), {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]),
        ),
        role(
            "b/n",
            json!([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"], "resourceNames": ["d"]}]),
        ),
        binding("one", "ClusterRole/a", &["User/u"]),
        binding("two/n", "Role/b", &["User/u"]),
        binding("three/n", "Role/gone", &["User/u"]),
    ];
    let found = policy(&objects).rules_for(&user("u", &[]), "n");
    assert_eq!(
        found.to_status(),
        json!({
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["d"]},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}],
            "incomplete": false,
            "evaluationError": r#"role.rbac.authorization.k8s.io "gone" not found"#,
        })
    );
    let elsewhere = policy(&objects).rules_for(&user("u", &[]), "other");
    assert_eq!((elsewhere.rules.len(), elsewhere.errors.len()), (2, 0));
    assert_eq!(
        policy(&[]).rules_for(&user("u", &[]), "n").to_status(),
        json!({"resourceRules": [], "nonResourceRules": [], "incomplete": false})
    );
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let all = |verbs: &[&str]| rule(&["*"], &["*"], verbs);
    let objects = [
        role(
            "admin/n",
            json!([
                rule(&[""], &["pods", "*/log"], &["get", "list"]),
                rule(&[GROUP], &["roles"], &["create", "update"])
            ]),
        ),
        role(
            "named/n",
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["web"]}]),
        ),
        role("root", json!([all(&["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}])),
        role(
            "escalator",
            json!([
                {"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["escalate"], "resourceNames": ["r"]},
                {"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["root"]},
            ]),
        ),
        binding("b1/n", "Role/admin", &["User/admin"]),
        binding("b2/n", "Role/named", &["User/named"]),
        binding("b3", "ClusterRole/root", &["User/root"]),
        binding("b4", "ClusterRole/escalator", &["User/escalator"]),
        binding("b5/n", "Role/gone", &["User/lost"]),
    ];
    let policy = policy(&objects);
    let refused = |who: &str, groups: &str, missing: &str| {
        Some(format!(
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"{who}\" (groups={groups}) is attempting to \
             grant RBAC permissions not currently held:\n{missing}"
        ))
    };
    let named = |names: &[&str]| json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": names});
    for (who, groups, rules, expected) in [
        ("admin", &["g"][..], json!([rule(&[""], &["pods"], &["get"])]), None),
        ("admin", &["g"], json!([rule(&[""], &["pods", "pods/log", "nodes/log"], &["get", "list"])]), None),
        ("admin", &["g"], json!([named(&["web"])]), None),
        ("admin", &["g"], json!([]), None),
        ("admin", &["g"], json!([rule(&[""], &["pods"], &["delete", "get", "patch"])]), {
            refused("admin", r#"["g"]"#, r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "patch"]}"#)
        }),
        ("admin", &["g", "h"], json!([rule(&["apps", ""], &["secrets", "pods"], &["get"])]), {
            let lines = concat!(
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
                "\n",
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get"]}"#,
                "\n",
                r#"{APIGroups:["apps"], Resources:["secrets"], Verbs:["get"]}"#
            );
            refused("admin", r#"["g" "h"]"#, lines)
        }),
        ("admin", &[], json!([all(&["get"])]), {
            refused("admin", "[]", r#"{APIGroups:["*"], Resources:["*"], Verbs:["get"]}"#)
        }),
        ("admin", &[], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]), {
            refused("admin", "[]", r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#)
        }),
        ("named", &[], json!([named(&["web"])]), None),
        ("named", &[], json!([named(&["web", "db"])]), {
            refused(
                "named",
                "[]",
                r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["db"], Verbs:["get"]}"#,
            )
        }),
        ("named", &[], json!([rule(&[""], &["pods"], &["get"])]), {
            refused("named", "[]", r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#)
        }),
        ("root", &[], json!([all(&["*"]), {"nonResourceURLs": ["/x*"], "verbs": ["get"]}]), None),
        ("anyone", &["system:masters"], json!([all(&["*"])]), None),
        ("lost", &[], json!([rule(&[""], &["pods"], &["get"])]), {
            let missing = concat!(
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#,
                r#"; resolution errors: [role.rbac.authorization.k8s.io "gone" not found]"#
            );
            refused("lost", "[]", missing)
        }),
        // The name counts on update only.
        ("escalator", &[], json!([rule(&[""], &["pods"], &["get"])]), {
            refused("escalator", "[]", r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#)
        }),
    ] {
        let result = check_role(&policy, &user(who, groups), &role("r/n", rules.clone()), None);
        assert_eq!(result.err().map(|error| error.message), expected, "{who} {rules}");
    }

    let old = role("r/n", json!([]));
    let new = role("r/n", json!([rule(&[""], &["pods"], &["get"])]));
    assert_eq!(check_role(&policy, &user("escalator", &[]), &new, Some(&old)), Ok(()));
    let mut owned = old.clone();
    owned.metadata_mut().insert("finalizers".into(), json!(["x"]));
    assert_eq!(check_role(&policy, &user("anyone", &[]), &owned, Some(&old)), Ok(()));
    let mut labelled = new.clone();
    labelled.metadata_mut().insert("labels".into(), json!({"aggregate": "me"}));
    assert!(check_role(&policy, &user("anyone", &[]), &labelled, Some(&new)).is_err());
}

#[test]
fn aggregating_needs_every_right() {
    let objects = [
        role("root", json!([rule(&["*"], &["*"], &["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}])),
        role("most", json!([rule(&["*"], &["*"], &["*"])])),
        binding("b1", "ClusterRole/root", &["User/root"]),
        binding("b2", "ClusterRole/most", &["User/most"]),
    ];
    let policy = policy(&objects);
    let mut aggregating = role("sum", json!([]));
    aggregating.0["aggregationRule"] = json!({"clusterRoleSelectors": [{}]});
    let escalate = |who| check_role(&policy, &user(who, &[]), &aggregating, None);
    assert_eq!(escalate("root"), Ok(()));
    // `*` on every resource includes the verb `escalate`.
    assert_eq!(escalate("most"), Ok(()));
    let expected = "clusterroles.rbac.authorization.k8s.io \"sum\" is forbidden: must have cluster-admin privileges to use \
                    the aggregationRule";
    assert_eq!(escalate("nobody").expect_err("refused").message, expected);
}

#[test]
fn binding_a_role_needs_its_rules_or_the_verb_bind() {
    let objects = [
        role("reader", json!([rule(&[""], &["pods"], &["get"])])),
        role("writer", json!([rule(&[""], &["pods"], &["delete"])])),
        role("reader/n", json!([rule(&[""], &["pods"], &["get"])])),
        role(
            "binder",
            json!([{"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["writer"]}]),
        ),
        binding("b1/n", "ClusterRole/reader", &["User/jane"]),
        binding("b2/n", "ClusterRole/binder", &["User/jane"]),
    ];
    let policy = policy(&objects);
    let missing = |kind: &str, verb: &str| {
        format!(
            "{kind}.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\" (groups=[]) is attempting to grant RBAC \
             permissions not currently held:\n{{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"{verb}\"]}}"
        )
    };
    for (name, role, expected) in [
        ("new/n", "ClusterRole/reader", None),
        ("new/n", "Role/reader", None),
        ("new/n", "ClusterRole/writer", None),
        ("new/m", "ClusterRole/reader", Some(missing("rolebindings", "get"))),
        ("new/m", "ClusterRole/writer", Some(missing("rolebindings", "delete"))),
        ("new", "ClusterRole/reader", Some(missing("clusterrolebindings", "get"))),
        ("new/n", "ClusterRole/gone", {
            Some(r#"clusterroles.rbac.authorization.k8s.io "gone" not found"#.to_owned())
        }),
        ("new/m", "Role/reader", Some(r#"roles.rbac.authorization.k8s.io "reader" not found"#.to_owned())),
    ] {
        let result = check_binding(&policy, &user("jane", &[]), &binding(name, role, &["User/x"]), None);
        assert_eq!(result.err().map(|error| error.message), expected, "{name} {role}");
    }
}

#[test]
fn aggregation_sums_up_matching_roles() {
    let labelled = |name: &str, label: &str, rules: Value| {
        let mut role = role(name, rules);
        role.metadata_mut().insert("labels".into(), json!({"to": label}));
        role
    };
    let (get, list, own) = (
        rule(&[""], &["pods"], &["get"]),
        rule(&[""], &["pods"], &["list"]),
        rule(&[""], &["own"], &["get"]),
    );
    let mut sum = labelled("sum", "sum", json!([own]));
    sum.0["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}, {"matchExpressions": [{"key": "to", "operator": "In", "values": ["also"]}]}]});
    let roles = [
        sum.clone(),
        labelled("z", "sum", json!([get, list])),
        labelled("a", "sum", json!([list])),
        labelled("also", "also", json!([rule(&[""], &["nodes"], &["get"]), get])),
        labelled("other", "other", json!([rule(&[""], &["secrets"], &["get"])])),
    ];
    let rules = aggregated_rules(&sum, &roles).expect("valid selectors").expect("aggregates");
    assert_eq!(rules, [list, get, rule(&[""], &["nodes"], &["get"])]);
    assert_eq!(aggregated_rules(&roles[1], &roles), Ok(None));
}

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
