use serde_json::{Value, json};

use super::*;
use crate::{ApiError, Attributes, Decision, Object, Selectors, UserInfo};

pub(super) fn user(username: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { username: username.into(), groups, ..UserInfo::default() }
}

/// `verb resource[/subresource][.group][ name][@namespace]`, or `verb /path`.
pub(super) fn ask(text: &str) -> Attributes {
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
        selectors: Selectors::default(),
    }
}

/// A Role when `name` is `name/namespace`, a ClusterRole otherwise.
pub(super) fn role(name: &str, rules: Value) -> Object {
    Object::new(match name.split_once('/') {
        Some((name, namespace)) => {
            json!({"kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules})
        }
        None => json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
    })
}

/// `role` is `Kind/name`; subjects are `Kind/name` or `ServiceAccount/name/namespace`.
pub(super) fn binding(name: &str, role: &str, subjects: &[&str]) -> Object {
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

/// Asks as the API server does before such a write.
fn write(policy: &Policy, user: &UserInfo, new: &Object, old: Option<&Object>) -> Result<(), ApiError> {
    match right_to_grant(new, old) {
        Some(right) if !matches!(policy.authorize(user, &right), Decision::Allow(_)) => {
            check_grant(policy, user, new, old)
        }
        _ => Ok(()),
    }
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
        let result = write(&policy, &user(who, groups), &role("r/n", rules.clone()), None);
        assert_eq!(result.err().map(|error| error.message), expected, "{who} {rules}");
    }

    let old = role("r/n", json!([]));
    let new = role("r/n", json!([rule(&[""], &["pods"], &["get"])]));
    assert_eq!(write(&policy, &user("escalator", &[]), &new, Some(&old)), Ok(()));
    let mut owned = old.clone();
    owned.metadata_mut().insert("finalizers".into(), json!(["x"]));
    assert_eq!(write(&policy, &user("anyone", &[]), &owned, Some(&old)), Ok(()));
    let mut labelled = new.clone();
    labelled.metadata_mut().insert("labels".into(), json!({"aggregate": "me"}));
    assert!(write(&policy, &user("anyone", &[]), &labelled, Some(&new)).is_err());
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
    let escalate = |who| write(&policy, &user(who, &[]), &aggregating, None);
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
        let result = write(&policy, &user("jane", &[]), &binding(name, role, &["User/x"]), None);
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
