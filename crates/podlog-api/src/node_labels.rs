//! Which labels of its own Node a kubelet may set.

use std::collections::BTreeMap;

use crate::names;

/// Labels of this domain are not for kubelets: administrators steer pods by them.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Labels in Kubernetes' domains that kubelets may set (`k8s.io/kubelet/pkg/apis/well_known_labels.go`).
const LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// And all of these domains.
const DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a kubelet may set a label of its Node: any outside of Kubernetes' own domains, and few inside
/// (`plugin/pkg/admission/noderestriction`).
pub fn is_for_kubelets(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |of: &str| domain.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if within(RESTRICTED_DOMAIN) {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes || LABELS.contains(&label) || DOMAINS.iter().any(|of| within(of))
}

/// What is wrong with labels that a kubelet is told to register with, in upstream's words (`ValidateKubeletFlags` of
/// `cmd/kubelet/app/options/options.go`).
pub fn wrong_for_kubelets(labels: &BTreeMap<String, String>) -> Option<String> {
    let unknown: Vec<&str> = labels.keys().map(String::as_str).filter(|key| !is_for_kubelets(key)).collect();
    if !unknown.is_empty() {
        let (unknown, domains, known) = (unknown.join(" "), DOMAINS.join(", "), LABELS.join(", "));
        return Some(format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{unknown}]\n--node-labels in the \
             'kubernetes.io' namespace must begin with an allowed prefix ({domains}) or be in the specifically allowed set \
             ({known})"
        ));
    }
    let wrong = |(text, problems): (&String, Vec<String>)| {
        (!problems.is_empty()).then(|| format!("'{text}' - {}", problems.join(", ")))
    };
    let keys = labels.keys().map(|key| (key, names::qualified_name(key)));
    let values = labels.values().map(|value| (value, names::label_value(value)));
    let invalid: Vec<String> = keys.chain(values).filter_map(wrong).collect();
    (!invalid.is_empty()).then(|| format!("invalid node labels: {}", invalid.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_register_with_labels_that_they_may_set() {
        let prefixes = "must begin with an allowed prefix (kubelet.kubernetes.io, node.kubernetes.io)";
        let set = "in the specifically allowed set (beta.kubernetes.io/arch, beta.kubernetes.io/instance-type, \
                   beta.kubernetes.io/os, failure-domain.beta.kubernetes.io/region, \
                   failure-domain.beta.kubernetes.io/zone, kubernetes.io/arch, kubernetes.io/hostname, kubernetes.io/os, \
                   node.kubernetes.io/instance-type, topology.kubernetes.io/region, topology.kubernetes.io/zone)";
        let unknown = |labels: &str| {
            format!(
                "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{labels}]\n--node-labels in \
                 the 'kubernetes.io' namespace {prefixes} or be {set}"
            )
        };
        let long = "v".repeat(64);
        let no_name = "name part must be non-empty";
        for (labels, expected) in [
            (vec![], None),
            (vec![("disk", "fast"), ("example.com/a", ""), ("kubernetes.io/os", "linux")], None),
            (vec![("node.kubernetes.io/a", "b"), ("sub.kubelet.kubernetes.io/a", "b")], None),
            (vec![("node-role.kubernetes.io/worker", "")], Some(unknown("node-role.kubernetes.io/worker"))),
            (
                vec![("x.k8s.io/b", "not a value"), ("node-restriction.kubernetes.io/a", ""), ("c", "d")],
                Some(unknown("node-restriction.kubernetes.io/a x.k8s.io/b")),
            ),
            (
                vec![("a", &long)],
                Some(format!("invalid node labels: '{long}' - must be no more than 63 bytes")),
            ),
            (
                vec![("a/", "b")],
                Some(format!(
                    "invalid node labels: 'a/' - {no_name}, {}",
                    names::qualified_name("-").join(", ")
                )),
            ),
        ] {
            let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            assert_eq!(wrong_for_kubelets(&labels), expected);
        }
    }
}
