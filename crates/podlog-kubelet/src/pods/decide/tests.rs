use serde_json::{Value, json};

use super::*;
use crate::pods::testing::{self, at, ended, pod, running};
use crate::runtime::PodSandbox;

/// A pod with what there is of it; the rest of a [`Situation`] is empty unless a test says otherwise.
struct Case {
    pod: Pod,
    view: PodView,
    health: HashMap<ContainerId, Health>,
    backoffs: Backoffs,
    held: BTreeMap<String, Timestamp>,
    starting: BTreeSet<String>,
    stopping: bool,
    now: Timestamp,
    dead: DeadContainers,
    surplus: HashSet<ContainerId>,
}

impl Case {
    fn new(spec: Value, containers: Vec<ContainerStatus>) -> Self {
        Case {
            pod: pod(spec),
            view: PodView::new(vec![testing::sandbox("s", 0, SandboxState::Ready)], containers),
            health: HashMap::new(),
            backoffs: Backoffs::new(Duration::from_secs(300)),
            held: BTreeMap::new(),
            starting: BTreeSet::new(),
            stopping: false,
            now: at(100),
            dead: DeadContainers::default(),
            surplus: HashSet::new(),
        }
    }

    fn sandboxes(mut self, sandboxes: Vec<PodSandbox>) -> Self {
        self.view = PodView::new(sandboxes, self.view.containers);
        self
    }

    fn health(mut self, id: &str, started: bool, failed: Option<FailedProbe>) -> Self {
        self.health.insert(ContainerId(id.into()), Health { started, ready: started, failed });
        self
    }

    fn decide(&self) -> Plan {
        decide(&Situation {
            pod: &self.pod,
            view: &self.view,
            now: self.now,
            health: &self.health,
            backoffs: &self.backoffs,
            held: &self.held,
            starting: &self.starting,
            stopping: self.stopping,
            dead: &self.dead,
            surplus: &self.surplus,
        })
    }

    /// The actions in short: `sandbox 0`, `start a`, `kill a`, `back-off a`, `remove id`, `stop`; `ended` where it is over.
    fn check(&self, expected: &[&str]) {
        let plan = self.decide();
        let mut found: Vec<String> = plan.actions.iter().map(short).collect();
        if plan.ended {
            found.push("ended".into());
        }
        assert_eq!(found, expected);
    }
}

fn short(action: &Action) -> String {
    match action {
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::Start { container } => format!("start {container}"),
        Action::BackOff { container, pause } => format!("back-off {container} {}", pause.as_secs()),
        Action::Kill { id, why, .. } => format!("kill {} {why:?}", id.0),
        Action::Remove { id, .. } => format!("remove {}", id.0),
        Action::RemoveSandbox { id } => format!("remove sandbox {}", id.0),
        Action::StopPod => "stop".into(),
    }
}

#[test]
fn ended_instances_are_kept_as_long_as_they_may() {
    // Created at 1 to 4 s.
    let instances = || vec![ended("a", 0, 1), ended("a", 1, 1), ended("a", 2, 1), running("a", 3)];
    for (per_container, seconds, surplus, expected) in [
        (Some(1), 0, None, &["remove a-1", "remove a-0"][..]),
        (Some(2), 0, None, &["remove a-0"]),
        (Some(0), 0, None, &["remove a-2", "remove a-1", "remove a-0"]),
        (None, 0, None, &[]),
        (None, 0, Some("a-1"), &["remove a-1"]),
        (None, 0, Some("a-3"), &[]),
        (Some(1), 99, None, &["remove a-0"]),
        (Some(1), 100, None, &[]),
        (None, 100, Some("a-0"), &[]),
    ] {
        let mut case = Case::new(one("Always"), instances());
        case.dead = DeadContainers { per_container, total: None, minimum_age: Duration::from_secs(seconds) };
        case.surplus = surplus.into_iter().map(|id| ContainerId(id.into())).collect();
        case.check(expected);
    }
    // The newest is not among them even if it has ended.
    let mut case = Case::new(one("Never"), vec![ended("a", 0, 1)]);
    case.dead.per_container = Some(0);
    case.check(&["stop", "ended"]);
}

