//! Label and field selectors inside of objects (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`,
//! `pkg/apis/authorization/validation`).

use serde_json::Value;

use super::field::{Errors, at, child, index, list, text};
use crate::{Object, names};

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(selector: &Value, path: &str, errors: &mut Errors) {
    super::metadata::labels(selector, "matchLabels", &child(path, "matchLabels"), errors);
    for (i, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        let at = index(&child(path, "matchExpressions"), i);
        let operator = text(requirement, "operator");
        if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
            errors.invalid(child(&at, "operator"), operator, "not a valid selector operator");
        }
        label(requirement, &at, errors);
    }
}

/// By what an access review is narrowed. Operators that are not known are ignored later: clients may be newer.
pub(super) fn of_review(review: &Object, errors: &mut Errors) {
    let attributes = at(review, "/spec/resourceAttributes");
    for (name, check) in [("fieldSelector", field as Check), ("labelSelector", label as Check)] {
        if attributes[name].is_object() {
            asked(&attributes[name], &child("spec.resourceAttributes", name), check, errors);
        }
    }
}

/// Looks at one requirement of a selector.
type Check = fn(&Value, &str, &mut Errors);

fn asked(selector: &Value, path: &str, check: Check, errors: &mut Errors) {
    let (raw, requirements) = (text(selector, "rawSelector"), list(selector, "requirements"));
    match (raw.is_empty(), requirements.is_empty()) {
        (false, false) => errors.invalid(
            child(path, "rawSelector"),
            raw,
            "may not specified at the same time as requirements",
        ),
        (true, true) => errors.required(
            child(path, "requirements"),
            &format!("when {path} is specified, requirements or rawSelector is required"),
        ),
        _ => {}
    }
    for (i, requirement) in requirements.iter().enumerate() {
        check(requirement, &index(&child(path, "requirements"), i), errors);
    }
}

fn field(requirement: &Value, path: &str, errors: &mut Errors) {
    if text(requirement, "key").is_empty() {
        errors.required(child(path, "key"), "must be specified");
    }
    values_fit(requirement, path, errors);
}

fn label(requirement: &Value, path: &str, errors: &mut Errors) {
    values_fit(requirement, path, errors);
    let key = text(requirement, "key");
    errors.invalid_all(&child(path, "key"), key, names::qualified_name(key));
    for (i, value) in list(requirement, "values").iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&index(&child(path, "values"), i), value, names::label_value(value));
    }
}

fn values_fit(requirement: &Value, path: &str, errors: &mut Errors) {
    match (text(requirement, "operator"), list(requirement, "values").is_empty()) {
        ("In" | "NotIn", true) => {
            errors.required(child(path, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("Exists" | "DoesNotExist", false) => errors.forbidden(
            child(path, "values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::all;

    fn lines(kind: &str, review: &Object) -> Vec<String> {
        let resource = all().iter().find(|r| r.kind == kind).expect("a kind of review");
        let causes = super::super::create(resource, review);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn labels_are_checked_with_their_values() {
        let mut errors = Errors::default();
        let expression =
            |operator: &str, values: Value| json!({"key": "k", "operator": operator, "values": values});
        let expressions = json!([expression("In", json!(["not a value"])), expression("Gt", json!(["1"]))]);
        label_selector(&json!({"matchExpressions": expressions}), "s", &mut errors);
        let fields: Vec<String> = errors.into_causes().into_iter().map(|cause| cause.field).collect();
        assert_eq!(fields, ["s.matchExpressions[0].values[0]", "s.matchExpressions[1].operator"]);
    }

    #[test]
    fn reviews_are_narrowed_by_selectors() {
        const PATH: &str = "spec.resourceAttributes.";
        let label_key = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        let values = "must be specified when `operator` is 'In' or 'NotIn'";
        let no_values = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
        let of = |operator: &str, values: Value| json!({"key": "k", "operator": operator, "values": values});
        let rows = [
            (json!({"rawSelector": "a=b"}), vec![]),
            (
                json!({"rawSelector": "a", "requirements": [of("In", json!(["v"]))]}),
                vec![
                    r#".rawSelector: Invalid value: "a": may not specified at the same time as requirements"#
                        .into(),
                ],
            ),
            (
                json!({}),
                vec![format!(
                    ".requirements: Required value: when {PATH}@ is specified, requirements or rawSelector is required"
                )],
            ),
            (
                json!({"requirements": [of("NotIn", json!([])), of("Exists", json!(["v"])), of("Gt", json!([]))]}),
                vec![
                    format!(".requirements[0].values: Required value: {values}"),
                    format!(".requirements[1].values: Forbidden: {no_values}"),
                ],
            ),
        ];
        let check = |selector: &str, value: &Value, expected: &[String]| {
            let spec = json!({"user": "u", "resourceAttributes": {selector: value}});
            let expected: Vec<String> = expected
                .iter()
                .map(|line| format!("{PATH}{selector}{}", line.replace('@', selector)))
                .collect();
            for kind in ["SubjectAccessReview", "SelfSubjectAccessReview", "LocalSubjectAccessReview"] {
                let review = Object::new(json!({"spec": spec}));
                assert_eq!(lines(kind, &review), expected, "{kind} {value}");
            }
        };
        for (value, expected) in &rows {
            check("fieldSelector", value, expected);
            check("labelSelector", value, expected);
        }
        let keys = json!({"requirements": [{"key": "", "operator": "Exists"}, {"key": "a b", "operator": "Exists"}]});
        check("fieldSelector", &keys, &[".requirements[0].key: Required value: must be specified".into()]);
        check(
            "labelSelector",
            &keys,
            &[
                r#".requirements[0].key: Invalid value: "": name part must be non-empty"#.into(),
                format!(r#".requirements[0].key: Invalid value: "": {label_key}"#),
                format!(r#".requirements[1].key: Invalid value: "a b": {label_key}"#),
            ],
        );
        let long = json!({"requirements": [of("In", json!(["v", "w".repeat(64)]))]});
        check("fieldSelector", &long, &[]);
        let value = "w".repeat(64);
        check(
            "labelSelector",
            &long,
            &[format!(
                r#".requirements[0].values[1]: Invalid value: "{value}": must be no more than 63 bytes"#
            )],
        );
    }
}
