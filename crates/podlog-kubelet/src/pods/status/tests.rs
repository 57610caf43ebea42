use serde_json::{Value, json};

use super::*;
use crate::pods::testing::{self, at, ended, pod, running};
use crate::runtime::{ContainerState, SandboxState};

/// What a status is made from, with everything empty unless a test says otherwise.
struct Case {
    pod: Pod,
    view: PodView,
    old: Option<PodStatus>,
    health: HashMap<ContainerId, Health>,
    reasons: BTreeMap<String, (String, String)>,
    messages: HashMap<ContainerId, String>,
    terminal: bool,
    ending: Option<Ending>,
}

impl Case {
    fn new(spec: Value, containers: Vec<ContainerStatus>) -> Self {
        let health = containers
            .iter()
            .filter(|status| status.container.state == ContainerState::Running)
            .map(|status| (status.container.id.clone(), Health { started: true, ready: true, failed: None }))
            .collect();
        Case {
            pod: pod(spec),
            view: PodView::new(vec![testing::sandbox("s", 0, SandboxState::Ready)], containers),
            old: None,
            health,
            reasons: BTreeMap::new(),
            messages: HashMap::new(),
            terminal: false,
            ending: None,
        }
    }

    fn reason(mut self, container: &str, reason: &str) -> Self {
        self.reasons.insert(container.into(), (reason.into(), format!("because of {reason}")));
        self
    }

    fn status(&self) -> PodStatus {
        status(&Report {
            pod: &self.pod,
            view: &self.view,
            now: at(100),
            old: self.old.as_ref(),
            health: &self.health,
            reasons: &self.reasons,
            messages: &self.messages,
            runtime: "process",
            node_ip: [127, 0, 0, 1].into(),
            terminal: self.terminal,
            ending: self.ending.as_ref(),
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.status()).unwrap()
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }

    /// Conditions as `Type=Status` or `Type=Status/Reason`.
    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap();
        let short = |c: PodCondition| match c.reason {
            Some(reason) => format!("{}={}/{reason}", c.type_, c.status),
            None => format!("{}={}", c.type_, c.status),
        };
        conditions.into_iter().map(short).collect()
    }
}

fn two(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "b", "image": "x"}, {"name": "a", "image": "x"}]})
}

fn with_init(policy: &str) -> Value {
    json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})
}

#[test]
fn phases() {
    for (spec, containers, terminal, expected) in [
        (two("Always"), vec![], false, "Pending"),
        (two("Always"), vec![running("a", 0)], false, "Pending"),
        (two("Always"), vec![running("a", 0), running("b", 0)], false, "Running"),
        (two("Always"), vec![ended("a", 0, 1), running("b", 0)], false, "Running"),
        (two("Always"), vec![ended("a", 0, 0), ended("b", 0, 0)], false, "Running"),
        (two("OnFailure"), vec![ended("a", 0, 0), ended("b", 0, 0)], false, "Succeeded"),
        (two("OnFailure"), vec![ended("a", 0, 0), ended("b", 0, 1)], false, "Running"),
        (two("Never"), vec![ended("a", 0, 0), ended("b", 0, 1)], false, "Failed"),
        (two("Never"), vec![ended("a", 0, 0), running("b", 0)], false, "Running"),
        (two("Always"), vec![ended("a", 0, 0), ended("b", 0, 0)], true, "Succeeded"),
        (two("Always"), vec![ended("a", 0, 143), ended("b", 0, 0)], true, "Failed"),
        (two("Always"), vec![], true, "Failed"),
        (with_init("Always"), vec![running("i", 0)], false, "Pending"),
        (with_init("Always"), vec![ended("i", 0, 1)], false, "Pending"),
        (with_init("Never"), vec![ended("i", 0, 1)], false, "Failed"),
        (with_init("Always"), vec![ended("i", 0, 0), running("a", 0)], false, "Running"),
    ] {
        let mut case = Case::new(spec.clone(), containers);
        case.terminal = terminal;
        assert_eq!(case.phase(), expected, "{spec} {:?} terminal={terminal}", case.view.containers.len());
    }
}

#[test]
fn sidecars_do_not_keep_a_pod_pending_or_end_it_early() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
                      "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    for (containers, expected) in [
        (vec![running("s", 0)], "Pending"),
        (vec![running("s", 0), running("a", 0)], "Running"),
        (vec![running("s", 0), ended("a", 0, 0)], "Running"),
        (vec![ended("s", 0, 137), ended("a", 0, 0)], "Succeeded"),
    ] {
        assert_eq!(Case::new(spec.clone(), containers).phase(), expected);
    }
}

