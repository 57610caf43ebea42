//! What names may look like: `k8s.io/apimachinery/pkg/util/validation`, `…/pkg/api/validate/content` and
//! `…/pkg/api/validation/path`.
//!
//! Every function returns what is wrong with a value; nothing when it is right.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
     with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
     start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
     character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
     is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn check(value: &str, max: usize, is_right: impl FnOnce(&str) -> bool, wrong: &str) -> Vec<String> {
    let mut details = Vec::new();
    if value.len() > max {
        details.push(too_long(max));
    }
    if !is_right(value) {
        details.push(wrong.to_owned());
    }
    details
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `first [middle]* last` with different sets of characters.
fn is_word(value: &str, ends: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => ends(*first) && ends(*last) && bytes.iter().all(|b| middle(*b)),
        _ => false,
    }
}

fn is_dns_label(value: &str) -> bool {
    is_word(value, is_lower_alphanumeric, |b| is_lower_alphanumeric(b) || b == b'-')
}

/// Whether a name is an RFC 1123 subdomain, as the names of nodes are.
pub fn is_dns_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns_label)
}

fn is_qualified_word(value: &str) -> bool {
    is_word(value, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// RFC 1123 label.
pub(crate) fn dns_label(value: &str) -> Vec<String> {
    let wrong = if is_dns_subdomain(value) { "must not contain dots" } else { DNS_LABEL };
    check(value, LABEL_MAX, is_dns_label, wrong)
}

/// RFC 1123 subdomain.
pub(crate) fn dns_subdomain(value: &str) -> Vec<String> {
    check(value, SUBDOMAIN_MAX, is_dns_subdomain, DNS_SUBDOMAIN)
}

/// RFC 1035 label.
pub(crate) fn dns_1035_label(value: &str) -> Vec<String> {
    let is_right = |value: &str| is_dns_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    check(value, LABEL_MAX, is_right, DNS_1035_LABEL)
}

/// A label key: a name, optionally with a domain in front.
pub(crate) fn qualified_name(value: &str) -> Vec<String> {
    let mut details = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                details.push("prefix part must be non-empty".to_owned());
            } else {
                details
                    .extend(dns_subdomain(prefix).into_iter().map(|detail| format!("prefix part {detail}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        details.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        details.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified_word(name) {
        details.push(format!("name part {QUALIFIED}"));
    }
    details
}

/// A label's value.
pub(crate) fn label_value(value: &str) -> Vec<String> {
    check(value, LABEL_MAX, |value| value.is_empty() || is_qualified_word(value), LABEL_VALUE)
}

/// A key of a config map or secret.
pub(crate) fn config_key(value: &str) -> Vec<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let mut details =
        check(value, SUBDOMAIN_MAX, |value| !value.is_empty() && value.bytes().all(allowed), CONFIG_KEY);
    match value {
        "." => details.push("must not be '.'".to_owned()),
        ".." => details.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => details.push("must not start with '..'".to_owned()),
        _ => {}
    }
    details
}

/// A name that stands in a path as it is, such as a role's: nearly anything.
pub(crate) fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    let contained = ["/", "%"].into_iter().filter(|part| value.contains(part));
    contained.map(|part| format!("may not contain '{part}'")).collect()
}

/// Name of an environment variable.
pub(crate) fn environment_variable(value: &str) -> Vec<String> {
    let allowed = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    if value.bytes().all(allowed) { Vec::new() } else { vec![ENV_NAME.to_owned()] }
}

/// Name of a port.
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let rules: [(bool, &str); 5] = [
        (value.len() > 15, "must be no more than 15 bytes"),
        (
            !value.bytes().all(|b| is_lower_alphanumeric(b) || b == b'-') || value.is_empty(),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!value.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (value.contains("--"), "must not contain consecutive hyphens"),
        (value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule.to_owned()).collect()
}

/// Number of a port.
pub(crate) fn port_number(value: i64) -> Option<&'static str> {
    (!(1..=65_535).contains(&value)).then_some("must be between 1 and 65535, inclusive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        type Rule = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let rows: Vec<(Rule, &str, Vec<&str>)> = vec![
            (dns_label, "web-1", vec![]),
            (dns_label, "Web", vec![DNS_LABEL]),
            (dns_label, "a.b", vec!["must not contain dots"]),
            (dns_label, "a..b", vec![DNS_LABEL]),
            (dns_label, &long, vec!["must be no more than 63 bytes"]),
            (dns_subdomain, "a.b-c", vec![]),
            (dns_subdomain, "a..b", vec![DNS_SUBDOMAIN]),
            (dns_subdomain, "a_b", vec![DNS_SUBDOMAIN]),
            (dns_1035_label, "abc", vec![]),
            (dns_1035_label, "1abc", vec![DNS_1035_LABEL]),
            (qualified_name, "app.kubernetes.io/name", vec![]),
            (qualified_name, "/name", vec!["prefix part must be non-empty"]),
            (qualified_name, "a.b/c_D", vec![]),
            (label_value, "", vec![]),
            (label_value, "-", vec![LABEL_VALUE]),
            (config_key, "a.conf", vec![]),
            (config_key, "..", vec!["must not be '..'"]),
            (config_key, "a b", vec![CONFIG_KEY]),
            (path_segment, "system:node", vec![]),
            (path_segment, "a/b%", vec!["may not contain '/'", "may not contain '%'"]),
            (environment_variable, "my.VAR-1", vec![]),
            (environment_variable, "a=b", vec![ENV_NAME]),
            (port_name, "http", vec![]),
            (
                port_name,
                "-",
                vec!["must contain at least one letter (a-z)", "must not begin or end with a hyphen"],
            ),
        ];
        for (rule, value, expected) in rows {
            assert_eq!(rule(value), expected, "{value}");
        }
        assert!(qualified_name("a/b/c")[0].ends_with("(e.g. 'example.com/MyName')"));
        assert_eq!(qualified_name("").len(), 2);
        assert_eq!(
            (port_number(80), port_number(0).is_some(), port_number(65_536).is_some()),
            (None, true, true)
        );
    }
}
