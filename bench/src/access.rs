//! What it costs to decide by roles, with many bindings that are about others.

use std::hint::black_box;
use std::time::Instant;

use podlog_api::rbac::Policy;
use podlog_api::{Attributes, Object, Selectors, UserInfo};
use serde_json::json;

use crate::{
    Options,
    report::{Row, Target, median},
};

const BINDINGS: usize = 10_000;
const FEW: usize = 100;
const NAMESPACES: usize = 100;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let questions = options.size(100_000, 1_000);
    let (many, few) = (policy(BINDINGS), policy(FEW));
    let row = |what: &str, user: &UserInfo| {
        let mut pairs = Vec::new();
        for _ in 0..options.rounds() {
            pairs.push((microseconds(&many, user, questions), microseconds(&few, user, questions)));
        }
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        Row::new("access", format!("one decision among {BINDINGS} bindings, {what}"), median(&ours), "µs")
            .beside("100 bindings", &ours, &theirs)
            .target(Target::AtMost(10.0))
    };
    Ok(vec![row("allowed", &user("user-0")), row("refused", &user("nobody"))])
}

fn user(name: &str) -> UserInfo {
    UserInfo {
        username: name.to_owned(),
        groups: vec!["group-0".into(), UserInfo::AUTHENTICATED.into()],
        ..UserInfo::default()
    }
}

/// Mostly bindings in namespaces, each of a user of its own.
fn policy(bindings: usize) -> Policy {
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]);
    let role = json!({"kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": rules});
    let binding = |i: usize| {
        let (kind, namespace) = match i % 10 {
            9 => ("ClusterRoleBinding", String::new()),
            _ => ("RoleBinding", format!("ns-{}", i % NAMESPACES)),
        };
        Object::new(json!({
            "kind": kind,
            "metadata": {"name": format!("b-{i}"), "namespace": namespace},
            "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "User", "name": format!("user-{i}")}],
        }))
    };
    let objects: Vec<Object> = std::iter::once(Object::new(role)).chain((0..bindings).map(binding)).collect();
    Policy::new(&objects)
}

fn microseconds(policy: &Policy, user: &UserInfo, questions: u32) -> f64 {
    let log = Attributes::Resource {
        verb: "get".into(),
        group: String::new(),
        version: "v1".into(),
        resource: "pods".into(),
        subresource: "log".into(),
        namespace: "ns-0".into(),
        name: "web".into(),
        selectors: Selectors::default(),
    };
    let begin = Instant::now();
    for _ in 0..questions {
        black_box(policy.authorize(black_box(user), black_box(&log)));
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(questions)
}
