use serde_json::json;

use super::*;
use crate::resource;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn find(group: &str, plural: &str) -> &'static Resource {
    resource::find(group, "v1", plural).unwrap()
}

/// Cells of an object created an hour before `now`.
fn row(group: &str, plural: &str, mut object: Value) -> Vec<Value> {
    object["metadata"]["name"] = json!("x");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let object = Object::new(object);
    let table = render(find(group, plural), &[&object], json!({}), now(), IncludeObject::Metadata);
    let cells = table["rows"][0]["cells"].as_array().unwrap().clone();
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().unwrap().len(), "{plural}");
    cells
}

fn pod_cells(pod: Value) -> [String; 3] {
    let cells = row("", "pods", pod);
    [1, 2, 3].map(|index| cells[index].as_str().unwrap().to_owned())
}

#[test]
fn pod_status_is_condensed() {
    let running = json!({"ready": true, "state": {"running": {}}});
    let one = json!({"containers": [{"name": "c"}]});
    let two = json!({"containers": [{"name": "c"}, {"name": "d"}]});
    let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let sidecar =
        json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let last = json!({"terminated": {"finishedAt": "2026-01-01T00:59:30Z"}});
    let deleting = json!({"deletionTimestamp": "2026-01-01T00:59:00Z"});
    let rows = [
        (json!({"spec": one, "status": {"phase": "Pending"}}), ["0/1", "Pending", "0"]),
        (
            json!({"spec": one, "status": {"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
            ["0/1", "SchedulingGated", "0"],
        ),
        (json!({"spec": one, "status": {"phase": "Failed", "reason": "Evicted"}}), ["0/1", "Evicted", "0"]),
        (
            json!({"spec": one, "status": {"phase": "Running", "containerStatuses": [running]}}),
            ["1/1", "Running", "0"],
        ),
        (
            json!({"spec": one, "status": {"phase": "Running", "containerStatuses": [
                {"restartCount": 4, "lastState": last, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            ["0/1", "CrashLoopBackOff", "4 (30s ago)"],
        ),
        (
            json!({"spec": one, "status": {"phase": "Running", "containerStatuses": [
                {"restartCount": 2, "ready": true, "state": {"running": {}}}]}}),
            ["1/1", "Running", "2"],
        ),
        (
            json!({"spec": one, "status": {"phase": "Succeeded", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}),
            ["0/1", "Completed", "0"],
        ),
        (
            json!({"spec": one, "status": {"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 3}}}]}}),
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            json!({"spec": one, "status": {"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}}),
            ["0/1", "Signal:9", "0"],
        ),
        (
            json!({"spec": two, "status": {"phase": "Running", "conditions": ready, "containerStatuses": [
                {"state": {"terminated": {"reason": "Completed"}}}, running]}}),
            ["1/2", "Running", "0"],
        ),
        (
            json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [
                {"state": {"terminated": {"reason": "Completed"}}}, running]}}),
            ["1/2", "NotReady", "0"],
        ),
        (
            json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [
                {"state": {"terminated": {"reason": "Error", "exitCode": 1}}}, running]}}),
            ["1/2", "Error", "0"],
        ),
        (
            json!({"spec": init, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}}),
            ["0/1", "Init:1/2", "0"],
        ),
        (
            json!({"spec": init, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 3, "lastState": last, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            ["0/1", "Init:CrashLoopBackOff", "3 (30s ago)"],
        ),
        (
            json!({"spec": init, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 2}}}]}}),
            ["0/1", "Init:ExitCode:2", "0"],
        ),
        (
            json!({"spec": init, "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}}),
            ["0/1", "Init:Error", "0"],
        ),
        (
            json!({"spec": sidecar, "status": {"phase": "Running", "containerStatuses": [running],
                "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]}}),
            ["2/2", "Running", "1"],
        ),
        (
            json!({"metadata": deleting, "spec": one, "status": {"phase": "Running", "containerStatuses": [running]}}),
            ["1/1", "Terminating", "0"],
        ),
        (
            json!({"metadata": deleting, "spec": one, "status": {"phase": "Running", "reason": "NodeLost"}}),
            ["0/1", "Unknown", "0"],
        ),
        (
            json!({"metadata": deleting, "spec": one, "status": {"phase": "Succeeded", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}),
            ["0/1", "Completed", "0"],
        ),
    ];
    for (pod, expected) in rows {
        assert_eq!(pod_cells(pod.clone()), expected, "{pod}");
    }
}

#[test]
fn rows_of_each_kind() {
    let template =
        json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
    let selector = json!({"matchLabels": {"app": "web"}});
    let rows = [
        (
            "",
            "pods",
            json!({"kind": "Pod", "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "g"}]},
                "status": {"podIPs": [{"ip": "10.0.0.1"}]}}),
            json!(["x", "0/0", "", "0", "60m", "10.0.0.1", "n", "<none>", "0/1"]),
        ),
        (
            "",
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "a"}},
                "spec": {"unschedulable": true}, "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "127.0.0.1"}],
                    "nodeInfo": {"kubeletVersion": "v1", "osImage": "os", "kernelVersion": "6", "architecture": "amd64",
                        "containerRuntimeVersion": "process://1"}}}),
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "a,control-plane",
                "60m",
                "v1",
                "127.0.0.1",
                "<none>",
                "os",
                "6 (amd64)",
                "process://1"
            ]),
        ),
        (
            "",
            "nodes",
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            json!([
                "x",
                "NotReady",
                "<none>",
                "60m",
                "",
                "<none>",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            "",
            "nodes",
            json!({}),
            json!([
                "x",
                "Unknown",
                "<none>",
                "60m",
                "",
                "<none>",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        ("", "namespaces", json!({"status": {"phase": "Active"}}), json!(["x", "Active", "60m"])),
        (
            "",
            "configmaps",
            json!({"data": {"a": ""}, "binaryData": {"b": "", "c": ""}}),
            json!(["x", 3, "60m"]),
        ),
        ("", "secrets", json!({"type": "Opaque", "data": {"a": ""}}), json!(["x", "Opaque", 1, "60m"])),
        ("", "serviceaccounts", json!({}), json!(["x", "60m"])),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}, {"port": 53, "protocol": "UDP"}]}}),
            json!(["x", "NodePort", "10.0.0.1", "<none>", "80:30000/TCP,53/UDP", "60m", "a=1,b=2"]),
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer"}}),
            json!(["x", "LoadBalancer", "<none>", "<pending>", "<none>", "60m", "<none>"]),
        ),
        (
            "",
            "events",
            json!({"type": "Normal", "reason": "Started", "message": " hi\n", "count": 3,
                "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
                "source": {"component": "kubelet", "host": "n"},
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"}),
            json!([
                "60s",
                "Normal",
                "Started",
                "pod/web",
                "spec.containers{c}",
                "kubelet, n",
                "hi",
                "60m",
                3,
                "x"
            ]),
        ),
        (
            "events.k8s.io",
            "events",
            json!({"type": "Normal", "reason": "Scheduled", "note": "n", "regarding": {"kind": "Pod"},
                "reportingController": "scheduler", "eventTime": "2026-01-01T00:58:30.123456Z"}),
            json!(["89s", "Normal", "Scheduled", "pod", "", "scheduler", "n", "89s", 1, "x"]),
        ),
        (
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "template": template, "selector": selector},
                "status": {"readyReplicas": 2, "updatedReplicas": 1}}),
            json!(["x", "2/3", 1, 0, "60m", "a,b", "i:1,j", "app=web"]),
        ),
        (
            "apps",
            "replicasets",
            json!({"spec": {"replicas": 3, "template": template, "selector": selector}, "status": {"replicas": 2}}),
            json!(["x", 3, 2, 0, "60m", "a,b", "i:1,j", "app=web"]),
        ),
        (
            "apps",
            "statefulsets",
            json!({"spec": {"replicas": 1, "template": template}, "status": {"readyReplicas": 1}}),
            json!(["x", "1/1", "60m", "a,b", "i:1,j"]),
        ),
        (
            "apps",
            "daemonsets",
            json!({"spec": {"template": template, "selector": selector}, "status": {"desiredNumberScheduled": 2, "numberReady": 1}}),
            json!(["x", 2, 0, 1, 0, 0, "<none>", "60m", "a,b", "i:1,j", "app=web"]),
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"completions": 2, "template": template}, "status": {"succeeded": 2,
                "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:12Z",
                "conditions": [{"type": "Complete", "status": "True"}]}}),
            json!(["x", "Complete", "2/2", "12s", "60m", "a,b", "i:1,j", "<none>"]),
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"parallelism": 3, "template": template}, "status": {}}),
            json!(["x", "Running", "0/1 of 3", "", "60m", "a,b", "i:1,j", "<none>"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
                {"kind": "ServiceAccount", "namespace": "prod", "name": "bot"}, {"kind": "User", "name": "jane"}]}),
            json!(["x", "Role/r", "60m", "jane", "", "prod/bot"]),
        ),
        ("rbac.authorization.k8s.io", "roles", json!({}), json!(["x", "2026-01-01T00:00:00Z"])),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({"spec": {"signerName": "a.b/c", "username": "u", "expirationSeconds": 3600},
                "status": {"certificate": "eA==", "conditions": [{"type": "Approved"}]}}),
            json!(["x", "60m", "a.b/c", "u", "60m", "Approved,Issued"]),
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            json!({"status": {"conditions": [{"type": "Failed"}, {"type": "Denied"}]}}),
            json!(["x", "60m", "<none>", "", "<none>", "Denied,Failed"]),
        ),
        ("coordination.k8s.io", "leases", json!({"spec": {"holderIdentity": "n"}}), json!(["x", "n", "60m"])),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c", "d"]}]}),
            json!(["x", "IPv4", "80", "a,b,c + 1 more...", "60m"]),
        ),
    ];
    for (group, plural, object, expected) in rows {
        assert_eq!(json!(row(group, plural, object.clone())), expected, "{plural} {object}");
    }
}