#[test]
fn a_final_phase_stays() {
    for phase in ["Succeeded", "Failed"] {
        let mut case = Case::new(two("Always"), vec![running("a", 0), running("b", 0)]);
        case.old = Some(PodStatus { phase: Some(phase.into()), ..PodStatus::default() });
        assert_eq!(case.phase(), phase);
    }
}

#[test]
fn a_pod_that_the_kubelet_ends_fails_once_nothing_runs() {
    let mut case = Case::new(two("Always"), vec![running("a", 0), running("b", 0)]);
    case.old = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    let grace = std::time::Duration::from_secs(1);
    case.ending = Some(Ending::evicted("no room".into(), grace, true));
    let early = case.json();
    assert_eq!((&early["phase"], &early["reason"]), (&json!("Running"), &Value::Null));
    case.view = PodView::new(vec![], vec![ended("a", 0, 137), ended("b", 0, 137)]);
    case.pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    assert_eq!(case.phase(), "Running", "its sandbox is still there");
    case.terminal = true;
    let status = case.json();
    assert_eq!(
        (&status["phase"], &status["reason"], &status["message"]),
        (&json!("Failed"), &json!("Evicted"), &json!("no room"))
    );
    assert_eq!(
        status["conditions"].as_array().unwrap().first().unwrap(),
        &json!({"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "no room",
            "lastTransitionTime": Time(at(100)), "observedGeneration": 1})
    );
    case.ending = Some(Ending::evicted("too much".into(), grace, false));
    assert!(!case.conditions().iter().any(|condition| condition.starts_with("DisruptionTarget")));
}

#[test]
fn a_refused_pod_says_nothing_of_its_containers() {
    let mut case = Case::new(two("Always"), vec![]);
    case.old = serde_json::from_value(json!({"phase": "Pending", "qosClass": "BestEffort",
        "conditions": [{"type": "PodScheduled", "status": "True"}]}))
    .unwrap();
    case.ending = Some(Ending::refused("Evicted", "The node had condition: [DiskPressure]. "));
    assert_eq!(
        case.json(),
        json!({"phase": "Failed", "reason": "Evicted", "qosClass": "BestEffort", "observedGeneration": 1,
            "message": "Pod was rejected: The node had condition: [DiskPressure]. ", "startTime": Time(at(100)),
            "conditions": [{"type": "PodScheduled", "status": "True"}]})
    );
}

#[test]
fn a_running_container_in_full() {
    let case = Case::new(json!({"containers": [{"name": "a", "image": "x:1"}]}), vec![running("a", 0)]);
    let status = case.json();
    assert_eq!(
        status["containerStatuses"],
        json!([{
            "name": "a", "image": "x:1", "imageID": "busybox", "containerID": "process://a-0",
            "ready": true, "started": true, "restartCount": 0, "resources": {}, "lastState": {},
            "state": {"running": {"startedAt": "2027-01-15T08:00:02Z"}},
        }])
    );
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "127.0.0.1");
    assert_eq!(status["podIPs"], json!([{"ip": "127.0.0.1"}]));
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["startTime"], "2027-01-15T08:01:40Z");
    assert_eq!(status["observedGeneration"], 1);
}

#[test]
fn a_runtime_says_who_runs_and_what_from() {
    let resources = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    let spec = json!({"containers": [{"name": "a", "image": "busybox", "resources": resources}]});
    let user = crate::runtime::ContainerUser { uid: 7, gid: 8, supplemental_groups: vec![8, 9] };
    let instance = ContainerStatus {
        image_name: "docker.io/library/busybox:latest".into(),
        user: Some(user),
        ..running("a", 0)
    };
    let status = Case::new(spec, vec![instance]).json();
    let status = &status["containerStatuses"][0];
    assert_eq!(status["image"], "docker.io/library/busybox:latest");
    assert_eq!(status["user"], json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}}));
    assert_eq!((&status["resources"], &status["allocatedResources"]), (&resources, &json!({"cpu": "1"})));
}

