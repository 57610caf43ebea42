use serde_json::json;

use super::*;
use crate::resource;

fn pods() -> &'static Resource {
    resource::find("", "v1", "pods").unwrap()
}

fn patched(patch_type: PatchType, original: &Value, patch: &Value) -> Result<Value, ApiError> {
    let patch = patch.to_string();
    apply(pods(), patch_type, &Object(original.clone()), patch.as_bytes()).map(|object| object.0)
}

fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn json_patches() {
    let original = json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
    let rows = [
        (json!([]), original.clone()),
        (
            json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}]),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "list": [1, 2]}),
        ),
        (
            json!([{"op": "test", "path": "/list/0", "value": 1}, {"op": "remove", "path": "/list/0"}]),
            json!({"metadata": {"labels": {"a": "1"}}, "list": [2]}),
        ),
        (
            json!([{"op": "add", "path": "/list/-", "value": 3}, {"op": "replace", "path": "/metadata", "value": null}]),
            json!({"list": [1, 2, 3]}),
        ),
        (
            json!([{"op": "move", "from": "/list", "path": "/other"}, {"op": "copy", "from": "/metadata/labels", "path": "/c"}]),
            json!({"metadata": {"labels": {"a": "1"}}, "other": [1, 2], "c": {"a": "1"}}),
        ),
    ];
    for (patch, expected) in rows {
        assert_eq!(patched(PatchType::Json, &original, &patch).unwrap(), expected, "{patch}");
    }
}

#[test]
fn json_patch_errors() {
    let doubling = |count: usize| -> Vec<Value> {
        (0..count).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect()
    };
    let many = |count: usize| vec![json!({"op": "test", "path": "/a/b", "value": 1}); count];
    let rejected = "the server rejected our request due to an error in our request";
    let rows = [
        (json!([{"op": "test", "path": "/a/b", "value": 2}]), 422, rejected),
        (json!([{"op": "remove", "path": "/missing"}]), 422, rejected),
        (json!([{"op": "jump", "path": "/a"}]), 422, rejected),
        (json!([{"op": "add", "path": "", "value": 7}]), 422, rejected),
        (json!(doubling(40)), 422, rejected),
        (
            json!({"op": "add"}),
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            json!(["x"]),
            400,
            "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp",
        ),
        (
            json!(many(10_001)),
            413,
            "Request entity is too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
    ];
    for (patch, code, message) in rows {
        let error = patched(PatchType::Json, &json!({"a": {"b": 1}}), &patch).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
    assert!(patched(PatchType::Json, &json!({"a": {"b": 1}}), &json!(many(10_000))).is_ok());
}

#[test]
fn merge_patches() {
    let original = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
    let rows = [
        (json!({}), original.clone()),
        (json!({"a": {"b": null}}), json!({"a": {"c": [1, 2]}, "d": "x"})),
        (json!({"a": {"c": [3]}}), json!({"a": {"b": 1, "c": [3]}, "d": "x"})),
        (json!({"d": {"e": null, "f": 1}}), json!({"a": {"b": 1, "c": [1, 2]}, "d": {"f": 1}})),
        (json!({"a": "flat"}), json!({"a": "flat", "d": "x"})),
    ];
    for (patch, expected) in rows {
        assert_eq!(patched(PatchType::Merge, &original, &patch).unwrap(), expected, "{patch}");
    }
    let error = patched(PatchType::Merge, &original, &json!([1])).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    );
}

#[test]
fn strategic_patches() {
    let containers = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    let env = |list: Value| spec(json!({"containers": [{"name": "a", "env": list}]}));
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let rows = [
        // lists that merge by key: changed in place, new ones at the end
        (
            spec(json!({"containers": containers})),
            spec(json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}]})),
            spec(
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]}),
            ),
        ),
        (
            spec(json!({"containers": containers})),
            spec(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
            spec(json!({"containers": [{"name": "b", "image": "1"}]})),
        ),
        (
            spec(json!({"containers": containers})),
            spec(json!({"containers": [{"name": "z"}, {"$patch": "replace"}]})),
            spec(json!({"containers": [{"name": "z"}]})),
        ),
        (
            spec(json!({"containers": containers})),
            spec(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
            spec(json!({"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]})),
        ),
        (
            spec(json!({"containers": [{"name": "s0"}, {"name": "a"}, {"name": "s1"}, {"name": "b"}]})),
            spec(json!({
                "$setElementOrder/containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}],
                "containers": [{"name": "n"}],
            })),
            spec(
                json!({"containers": [{"name": "s0"}, {"name": "s1"}, {"name": "b"}, {"name": "n"}, {"name": "a"}]}),
            ),
        ),
        // nested lists, and null
        (
            env(json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}])),
            env(json!([{"name": "Y", "value": null, "valueFrom": {"a": 1}}, {"name": "Z", "value": null}])),
            env(json!([{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"a": 1}}, {"name": "Z"}])),
        ),
        // lists that replace
        (
            spec(json!({"tolerations": [{"key": "a"}]})),
            spec(json!({"tolerations": [{"key": "b"}]})),
            spec(json!({"tolerations": [{"key": "b"}]})),
        ),
        (
            spec(json!({"containers": [{"name": "a", "command": ["x", "y"]}]})),
            spec(json!({"containers": [{"name": "a", "command": ["z"]}]})),
            spec(json!({"containers": [{"name": "a", "command": ["z"]}]})),
        ),
        // lists of values that unite
        (finalizers(json!(["a", "b"])), finalizers(json!(["b", "c"])), finalizers(json!(["a", "b", "c"]))),
        (
            finalizers(json!(["a", "b", "c"])),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}}),
            finalizers(json!(["a", "c"])),
        ),
        (
            finalizers(json!(["a", "b"])),
            json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"], "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["b"]}}),
            finalizers(json!(["c", "a"])),
        ),
        // maps
        (
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
        ),
        (
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        ),
        (
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            spec(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
            spec(
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
            ),
            spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]})),
        ),
        // nothing there before
        (
            json!({}),
            json!({"spec": {"containers": [{"name": "a", "x": null}, {"name": "b", "$patch": "delete"}],
                "$setElementOrder/containers": [{"name": "a"}]}, "$retainKeys": ["spec"]}),
            spec(json!({"containers": [{"name": "a"}]})),
        ),
    ];
    for (original, patch, expected) in rows {
        assert_eq!(patched(PatchType::Strategic, &original, &patch).unwrap(), expected, "{patch}");
    }
}

