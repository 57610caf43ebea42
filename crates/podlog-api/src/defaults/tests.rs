use super::*;
use crate::resource;

fn check(api_version: &str, kind: &str, before: Value, after: Value) {
    let row = resource::by_api_version(api_version, kind).expect(kind);
    let mut object = Object::new(before);
    apply(row, &mut object);
    assert_eq!(object.0, after, "{kind}");
    let once = object.clone();
    apply(row, &mut object);
    assert_eq!(object, once, "defaulting twice changes nothing");
}

fn container(name: &str, image: &str, policy: &str) -> Value {
    json!({"name": name, "image": image, "imagePullPolicy": policy, "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
}

fn template_spec(containers: Value) -> Value {
    json!({"containers": containers, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
        "securityContext": {}, "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"})
}

#[test]
fn minimal_pod() {
    let mut expected = template_spec(json!([container("a", "busybox", "Always")]));
    expected["enableServiceLinks"] = json!(true);
    check(
        "v1",
        "Pod",
        json!({"spec": {"containers": [{"name": "a", "image": "busybox"}]}}),
        json!({ "spec": expected }),
    );
}

#[test]
fn pull_policies() {
    for (image, expected) in [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:0123", "IfNotPresent"),
        ("busybox:latest@sha256:0123", "Always"),
        ("", "IfNotPresent"),
    ] {
        let mut pod = Object::new(json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        apply(resource::find("", "v1", "pods").expect("pods"), &mut pod);
        assert_eq!(pod.text("/spec/containers/0/imagePullPolicy"), expected, "{image}");
    }
}

#[test]
fn parts_of_a_pod() {
    let pod = json!({"spec": {
        "hostNetwork": true,
        "restartPolicy": "Never",
        "volumes": [
            {"name": "e"},
            {"name": "h", "hostPath": {"path": "/"}},
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
        "initContainers": [{"name": "i", "image": "x:1"}],
        "containers": [{"name": "a", "image": "x:1",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
            "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
            "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}}],
    }});
    let mut object = Object::new(pod);
    apply(resource::find("", "v1", "pods").expect("pods"), &mut object);
    let rows = [
        ("/spec/restartPolicy", json!("Never")),
        ("/spec/volumes/0", json!({"name": "e", "emptyDir": {}})),
        ("/spec/volumes/1/hostPath", json!({"path": "/", "type": ""})),
        ("/spec/volumes/2/configMap/defaultMode", json!(420)),
        ("/spec/volumes/3/secret/defaultMode", json!(256)),
        ("/spec/volumes/4/projected/defaultMode", json!(420)),
        ("/spec/volumes/4/projected/sources/0/serviceAccountToken/expirationSeconds", json!(3600)),
        ("/spec/volumes/4/projected/sources/1/downwardAPI/items/0/fieldRef/apiVersion", json!("v1")),
        ("/spec/initContainers/0/terminationMessagePolicy", json!("File")),
        ("/spec/containers/0/ports/0", json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})),
        ("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion", json!("v1")),
        (
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 5,
                "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}),
        ),
        ("/spec/containers/0/lifecycle/preStop/httpGet/scheme", json!("HTTP")),
        ("/spec/containers/0/resources/requests", json!({"cpu": "1", "memory": "1Gi"})),
    ];
    for (pointer, expected) in rows {
        assert_eq!(object.at(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}]}});
    let filled = json!({"spec": template_spec(json!([container("a", "x:1", "IfNotPresent")]))});
    check(
        "apps/v1",
        "Deployment",
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "replicas": 1, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}}}),
    );
    check(
        "apps/v1",
        "ReplicaSet",
        json!({"spec": {"replicas": 0, "template": template}}),
        json!({"spec": {"replicas": 0, "template": filled}}),
    );
    let mut labelled = (template.clone(), filled.clone());
    labelled.0["metadata"] = json!({"labels": {"a": "b"}});
    labelled.1["metadata"] = json!({"labels": {"a": "b"}});
    check(
        "batch/v1",
        "Job",
        json!({"spec": {"template": labelled.0}}),
        json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"template": labelled.1, "parallelism": 1, "completions": 1, "backoffLimit": 6,
                "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
                "podReplacementPolicy": "TerminatingOrFailed"}}),
    );
    check(
        "apps/v1",
        "DaemonSet",
        json!({"spec": {"template": template}}),
        json!({"spec": {"template": filled, "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}}),
    );
}

#[test]
fn small_kinds() {
    check(
        "v1",
        "Secret",
        json!({"data": {"a": "QQ=="}, "stringData": {"b": "B"}}),
        json!({"type": "Opaque", "data": {"a": "QQ==", "b": "Qg=="}}),
    );
    check(
        "v1",
        "Namespace",
        json!({"metadata": {"name": "prod"}}),
        json!({"metadata": {"name": "prod", "labels": {"kubernetes.io/metadata.name": "prod"}},
            "status": {"phase": "Active"}}),
    );
    check(
        "v1",
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
        json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}}),
    );
    check(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": RBAC_GROUP},
            "subjects": [{"kind": "User", "name": "u", "apiGroup": RBAC_GROUP},
                {"kind": "ServiceAccount", "name": "s"}]}),
    );
    check("v1", "ConfigMap", json!({"data": {"a": "b"}}), json!({"data": {"a": "b"}}));
}
