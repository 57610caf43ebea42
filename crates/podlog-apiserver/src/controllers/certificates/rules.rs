//! What the signers of Kubernetes require of a request (`pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;

use podlog_serving::pki::SigningRequest;

const SIGNATURE: &str = "digital signature";
const ENCIPHERMENT: &str = "key encipherment";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What is wrong with a kubelet's request for the certificate that it shows to the API server.
pub(super) fn kubelet_client(asked: &SigningRequest, usages: &[&str]) -> Result<(), String> {
    of_nodes(asked)?;
    let absent = [
        (asked.dns_names.is_empty(), "DNS subjectAltNames are not allowed"),
        (asked.emails.is_empty(), "Email subjectAltNames are not allowed"),
        (asked.addresses.is_empty(), "IP subjectAltNames are not allowed"),
        (asked.uris.is_empty(), "URI subjectAltNames are not allowed"),
    ];
    all(&absent)?;
    named_as_node(asked)?;
    exactly(usages, "client auth")
}

/// What is wrong with a kubelet's request for the certificate that it serves with.
pub(super) fn kubelet_serving(asked: &SigningRequest, usages: &[&str]) -> Result<(), String> {
    of_nodes(asked)?;
    let named = !asked.dns_names.is_empty() || !asked.addresses.is_empty();
    all(&[
        (named, "DNS or IP subjectAltName is required"),
        (asked.emails.is_empty(), "Email subjectAltNames are not allowed"),
        (asked.uris.is_empty(), "URI subjectAltNames are not allowed"),
    ])?;
    exactly(usages, "server auth")?;
    named_as_node(asked)
}

/// What is wrong with a request for any other client's certificate.
pub(super) fn client(usages: &[&str]) -> Result<(), String> {
    let known = [SIGNATURE, ENCIPHERMENT, "client auth"];
    if let Some(other) = usages.iter().find(|usage| !known.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.contains(&"client auth") {
        return Err("missing required usage for client certificate: client auth".into());
    }
    Ok(())
}

fn all(requirements: &[(bool, &str)]) -> Result<(), String> {
    match requirements.iter().find(|(met, _)| !met) {
        Some((_, why)) => Err((*why).to_owned()),
        None => Ok(()),
    }
}

fn of_nodes(asked: &SigningRequest) -> Result<(), String> {
    all(&[(asked.organizations == [NODES], "subject organization is not system:nodes")])
}

fn named_as_node(asked: &SigningRequest) -> Result<(), String> {
    let named = asked.common_name.starts_with(NODE_PREFIX);
    all(&[(named, "subject common name does not begin with system:node:")])
}

/// Signatures and `purpose`, and encipherment, which only RSA keys need.
fn exactly(usages: &[&str], purpose: &str) -> Result<(), String> {
    let found: BTreeSet<&str> = usages.iter().copied().collect();
    let without_encipherment = BTreeSet::from([SIGNATURE, purpose]);
    let mut wanted = without_encipherment.clone();
    wanted.insert(ENCIPHERMENT);
    if found == wanted || found == without_encipherment {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", Vec::from_iter(wanted).join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut SigningRequest)) -> SigningRequest {
        let mut asked = SigningRequest::default();
        asked.common_name = "system:node:n1".into();
        asked.organizations = vec![NODES.into()];
        change(&mut asked);
        asked
    }

    #[test]
    fn signers_want_what_upstream_wants() {
        let address = "10.0.0.1".parse().unwrap();
        let with_address = |asked: &mut SigningRequest| asked.addresses = vec![address];
        let client_auth: &[&str] = &[SIGNATURE, "client auth"];
        let server_auth: &[&str] = &[ENCIPHERMENT, SIGNATURE, "server auth"];
        let clients = [
            (asked(|_| {}), client_auth, ""),
            (asked(|_| {}), &["client auth", ENCIPHERMENT, SIGNATURE], ""),
            (
                asked(|_| {}),
                server_auth,
                "usages did not match [client auth digital signature key encipherment]",
            ),
            (
                asked(|a| a.organizations.push("x".into())),
                client_auth,
                "subject organization is not system:nodes",
            ),
            (
                asked(|a| a.common_name = "n1".into()),
                client_auth,
                "subject common name does not begin with system:node:",
            ),
            (asked(with_address), client_auth, "IP subjectAltNames are not allowed"),
            (asked(|a| a.dns_names = vec!["n1".into()]), client_auth, "DNS subjectAltNames are not allowed"),
        ];
        for (asked, usages, expected) in clients {
            assert_eq!(kubelet_client(&asked, usages).err().unwrap_or_default(), expected);
        }
        let servers = [
            (asked(with_address), server_auth, ""),
            (asked(|_| {}), server_auth, "DNS or IP subjectAltName is required"),
            (
                asked(with_address),
                client_auth,
                "usages did not match [digital signature key encipherment server auth]",
            ),
            (
                asked(|a| {
                    with_address(a);
                    a.uris = vec!["x:y".into()];
                }),
                server_auth,
                "URI subjectAltNames are not allowed",
            ),
        ];
        for (asked, usages, expected) in servers {
            assert_eq!(kubelet_serving(&asked, usages).err().unwrap_or_default(), expected);
        }
        assert_eq!(client(client_auth), Ok(()));
        assert_eq!(client(server_auth).unwrap_err(), "invalid usage for client certificate: server auth");
        assert_eq!(client(&[]).unwrap_err(), "missing required usage for client certificate: client auth");
    }
}
