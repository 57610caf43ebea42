//! Selectors as authorizers see them: by what a request, or a question about one, is narrowed.
//!
//! Requirements are joined by "and", so one that is left out makes the question a broader one; that is why what cannot be
//! understood is left out (`k8s.io/apiserver/pkg/endpoints/filters/authorization.go`,
//! `pkg/registry/authorization/util/helpers.go`).

use serde_json::Value;

use super::{FieldTerm, Operator, Requirement, field_terms, labels_text};

/// By what a request for many objects is narrowed; empty where it is not, or where nothing of it can be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// By fields.
    pub fields: Vec<SelectorRequirement>,
    /// By labels.
    pub labels: Vec<SelectorRequirement>,
}

/// One thing that the objects must fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorRequirement {
    /// A field's path or a label's key.
    pub key: String,
    /// What of it.
    pub operator: SelectorOperator,
    /// With what; empty for [`SelectorOperator::Exists`] and [`SelectorOperator::DoesNotExist`].
    pub values: Vec<String>,
}

/// What a requirement says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    /// The value is one of these.
    In,
    /// There is no value, or another one.
    NotIn,
    /// There is a value.
    Exists,
    /// There is none.
    DoesNotExist,
}

impl SelectorOperator {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SelectorOperator::In => "In",
            SelectorOperator::NotIn => "NotIn",
            SelectorOperator::Exists => "Exists",
            SelectorOperator::DoesNotExist => "DoesNotExist",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        use SelectorOperator::{DoesNotExist, Exists, In, NotIn};
        [In, NotIn, Exists, DoesNotExist].into_iter().find(|operator| operator.as_str() == text)
    }
}

impl Selectors {
    /// The selectors of a request, as its query has them.
    pub fn of_query(fields: &str, labels: &str) -> Self {
        Selectors {
            fields: raw_fields(fields).unwrap_or_default(),
            labels: raw_labels(labels).unwrap_or_default(),
        }
    }

    /// The selectors that an access review's `resourceAttributes` ask about, and what has to be said of those that were
    /// not understood (`evaluationError`).
    pub fn of_review(attributes: &Value) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let fields = Understood::of(&attributes["fieldSelector"], raw_fields, field);
        let labels = Understood::of(&attributes["labelSelector"], raw_labels, label);
        complaints.extend(fields.complaint("fieldSelector"));
        complaints.extend(labels.complaint("labelSelector"));
        (Selectors { fields: fields.requirements, labels: labels.requirements }, complaints)
    }
}

/// What is understood of a review's selector.
struct Understood {
    requirements: Vec<SelectorRequirement>,
    whole: bool,
}

impl Understood {
    /// The structured form counts where both are there.
    fn of(
        selector: &Value,
        raw: fn(&str) -> Option<Vec<SelectorRequirement>>,
        one: fn(&Value) -> Option<SelectorRequirement>,
    ) -> Self {
        let structured = selector["requirements"].as_array().filter(|list| !list.is_empty());
        let Some(structured) = structured else {
            let read = raw(selector["rawSelector"].as_str().unwrap_or_default());
            return Understood { whole: read.is_some(), requirements: read.unwrap_or_default() };
        };
        let requirements: Vec<_> = structured.iter().filter_map(one).collect();
        Understood { whole: requirements.len() == structured.len(), requirements }
    }

    fn complaint(&self, selector: &str) -> Option<String> {
        let partially = if self.requirements.is_empty() { "" } else { "partially " };
        let text = format!("spec.resourceAttributes.{selector} {partially}ignored due to parse error");
        (!self.whole).then_some(text)
    }
}

fn raw_fields(text: &str) -> Option<Vec<SelectorRequirement>> {
    let of_term = |FieldTerm { field, value, equal }| SelectorRequirement {
        key: field,
        operator: if equal { SelectorOperator::In } else { SelectorOperator::NotIn },
        values: vec![value],
    };
    Some(field_terms(text).ok()?.into_iter().map(of_term).collect())
}

fn raw_labels(text: &str) -> Option<Vec<SelectorRequirement>> {
    let mut requirements = labels_text::parse(text).ok()?;
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Some(requirements.into_iter().filter_map(comparable).collect())
}

