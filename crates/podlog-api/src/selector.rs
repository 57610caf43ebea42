//! Label and field selectors: query text, `LabelSelector` objects, and what they match.
//!
//! Grammar and texts as `k8s.io/apimachinery/pkg/labels`, `pkg/fields` and `pkg/apis/meta/v1/helpers.go`; the fields that
//! can be selected by are those of `pkg/apis/*/v1/conversion.go` and the `ToSelectableFields` of `pkg/registry`.

use std::fmt;

use serde_json::{Map, Value};

use crate::{ApiError, Object, resource::Resource};

mod asked;
mod labels_text;

pub use asked::{SelectorOperator, SelectorRequirement, Selectors};

/// Says which labels an object must and must not have; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Parses the text of `labelSelector=` or `-l`, e.g. `app=web,tier in (a,b),!canary`.
    ///
    /// # Errors
    /// 400 with upstream's text.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut requirements = labels_text::parse(text).map_err(ApiError::bad_request)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object (`matchLabels`, `matchExpressions`). `null` selects nothing, `{}` everything.
    ///
    /// # Errors
    /// 400 when an operator, key or value is not valid.
    pub fn from_value(selector: &Value) -> Result<Self, ApiError> {
        let Some(map) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut requirements = equalities(map.get("matchLabels"))?;
        for expression in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Reads a plain map of labels that must all be equal, such as `spec.selector` of a Service or `spec.nodeSelector`.
    ///
    /// # Errors
    /// 400 when a key or value is not valid.
    pub fn from_labels(labels: &Value) -> Result<Self, ApiError> {
        Ok(LabelSelector { requirements: equalities(Some(labels))?, nothing: false })
    }

    /// The selector that matches no object.
    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object with these labels (`metadata.labels`; `None` for none) is selected.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether an object is selected by its labels.
    pub fn matches_object(&self, object: &Object) -> bool {
        self.matches(object.at("/metadata/labels").and_then(Value::as_object))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl Requirement {
    /// Checks key and values as `labels.NewRequirement` does; the error is its text.
    fn new(key: String, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let mut problems: Vec<String> = Vec::new();
        problems.extend(labels_text::key_problem("key", &key));
        problems.extend(Self::count_problem(operator, &values));
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            problems.extend(values.iter().enumerate().filter_map(|(i, value)| {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                value
                    .parse::<i64>()
                    .is_err()
                    .then(|| format!("values[{i}]: Invalid value: {value:?}: {text}"))
            }));
        }
        problems.extend(
            values
                .iter()
                .enumerate()
                .filter_map(|(i, v)| labels_text::value_problem(&format!("values[{i}][{key}]"), v)),
        );
        match problems.as_slice() {
            [] => Ok(Requirement { key, operator, values }),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    fn count_problem(operator: Operator, values: &[String]) -> Option<String> {
        let (wrong, text) = match operator {
            Operator::In | Operator::NotIn => {
                (values.is_empty(), "for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Exists | Operator::DoesNotExist => {
                (!values.is_empty(), "values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan => {
                (values.len() != 1, "for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => (values.len() != 1, "exact-match compatibility requires one single value"),
        };
        let list: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        wrong.then(|| format!("values: Invalid value: [{}]: {text}", list.join(",")))
    }

    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = labels.and_then(|labels| labels.get(&self.key)).and_then(Value::as_str);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |have, want| have > want),
            Operator::LessThan => self.compares(value, |have, want| have < want),
        }
    }

    fn compares(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let have = value.and_then(|value| value.parse().ok());
        let want = self.values.first().and_then(|value| value.parse().ok());
        have.zip(want).is_some_and(|(have, want)| holds(have, want))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.clone();
        values.sort();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

fn equalities(labels: Option<&Value>) -> Result<Vec<Requirement>, ApiError> {
    let pairs = labels.and_then(Value::as_object).into_iter().flatten();
    pairs
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default().to_owned();
            Requirement::new(key.clone(), Operator::Equals, vec![value]).map_err(ApiError::bad_request)
        })
        .collect()
}

fn expression_requirement(expression: &Value) -> Result<Requirement, ApiError> {
    let operator = match expression["operator"].as_str().unwrap_or_default() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        // Node selectors have these two more (`k8s.io/component-helpers/scheduling/corev1/nodeaffinity`).
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        other => {
            return Err(ApiError::bad_request(format!("{other:?} is not a valid label selector operator")));
        }
    };
    let key = expression["key"].as_str().unwrap_or_default().to_owned();
    let values = expression["values"].as_array().into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    Requirement::new(key, operator, values).map_err(ApiError::bad_request)
}

/// Says which values fields of an object must and must not have; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses the text of `fieldSelector=`, e.g. `spec.nodeName=a,status.phase!=Failed`, for objects of one kind.
    ///
    /// # Errors
    /// 400 when the text cannot be understood or the kind cannot be selected by a field of it.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, ApiError> {
        let mut terms = field_terms(text).map_err(ApiError::bad_request)?;
        for term in &mut terms {
            term.field = supported(resource, &term.field).map_err(ApiError::bad_request)?;
        }
        Ok(FieldSelector { terms })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object of `resource` is selected.
    pub fn matches(&self, resource: &Resource, object: &Object) -> bool {
        self.terms
            .iter()
            .all(|term| (field_value(kind_of(resource), object, &term.field) == term.value) == term.equal)
    }

    /// The value that a field must have, if the selector asks for exactly one: `metadata.name` of a single-object watch.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

/// The terms of a field selector's text, whatever they are about; the error is upstream's text.
fn field_terms(text: &str) -> Result<Vec<FieldTerm>, String> {
    let mut parts = split_terms(text);
    parts.sort_unstable();
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (field, equal, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            Ok(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal })
        })
        .collect()
}

/// Group and kind, which is what selectable fields hang on.
fn kind_of(resource: &Resource) -> (&str, &str) {
    (resource.group, resource.kind)
}

fn supported(resource: &Resource, label: &str) -> Result<String, String> {
    let common = matches!(label, "metadata.name" | "metadata.namespace");
    let own: &[&str] = match kind_of(resource) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") => &["status.replicas"],
        ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        ("certificates.k8s.io", "CertificateSigningRequest") => &["spec.signerName"],
        ("" | "events.k8s.io", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ if common => &[],
        _ => {
            let names = r#""metadata.name", "metadata.namespace""#;
            return Err(format!("{label:?} is not a known field selector: only {names}"));
        }
    };
    // Renamed long ago, still accepted.
    let label = if label == "spec.host" && resource.kind == "Pod" { "spec.nodeName" } else { label };
    if common || own.contains(&label) {
        return Ok(label.to_owned());
    }
    Err(match kind_of(resource) {
        ("batch", "Job") => format!("field label {label:?} not supported for Job"),
        _ => format!("field label not supported: {label}"),
    })
}

fn field_value(kind: (&str, &str), object: &Object, field: &str) -> String {
    match (kind, field) {
        (("", "Pod"), "spec.hostNetwork") => flag(object, "/spec/hostNetwork"),
        (("", "Pod"), "status.podIP") => object.text("/status/podIPs/0/ip").to_owned(),
        (("", "Pod"), "status.podIPs") => pod_ips(object),
        (("", "Node"), "spec.unschedulable") => flag(object, "/spec/unschedulable"),
        (("batch", "Job"), "status.successful") => number(object, "/status/succeeded"),
        ((_, "ReplicaSet" | "ReplicationController"), "status.replicas") => {
            number(object, "/status/replicas")
        }
        ((_, "Event"), _) => event_field(object, field),
        _ => object.text(&format!("/{}", field.replace('.', "/"))).to_owned(),
    }
}

/// Both spellings of an event: `v1` (`involvedObject`, `source`) and `events.k8s.io/v1` (`regarding`, `deprecatedSource`).
fn event_field(object: &Object, field: &str) -> String {
    let first = |pointers: &[&str]| -> String {
        let mut texts = pointers.iter().map(|pointer| object.text(pointer));
        texts.find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    let component =
        ["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"];
    match field.split_once('.') {
        Some(("involvedObject", rest)) => {
            first(&[&format!("/involvedObject/{rest}"), &format!("/regarding/{rest}")])
        }
        _ if field == "source" => first(&component),
        _ if field == "reportingComponent" => first(&component[2..]),
        _ => first(&[&format!("/{}", field.replace('.', "/"))]),
    }
}

fn pod_ips(object: &Object) -> String {
    let ips: Vec<&str> = object.array("/status/podIPs").iter().filter_map(|ip| ip["ip"].as_str()).collect();
    ips.join(",")
}

fn flag(object: &Object, pointer: &str) -> String {
    object.at(pointer).and_then(Value::as_bool).unwrap_or_default().to_string()
}

fn number(object: &Object, pointer: &str) -> String {
    object.integer(pointer).unwrap_or_default().to_string()
}

/// The terms between commas that are not escaped by a backslash.
pub(crate) fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

pub(crate) fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (index, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[index..].strip_prefix(operator) {
                return Some((&term[..index], equal, value));
            }
        }
    }
    None
}

pub(crate) fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => {
                let code = u32::from(character);
                return Err(format!("invalid field selector: unescaped character in value: {code}"));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
