use serde_json::{Value, json};

use super::*;
use crate::resource;

fn deployments() -> &'static Resource {
    resource::find("apps", "v1", "deployments").expect("a kind")
}

fn config_maps() -> &'static Resource {
    resource::find("", "v1", "configmaps").expect("a kind")
}

fn writer(manager: &str) -> Writer {
    Writer { manager: manager.into(), subresource: String::new(), time: "2026-01-01T00:00:00Z".into() }
}

fn config_map(data: Value) -> Object {
    Object::new(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": data}),
    )
}

fn deployment(spec: Value) -> Object {
    Object::new(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"}, "spec": spec}),
    )
}

fn applied(live: &Object, config: &Object, manager: &str) -> Result<Object, ApiError> {
    apply(resource_of(config), live, config, &writer(manager), Conflicts::Refuse)
}

fn resource_of(object: &Object) -> &'static Resource {
    if object.kind() == "Deployment" { deployments() } else { config_maps() }
}

/// The fields of a manager, in wire form.
fn fields(object: &Object, manager: &str) -> Value {
    let entries = object.array("/metadata/managedFields");
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    found.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn nothing() -> Object {
    Object::new(json!({}))
}

#[test]
fn an_applier_owns_what_it_names() {
    let made = applied(&nothing(), &config_map(json!({"a": "1", "b": "2"})), "one").expect("made");
    assert_eq!(made.0["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(fields(&made, "one"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let entry = &made.array("/metadata/managedFields")[0];
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("v1")));
}

#[test]
fn what_is_not_named_any_more_goes_unless_somebody_else_owns_it() {
    let made = applied(&nothing(), &config_map(json!({"a": "1", "b": "2", "c": "3"})), "one").expect("made");
    let shared =
        applied(&made, &config_map(json!({"b": "2"})), "two").expect("the same value is no conflict");
    let left = applied(&shared, &config_map(json!({"a": "1"})), "one").expect("applied");
    assert_eq!(left.0["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(fields(&left, "one"), json!({"f:data": {"f:a": {}}}));
    assert_eq!(fields(&left, "two"), json!({"f:data": {"f:b": {}}}));
}

#[test]
fn fields_of_others_are_not_changed_without_force() {
    let mut live = config_map(json!({"a": "1", "b": "2"}));
    track(config_maps(), None, &mut live, &writer("editor"));
    let config = config_map(json!({"a": "x", "b": "y"}));
    let error = applied(&live, &config_map(json!({"a": "x"})), "one").expect_err("a conflict");
    assert_eq!((error.code, error.reason), (409, Reason::Conflict));
    assert_eq!(error.message, r#"Apply failed with 1 conflict: conflict with "editor" using v1: .data.a"#);
    let error = applied(&live, &config, "one").expect_err("conflicts");
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"editor\" using v1:\n- .data.a\n- .data.b"
    );
    let causes = &error.details.expect("details").causes;
    assert_eq!((causes[1].reason.as_str(), causes[1].field.as_str()), ("FieldManagerConflict", ".data.b"));
    let forced = apply(config_maps(), &live, &config, &writer("one"), Conflicts::TakeOver).expect("forced");
    assert_eq!(forced.0["data"], json!({"a": "x", "b": "y"}));
    assert_eq!(fields(&forced, "editor"), json!({"f:data": {}}));
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let made = applied(&nothing(), &config_map(json!({"a": "1", "b": "2"})), "one").expect("made");
    let mut changed = made.clone();
    changed.0["data"] = json!({"a": "9", "c": "3"});
    track(config_maps(), Some(&made), &mut changed, &writer("editor"));
    assert_eq!(fields(&changed, "one"), Value::Null);
    assert_eq!(fields(&changed, "editor"), json!({"f:data": {"f:a": {}, "f:c": {}}}));
}

#[test]
fn lists_are_merged_by_their_keys() {
    let containers = |list: Value| deployment(json!({"template": {"spec": {"containers": list}}}));
    let made = applied(
        &nothing(),
        &containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])),
        "one",
    )
    .expect("made");
    let more =
        applied(&made, &containers(json!([{"name": "z", "image": "s"}, {"name": "b", "tty": true}])), "two")
            .expect("more");
    let names = |object: &Object| -> Vec<String> {
        let list = object.array("/spec/template/spec/containers");
        list.iter().map(|container| container["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&more), ["a", "z", "b"]);
    assert_eq!(
        more.array("/spec/template/spec/containers")[2],
        json!({"name": "b", "image": "y", "tty": true})
    );
    let expected = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
        r#"k:{"name":"b"}"#: {".": {}, "f:name": {}, "f:tty": {}},
        r#"k:{"name":"z"}"#: {".": {}, "f:image": {}, "f:name": {}},
    }}}}});
    assert_eq!(fields(&more, "two"), expected);
    let fewer = applied(&more, &containers(json!([{"name": "a", "image": "x"}])), "one").expect("fewer");
    assert_eq!(names(&fewer), ["a", "z", "b"]);
    assert_eq!(fewer.array("/spec/template/spec/containers")[2], json!({"name": "b", "tty": true}));
    let gone = applied(&fewer, &containers(json!([])), "two").expect("gone");
    assert_eq!(names(&gone), ["a"]);
}