/// Authorizers do not know of `Gt` and `Lt`.
fn comparable(requirement: Requirement) -> Option<SelectorRequirement> {
    let operator = match requirement.operator {
        Operator::Equals | Operator::DoubleEquals | Operator::In => SelectorOperator::In,
        Operator::NotEquals | Operator::NotIn => SelectorOperator::NotIn,
        Operator::Exists => SelectorOperator::Exists,
        Operator::DoesNotExist => SelectorOperator::DoesNotExist,
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    Some(SelectorRequirement { key: requirement.key, operator, values: requirement.values })
}

fn parts(requirement: &Value) -> Option<SelectorRequirement> {
    let values = requirement["values"].as_array().into_iter().flatten();
    Some(SelectorRequirement {
        key: requirement["key"].as_str().unwrap_or_default().to_owned(),
        operator: SelectorOperator::parse(requirement["operator"].as_str().unwrap_or_default())?,
        values: values.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

/// Fields can be compared with one value only.
fn field(requirement: &Value) -> Option<SelectorRequirement> {
    let compares = |operator| matches!(operator, SelectorOperator::In | SelectorOperator::NotIn);
    parts(requirement).filter(|read| compares(read.operator) && read.values.len() == 1)
}

fn label(requirement: &Value) -> Option<SelectorRequirement> {
    let read = parts(requirement)?;
    let operator = match read.operator {
        SelectorOperator::In => Operator::In,
        SelectorOperator::NotIn => Operator::NotIn,
        SelectorOperator::Exists => Operator::Exists,
        SelectorOperator::DoesNotExist => Operator::DoesNotExist,
    };
    Requirement::new(read.key.clone(), operator, read.values.clone()).ok()?;
    Some(read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `key operator [values]`, fields before labels.
    fn shown(selectors: &Selectors) -> String {
        let one =
            |r: &SelectorRequirement| format!("{} {} [{}]", r.key, r.operator.as_str(), r.values.join(","));
        let all = |list: &[SelectorRequirement]| list.iter().map(one).collect::<Vec<_>>().join("; ");
        format!("{} | {}", all(&selectors.fields), all(&selectors.labels))
    }

    #[test]
    fn queries_are_narrowed_as_far_as_they_are_understood() {
        for (fields, labels, expected) in [
            ("", "", " | "),
            (
                "spec.nodeName==n1,status.phase!=Failed",
                "",
                "spec.nodeName In [n1]; status.phase NotIn [Failed] | ",
            ),
            ("any.thing=a\\,b", "", "any.thing In [a,b] | "),
            ("a=b,junk", "a=b", " | a In [b]"),
            ("", "z in (b,a),!y,x,w!=1,v==2,u notin (c)", {
                " | u NotIn [c]; v In [2]; w NotIn [1]; x Exists []; y DoesNotExist []; z In [a,b]"
            }),
            ("", "a>1,b=2", " | b In [2]"),
            ("", "a in (", " | "),
        ] {
            assert_eq!(shown(&Selectors::of_query(fields, labels)), expected, "{fields} {labels}");
        }
    }

    #[test]
    fn reviews_ask_about_what_is_understood_of_them() {
        let of = |operator: &str, values: Value| json!({"key": "k", "operator": operator, "values": values});
        let fields = |list: Value| json!({"fieldSelector": {"requirements": list}});
        let labels = |list: Value| json!({"labelSelector": {"requirements": list}});
        let said = |selector: &str| format!("spec.resourceAttributes.{selector} due to parse error");
        let (field_lost, field_cut) =
            (said("fieldSelector ignored"), said("fieldSelector partially ignored"));
        let (label_lost, label_cut) =
            (said("labelSelector ignored"), said("labelSelector partially ignored"));
        let both = format!("{field_lost}; {label_lost}");
        let good = of("In", json!(["v"]));
        for (attributes, expected, complaint) in [
            (json!({}), " | ", ""),
            (json!({"fieldSelector": {"rawSelector": "k=v"}}), "k In [v] | ", ""),
            (json!({"fieldSelector": {"rawSelector": "k"}}), " | ", &field_lost),
            (json!({"labelSelector": {"rawSelector": "k in (v"}}), " | ", &label_lost),
            (
                json!({"labelSelector": {"rawSelector": "&"}, "fieldSelector": {"rawSelector": "&"}}),
                " | ",
                &both,
            ),
            (fields(json!([good, of("NotIn", json!(["w"]))])), "k In [v]; k NotIn [w] | ", ""),
            (fields(json!([good, of("Exists", json!([]))])), "k In [v] | ", &field_cut),
            (fields(json!([of("In", json!(["v", "w"]))])), " | ", &field_lost),
            (fields(json!([of("Like", json!(["v"]))])), " | ", &field_lost),
            (
                labels(json!([of("In", json!(["v", "w"])), of("Exists", json!([]))])),
                " | k In [v,w]; k Exists []",
                "",
            ),
            (labels(json!([of("Like", json!(["v"])), good])), " | k In [v]", &label_cut),
            (labels(json!([of("In", json!(["not a value"]))])), " | ", &label_lost),
        ] {
            let (selectors, complaints) = Selectors::of_review(&attributes);
            assert_eq!(
                (shown(&selectors).as_str(), complaints.join("; ").as_str()),
                (expected, complaint),
                "{attributes}"
            );
        }
    }
}
