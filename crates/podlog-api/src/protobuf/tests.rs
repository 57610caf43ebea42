use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{FieldType, Schemas};

/// What kubectl 1.33 sent for the commands on the left.
#[test]
fn requests_of_kubectl() {
    let review = |kind: &str, spec: Value| {
        json!({
            "kind": kind, "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec,
            "status": {"allowed": false},
        })
    };
    let rbac = "rbac.authorization.k8s.io";
    for (command, file, expected) in [
        (
            "auth can-i get pods --subresource=log -n x",
            &include_bytes!("samples/can-i-log.bin")[..],
            review(
                "SelfSubjectAccessReview",
                json!({"resourceAttributes": {
                "namespace": "x", "verb": "get", "resource": "pods", "subresource": "log"}}),
            ),
        ),
        (
            "auth can-i get pods/log",
            include_bytes!("samples/can-i-slash-log.bin"),
            review(
                "SelfSubjectAccessReview",
                json!({"resourceAttributes": {
                "namespace": "default", "verb": "get", "resource": "pods", "name": "log"}}),
            ),
        ),
        (
            "auth can-i get /metrics",
            include_bytes!("samples/can-i-path.bin"),
            review(
                "SelfSubjectAccessReview",
                json!({"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}),
            ),
        ),
        (
            "auth can-i --list -n prod",
            include_bytes!("samples/can-i-list.bin"),
            json!({
                "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
                "spec": {"namespace": "prod"}, "status": {"incomplete": false},
            }),
        ),
        (
            "auth whoami",
            include_bytes!("samples/whoami.bin"),
            json!({
                "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                "status": {"userInfo": {}},
            }),
        ),
        (
            "create token ci-bot -n prod --duration=1h --audience a --audience b --bound-object-kind Pod \
             --bound-object-name web --bound-object-uid u1",
            include_bytes!("samples/token.bin"),
            json!({
                "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                "spec": {
                    "audiences": ["a", "b"], "expirationSeconds": 3600,
                    "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "u1"},
                },
                "status": {"token": ""},
            }),
        ),
        (
            "create namespace demo",
            include_bytes!("samples/namespace.bin"),
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "demo"}, "spec": {}, "status": {}}),
        ),
        (
            "create configmap cm -n prod --from-literal=a=1 --from-file=bin=FILE",
            include_bytes!("samples/configmap.bin"),
            json!({
                "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "cm", "namespace": "prod"},
                "data": {"a": "1"}, "binaryData": {"bin": "/wE="},
            }),
        ),
        (
            "create secret generic s -n prod --from-literal=a=1",
            include_bytes!("samples/secret.bin"),
            json!({
                "kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s", "namespace": "prod"},
                "data": {"a": "MQ=="},
            }),
        ),
        (
            "create serviceaccount sa -n prod",
            include_bytes!("samples/serviceaccount.bin"),
            json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "sa", "namespace": "prod"}}),
        ),
        (
            "create role r -n prod --verb=get,list --resource=pods,pods/log",
            include_bytes!("samples/role.bin"),
            json!({
                "kind": "Role", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": "r", "namespace": "prod"},
                "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}],
            }),
        ),
        (
            "create rolebinding rb -n prod --role=r --serviceaccount=prod:sa --user=u --group=g",
            include_bytes!("samples/rolebinding.bin"),
            json!({
                "kind": "RoleBinding", "apiVersion": format!("{rbac}/v1"),
                "metadata": {"name": "rb", "namespace": "prod"},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "r"},
                "subjects": [
                    {"kind": "User", "apiGroup": rbac, "name": "u"},
                    {"kind": "Group", "apiGroup": rbac, "name": "g"},
                    {"kind": "ServiceAccount", "name": "sa", "namespace": "prod"},
                ],
            }),
        ),
        (
            "create clusterrole cr --verb=get --non-resource-url=/metrics",
            include_bytes!("samples/clusterrole.bin"),
            json!({
                "kind": "ClusterRole", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": "cr"},
                "rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}],
            }),
        ),
        (
            "create clusterrolebinding crb --clusterrole=cr --group=g",
            include_bytes!("samples/clusterrolebinding.bin"),
            json!({
                "kind": "ClusterRoleBinding", "apiVersion": format!("{rbac}/v1"), "metadata": {"name": "crb"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cr"},
                "subjects": [{"kind": "Group", "apiGroup": rbac, "name": "g"}],
            }),
        ),
        (
            "create deployment d -n prod --image=img --replicas=2 --port=80 -- sh -c 'echo hi'",
            include_bytes!("samples/deployment.bin"),
            json!({
                "kind": "Deployment", "apiVersion": "apps/v1",
                "metadata": {"name": "d", "namespace": "prod", "labels": {"app": "d"}},
                "spec": {
                    "replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "strategy": {},
                    "template": {
                        "metadata": {"labels": {"app": "d"}},
                        "spec": {"containers": [{
                            "name": "img", "image": "img", "command": ["sh", "-c", "echo hi"], "resources": {},
                            "ports": [{"containerPort": 80}],
                        }]},
                    },
                },
                "status": {},
            }),
        ),
        (
            "create job j -n prod --image=img -- true",
            include_bytes!("samples/job.bin"),
            json!({
                "kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j", "namespace": "prod"},
                "spec": {"template": {
                    "metadata": {},
                    "spec": {
                        "containers": [{"name": "j", "image": "img", "command": ["true"], "resources": {}}],
                        "restartPolicy": "Never",
                    },
                }},
                "status": {},
            }),
        ),
        (
            "create service clusterip svc -n prod --tcp=80:8080",
            include_bytes!("samples/service.bin"),
            json!({
                "kind": "Service", "apiVersion": "v1",
                "metadata": {"name": "svc", "namespace": "prod", "labels": {"app": "svc"}},
                "spec": {
                    "type": "ClusterIP", "selector": {"app": "svc"},
                    "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                },
                "status": {"loadBalancer": {}},
            }),
        ),
    ] {
        assert_eq!(decode(file).map(|object| object.0), Ok(expected), "kubectl {command}");
    }
}