#[test]
fn strategic_patch_errors() {
    let containers = spec(json!({"containers": [{"name": "a"}]}));
    let rows = [
        (
            spec(json!({"containers": [{"image": "x"}]})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (spec(json!({"$patch": "upsert"})), 500, "unknown patch type: upsert in map: map[$patch:upsert]"),
        (
            spec(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            spec(json!({"containers": [["a"]]})),
            422,
            "the server rejected our request due to an error in our request",
        ),
        (spec(json!({"$retainKeys": "x"})), 400, "invalid patch format of retainKeys"),
        (spec(json!({"$retainKeys": ["a"], "b": 1})), 400, "invalid patch format of retainKeys"),
        (
            spec(json!({"$setElementOrder/containers": 1})),
            400,
            "invalid patch format of setElementOrder list",
        ),
        (spec(json!({"$deleteFromPrimitiveList": ["a"]})), 400, "invalid patch format of primitive list"),
        (
            spec(json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]})),
            500,
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
    ];
    for (patch, code, message) in rows {
        let error = patched(PatchType::Strategic, &containers, &patch).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{patch}");
    }
    let error = apply(pods(), PatchType::Strategic, &Object(containers), b"{").unwrap_err();
    assert_eq!(error.code, 400);
}

/// What `kubectl apply` computes, and that applying it to the live object gives what the manifest wants.
#[test]
fn three_way_patches() {
    let rows = [
        (json!({}), spec(json!({"a": 1})), spec(json!({"a": 1, "server": true})), json!({}), None),
        // a field that the manifest no longer has
        (
            spec(json!({"hostname": "x", "subdomain": "y"})),
            spec(json!({"hostname": "z"})),
            spec(json!({"hostname": "x", "subdomain": "y", "nodeName": "n"})),
            spec(json!({"hostname": "z", "subdomain": null})),
            Some(spec(json!({"hostname": "z", "nodeName": "n"}))),
        ),
        // an element that the manifest no longer has, one that is new, one that only the server knows
        (
            spec(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]})),
            spec(json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}]})),
            spec(
                json!({"containers": [{"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "b"}, {"name": "sidecar"}]}),
            ),
            spec(json!({
                "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
                "containers": [{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b", "$patch": "delete"}],
            })),
            Some(spec(
                json!({"containers": [{"name": "a", "image": "2", "imagePullPolicy": "Always"}, {"name": "c"}, {"name": "sidecar"}]}),
            )),
        ),
        // a volume that changes its kind
        (
            spec(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
            spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]})),
            spec(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
            spec(json!({
                "$setElementOrder/volumes": [{"name": "v"}],
                "volumes": [{"name": "v", "emptyDir": null, "hostPath": {"path": "/x"}, "$retainKeys": ["hostPath", "name"]}],
            })),
            Some(spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}))),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["c", "a"]}}),
            json!({"metadata": {"finalizers": ["a", "b", "server"]}}),
            json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"], "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["b"]}}),
            Some(json!({"metadata": {"finalizers": ["c", "a", "server"]}})),
        ),
        (
            json!({"metadata": {"annotations": {"old": "1", "keep": "1"}}}),
            json!({"metadata": {"annotations": {"keep": "2"}}}),
            json!({"metadata": {"annotations": {"old": "1", "keep": "1", "server": "1"}}}),
            json!({"metadata": {"annotations": {"old": null, "keep": "2"}}}),
            Some(json!({"metadata": {"annotations": {"keep": "2", "server": "1"}}})),
        ),
        // one port, two protocols
        (
            spec(
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]}),
            ),
            spec(
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]}),
            ),
            spec(
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]}),
            ),
            json!({}),
            None,
        ),
    ];
    for (last, modified, current, expected, result) in rows {
        let patch = three_way(pods(), &last, &modified, &current).unwrap();
        assert_eq!(patch, expected, "{modified}");
        let applied = patched(PatchType::Strategic, &current, &patch).unwrap();
        assert_eq!(applied, result.unwrap_or(current), "{patch}");
    }
}

