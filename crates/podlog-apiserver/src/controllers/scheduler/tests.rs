use serde_json::{Value, json};

use super::*;

fn node(name: &str, spec: Value, allocatable: Value) -> Object {
    Object::new(json!({"kind": "Node", "metadata": {"name": name, "labels": {"disk": "ssd", "zone": name}},
        "spec": spec, "status": {"allocatable": allocatable}}))
}

fn pod(spec: Value) -> Object {
    Object::new(
        json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}}, "spec": spec}),
    )
}

fn on(node: &str, mut spec: Value) -> Object {
    spec["nodeName"] = json!(node);
    pod(spec)
}

/// Pods that are there, each under a name of its own.
fn claims(present: &[Object]) -> Claims {
    let mut claims = Claims::default();
    for (number, pod) in present.iter().enumerate() {
        claims.note(&Key::named(pod.namespace(), &number.to_string()), pod);
    }
    claims
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"resources": {"requests": {"cpu": amount}}}]})
}

#[test]
fn one_node_takes_the_pod_or_says_why_not() {
    let fine = || node("a", json!({}), json!({"cpu": "1", "memory": "1Gi", "pods": "2"}));
    let tainted = |effect: &str| {
        node("a", json!({"taints": [{"key": "k", "value": "v", "effect": effect}]}), json!({"pods": "9"}))
    };
    let affinity = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
    let expression = |operator: &str, values: Value| {
        affinity(json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}))
    };
    let port = json!({"containers": [{"ports": [{"hostPort": 80, "containerPort": 80}]}]});
    let anti = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    let selector = "node(s) didn't match Pod's node affinity/selector";
    let rows = [
        (fine(), vec![], json!({}), ""),
        (
            node("a", json!({"unschedulable": true}), json!({})),
            vec![],
            json!({}),
            "node(s) were unschedulable",
        ),
        (
            node("a", json!({"unschedulable": true}), json!({})),
            vec![],
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
            "",
        ),
        (tainted("NoSchedule"), vec![], json!({}), "node(s) had untolerated taint(s)"),
        (tainted("NoExecute"), vec![], json!({}), "node(s) had untolerated taint(s)"),
        (tainted("PreferNoSchedule"), vec![], json!({}), ""),
        (tainted("NoSchedule"), vec![], json!({"tolerations": [{"key": "k", "value": "v"}]}), ""),
        (fine(), vec![], json!({"nodeSelector": {"disk": "ssd"}}), ""),
        (fine(), vec![], json!({"nodeSelector": {"disk": "hdd"}}), selector),
        (fine(), vec![], expression("In", json!(["ssd"])), ""),
        (fine(), vec![], expression("NotIn", json!(["ssd"])), selector),
        (
            fine(),
            vec![],
            affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]})),
            "",
        ),
        (
            fine(),
            vec![],
            affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
            selector,
        ),
        (fine(), vec![], affinity(json!({})), selector),
        (
            fine(),
            vec![on("a", port.clone())],
            port.clone(),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (fine(), vec![on("b", port.clone())], port.clone(), ""),
        (fine(), vec![], cpu("1"), ""),
        (fine(), vec![], cpu("1001m"), "Insufficient cpu"),
        (fine(), vec![on("a", cpu("600m"))], cpu("500m"), "Insufficient cpu"),
        (fine(), vec![on("a", cpu("500m"))], cpu("500m"), ""),
        (fine(), vec![on("a", json!({})), on("a", json!({}))], json!({}), "Too many pods"),
        (
            fine(),
            vec![],
            json!({"initContainers": [{"resources": {"requests": {"memory": "2Gi"}}}], "containers": []}),
            "Insufficient memory",
        ),
        (
            fine(),
            vec![],
            json!({"containers": [{"resources": {"requests": {"cpu": "600m"}}}],
                "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "600m"}}}]}),
            "Insufficient cpu",
        ),
        (
            fine(),
            vec![],
            json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}),
            "Insufficient example.com/gpu",
        ),
        (fine(), vec![on("a", json!({}))], anti.clone(), "node(s) didn't match pod anti-affinity rules"),
        (fine(), vec![on("b", json!({}))], anti, ""),
    ];
    for (node, present, spec, expected) in rows {
        let nodes = [node];
        let chosen = choose(&pod(spec.clone()), &nodes, &claims(&present));
        let present_ends_it = choose(&pod(spec.clone()), &nodes, &claims(&[])).is_ok();
        match expected {
            "" => assert_eq!(chosen, Ok("a"), "{spec}"),
            why => {
                let preemption = if present_ends_it {
                    "No preemption victims found for incoming pod"
                } else {
                    "Preemption is not helpful for scheduling"
                };
                let text = format!(
                    "0/1 nodes are available: 1 {why}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 {preemption}."
                );
                assert_eq!(chosen, Err(text), "{spec}");
            }
        }
    }
}