#[test]
fn sandboxes_that_came_to_nothing_are_removed() {
    let failed = |id, attempt| testing::sandbox(id, attempt, SandboxState::NotReady);
    let none = Case::new(one("Always"), vec![]);
    none.sandboxes(vec![failed("s0", 0), failed("s1", 1), failed("s2", 2)]).check(&[
        "sandbox 3",
        "remove sandbox s1",
        "remove sandbox s0",
    ]);
    // The log and the status of what ran in one are of interest.
    let lost = Case::new(one("Always"), vec![ended("a", 0, 1)]);
    lost.sandboxes(vec![failed("s", 0), testing::sandbox("s1", 1, SandboxState::Ready)]).check(&["start a"]);
}

fn two(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]})
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a"}]})
}

fn with_init(policy: &str) -> Value {
    json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]})
}

fn with_sidecar() -> Value {
    json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
           "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]})
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    Case::new(two("Always"), vec![]).sandboxes(vec![]).check(&["sandbox 0"]);
    let mut held = Case::new(two("Always"), vec![]).sandboxes(vec![]);
    held.held.insert(String::new(), at(105));
    held.check(&[]);
    assert_eq!(held.decide().wake, Some(at(105)));
}

#[test]
fn regular_containers_follow_the_restart_policy() {
    for (policy, containers, expected) in [
        ("Always", vec![], &["start a", "start b"][..]),
        ("Always", vec![running("a", 0)], &["start b"]),
        ("Always", vec![running("a", 0), running("b", 0)], &[]),
        ("Always", vec![ended("a", 0, 0), running("b", 0)], &["start a"]),
        ("Always", vec![ended("a", 0, 1), running("b", 0)], &["start a"]),
        ("OnFailure", vec![ended("a", 0, 0), running("b", 0)], &[]),
        ("OnFailure", vec![ended("a", 0, 1), running("b", 0)], &["start a"]),
        ("Never", vec![ended("a", 0, 1), running("b", 0)], &[]),
        ("Never", vec![ended("a", 0, 1), ended("b", 0, 0)], &["stop", "ended"]),
        ("OnFailure", vec![ended("a", 0, 0), ended("b", 0, 0)], &["stop", "ended"]),
        ("OnFailure", vec![ended("a", 0, 0), ended("b", 0, 1)], &["start b"]),
        ("Always", vec![ended("a", 0, 0), ended("b", 0, 0)], &["start a", "start b"]),
    ] {
        println!("{policy} {}", containers.len());
        Case::new(two(policy), containers).check(expected);
    }
}