/// Writes messages, so that tests can say what no sample has.
#[derive(Clone, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(mut self, number: u64, value: i64) -> Self {
        self.push_varint(number << 3);
        self.push_varint(value.cast_unsigned());
        self
    }

    fn bytes(mut self, number: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.push_varint(number << 3 | 2);
        self.push_varint(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Writer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn new() -> Writer {
    Writer::default()
}

fn envelope(api_version: &str, kind: &str, raw: impl AsRef<[u8]>) -> Vec<u8> {
    let unknown =
        new().bytes(1, new().bytes(1, api_version).bytes(2, kind)).bytes(2, raw).bytes(3, "").bytes(4, "");
    [&PREFIX[..], &unknown.0].concat()
}

#[test]
fn every_kind_of_value() {
    let check = |api_version: &str, kind: &str, raw: Writer, expected: Value| {
        let mut object = decode(&envelope(api_version, kind, raw)).expect(kind).0;
        let map = object.as_object_mut().expect("an object");
        assert_eq!(
            (map.remove("kind"), map.remove("apiVersion")),
            (Some(json!(kind)), Some(json!(api_version)))
        );
        assert_eq!(object, expected, "{kind}");
    };
    let empty = new();
    let time = |seconds, nanoseconds| new().varint(1, seconds).varint(2, nanoseconds);
    let string = |text: &str| new().bytes(1, text);
    let entry = |key: &str, value: &dyn AsRef<[u8]>| new().bytes(1, key).bytes(2, value.as_ref());
    // Scalars and their zeros: pointers keep them.
    check(
        "apps/v1",
        "DeleteOptions",
        new().varint(1, 0).bytes(2, new().bytes(1, "u")).varint(3, 0).bytes(4, "Background").bytes(5, "All"),
        json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "orphanDependents": false,
               "propagationPolicy": "Background", "dryRun": ["All"]}),
    );
    check("autoscaling/v1", "Scale", new().bytes(2, new().varint(1, -1)), json!({"spec": {"replicas": -1}}));
    check("autoscaling/v1", "Scale", new().bytes(2, new().varint(1, 0)), json!({"spec": {}}));
    // Times.
    check(
        "v1",
        "Event",
        new()
            .bytes(6, time(1_767_225_600, 5))
            .bytes(7, empty.clone())
            .bytes(10, time(1_767_225_600, 1_500))
            .varint(8, 3),
        json!({"firstTimestamp": "2026-01-01T00:00:00Z", "eventTime": "2026-01-01T00:00:00.000001Z", "count": 3}),
    );
    check(
        "coordination.k8s.io/v1",
        "Lease",
        new().bytes(2, new().bytes(1, "n1").varint(2, 40).bytes(4, time(-1, 0)).bytes(3, empty.clone())),
        json!({"spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "1969-12-31T23:59:59.000000Z"}}),
    );
    // Maps: of quantities, of bytes, with missing parts.
    let limits = new().bytes(1, entry("cpu", &string("100m"))).bytes(1, entry("memory", &string("1Gi")));
    let container = new().bytes(1, "c").bytes(8, limits);
    check(
        "v1",
        "Pod",
        new().bytes(2, new().bytes(2, container)),
        json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}]}}),
    );
    check(
        "v1",
        "Secret",
        new()
            .bytes(2, entry("a", &[0xff]))
            .bytes(2, new().bytes(1, "b"))
            .bytes(2, empty.clone())
            .varint(5, 1),
        json!({"data": {"a": "/w==", "b": "", "": ""}, "immutable": true}),
    );
    // Lists that JSON does not wrap.
    check(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        new().bytes(
            2,
            new()
                .bytes(3, "u")
                .bytes(4, "g")
                .bytes(4, "")
                .bytes(5, entry("k", &new().bytes(1, "x").bytes(1, "y"))),
        ),
        json!({"spec": {"user": "u", "groups": ["g", ""], "extra": {"k": ["x", "y"]}}}),
    );
    // Inlined messages, numbers or strings, numbers packed and not, explicit empty messages.
    let probe =
        new().bytes(1, new().bytes(2, new().bytes(1, "/").bytes(2, new().varint(1, 0).varint(2, 8080))));
    let named =
        new().bytes(1, new().bytes(2, new().bytes(2, new().varint(1, 1).varint(2, 0).bytes(3, "http"))));
    let volume = new().bytes(1, "v").bytes(2, new().bytes(2, empty.clone()));
    let groups = new().varint(4, 7).bytes(4, [8, 0x90, 0x4e]);
    let container = new().bytes(1, "c").bytes(10, probe).bytes(11, named);
    check(
        "v1",
        "Pod",
        new().bytes(2, new().bytes(1, volume).bytes(2, container).bytes(14, groups)),
        json!({"spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c",
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
                "readinessProbe": {"httpGet": {"port": "http"}},
            }],
            "securityContext": {"supplementalGroups": [7, 8, 10000]},
        }}),
    );
    // JSON inside.
    let managed = new().bytes(1, "m").bytes(7, new().bytes(1, r#"{"f:spec":{}}"#));
    check(
        "v1",
        "Namespace",
        new().bytes(1, new().bytes(17, managed)),
        json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]}}),
    );
    // What is not known is skipped.
    check("v1", "Namespace", new().varint(99, 1).bytes(98, "x"), json!({}));
}