#[test]
fn the_best_node_is_chosen() {
    let room = json!({"cpu": "4", "memory": "1Gi", "pods": "10"});
    let nodes = [
        node("a", json!({}), room.clone()),
        node("b", json!({}), room.clone()),
        node("c", json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}), room),
    ];
    let prefer = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}}});
    let rows = [
        (vec![], json!({}), "a"),
        (vec![on("a", json!({}))], json!({}), "b"),
        (vec![on("a", json!({})), on("b", cpu("1"))], json!({}), "a"),
        (vec![on("a", json!({})), on("b", json!({}))], json!({}), "a"),
        (vec![on("a", json!({})), on("a", json!({}))], prefer, "a"),
    ];
    for (present, spec, expected) in rows {
        assert_eq!(choose(&pod(spec), &nodes, &claims(&present)), Ok(expected));
    }
    assert_eq!(choose(&pod(json!({})), &[], &claims(&[])), Err("no nodes available to schedule pods".into()));
    let full =
        [node("a", json!({"unschedulable": true}), json!({})), node("b", json!({}), json!({"pods": "0"}))];
    assert_eq!(
        choose(&pod(cpu("1")), &full, &claims(&[])).unwrap_err(),
        "0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) were unschedulable. no new claims to deallocate, \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    let mut modest = cpu("500m");
    let busy = [node("a", json!({}), json!({"cpu": "600m"}))];
    assert_eq!(
        choose(&pod(modest.clone()), &busy, &claims(&[on("a", cpu("200m"))])).unwrap_err(),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    modest["preemptionPolicy"] = json!("Never");
    assert_eq!(
        choose(&pod(modest), &busy, &claims(&[on("a", cpu("200m"))])).unwrap_err(),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to \
         preemptionPolicy=Never."
    );
}

#[test]
fn what_is_done_about_it() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let waiting = pod(json!({}));
    let nodes = [node("a", json!({}), json!({}))];
    let actions = decide(&waiting, &nodes, &claims(&[]), now);
    assert_eq!(actions[0], Action::Bind { pod: waiting.clone(), node: "a".into() });
    let Action::Event(event) = &actions[1] else { panic!("{actions:?}") };
    assert_eq!((event.reason, event.message.as_str()), ("Scheduled", "Successfully assigned ns/p to a"));

    let actions = decide(&waiting, &[], &claims(&[]), now);
    let Action::Update { part: Part::Status, object, .. } = &actions[1] else { panic!("{actions:?}") };
    let known = condition(object, "PodScheduled").unwrap();
    assert_eq!(
        (&known["reason"], &known["lastTransitionTime"]),
        (&json!("Unschedulable"), &json!("2026-01-01T00:00:00Z"))
    );
    // Said once: nothing new, nothing to do.
    assert_eq!(decide(object, &[], &claims(&[]), now), [Action::Requeue(RETRY)]);
}

#[test]
fn what_was_given_away_is_taken_before_it_is_reported() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let named = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "ns"});
        Object::new(json!({"kind": "Pod", "metadata": metadata, "spec": spec}))
    };
    let (first, second) = (named("first", cpu("600m")), named("second", cpu("600m")));
    let room = node("a", json!({}), json!({"cpu": "1"}));
    let mut objects = Listed(vec![room, first.clone(), second.clone()]);
    let scheduler = Scheduler::default();
    let binds = |pod: &Object, objects: &Listed| {
        let actions = scheduler.reconcile(&Key::of(pod), objects, now).unwrap();
        actions.first().is_some_and(|action| matches!(action, Action::Bind { .. }))
    };
    let report = |object: &Object, is_deletion| {
        let change = Change { resource: kinds::pods(), object, previous: None, is_deletion };
        scheduler.keys(&change, &Listed(Vec::new())).unwrap()
    };
    assert!(binds(&first, &objects));
    assert!(!binds(&second, &objects), "the room is given away");
    assert!(binds(&first, &objects), "that came to nothing: its own room is free");
    // An old report of a pod says nothing about its room.
    report(&first, false);
    assert!(!binds(&second, &objects));
    let mut done = named("first", cpu("600m"));
    done.map_mut("spec").insert("nodeName".into(), json!("a"));
    report(&done, false);
    assert!(!binds(&second, &objects));
    done.map_mut("status").insert("phase".into(), json!("Succeeded"));
    assert_eq!(report(&done, false), [Key::of(&first), Key::of(&second)][1..]);
    assert!(binds(&second, &objects), "it has ended");

    // Whatever was missed, the store knows.
    scheduler.begin(kinds::pods());
    objects.0[1] = named("first", json!({"nodeName": "a", "containers": cpu("600m")["containers"]}));
    assert!(!binds(&second, &objects));
    report(&objects.0.remove(1), true);
    assert!(binds(&second, &objects), "it is gone");
}