#[test]
fn a_container_that_was_only_created_is_made_anew() {
    let created = testing::container("a", 0, ContainerState::Created);
    Case::new(one("Never"), vec![created]).check(&["start a"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    for (policy, containers, expected) in [
        ("Always", vec![], &["start i"][..]),
        ("Always", vec![running("i", 0)], &[]),
        ("Always", vec![ended("i", 0, 0)], &["start j"]),
        ("Always", vec![ended("i", 0, 1)], &["start i"]),
        ("OnFailure", vec![ended("i", 0, 1)], &["start i"]),
        ("Never", vec![ended("i", 0, 1)], &["stop", "ended"]),
        ("Always", vec![ended("i", 0, 0), ended("j", 0, 0)], &["start a"]),
        ("Always", vec![ended("j", 0, 0)], &["start a"]),
        ("Always", vec![running("a", 0)], &[]),
        ("Always", vec![ended("i", 0, 0), ended("j", 0, 0), ended("a", 0, 1)], &["start a"]),
    ] {
        println!("{policy} {}", containers.len());
        Case::new(with_init(policy), containers).check(expected);
    }
}

#[test]
fn a_new_sandbox_runs_init_containers_again() {
    let sandboxes = || {
        vec![testing::sandbox("s2", 1, SandboxState::Ready), testing::sandbox("s", 0, SandboxState::NotReady)]
    };
    let old = vec![ended("i", 0, 0), ended("j", 0, 0), ended("a", 0, 137)];
    Case::new(with_init("Always"), old).sandboxes(sandboxes()).check(&["start i"]);
}

#[test]
fn a_lost_sandbox_is_replaced_once_nothing_runs_in_it() {
    let lost = || vec![testing::sandbox("s", 3, SandboxState::NotReady)];
    Case::new(one("Always"), vec![running("a", 0)]).sandboxes(lost()).check(&["kill a-0 SandboxChanged"]);
    Case::new(one("Always"), vec![ended("a", 0, 137)]).sandboxes(lost()).check(&["sandbox 4"]);
    Case::new(one("OnFailure"), vec![ended("a", 0, 137)]).sandboxes(lost()).check(&["sandbox 4"]);
    Case::new(one("OnFailure"), vec![ended("a", 0, 0)]).sandboxes(lost()).check(&["ended"]);
    Case::new(two("Never"), vec![ended("a", 0, 137)]).sandboxes(lost()).check(&["ended"]);
}

#[test]
fn sidecars_run_beside_and_end_last() {
    let started = |containers| Case::new(with_sidecar(), containers).health("s-0", true, None);
    Case::new(with_sidecar(), vec![]).check(&["start s"]);
    Case::new(with_sidecar(), vec![running("s", 0)]).health("s-0", false, None).check(&[]);
    started(vec![running("s", 0)]).check(&["start i"]);
    started(vec![running("s", 0), ended("i", 0, 0)]).check(&["start a"]);
    started(vec![ended("s", 0, 0), ended("i", 0, 0), running("a", 0)]).check(&["start s"]);
    started(vec![running("s", 0), ended("i", 0, 0), ended("a", 0, 0)]).check(&["stop", "ended"]);
}

#[test]
fn failed_probes_and_changed_definitions_kill() {
    use FailedProbe::{Liveness, Startup};
    for (policy, probe, expected) in [
        ("Always", Liveness, "kill a-0 Probe(Liveness, true)"),
        ("OnFailure", Startup, "kill a-0 Probe(Startup, true)"),
        ("Never", Liveness, "kill a-0 Probe(Liveness, false)"),
    ] {
        Case::new(one(policy), vec![running("a", 0)]).health("a-0", true, Some(probe)).check(&[expected]);
    }
    let mut changed = running("a", 0);
    changed.container.annotations.insert(labels::CONTAINER_HASH.into(), "other".into());
    Case::new(one("Always"), vec![changed.clone()]).check(&["kill a-0 DefinitionChanged"]);
    changed.container.state = ContainerState::Exited;
    Case::new(one("Never"), vec![changed]).check(&["start a"]);
}

#[test]
fn crashing_containers_wait_longer_and_longer() {
    let mut case = Case::new(one("Always"), vec![ended("a", 0, 1)]);
    case.check(&["start a"]);
    // `ended` finishes at 50 s.
    case.backoffs.next("a", at(50), at(50));
    case.now = at(51);
    case.check(&["back-off a 10"]);
    assert_eq!(case.decide().wake, Some(at(60)));
    case.now = at(60);
    case.check(&["start a"]);
    case.backoffs.next("a", at(50), at(60));
    case.check(&["back-off a 20"]);
}

#[test]
fn a_failed_start_is_held_back() {
    let mut case = Case::new(two("Always"), vec![]);
    case.held.insert("a".into(), at(110));
    case.check(&["start b"]);
    assert_eq!(case.decide().wake, Some(at(110)));
    case.held.insert(String::new(), at(120));
    case.check(&[]);
}

#[test]
fn what_is_being_started_is_left_alone() {
    let mut case = Case::new(two("Always"), vec![ended("a", 0, 1)]);
    case.starting.insert("a".into());
    // The next pause is known before the new instance is there.
    case.backoffs.next("a", at(50), at(100));
    case.check(&["start b"]);
}

#[test]
fn one_ended_instance_is_kept() {
    let containers =
        vec![running("a", 3), ended("a", 2, 1), ended("a", 1, 1), ended("a", 0, 1), ended("b", 0, 0)];
    Case::new(two("OnFailure"), containers).check(&["remove a-1", "remove a-0"]);
}

#[test]
fn a_stopping_pod_only_stops() {
    for (containers, sandbox, expected) in [
        (vec![running("a", 0)], SandboxState::Ready, &["stop", "ended"][..]),
        (vec![ended("a", 0, 1)], SandboxState::Ready, &["stop", "ended"]),
        (vec![running("a", 0)], SandboxState::NotReady, &["stop", "ended"]),
        (vec![ended("a", 0, 1)], SandboxState::NotReady, &["ended"]),
        (vec![], SandboxState::NotReady, &["ended"]),
    ] {
        let mut case =
            Case::new(one("Always"), containers).sandboxes(vec![testing::sandbox("s", 0, sandbox)]);
        case.stopping = true;
        case.check(expected);
    }
}