#[test]
fn tables_carry_what_was_asked_for() {
    let pod = Object::new(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": "b"}},
        "status": {"phase": "Failed"}}),
    );
    let table = |include| render(find("", "pods"), &[&pod], json!({"resourceVersion": "7"}), now(), include);
    let metadata = table(IncludeObject::Metadata);
    assert_eq!(metadata["metadata"]["resourceVersion"], "7");
    assert_eq!(
        metadata["columnDefinitions"][0],
        json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name of the object, unique within its namespace."})
    );
    assert_eq!(
        metadata["rows"][0]["conditions"],
        json!([{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}])
    );
    let rows = [
        (IncludeObject::None, Value::Null),
        (
            IncludeObject::Metadata,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"name": "web", "labels": {"a": "b"}}}),
        ),
        (IncludeObject::Object, pod.0.clone()),
    ];
    for (include, expected) in rows {
        assert_eq!(table(include)["rows"][0]["object"], expected);
    }
    let mut later = metadata;
    drop_columns(&mut later);
    assert!(later["columnDefinitions"].is_null());
    let empty = render(find("", "pods"), &[], json!({}), now(), IncludeObject::Metadata);
    assert_eq!(empty["rows"], json!([]));
    assert_eq!(IncludeObject::parse("Bogus"), None);
}