#[test]
fn unreadable_patches() {
    let rows = [
        (PatchType::Strategic, "{", "unexpected end of JSON input"),
        (PatchType::Strategic, "nonsense", "invalid character 'o' in literal"),
        (
            PatchType::Strategic,
            r#""nonsense""#,
            "json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
        (PatchType::Merge, "{]", "error decoding patch: invalid character"),
        (PatchType::Json, "[1,", "error decoding patch: unexpected end of JSON input"),
    ];
    for (patch_type, patch, message) in rows {
        let error = apply(pods(), patch_type, &Object(json!({})), patch.as_bytes()).unwrap_err();
        assert_eq!(error.code, 400, "{patch}");
        assert!(error.message.starts_with(message), "{patch}: {}", error.message);
    }
}

#[test]
fn patches_cannot_nest_without_end() {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({"a": deep});
    }
    let nest = "/a".repeat(100);
    let rows = [
        // Doubles the depth with each operation.
        (1..8).map(|i| json!({"op": "copy", "from": "/a", "path": "/a".repeat(100 << i)})).collect(),
        (1..3000)
            .flat_map(|_| {
                let bottom = format!("/b{nest}");
                [
                    json!({"op": "add", "path": "/b", "value": deep}),
                    json!({"op": "move", "from": "/a", "path": bottom}),
                    json!({"op": "move", "from": "/b", "path": "/a"}),
                ]
            })
            .collect(),
        vec![json!({"op": "add", "path": nest, "value": deep})],
    ];
    for patch in rows {
        let error = patched(PatchType::Json, &deep, &Value::Array(patch)).unwrap_err();
        assert_eq!(error.code, 422);
    }
}

/// Lists of ten thousand elements: what is quadratic takes minutes here.
#[test]
fn long_lists_merge_in_reasonable_time() {
    const LENGTH: usize = 10_000;
    let variables = |value: &str| -> Vec<Value> {
        (0..LENGTH).map(|i| json!({"name": format!("V{i}"), "value": value})).collect()
    };
    let with = |env: Vec<Value>| spec(json!({"containers": [{"name": "a", "env": env}]}));
    let finalizers = |range: std::ops::Range<usize>| -> Value {
        let list: Vec<Value> = range.map(|i| json!(format!("example.com/{i}"))).collect();
        json!({"metadata": {"finalizers": list}})
    };
    let deletes = (0..LENGTH).map(|i| json!({"name": format!("V{i}"), "$patch": "delete"})).collect();
    let mut reversed = variables("2");
    reversed.reverse();
    let started = std::time::Instant::now();
    let count =
        |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_array).unwrap().len();
    let env = "/spec/containers/0/env";
    for (patch, left) in
        [(with(variables("2")), LENGTH), (with(reversed.clone()), LENGTH), (with(deletes), 0)]
    {
        let merged = patched(PatchType::Strategic, &with(variables("1")), &patch).unwrap();
        assert_eq!(count(&merged, env), left);
    }
    let merged =
        patched(PatchType::Strategic, &finalizers(0..LENGTH), &finalizers(LENGTH / 2..LENGTH + LENGTH / 2));
    assert_eq!(count(&merged.unwrap(), "/metadata/finalizers"), LENGTH + LENGTH / 2);
    let (old, new) = (with(variables("1")), with(reversed));
    let patch = three_way(pods(), &old, &new, &old).unwrap();
    assert_eq!(patched(PatchType::Strategic, &old, &patch).unwrap(), new);
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}
