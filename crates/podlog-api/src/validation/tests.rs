use serde_json::{Value, json};

use super::*;
use crate::{defaults, resource};

fn row(api_version: &str, kind: &str) -> &'static Resource {
    resource::by_api_version(api_version, kind).expect(kind)
}

/// An object as it reaches validation: with a name, a namespace and its defaults.
fn prepared(resource: &Resource, mut value: Value) -> Object {
    if value["metadata"]["name"].is_null() {
        value["metadata"]["name"] = json!("x");
    }
    if resource.namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = json!("ns");
    }
    let mut object = Object::new(value);
    defaults::apply(resource, &mut object);
    object
}

fn lines(causes: Vec<Cause>) -> Vec<String> {
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

#[track_caller]
fn check_create(api_version: &str, kind: &str, value: Value, expected: &[&str]) {
    let resource = row(api_version, kind);
    assert_eq!(lines(create(resource, &prepared(resource, value.clone()))), expected, "{value}");
}

#[track_caller]
fn check_update(api_version: &str, kind: &str, old: Value, new: Value, expected: &[&str]) {
    let resource = row(api_version, kind);
    let (old, new) = (prepared(resource, old), prepared(resource, new));
    assert_eq!(lines(update(resource, &new, &old)), expected, "{new:?}");
}

/// A pod with one container `a` and these further fields.
fn pod(container: Value, spec: Value) -> Value {
    let mut pod = json!({"spec": spec});
    pod["spec"]["containers"] = json!([{"name": "a", "image": "i"}]);
    merge(&mut pod["spec"]["containers"][0], container);
    pod
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

#[test]
fn metadata() {
    let config = |metadata: Value| json!({ "metadata": metadata });
    let long = "a".repeat(300_000);
    let rows: Vec<(Value, Vec<&str>)> = vec![
        (json!({"name": "web.1-a"}), vec![]),
        (
            json!({"name": "Web"}),
            vec![concat!(
                r#"metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of lower case "#,
                r#"alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character "#,
                r#"(e.g. 'example.com', regex used for validation is "#,
                r#"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#
            )],
        ),
        (json!({"name": ""}), vec!["metadata.name: Required value: name or generateName is required"]),
        (json!({"generateName": "web-", "name": "web-1"}), vec![]),
        (json!({"namespace": ""}), vec!["metadata.namespace: Required value"]),
        (
            json!({"annotations": {"a": long}}),
            vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (json!({"annotations": {"UPPER/Case": "any value at all"}}), vec![]),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
            vec![r#"metadata.ownerReferences[0].uid: Invalid value: "": must not be empty"#],
        ),
    ];
    for (metadata, expected) in rows {
        check_create("v1", "ConfigMap", config(metadata), &expected);
    }
    let wrong_label = create(
        row("v1", "ConfigMap"),
        &prepared(row("v1", "ConfigMap"), config(json!({"labels": {"a/b/c": "ok", "a": "not ok"}}))),
    );
    assert_eq!(wrong_label.len(), 2);
    assert!(wrong_label.iter().all(|cause| cause.field == "metadata.labels"));
    check_create(
        "v1",
        "Namespace",
        json!({"metadata": {"namespace": "ns"}}),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    check_create(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        json!({"metadata": {"name": "system:Node"}}),
        &[],
    );
}

#[test]
fn metadata_updates() {
    let config = |metadata: Value| json!({ "metadata": metadata });
    let rows: Vec<(Value, Value, Vec<&str>)> = vec![
        (json!({"uid": "1"}), json!({}), vec![]),
        (
            json!({"uid": "1"}),
            json!({"uid": "2"}),
            vec![r#"metadata.uid: Invalid value: "2": field is immutable"#],
        ),
        (
            json!({"name": "a"}),
            json!({"name": "b"}),
            vec![r#"metadata.name: Invalid value: "b": field is immutable"#],
        ),
        (
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"finalizers": ["a/b"]}),
            vec![concat!(
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, ",
                r#"found new finalizers []string{"a/b"}"#
            )],
        ),
    ];
    for (old, new, expected) in rows {
        check_update("v1", "ConfigMap", config(old), config(new), &expected);
    }
}

#[test]
fn pods() {
    let none = || json!({});
    let rows: Vec<(Value, Vec<&str>)> = vec![
        (pod(none(), none()), vec![]),
        (json!({"spec": {}}), vec!["spec.containers: Required value"]),
        (
            json!({"spec": {"containers": [{}]}}),
            vec!["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}],
                "initContainers": [{"name": "a", "image": "i"}]}}),
            vec![
                r#"spec.containers[1].name: Duplicate value: "a""#,
                r#"spec.initContainers[0].name: Duplicate value: "a""#,
            ],
        ),
        (
            pod(none(), json!({"restartPolicy": "Sometimes"})),
            vec![concat!(
                r#"spec.restartPolicy: Unsupported value: "Sometimes": "#,
                r#"supported values: "Always", "OnFailure", "Never""#
            )],
        ),
        (
            pod(json!({"imagePullPolicy": "Maybe", "terminationMessagePolicy": "Log"}), none()),
            vec![
                concat!(
                    r#"spec.containers[0].terminationMessagePolicy: Unsupported value: "Log": "#,
                    r#"supported values: "File", "FallbackToLogsOnError""#
                ),
                concat!(
                    r#"spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": "#,
                    r#"supported values: "Always", "IfNotPresent", "Never""#
                ),
            ],
        ),
        (
            pod(
                json!({"ports": [{}, {"containerPort": 70000, "name": "http", "protocol": "X"},
                    {"containerPort": 1, "name": "http"}]}),
                none(),
            ),
            vec![
                "spec.containers[0].ports[0].containerPort: Required value",
                concat!(
                    "spec.containers[0].ports[1].containerPort: Invalid value: 70000: ",
                    "must be between 1 and 65535, inclusive"
                ),
                concat!(
                    r#"spec.containers[0].ports[1].protocol: Unsupported value: "X": "#,
                    r#"supported values: "SCTP", "TCP", "UDP""#
                ),
                r#"spec.containers[0].ports[2].name: Duplicate value: "http""#,
            ],
        ),
        (
            pod(
                json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a"}, {"name": "v"}]}),
                json!({"volumes": [{"name": "v"}]}),
            ),
            vec![
                r#"spec.containers[0].volumeMounts[1].name: Not found: "w""#,
                r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#,
                "spec.containers[0].volumeMounts[2].mountPath: Required value",
            ],
        ),
        (
            pod(
                none(),
                json!({"volumes": [{"name": "a"}, {"name": "a"}, {"name": "b", "emptyDir": {}, "hostPath": {"path": "/"}},
                    {"name": "c", "hostPath": {}}, {"name": "d", "secret": {"defaultMode": 512}}, {"emptyDir": {}}]}),
            ),
            vec![
                r#"spec.volumes[1].name: Duplicate value: "a""#,
                "spec.volumes[2].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[3].hostPath.path: Required value",
                "spec.volumes[4].secret.secretName: Required value",
                concat!(
                    "spec.volumes[4].secret.defaultMode: Invalid value: 512: ",
                    "must be a number between 0 and 0777 (octal), both inclusive"
                ),
                "spec.volumes[5].name: Required value",
            ],
        ),
        (
            pod(
                json!({"env": [{"value": "x"}, {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {}}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}},
                    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
                    "envFrom": [{}]}),
                none(),
            ),
            vec![
                "spec.containers[0].env[0].name: Required value",
                concat!(
                    r#"spec.containers[0].env[1].valueFrom: Invalid value: "": "#,
                    "may not be specified when `value` is not empty"
                ),
                concat!(
                    r#"spec.containers[0].env[2].valueFrom: Invalid value: "": must specify one of: "#,
                    "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
                ),
                concat!(
                    r#"spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo": "#,
                    r#"supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "#,
                    r#""spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#
                ),
                "spec.containers[0].env[5].valueFrom.secretKeyRef.key: Required value",
                concat!(
                    r#"spec.containers[0].envFrom: Invalid value: "": "#,
                    "must specify one of: `configMapRef` or `secretRef`"
                ),
            ],
        ),
        (
            pod(
                json!({"resources": {"requests": {"cpu": "2", "memory": "-1"}, "limits": {"cpu": "1"}}}),
                none(),
            ),
            vec![
                concat!(
                    r#"spec.containers[0].resources.requests[memory]: Invalid value: "-1": "#,
                    "must be greater than or equal to 0"
                ),
                concat!(
                    r#"spec.containers[0].resources.requests: Invalid value: "2": "#,
                    "must be less than or equal to cpu limit of 1"
                ),
            ],
        ),
        (
            pod(
                json!({"livenessProbe": {}, "readinessProbe": {"httpGet": {"port": 0}, "periodSeconds": -1},
                    "startupProbe": {"exec": {}, "successThreshold": 2}}),
                none(),
            ),
            vec![
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                concat!(
                    "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: ",
                    "must be between 1 and 65535, inclusive"
                ),
                concat!(
                    "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: ",
                    "must be greater than or equal to 0"
                ),
                "spec.containers[0].startupProbe.exec.command: Required value",
                "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            pod(none(), json!({"securityContext": {"runAsUser": -1}, "activeDeadlineSeconds": 0})),
            vec![
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ],
        ),
        (
            pod(
                none(),
                json!({"tolerations": [{"value": "x"}, {"key": "a", "operator": "Exists", "tolerationSeconds": 1}]}),
            ),
            vec![
                concat!(
                    r#"spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, "#,
                    r#"which means "match all values and all keys""#
                ),
                concat!(
                    r#"spec.tolerations[1].effect: Invalid value: "": "#,
                    "effect must be 'NoExecute' when `tolerationSeconds` is set"
                ),
            ],
        ),
        (
            pod(json!({"ports": [{"containerPort": 80, "hostPort": 81}]}), json!({"hostNetwork": true})),
            vec!["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort`"],
        ),
    ];
    for (value, expected) in rows {
        check_create("v1", "Pod", value, &expected);
    }
}

#[test]
fn pod_updates() {
    let forbidden = concat!(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,",
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing ",
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
    );
    let none = || json!({});
    let other_command = format!(r#"{forbidden}  spec.containers[0].command: null → ["x"]"#);
    let other_node = format!(r#"{forbidden}  spec.nodeName: null → "n""#);
    let rows: Vec<(Value, Value, Vec<&str>)> = vec![
        (pod(none(), none()), pod(json!({"image": "other"}), json!({"activeDeadlineSeconds": 5})), vec![]),
        (pod(none(), none()), pod(json!({"command": ["x"]}), none()), vec![&other_command]),
        (pod(none(), none()), pod(none(), json!({"nodeName": "n"})), vec![&other_node]),
        (
            pod(none(), none()),
            pod(none(), json!({"hostNetwork": false, "tolerations": [{"key": "a"}]})),
            vec![],
        ),
        (
            pod(none(), json!({"tolerations": [{"key": "a"}]})),
            pod(none(), none()),
            vec![concat!(
                "spec.tolerations: Forbidden: ",
                "existing toleration can not be modified except its tolerationSeconds"
            )],
        ),
        (
            pod(none(), none()),
            json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}}),
            vec!["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            pod(none(), json!({"activeDeadlineSeconds": 5})),
            pod(none(), json!({"activeDeadlineSeconds": 6})),
            vec![
                "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
            ],
        ),
        (
            pod(none(), json!({"terminationGracePeriodSeconds": -1})),
            pod(none(), json!({"terminationGracePeriodSeconds": 1})),
            vec![],
        ),
    ];
    for (old, new, expected) in rows {
        check_update("v1", "Pod", old, new, &expected);
    }
}

fn workload(spec: Value) -> Value {
    let mut object = json!({"spec": {
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}},
    }});
    merge(&mut object["spec"], spec);
    object
}