#[test]
fn wholes_are_owned_as_wholes() {
    let spec =
        |selector: &str| deployment(json!({"selector": {"matchLabels": {"app": selector}}, "replicas": 2}));
    let made = applied(&nothing(), &spec("a"), "one").expect("made");
    assert_eq!(fields(&made, "one"), json!({"f:spec": {"f:replicas": {}, "f:selector": {}}}));
    let error = applied(&made, &spec("b"), "two").expect_err("a conflict");
    assert_eq!(error.message, r#"Apply failed with 1 conflict: conflict with "one": .spec.selector"#);
}

#[test]
fn what_does_not_fit_is_refused() {
    let start = "failed to create typed patch object (d/web; apps/v1, Kind=Deployment): ";
    let containers = |list: Value| json!({"template": {"spec": {"containers": list}}});
    for (spec, expected) in [
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (
            containers(json!([{"name": "a"}, {"name": "a"}])),
            r#".spec.template.spec.containers: duplicate entries for key [name="a"]"#,
        ),
        (
            containers(json!([{"image": "a"}])),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            containers(json!([{"name": "a", "nope": 1}])),
            r#".spec.template.spec.containers[name="a"].nope: field not declared in schema"#,
        ),
    ] {
        let error = applied(&nothing(), &deployment(spec), "one").expect_err(expected);
        assert_eq!((error.code, error.message), (500, format!("{start}{expected}")));
    }
    let mut config = config_map(json!({}));
    config.metadata_mut().insert("managedFields".into(), json!([{"manager": "m"}]));
    assert_eq!(applied(&nothing(), &config, "one").expect_err("refused").code, 400);
}

#[test]
fn objects_of_unknown_origin_get_an_owner_at_the_first_apply() {
    let mut live = config_map(json!({"a": "1"}));
    live.metadata_mut().insert("uid".into(), json!("u"));
    let error = applied(&live, &config_map(json!({"a": "2"})), "one").expect_err("a conflict");
    assert_eq!(
        error.message,
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a"#
    );
}

#[test]
fn a_creator_owns_everything_that_is_not_the_servers() {
    let mut made = deployment(
        json!({"replicas": 1, "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {}}], "nodeSelector": {"n": "m"}}}}),
    );
    made.metadata_mut().insert("uid".into(), json!("u"));
    made.metadata_mut().insert("labels".into(), json!({"x": "y"}));
    track(deployments(), None, &mut made, &writer("creator"));
    let expected = json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:containers": {r#"k:{"name":"c"}"#: {".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
            "f:ports": {".": {}, r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}}}}}, "f:nodeSelector": {}}}}});
    let found = fields(&made, "creator");
    assert_eq!(
        found["f:spec"]["f:template"]["f:spec"]["f:containers"][r#"k:{"name":"c"}"#],
        expected["f:spec"]["f:template"]["f:spec"]["f:containers"][r#"k:{"name":"c"}"#]
    );
    assert_eq!(found["f:metadata"], expected["f:metadata"]);
}

#[test]
fn many_updaters_are_merged() {
    let mut live = config_map(json!({}));
    for number in 0..30 {
        let old = live.clone();
        live.0["data"][format!("k{number}")] = json!("v");
        let at = format!("2026-01-01T00:00:{number:02}Z");
        track(config_maps(), Some(&old), &mut live, &Writer { time: at, ..writer(&format!("w{number}")) });
    }
    let entries = live.array("/metadata/managedFields");
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    let owned: usize = entries
        .iter()
        .map(|entry| {
            entry["fieldsV1"]["f:data"]
                .as_object()
                .map_or(0, |map| map.keys().filter(|key| *key != ".").count())
        })
        .sum();
    assert_eq!(owned, 30);
}

#[test]
fn names_come_from_the_user_agent() {
    for (agent, expected) in [
        ("kubectl/v1.36.3 (linux/amd64) kubernetes/abc", "kubectl"),
        ("curl", "curl"),
        ("", ""),
        ("a\nb/1", "ab"),
    ] {
        assert_eq!(manager_of_user_agent(agent), expected);
    }
    assert_eq!(manager_of_user_agent(&"ä".repeat(200)).len(), 128);
}

#[test]
fn clients_may_edit_the_owners() {
    let made = applied(&nothing(), &config_map(json!({"a": "1"})), "one").expect("made");
    let mut renamed = made.clone();
    renamed.0["metadata"]["managedFields"][0]["manager"] = json!("two");
    track(config_maps(), Some(&made), &mut renamed, &writer("editor"));
    assert_eq!(fields(&renamed, "two"), json!({"f:data": {"f:a": {}}}));
    let mut cleared = made.clone();
    cleared.0["metadata"]["managedFields"] = json!([{}]);
    track(config_maps(), Some(&made), &mut cleared, &writer("editor"));
    assert!(cleared.array("/metadata/managedFields").is_empty());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn data() -> impl Strategy<Value = Value> {
        let entries = prop::collection::btree_map("[a-d]", "[12]", 0..4);
        entries.prop_map(|map| json!(map))
    }

    proptest! {
        /// What appliers name is there, and what nobody names is not.
        #[test]
        fn the_object_is_the_union_of_what_is_applied(configs in prop::collection::vec((0..3usize, data()), 1..12)) {
            let mut live = nothing();
            let mut last: [Value; 3] = [json!({}), json!({}), json!({})];
            for (who, data) in configs {
                live = apply(config_maps(), &live, &config_map(data.clone()), &writer(&who.to_string()), Conflicts::TakeOver)
                    .expect("forced");
                // Whoever is overruled owns the field no longer.
                for (other, named) in last.iter_mut().enumerate().filter(|(other, _)| *other != who) {
                    let _ = other;
                    let overruled = |key: &String, value: &mut Value| data.get(key).is_none_or(|new| *new == *value);
                    if let Value::Object(map) = named { map.retain(overruled); }
                }
                last[who] = data;
                let mut expected = serde_json::Map::new();
                for named in &last {
                    expected.extend(named.as_object().expect("a map").clone());
                }
                let found = live.0.get("data").cloned().unwrap_or_else(|| json!({}));
                prop_assert_eq!(found, Value::Object(expected));
            }
        }

        #[test]
        fn no_owners_panic(text in "[fkvi:.{}\"a,0\\[\\]]{0,20}") {
            let mut live = config_map(json!({"a": "1"}));
            live.metadata_mut().insert("managedFields".into(), json!([{"operation": "Apply", "fieldsV1": {text: {}}}]));
            let _ = applied(&live, &config_map(json!({"b": "1"})), "one");
            track(config_maps(), None, &mut live, &writer("two"));
        }
    }
}