#[test]
fn states_of_one_container() {
    let one = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
    let end = |attempt: u32, code: i32, reason: &str| {
        json!({"terminated": {
            "exitCode": code, "reason": reason, "containerID": format!("process://a-{attempt}"),
            "startedAt": format!("2027-01-15T08:00:0{}Z", attempt + 2), "finishedAt": "2027-01-15T08:00:50Z",
        }})
    };
    let waiting =
        |reason: &str| json!({"waiting": {"reason": reason, "message": format!("because of {reason}")}});
    for (case, state, last, restarts) in [
        (Case::new(one("Always"), vec![]), json!({"waiting": {"reason": "ContainerCreating"}}), json!({}), 0),
        (Case::new(one("Never"), vec![ended("a", 0, 3)]), end(0, 3, "Error"), json!({}), 0),
        (
            Case::new(one("Always"), vec![ended("a", 1, 1), ended("a", 0, 2)]),
            end(1, 1, "Error"),
            end(0, 2, "Error"),
            1,
        ),
        (
            Case::new(one("Always"), vec![ended("a", 1, 1), ended("a", 0, 2)])
                .reason("a", "CrashLoopBackOff"),
            waiting("CrashLoopBackOff"),
            end(1, 1, "Error"),
            1,
        ),
        (
            Case::new(one("Never"), vec![ended("a", 0, 1)]).reason("a", "CrashLoopBackOff"),
            end(0, 1, "Error"),
            json!({}),
            0,
        ),
        (Case::new(one("Always"), vec![]).reason("a", "ErrImagePull"), waiting("ErrImagePull"), json!({}), 0),
    ] {
        let status = &case.json()["containerStatuses"][0];
        assert_eq!((&status["state"], &status["lastState"]), (&state, &last));
        assert_eq!(status["restartCount"], restarts);
    }
    let status = Case::new(with_init("Always"), vec![]).json();
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn a_container_whose_record_is_gone_keeps_what_was_known() {
    let old = |state: Value| -> PodStatus {
        serde_json::from_value(json!({"containerStatuses": [{
            "name": "a", "image": "x", "imageID": "y", "ready": true, "restartCount": 4,
            "containerID": "process://old", "state": state,
        }]}))
        .unwrap()
    };
    let mut case = Case::new(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}), vec![]);
    case.old = Some(old(json!({"terminated": {"exitCode": 3, "containerID": "process://old"}})));
    assert_eq!(case.json()["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    case.old = Some(old(json!({"running": {}})));
    let status = &case.json()["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(
        (&status["restartCount"], &status["lastState"]["terminated"]["exitCode"]),
        (&json!(5), &json!(137))
    );
}

#[test]
fn what_nobody_knows_of_has_failed_once_its_pod_has_ended() {
    let unknown = "ContainerStatusUnknown";
    let reasons = |spec: Value, containers: Vec<ContainerStatus>| {
        let mut case = Case::new(spec, containers);
        case.terminal = true;
        let status = case.json();
        let lists = [&status["initContainerStatuses"], &status["containerStatuses"]];
        let statuses = lists.into_iter().filter_map(Value::as_array).flatten();
        let states =
            statuses.map(|status| status["state"].as_object().unwrap().values().next().unwrap().clone());
        let reasons: Vec<_> = states.map(|state| state["reason"].as_str().unwrap().to_owned()).collect();
        (status["phase"].as_str().unwrap().to_owned(), reasons)
    };
    for (spec, containers, expected) in [
        (two("Always"), vec![], vec![unknown, unknown]),
        (two("Always"), vec![ended("a", 0, 0)], vec!["Completed", unknown]),
        (with_init("Always"), vec![], vec![unknown, "PodInitializing"]),
        (with_init("Always"), vec![ended("i", 0, 1)], vec!["Error", "PodInitializing"]),
        (with_init("Always"), vec![ended("i", 0, 0)], vec!["Completed", unknown]),
        (with_init("Always"), vec![ended("a", 0, 0)], vec!["Completed", "Completed"]),
    ] {
        let phase = if expected == ["Completed", "Completed"] { "Succeeded" } else { "Failed" };
        let expected = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(reasons(spec.clone(), containers), (phase.to_owned(), expected), "{spec}");
    }
}

#[test]
fn an_init_container_whose_record_is_gone_has_succeeded_if_others_came_after_it() {
    let case = Case::new(with_init("Always"), vec![running("a", 0)]);
    let status = case.json();
    let ended = &status["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(0), &json!("Completed")));
    assert_eq!(
        (case.phase().as_str(), &status["initContainerStatuses"][0]["ready"]),
        ("Running", &json!(true))
    );
}

#[test]
fn containers_share_the_room_for_messages() {
    for (containers, bytes) in [(1, 12 * 1024), (3, 4096), (10, 1228)] {
        let specs: Vec<Value> = (0..containers).map(|number| json!({"name": format!("c{number}")})).collect();
        let mut case =
            Case::new(json!({"restartPolicy": "Never", "containers": specs}), vec![ended("c0", 0, 1)]);
        case.messages.insert(ContainerId("c0-0".into()), "é".repeat(10_000));
        let status = case.json();
        let message = status["containerStatuses"][0]["state"]["terminated"]["message"].as_str().unwrap();
        assert_eq!(message.len(), bytes / 2 * 2, "{containers}");
    }
}

#[test]
fn a_pod_in_the_hosts_network_has_its_address_at_once() {
    let mut case = Case::new(json!({"hostNetwork": true, "containers": [{"name": "a"}]}), vec![]);
    case.view.ips = Some(vec![]);
    assert_eq!(case.json()["podIPs"], json!([{"ip": "127.0.0.1"}]));
    case.pod.spec.as_mut().unwrap().host_network = None;
    assert_eq!(case.json()["podIPs"], Value::Null);
}

#[test]
fn termination_messages_are_shown() {
    let mut case =
        Case::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}), vec![ended("a", 0, 1)]);
    case.messages.insert(ContainerId("a-0".into()), "last words".into());
    assert_eq!(case.json()["containerStatuses"][0]["state"]["terminated"]["message"], "last words");
}