#[test]
fn workloads() {
    let rows: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"replicas": -1}),
            vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (json!({"selector": null}), vec!["spec.selector: Required value"]),
        (
            json!({"selector": {}}),
            vec!["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            json!({"selector": {"matchLabels": {"app": "y"}}}),
            vec![concat!(
                r#"spec.template.metadata.labels: Invalid value: {"app":"x"}: "#,
                "`selector` does not match template `labels`"
            )],
        ),
        (
            json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
            vec![concat!(
                "spec.strategy.rollingUpdate: Forbidden: ",
                "may not be specified when strategy `type` is 'Recreate'"
            )],
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}),
            vec![concat!(
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: ",
                "may not be 0 when `maxSurge` is 0"
            )],
        ),
        (
            json!({"template": {"metadata": {"labels": {"app": "x"}}, "spec": {"restartPolicy": "Never"}}}),
            vec![
                "spec.template.spec.containers: Required value",
                concat!(
                    r#"spec.template.spec.restartPolicy: Unsupported value: "Never": "#,
                    r#"supported values: "Always""#
                ),
            ],
        ),
    ];
    for (spec, expected) in rows {
        check_create("apps/v1", "Deployment", workload(spec), &expected);
    }
    check_update(
        "apps/v1",
        "ReplicaSet",
        workload(json!({})),
        workload(json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}})),
        &[concat!(
            r#"spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Exists"}]}: "#,
            "field is immutable"
        )],
    );
    check_update("apps/v1", "Deployment", workload(json!({})), workload(json!({"replicas": 3})), &[]);
    check_create(
        "batch/v1",
        "Job",
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}}),
        &[r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#],
    );
}