#[test]
fn bad_bodies_are_refused() {
    let invalid = "the body is not a valid protobuf message: ";
    let good = envelope("v1", "Namespace", new().bytes(1, new().bytes(1, "demo")));
    for (body, expected) in [
        (b"{}".to_vec(), {
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned()
        }),
        (Vec::new(), {
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned()
        }),
        (PREFIX.to_vec(), r#"no kind "" is registered for version """#.into()),
        (envelope("v1", "Widget", ""), r#"no kind "Widget" is registered for version "v1""#.into()),
        (envelope("v2", "Pod", ""), r#"no kind "Pod" is registered for version "v2""#.into()),
        (good[..good.len() - 5].to_vec(), format!("{invalid}unexpected end")),
        (envelope("v1", "Namespace", [0x0b]), format!("{invalid}wire type 3 is not supported")),
        (envelope("v1", "Namespace", [0x02, 0x00]), format!("{invalid}a field has number 0")),
        (envelope("v1", "Namespace", [0xff; 11]), format!("{invalid}an integer has more than 64 bits")),
        (envelope("v1", "Namespace", new().varint(1, 1)), {
            format!("{invalid}a field has another type than its message says")
        }),
        (envelope("v1", "Namespace", new().bytes(1, new().bytes(1, [0xff]))), {
            format!("{invalid}a text is not UTF-8")
        }),
        (
            envelope("v1", "Event", new().bytes(6, new().varint(1, i64::MAX))),
            format!("{invalid}a time is out of range"),
        ),
        (envelope("v1", "Node", [0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]), format!("{invalid}unexpected end")),
    ] {
        assert_eq!(decode(&body), Err(ApiError::bad_request(expected)), "{body:?}");
    }
}

/// Names and types of the table are those of the OpenAPI schemas.
#[test]
fn the_table_agrees_with_the_schemas() {
    let messages = Messages::shared();
    let (mut checked, mut wrong) = (0, Vec::new());
    for name in messages.names() {
        let Some(definition) = Schemas::shared().definition(&schema_name(name)) else { continue };
        for field in messages.fields(name).iter().filter(|field| !field.name.is_empty()) {
            let of = definition.field(field.name);
            if !of.is_some_and(|of| agrees(field.shape, field.kind, of)) {
                wrong.push(format!(
                    "{name} {}: {:?} {:?}, schema {of:?}",
                    field.name, field.shape, field.kind
                ));
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 900, "only {checked} fields compared");
}

fn schema_name(message: &str) -> String {
    match message.split_once('.').expect("package.Name") {
        ("meta", kind) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"),
        (package, kind) => format!("io.k8s.api.{package}.v1.{kind}"),
    }
}

fn agrees(shape: messages::Shape, kind: messages::Kind, of: &FieldType) -> bool {
    use messages::{Kind, Shape};
    match (shape, of) {
        (Shape::List, FieldType::Array(of)) | (Shape::Map, FieldType::Map(of)) => {
            agrees(Shape::One, kind, of)
        }
        (Shape::List | Shape::Map, _) => false,
        _ => match (kind, of) {
            (Kind::Message(name), FieldType::Ref(of)) => schema_name(name) == **of,
            (Kind::Items, FieldType::Array(_)) | (_, FieldType::Any) => true,
            (Kind::String, FieldType::String)
            | (Kind::Bytes, FieldType::Bytes)
            | (Kind::Bool, FieldType::Boolean)
            | (Kind::Integer, FieldType::Int32 | FieldType::Int64)
            | (Kind::Double, FieldType::Number)
            | (Kind::IntOrString, FieldType::IntOrString)
            | (Kind::Quantity, FieldType::Quantity)
            | (Kind::Time, FieldType::Time)
            | (Kind::MicroTime, FieldType::MicroTime) => true,
            _ => false,
        },
    }
}

#[test]
fn the_table_is_closed_and_not_recursive() {
    fn visit(name: &'static str, path: &mut Vec<&'static str>) {
        let messages = Messages::shared();
        assert!(messages.name(name).is_some(), "{name} in {path:?} is not in the table");
        assert!(!path.contains(&name), "{name} contains itself: {path:?}");
        path.push(name);
        for field in messages.fields(name) {
            if let messages::Kind::Message(inner) = field.kind {
                visit(inner, path);
            }
        }
        path.pop();
    }
    for name in Messages::shared().names() {
        visit(name, &mut Vec::new());
    }
}

/// Every kind that can be created can be sent.
#[test]
fn every_served_kind_has_a_message() {
    for resource in resource::all().iter().filter(|resource| resource.has_verb("create")) {
        assert!(message_of(&resource.api_version(), resource.kind).is_some(), "{}", resource.kind);
    }
}

proptest! {
    #[test]
    fn no_body_is_fatal(kind in "(Pod|Event|Secret|TokenRequest)", raw in any::<Vec<u8>>(), cut in 0_usize..80) {
        let body = envelope("v1", &kind, raw);
        let _ = decode(&body);
        let _ = decode(&body[..body.len().min(cut)]);
    }

    #[test]
    fn no_broken_request_is_fatal(at in 0_usize..227, byte in any::<u8>()) {
        let mut body = include_bytes!("samples/deployment.bin").to_vec();
        body[at] = byte;
        let _ = decode(&body);
    }
}
