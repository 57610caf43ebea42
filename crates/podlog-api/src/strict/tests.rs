use serde_json::json;

use super::*;
use crate::schema::{FieldType, Schemas};

fn pods() -> &'static Resource {
    resource::find("", "v1", "pods").expect("pods")
}

fn secrets() -> &'static Resource {
    resource::find("", "v1", "secrets").expect("secrets")
}

fn strict(resource: &Resource, body: &str) -> Result<Value, String> {
    decode(resource, body.as_bytes(), MediaType::Json, FieldValidation::Strict)
        .map(|(object, _)| object.0)
        .map_err(|error| error.message)
}

#[test]
fn refused_bodies() {
    let pod = |why: &str| format!(r#"Pod in version "v1" cannot be handled as a Pod: {why}"#);
    let rows: Vec<(&str, String)> = vec![
        (r#"{"spec":{"foo":1}}"#, pod(r#"strict decoding error: unknown field "spec.foo""#)),
        (
            r#"{"bar":{"x":1},"spec":{"containers":[{"name":"a"},{"foo":1,"ports":[{"x":1}]}]}}"#,
            pod(concat!(
                r#"strict decoding error: unknown field "bar", unknown field "spec.containers[1].foo", "#,
                r#"unknown field "spec.containers[1].ports[0].x""#
            )),
        ),
        (
            r#"{"metadata":{"name":"a","name":"b","labels":{"l":"1","l":"2"}}}"#,
            pod(
                r#"strict decoding error: duplicate field "metadata.name", duplicate field "metadata.labels.l""#,
            ),
        ),
        (
            r#"{"spec":{"containers":"web"}}"#,
            pod(
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
        ),
        (
            r#"{"spec":{"containers":["web"]}}"#,
            pod(
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
            ),
        ),
        (
            r#"{"spec":{"containers":[{"env":[{"name":"A","value":1}]}],"bad":1}}"#,
            pod(
                "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
            ),
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
            pod(concat!(
                "json: cannot unmarshal string into Go struct field ",
                "ContainerPort.spec.containers.ports.containerPort of type int32"
            )),
        ),
        (
            r#"{"spec":{"priority":3000000000}}"#,
            pod(
                "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
            ),
        ),
        (
            r#"{"spec":{"restartPolicy":true}}"#,
            pod(
                "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
            ),
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            pod("json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"),
        ),
        (
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}"#,
            pod(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v1"}"#,
            r#"ConfigMap in version "v1" cannot be handled as a Pod: converting (v1.ConfigMap) to (core.Pod): unknown conversion"#.into(),
        ),
        (
            r#"{"kind":"Pood","apiVersion":"v1"}"#,
            r#"Pood in version "v1" cannot be handled as a Pod: no kind "Pood" is registered for version "v1""#.into(),
        ),
        (
            r#"{"kind":"Pod","apiVersion":"core/v3"}"#,
            r#"Pod in version "v3" cannot be handled as a Pod: no kind "Pod" is registered for version "core/v3""#.into(),
        ),
        (
            r#"{"kind":"#,
            r#"the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({"kind":)"#.into(),
        ),
        (
            "",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)".into(),
        ),
        (
            "hello",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'h' looking for beginning of value (68656c6c6f)".into(),
        ),
        (
            r#"{"kind":1}"#,
            r#"the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({"kind":1})"#.into(),
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(strict(pods(), body), Err(expected), "{body}");
    }
}

#[test]
fn wrong_secret_and_time() {
    let refused = strict(secrets(), r#"{"data":{"a":"!!!!"}}"#).expect_err("not base64");
    assert_eq!(
        refused,
        r#"Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0"#
    );
    let refused = strict(pods(), r#"{"metadata":{"creationTimestamp":"now"}}"#).expect_err("not a time");
    assert!(
        refused
            .ends_with(r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#)
    );
}

#[test]
fn values_are_kept_in_canonical_form() {
    let body = r#"{
        "metadata":{"name":"web","creationTimestamp":null,"labels":{"a":null},
                    "deletionTimestamp":"2026-01-02T05:04:05.678+02:00"},
        "spec":{"nodeName":null,"containers":[{"name":"a","livenessProbe":{"httpGet":{"port":80}},
            "resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}}}]},
        "status":{}}"#;
    assert_eq!(
        strict(pods(), body),
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "labels": {"a": ""}, "deletionTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]},
            "status": {},
        }))
    );
}

#[test]
fn unknown_fields_are_dropped_and_reported_as_asked() {
    let body = br#"{"spec":{"foo":1,"nodeName":"n"}}"#;
    let rows = [
        (FieldValidation::Ignore, Vec::new()),
        (FieldValidation::Warn, vec![r#"unknown field "spec.foo""#.to_owned()]),
    ];
    for (validation, expected) in rows {
        let (object, warnings) = decode(pods(), body, MediaType::Json, validation).expect("decodes");
        assert_eq!(object.at("/spec"), Some(&json!({"nodeName": "n"})));
        assert_eq!(warnings, expected);
    }
}

#[test]
fn yaml() {
    let body = "
metadata:
  name: web
spec:
  containers:
  - name: a
    env: [{name: DEBUG, value: 'yes'}]
  volumes:
  - name: v
    configMap: {name: c, defaultMode: 0644}
  hostNetwork: yes
  hostNetwork: no
  typo: 1
";
    let (object, warnings) =
        decode(pods(), body.as_bytes(), MediaType::Yaml, FieldValidation::Warn).expect("decodes");
    assert_eq!(object.integer("/spec/volumes/0/configMap/defaultMode"), Some(0o644));
    assert_eq!(object.at("/spec/hostNetwork"), Some(&json!(false)));
    assert_eq!(warnings, [r#"duplicate field "spec.hostNetwork""#, r#"unknown field "spec.typo""#]);

    let broken = decode(pods(), b"a: [", MediaType::Yaml, FieldValidation::Warn).expect_err("broken");
    assert!(broken.message.contains("must be of type Pod): yaml: "), "{}", broken.message);
}

#[test]
fn delete_options_of_any_group() {
    for body in [
        r#"{"propagationPolicy":"Background"}"#,
        r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":0}"#,
    ] {
        let result =
            decode_as(Target::DELETE_OPTIONS, body.as_bytes(), MediaType::Json, FieldValidation::Strict);
        assert!(result.is_ok(), "{result:?}");
    }
}

#[test]
fn embedded_objects_are_left_alone() {
    let body = r#"{"metadata":{"managedFields":[{"manager":"m","fieldsV1":{"f:spec":{".":{}}}}]}}"#;
    let object = strict(pods(), body).expect("decodes");
    assert_eq!(object["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {".": {}}}));
}

#[test]
fn patched_objects_are_checked_the_same_way() {
    let patched = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"foo": 1}});
    let error = check(Target::of(pods()), &patched, FieldValidation::Strict).expect_err("unknown field");
    assert!(error.message.ends_with(r#"strict decoding error: unknown field "spec.foo""#));
}

#[test]
fn protobuf() {
    // An empty `SelfSubjectReview` in the envelope that kubectl sends.
    let type_meta = b"\x0a\x18authentication.k8s.io/v1\x12\x11SelfSubjectReview";
    let mut body = crate::protobuf::PREFIX.to_vec();
    body.extend([0x0a, type_meta.len() as u8]);
    body.extend(type_meta);
    body.extend([0x12, 0x00]);
    let reviews = resource::find("authentication.k8s.io", "v1", "selfsubjectreviews").expect("reviews");
    let decoded = decode(reviews, &body, MediaType::Protobuf, FieldValidation::Strict);
    assert_eq!(decoded.map(|(object, _)| object.kind().to_owned()), Ok("SelfSubjectReview".to_owned()));
    let mismatch =
        decode(pods(), &body, MediaType::Protobuf, FieldValidation::Strict).expect_err("not a pod");
    assert!(mismatch.message.contains("cannot be handled as a Pod"), "{}", mismatch.message);
}

/// A value of a type with every field set, down to a depth that reaches all kinds of field.
fn sample(of: &FieldType, depth: usize) -> Value {
    match of {
        FieldType::Ref(name) if depth > 0 => {
            let fields = Schemas::shared().definition(name).expect(name).fields.iter();
            fields.map(|(field, of)| (field.to_string(), sample(of, depth - 1))).collect()
        }
        FieldType::Ref(_) => json!({}),
        FieldType::Array(of) => json!([sample(of, depth)]),
        FieldType::Map(of) => json!({ "key": sample(of, depth) }),
        FieldType::String => json!("text"),
        FieldType::Bytes => json!("AAEC"),
        FieldType::Int32 | FieldType::Int64 | FieldType::Number => json!(7),
        FieldType::Boolean => json!(true),
        FieldType::IntOrString => json!("25%"),
        FieldType::Quantity => json!("1536Mi"),
        FieldType::Time => json!("2026-01-02T03:04:05Z"),
        FieldType::MicroTime => json!("2026-01-02T03:04:05.678900Z"),
        FieldType::Any => json!({ "any": [{"thing": 1}, null] }),
    }
}

#[test]
fn every_field_of_every_kind_survives() {
    // Schemas of custom resources contain themselves.
    for row in resource::all().iter().filter(|row| row.kind != "CustomResourceDefinition") {
        let mut object = sample(&FieldType::Ref(row.schema.into()), 12);
        object["apiVersion"] = json!(row.api_version());
        object["kind"] = json!(row.kind);
        let body = object.to_string();
        for media_type in [MediaType::Json, MediaType::Yaml] {
            let decoded = decode(row, body.as_bytes(), media_type, FieldValidation::Strict);
            let (decoded, _) = decoded.unwrap_or_else(|error| panic!("{}: {error}", row.kind));
            assert_eq!(decoded.0, object, "{} as {media_type:?}", row.kind);
        }
    }
}

#[test]
fn typed_views_read_what_was_decoded() {
    let mut pod = sample(&FieldType::Ref(pods().schema.into()), 12);
    pod["kind"] = json!("Pod");
    pod["apiVersion"] = json!("v1");
    let (pod, _) = check(Target::of(pods()), &pod, FieldValidation::Strict).expect("decodes");
    let typed: k8s_openapi::api::core::v1::Pod = pod.parse().expect("typed");
    assert_eq!(serde_json::to_value(typed).expect("JSON"), pod.0);
}

#[test]
fn nothing_that_a_client_sends_panics() {
    let bodies: [&[u8]; 12] = [
        b"null",
        b"[]",
        b"1",
        b"\"x\"",
        b"{}",
        b"\xff\xfe",
        b"{\"a\":",
        b"---",
        b"- a",
        b"\x00",
        b"k8s\x00",
        b"k8s\x00\x0a\xff",
    ];
    let deep = [b"[".repeat(100_000), b"{\"a\":".repeat(100_000)];
    for body in bodies.into_iter().chain(deep.iter().map(Vec::as_slice)) {
        for media_type in [MediaType::Json, MediaType::Yaml, MediaType::Protobuf] {
            if let Err(error) = decode(pods(), body, media_type, FieldValidation::Strict) {
                assert_eq!(error.code, 400, "{}", error.message);
            }
        }
    }
}

#[test]
fn findings_are_bounded() {
    let resource = resource::find("apps", "v1", "deployments").expect("deployments");
    let long = "k".repeat(100_000);
    let unknown: Vec<String> = (0..20_000).map(|i| format!(r#""u{i}":1"#)).collect();
    let long_path = format!(
        r#"{{"metadata":{{"labels":{{{}}}}}}}"#,
        format!(r#""{long}":"","#).repeat(20) + r#""a":"b""#
    );
    let rows = [
        (format!("{{{}}}", unknown.join(",")), 100),
        (format!(r#"{{"spec":{{{}"paused":true}}}}"#, r#""typo":1,"#.repeat(100_000)), 1),
        (long_path, 1),
    ];
    for (body, count) in rows {
        let read = decode(resource, body.as_bytes(), MediaType::Json, FieldValidation::Warn);
        assert_eq!(read.expect("read").1.len(), count, "{}", &body[..40]);
    }
}

#[test]
fn objects_are_no_deeper_than_clients_can_read() {
    let event = |levels: usize| {
        let fields = format!("{}1{}", r#"{"f:a":"#.repeat(levels), "}".repeat(levels));
        let body = format!(r#"{{"metadata":{{"name":"a","managedFields":[{{"fieldsV1":{fields}}}]}}}}"#);
        decode(secrets(), body.as_bytes(), MediaType::Json, FieldValidation::Warn).map(|_| ())
    };
    assert_eq!(event(100), Ok(()));
    let error = event(118).expect_err("too deep");
    assert!(error.message.ends_with("exceeded max depth"), "{}", error.message);
}