#[test]
fn roles_and_bindings() {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    check_create(
        RBAC,
        "Role",
        json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            r#"rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#,
        ],
    );
    let binding = |role: &str| json!({"roleRef": {"kind": "Role", "name": role}, "subjects": [{"kind": "User", "name": "u"}]});
    check_create(RBAC, "RoleBinding", binding("r"), &[]);
    check_create(
        RBAC,
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}, {"kind": "Robot", "name": "r"}]}),
        &[
            r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
            "subjects[0].namespace: Required value",
            r#"subjects[1].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
        ],
    );
    check_update(
        RBAC,
        "RoleBinding",
        binding("a"),
        binding("b"),
        &[concat!(
            r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: "#,
            "cannot change roleRef"
        )],
    );
}

#[test]
fn small_kinds() {
    check_create(
        "v1",
        "ConfigMap",
        json!({"data": {"a": "x"}, "binaryData": {"a": "QQ=="}}),
        &[r#"binaryData[a]: Invalid value: "a": duplicate of key present in data"#],
    );
    check_create(
        "v1",
        "Secret",
        json!({"data": {".": ""}}),
        &[r#"data[.]: Invalid value: ".": must not be '.'"#],
    );
    check_create(
        "v1",
        "Secret",
        json!({"type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check_update(
        "v1",
        "ConfigMap",
        json!({"immutable": true, "data": {"a": "x"}}),
        json!({"data": {"a": "y"}}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    check_update(
        "v1",
        "Secret",
        json!({"type": "a"}),
        json!({"type": "b"}),
        &[r#"type: Invalid value: "b": field is immutable"#],
    );
    check_create(
        "apps/v1",
        "ControllerRevision",
        json!({"revision": -1}),
        &[
            "revision: Invalid value: -1: must be greater than or equal to 0",
            "data: Required value: data is mandatory",
        ],
    );
    check_update(
        "apps/v1",
        "ControllerRevision",
        json!({"data": {"a": 1}, "revision": 1}),
        json!({"data": {"a": 2}, "revision": 2}),
        &[r#"data: Invalid value: {"a":2}: field is immutable"#],
    );
    check_create("v1", "Service", json!({"spec": {}}), &["spec.ports: Required value"]);
    check_create(
        "v1",
        "Event",
        json!({"involvedObject": {"namespace": "other"}}),
        &[r#"involvedObject.namespace: Invalid value: "other": does not match event.namespace"#],
    );
    check_create(
        "coordination.k8s.io/v1",
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
}

#[test]
fn reviews() {
    let review =
        |kind: &str, value: Value| lines(create(row("authorization.k8s.io/v1", kind), &Object::new(value)));
    let attributes = json!({"namespace": "a"});
    assert_eq!(
        review("SelfSubjectAccessReview", json!({"metadata": {"name": "x"}, "spec": {}})),
        [
            concat!(
                r#"spec.resourceAttributes: Invalid value: "null": "#,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            ),
            r#"metadata: Invalid value: {"name":"x"}: must be empty"#,
        ]
    );
    assert_eq!(
        review("SubjectAccessReview", json!({"spec": {"resourceAttributes": attributes}})),
        [r#"spec.user: Invalid value: "": at least one of user or group must be specified"#]
    );
    assert_eq!(
        review(
            "LocalSubjectAccessReview",
            json!({"metadata": {"namespace": "b"}, "spec": {"user": "u", "resourceAttributes": attributes}})
        ),
        [r#"spec.resourceAttributes.namespace: Invalid value: "a": must match metadata.namespace"#]
    );
    assert_eq!(
        review(
            "LocalSubjectAccessReview",
            json!({"metadata": {"name": "n", "namespace": "a", "uid": ""},
                "spec": {"user": "u", "resourceAttributes": attributes}})
        ),
        [
            r#"metadata: Invalid value: {"name":"n","namespace":"a","uid":""}: must be empty except for namespace"#
        ]
    );
}

#[test]
fn subresources() {
    let check = |schema: &str, value: Value| lines(subresource(schema, &Object::new(value)));
    assert_eq!(check("io.k8s.api.core.v1.Binding", json!({"target": {}})), ["target.name: Required value"]);
    assert_eq!(
        check("io.k8s.api.authentication.v1.TokenRequest", json!({"spec": {"expirationSeconds": 1}})),
        ["spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"]
    );
    assert_eq!(
        check("io.k8s.api.autoscaling.v1.Scale", json!({"spec": {"replicas": -1}})),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
}

#[test]
fn pod_status_updates() {
    let pod = |state: Value| {
        prepared(
            row("v1", "Pod"),
            json!({"spec": {"restartPolicy": "Never"}, "status": {"containerStatuses": [{"name": "a", "state": state}]}}),
        )
    };
    let ended = pod(json!({"terminated": {"exitCode": 1}}));
    let running = pod(json!({"running": {}}));
    assert!(update_status(row("v1", "Pod"), &ended, &running).is_empty());
    assert_eq!(
        lines(update_status(row("v1", "Pod"), &running, &ended)),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn ephemeral_containers_are_not_created() {
    let pod = pod(json!({}), json!({"ephemeralContainers": [{"name": "debug", "image": "i"}]}));
    assert_eq!(
        lines(create(row("v1", "Pod"), &prepared(row("v1", "Pod"), pod))),
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"]
    );
}

#[test]
fn warnings_of_what_is_probably_not_meant() {
    let container = json!({
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B"}, {"name": "B", "value": "$(B):x"}],
        "ports": [{"containerPort": 80}, {"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}],
    });
    let pod = pod(container, json!({"terminationGracePeriodSeconds": -1, "imagePullSecrets": [{}]}));
    let expected = |path: &str| {
        vec![
            format!(
                "{path}.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
            ),
            format!(
                "{path}.containers[0].ports[1]: duplicate port definition with {path}.containers[0].ports[0]"
            ),
            format!("{path}.imagePullSecrets[0].name: invalid empty name \"\""),
            format!(
                "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
            ),
        ]
    };
    let check = |api_version: &str, kind: &str, object: Value| {
        warnings(row(api_version, kind), &prepared(row(api_version, kind), object))
    };
    assert_eq!(check("v1", "Pod", pod.clone()), expected("spec"));
    let deployment = json!({"spec": {"template": pod}});
    assert_eq!(check("apps/v1", "Deployment", deployment), expected("spec.template.spec"));
    assert!(check("v1", "ConfigMap", json!({})).is_empty());
}

#[test]
fn messages_are_bounded() {
    let owners: Vec<Value> = (0..3000)
        .map(|i| json!({"apiVersion": "v1", "kind": "Pod", "name": i.to_string(), "uid": "u", "controller": true}))
        .collect();
    let object = Object::new(json!({"metadata": {"name": "a", "namespace": "b", "ownerReferences": owners}}));
    let resource = crate::resource::find("", "v1", "configmaps").unwrap();
    let bytes: usize = create(resource, &object).iter().map(|cause| cause.message.len()).sum();
    assert!((1 << 20..3 << 20).contains(&bytes), "{bytes}");
}
