use serde_json::{Value, json};

use super::*;
use crate::resource;

fn labels(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

#[test]
fn label_selectors_match() {
    let web = json!({"app": "web", "tier": "front", "in": "in", "n": "5"});
    let rows = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app!=web", false),
        ("app!=db", true),
        ("missing!=x", true),
        ("app in (db,web)", true),
        ("app notin (db,web)", false),
        ("missing notin (a)", true),
        ("app", true),
        ("!app", false),
        ("!missing,app", true),
        ("in in (in)", true),
        ("n>4,n<6", true),
        ("n>5", false),
        ("app>1", false),
        ("app=", false),
        ("missing in ()", false),
        ("app in (,web)", true),
    ];
    for (text, expected) in rows {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.matches(labels(&web)), expected, "{text}");
    }
    assert!(LabelSelector::parse("!a").unwrap().matches(None));
    assert!(!LabelSelector::nothing().matches(labels(&web)));
}

#[test]
fn label_selectors_print_sorted() {
    let rows = [
        ("b=1,a==2", "a==2,b=1"),
        ("x in (c,a,b)", "x in (a,b,c)"),
        ("x notin (,a)", "x notin (,a)"),
        ("!y,z,w!=1,v>3", "v>3,w!=1,!y,z"),
    ];
    for (text, expected) in rows {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), expected);
    }
}

#[test]
fn label_selector_errors_are_upstreams() {
    let rows = [
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a==!", "unable to parse requirement: found '!', expected: identifier"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, expected) in rows {
        let error = LabelSelector::parse(text).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, expected), "{text}");
    }
    let starts = [
        ("a+b", "unable to parse requirement: <nil>: Invalid value: \"a+b\": name part must consist of"),
        ("a/b/c", "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"),
        ("/b", "unable to parse requirement: <nil>: Invalid value: \"/b\": prefix part must be non-empty"),
        (
            "UP/b",
            "unable to parse requirement: <nil>: Invalid value: \"UP/b\": prefix part a lowercase RFC 1123",
        ),
        ("a=-", "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be"),
    ];
    for (text, expected) in starts {
        let message = LabelSelector::parse(text).unwrap_err().message;
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn label_selector_objects() {
    let web = json!({"app": "web", "tier": "front"});
    let rows = [
        (Value::Null, false),
        (json!({}), true),
        (json!({"matchLabels": {"app": "web"}}), true),
        (json!({"matchLabels": {"app": "web", "tier": "back"}}), false),
        (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}), true),
        (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
        (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
        (
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}),
            false,
        ),
    ];
    for (selector, expected) in rows {
        assert_eq!(
            LabelSelector::from_value(&selector).unwrap().matches(labels(&web)),
            expected,
            "{selector}"
        );
    }
    let wrong = json!({"matchExpressions": [{"key": "app", "operator": "Near"}]});
    let error = LabelSelector::from_value(&wrong).unwrap_err();
    assert_eq!(error.message, "\"Near\" is not a valid label selector operator");
}

#[test]
fn field_selectors_match() {
    let pod = Object::new(json!({
        "metadata": {"name": "web", "namespace": "prod"},
        "spec": {"nodeName": "a", "restartPolicy": "Always"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}
    }));
    let pods = resource::find("", "v1", "pods").unwrap();
    let rows = [
        ("", true),
        ("metadata.name=web", true),
        ("metadata.name==web,metadata.namespace=prod", true),
        ("metadata.name!=web", false),
        ("spec.nodeName=a,status.phase!=Succeeded,status.phase!=Failed", true),
        ("spec.host=a", true),
        ("spec.nodeName=", false),
        ("spec.hostNetwork=false", true),
        ("status.podIP=10.0.0.1", true),
        ("status.nominatedNodeName=", true),
        (r"metadata.name=we\,b", false),
        (",,metadata.name=web", true),
    ];
    for (text, expected) in rows {
        assert_eq!(FieldSelector::parse(pods, text).unwrap().matches(pods, &pod), expected, "{text}");
    }
    let event = Object::new(json!({
        "involvedObject": {"kind": "Pod", "name": "web", "uid": "u"}, "reason": "Started", "type": "Normal",
        "source": {"component": "kubelet"}, "reportingComponent": "kubelet"
    }));
    let events = resource::find("", "v1", "events").unwrap();
    let rows = [
        ("involvedObject.uid=u,involvedObject.kind=Pod", true),
        ("reason=Started,type!=Warning,source=kubelet,reportingComponent=kubelet", true),
        ("involvedObject.name=db", false),
    ];
    for (text, expected) in rows {
        assert_eq!(FieldSelector::parse(events, text).unwrap().matches(events, &event), expected, "{text}");
    }
    let one = FieldSelector::parse(pods, "metadata.name=web").unwrap();
    assert_eq!((one.required("metadata.name"), one.required("metadata.namespace")), (Some("web"), None));
}

#[test]
fn field_selector_errors_are_upstreams() {
    let rows = [
        ("pods", "status.qosClass=x", "field label not supported: status.qosClass"),
        ("nodes", "status.phase=x", "field label not supported: status.phase"),
        ("events", "count=1", "field label not supported: count"),
        ("pods", "metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("pods", r"metadata.name=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("pods", "metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        (
            "configmaps",
            "data=x",
            r#""data" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
    ];
    for (plural, text, expected) in rows {
        let resource = resource::find("", "v1", plural).unwrap();
        let error = FieldSelector::parse(resource, text).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, expected), "{text}");
    }
}