#[test]
fn conditions_follow_the_containers() {
    let all = |initialized: &str, ready: &str, containers_ready: &str| {
        vec![
            "PodReadyToStartContainers=True".to_owned(),
            format!("Initialized={initialized}"),
            format!("Ready={ready}"),
            format!("ContainersReady={containers_ready}"),
            "PodScheduled=True".to_owned(),
        ]
    };
    let not_ready = "False/ContainersNotReady";
    for (spec, containers, expected) in [
        (two("Always"), vec![], all("True", not_ready, not_ready)),
        (two("Always"), vec![running("a", 0), running("b", 0)], all("True", "True", "True")),
        (two("Always"), vec![running("a", 0), ended("b", 0, 1)], all("True", not_ready, not_ready)),
        (
            two("Never"),
            vec![ended("a", 0, 0), ended("b", 0, 0)],
            all("True/PodCompleted", "False/PodCompleted", "False/PodCompleted"),
        ),
        (
            two("Never"),
            vec![ended("a", 0, 0), ended("b", 0, 1)],
            all("True", "False/PodFailed", "False/PodFailed"),
        ),
        (
            with_init("Always"),
            vec![running("i", 0)],
            all("False/ContainersNotInitialized", not_ready, not_ready),
        ),
        (with_init("Always"), vec![ended("i", 0, 0)], all("True", not_ready, not_ready)),
    ] {
        assert_eq!(Case::new(spec.clone(), containers).conditions(), expected, "{spec}");
    }
    let messages = Case::new(two("Always"), vec![running("a", 0)]).json();
    assert_eq!(messages["conditions"][2]["message"], "containers with unready status: [b]");
    let messages = Case::new(with_init("Always"), vec![]).json();
    assert_eq!(messages["conditions"][1]["message"], "containers with incomplete status: [i]");
}

#[test]
fn conditions_keep_their_transition_and_others_their_place() {
    let mut case = Case::new(two("Always"), vec![running("a", 0), running("b", 0)]);
    let old = json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "example.com/gate", "status": "False"},
    ]});
    case.old = serde_json::from_value(old).unwrap();
    // What others say is what the API has now, not what it had when we wrote last.
    let known = json!({"conditions": [
        {"type": "example.com/gate", "status": "True"},
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
        {"type": "PodScheduled", "status": "True"},
    ]});
    case.pod.status = serde_json::from_value(known).unwrap();
    let conditions = case.json()["conditions"].clone();
    let kinds: Vec<_> = conditions.as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    let ours = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    assert_eq!(kinds[..2], ["example.com/gate", "DisruptionTarget"]);
    assert_eq!(kinds[2..], ours);
    assert_eq!(conditions[0]["status"], "True");
    let time = |kind: &str| {
        let found = conditions.as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap().clone();
        found["lastTransitionTime"].clone()
    };
    assert_eq!(time("Ready"), "2020-01-01T00:00:00Z");
    assert_eq!(time("ContainersReady"), "2027-01-15T08:01:40Z");
    assert_eq!(time("example.com/gate"), json!(null));
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let spec = json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]});
    let mut case = Case::new(spec, vec![running("a", 0)]);
    let ready = |case: &Case| {
        let conditions = case.json()["conditions"].clone();
        conditions.as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap().clone()
    };
    assert_eq!(
        ready(&case)["message"],
        r#"corresponding condition of pod readiness gate "x/y" does not exist."#
    );
    let gate = |status: &str| -> PodStatus {
        serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": status}]})).unwrap()
    };
    case.pod.status = Some(gate("False"));
    assert_eq!(ready(&case)["message"], r#"the status of pod readiness gate "x/y" is not "True", but False"#);
    case.pod.status = Some(gate("True"));
    assert_eq!(ready(&case)["status"], "True");
}
