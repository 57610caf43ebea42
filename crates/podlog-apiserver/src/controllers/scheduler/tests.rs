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
        let chosen = choose(&pod(spec.clone()), &nodes, &present);
        let present_ends_it = choose(&pod(spec.clone()), &nodes, &[]).is_ok();
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
        assert_eq!(choose(&pod(spec), &nodes, &present), Ok(expected));
    }
    assert_eq!(choose(&pod(json!({})), &[], &[]), Err("no nodes available to schedule pods".into()));
    let full =
        [node("a", json!({"unschedulable": true}), json!({})), node("b", json!({}), json!({"pods": "0"}))];
    assert_eq!(
        choose(&pod(cpu("1")), &full, &[]).unwrap_err(),
        "0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) were unschedulable. no new claims to deallocate, \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    let mut modest = cpu("500m");
    let busy = [node("a", json!({}), json!({"cpu": "600m"}))];
    assert_eq!(
        choose(&pod(modest.clone()), &busy, &[on("a", cpu("200m"))]).unwrap_err(),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    modest["preemptionPolicy"] = json!("Never");
    assert_eq!(
        choose(&pod(modest), &busy, &[on("a", cpu("200m"))]).unwrap_err(),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to \
         preemptionPolicy=Never."
    );
}

#[test]
fn what_is_done_about_it() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let waiting = pod(json!({}));
    let nodes = [node("a", json!({}), json!({}))];
    let actions = decide(&waiting, &nodes, &[], now);
    assert_eq!(actions[0], Action::Bind { pod: waiting.clone(), node: "a".into() });
    let Action::Event(event) = &actions[1] else { panic!("{actions:?}") };
    assert_eq!((event.reason, event.message.as_str()), ("Scheduled", "Successfully assigned ns/p to a"));

    let actions = decide(&waiting, &[], &[], now);
    let Action::Update { part: Part::Status, object, .. } = &actions[1] else { panic!("{actions:?}") };
    let known = condition(object, "PodScheduled").unwrap();
    assert_eq!(
        (&known["reason"], &known["lastTransitionTime"]),
        (&json!("Unschedulable"), &json!("2026-01-01T00:00:00Z"))
    );
    // Said once: nothing new, nothing to do.
    assert_eq!(decide(object, &[], &[], now), [Action::Requeue(RETRY)]);
}
