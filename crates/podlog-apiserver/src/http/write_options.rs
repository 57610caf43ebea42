//! Options of writes, as their query carries them (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`).

use podlog_api::query::Query;
use podlog_api::strict::FieldValidation;
use podlog_api::{ApiError, Cause, go, ownership};

/// What is asked for of a write.
#[derive(Debug)]
pub(crate) struct WriteOptions {
    /// Who owns what is written; empty where the request does not say.
    pub(crate) manager: String,
    /// Whether it is only to be tried.
    pub(crate) dry_run: bool,
    /// What becomes of fields that the kind does not have.
    pub(crate) validation: FieldValidation,
}

/// How something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    Create,
    Update,
    Delete,
    Patch,
    /// Server-side apply.
    Apply,
}

impl WriteOptions {
    /// Reads a query.
    ///
    /// # Errors
    /// 422 with all that is wrong.
    pub(crate) fn parse(query: &Query, writing: Writing) -> Result<Self, ApiError> {
        let (manager, dry_run) = (query.first("fieldManager").unwrap_or_default(), query.all("dryRun"));
        let validation = query.first("fieldValidation").unwrap_or_default();
        let mut causes = Vec::new();
        causes.extend(wrong_way(query, manager, writing));
        if writing != Writing::Delete {
            causes.extend(wrong_manager(manager));
        }
        if dry_run.iter().any(|value| value != "All") {
            let given = serde_json::Value::from(dry_run.clone());
            causes.push(unsupported("dryRun", &given.to_string(), r#""All""#));
        }
        let parsed = FieldValidation::parse(validation);
        if parsed.is_none() {
            let supported = r#""", "Ignore", "Strict", "Warn""#;
            causes.push(unsupported("fieldValidation", &go::quote(validation), supported));
        }
        match parsed {
            Some(validation) if causes.is_empty() => {
                Ok(WriteOptions { manager: manager.to_owned(), dry_run: !dry_run.is_empty(), validation })
            }
            _ => Err(ApiError::invalid("meta.k8s.io", writing.kind(), "", causes)),
        }
    }
}

impl Writing {
    fn kind(self) -> &'static str {
        match self {
            Writing::Create => "CreateOptions",
            Writing::Update => "UpdateOptions",
            Writing::Delete => "DeleteOptions",
            Writing::Patch | Writing::Apply => "PatchOptions",
        }
    }
}

/// Whoever applies says who they are, and nobody else takes fields over by force.
fn wrong_way(query: &Query, manager: &str, writing: Writing) -> Option<Cause> {
    match writing {
        Writing::Apply if manager.is_empty() => Some(cause(
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch".into(),
        )),
        Writing::Patch if query.first("force").is_some() => {
            let message = "Forbidden: may not be specified for non-apply patch";
            Some(cause("FieldValueForbidden", "force", message.into()))
        }
        _ => None,
    }
}

fn wrong_manager(manager: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let max = ownership::MAX_MANAGER_LENGTH;
    if manager.len() > max {
        let message = format!("Too long: may not be more than {max} bytes");
        causes.push(cause("FieldValueTooLong", "fieldManager", message));
    }
    for (at, character) in manager.char_indices().filter(|(_, character)| !go::is_printable(*character)) {
        let value = go::quote(manager);
        let what = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
        causes.push(cause("FieldValueInvalid", "fieldManager", format!("Invalid value: {value}: {what}")));
    }
    causes
}

fn unsupported(field: &str, value: &str, supported: &str) -> Cause {
    let message = format!("Unsupported value: {value}: supported values: {supported}");
    cause("FieldValueNotSupported", field, message)
}

fn cause(reason: &str, field: &str, message: String) -> Cause {
    Cause { reason: reason.to_owned(), message, field: field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_writes_are_refused_with_all_that_is_wrong() {
        use Writing::{Apply, Create, Delete, Patch, Update};
        let long = format!("fieldManager={}", "m".repeat(129));
        for (writing, query, expected) in [
            (Create, "", ""),
            (Create, "dryRun=All&dryRun=All&fieldManager=m&fieldValidation=Strict&force=true", ""),
            (
                Create,
                "dryRun=",
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: [""]: supported values: "All""#,
            ),
            (
                Update,
                "dryRun=All&dryRun=No&fieldValidation=No",
                concat!(
                    r#"UpdateOptions.meta.k8s.io "" is invalid: [dryRun: Unsupported value: ["All","No"]: supported values: "All", "#,
                    r#"fieldValidation: Unsupported value: "No": supported values: "", "Ignore", "Strict", "Warn"]"#
                ),
            ),
            (
                Update,
                &long,
                r#"UpdateOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#,
            ),
            (
                Patch,
                "fieldManager=a%0A&force=false",
                concat!(
                    r#"PatchOptions.meta.k8s.io "" is invalid: [force: Forbidden: may not be specified for non-apply patch, "#,
                    r#"fieldManager: Invalid value: "a\n": invalid character U+000A (at position 1)]"#
                ),
            ),
            (
                Apply,
                "force=true",
                r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
            ),
            (Apply, "force=true&fieldManager=m", ""),
            (
                Delete,
                "dryRun=x",
                r#"DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["x"]: supported values: "All""#,
            ),
        ] {
            let parsed = WriteOptions::parse(&Query::parse(query), writing);
            assert_eq!(parsed.err().map_or(String::new(), |error| error.message), expected, "{query}");
        }
    }
}
