//! Sandboxes: from the seam's words to CRI's and back. Pure.

use std::net::IpAddr;

use podlog_proto::cri;

use super::containers::timestamp;
use crate::runtime::{Dns, PodSandbox, PodSandboxConfig, PortMapping, RuntimeError, SandboxId, SandboxState};

/// Annotation of a sandbox: what it was made from, where CRI does not give that back.
const CONFIG: &str = "podlog.dev/sandbox-config";

/// What the runtime is told to make.
pub(super) fn to_cri(config: &PodSandboxConfig) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        // A pod in the host's network has the host's name.
        hostname: if config.host_network { String::new() } else { config.hostname.clone() },
        log_directory: config.log_directory.to_string_lossy().into_owned(),
        dns_config: config.dns.clone().map(dns),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: annotations(config),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(config)),
                privileged: config.privileged,
                seccomp: Some(cri::SecurityProfile {
                    profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
                    localhost_ref: String::new(),
                }),
                ..Default::default()
            }),
            sysctls: config.sysctls.clone().into_iter().collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn annotations(config: &PodSandboxConfig) -> std::collections::HashMap<String, String> {
    let rest =
        PodSandboxConfig { labels: Default::default(), annotations: Default::default(), ..config.clone() };
    let json = serde_json::to_string(&rest).expect("text, numbers and maps with text keys are JSON");
    let own = config.annotations.iter().filter(|(key, _)| *key != CONFIG);
    own.map(|(key, value)| (key.clone(), value.clone())).chain([(CONFIG.to_owned(), json)]).collect()
}

fn dns(dns: Dns) -> cri::DnsConfig {
    cri::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }
}

fn port_mapping(mapping: &PortMapping) -> cri::PortMapping {
    let protocol = cri::Protocol::from_str_name(&mapping.protocol).unwrap_or(cri::Protocol::Tcp);
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.clone(),
    }
}

/// Namespaces of the pod, and of every container in it.
pub(super) fn namespaces(config: &PodSandboxConfig) -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Node, Pod};
    let of = |is_host: bool| if is_host { Node } else { Pod };
    let pid = match (config.host_pid, config.share_process_namespace) {
        (true, _) => Node,
        (false, true) => Pod,
        (false, false) => Container,
    };
    cri::NamespaceOption {
        network: of(config.host_network).into(),
        pid: pid.into(),
        ipc: of(config.host_ipc).into(),
        ..Default::default()
    }
}

/// A sandbox as listed. One that somebody else's kubelet made lacks what CRI does not tell.
pub(super) fn from_cri(sandbox: cri::PodSandbox) -> PodSandbox {
    let state = match sandbox.state() {
        cri::PodSandboxState::SandboxReady => SandboxState::Ready,
        cri::PodSandboxState::SandboxNotready => SandboxState::NotReady,
    };
    let metadata = sandbox.metadata.unwrap_or_default();
    PodSandbox {
        id: SandboxId(sandbox.id),
        config: config(metadata, sandbox.labels, sandbox.annotations),
        state,
        created_at: timestamp(sandbox.created_at).unwrap_or_default(),
    }
}

/// What a sandbox was made from.
pub(super) fn config(
    metadata: cri::PodSandboxMetadata,
    labels: std::collections::HashMap<String, String>,
    mut annotations: std::collections::HashMap<String, String>,
) -> PodSandboxConfig {
    let written = annotations.remove(CONFIG).and_then(|json| serde_json::from_str(&json).ok());
    PodSandboxConfig {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        labels: labels.into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        ..written.unwrap_or_default()
    }
}

/// Addresses of a sandbox, the first one first; `None` when it uses the host's network.
///
/// # Errors
/// When the runtime tells something that is no address.
pub(super) fn ips(status: &cri::PodSandboxStatus) -> Result<Option<Vec<IpAddr>>, RuntimeError> {
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
    let options = namespaces.and_then(|namespaces| namespaces.options.as_ref());
    if options.is_some_and(|options| options.network() == cri::NamespaceMode::Node) {
        return Ok(None);
    }
    let Some(network) = &status.network else { return Ok(Some(Vec::new())) };
    let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip));
    let parse = |text: &String| {
        text.parse().map_err(|source| RuntimeError::Failed {
            step: format!("the runtime says that sandbox {} has the address {text:?}", status.id),
            source: Box::new(source),
        })
    };
    all.filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_comes_back_as_it_was_made() {
        let config = PodSandboxConfig {
            name: "web".into(),
            namespace: "prod".into(),
            uid: "u".into(),
            attempt: 2,
            hostname: "web".into(),
            log_directory: "/logs/prod_web_u".into(),
            labels: [("app".into(), "web".into())].into(),
            annotations: [("note".into(), "n".into())].into(),
            host_pid: true,
            dns: Some(Dns { servers: vec!["10.0.0.1".into()], ..Dns::default() }),
            port_mappings: vec![PortMapping {
                protocol: "UDP".into(),
                container_port: 53,
                ..Default::default()
            }],
            sysctls: [("a".into(), "b".into())].into(),
            ..PodSandboxConfig::default()
        };
        let made = to_cri(&config);
        assert_eq!(made.port_mappings[0].protocol(), cri::Protocol::Udp);
        let listed = cri::PodSandbox {
            id: "s".into(),
            metadata: made.metadata,
            state: cri::PodSandboxState::SandboxNotready.into(),
            created_at: 1_000_000_000,
            labels: made.labels,
            annotations: made.annotations,
            runtime_handler: String::new(),
        };
        let sandbox = from_cri(listed);
        assert_eq!(sandbox.config, config);
        assert_eq!((sandbox.state, sandbox.created_at.as_second()), (SandboxState::NotReady, 1));
    }

    #[test]
    fn namespaces_follow_the_pod() {
        use cri::NamespaceMode::{Container, Node, Pod};
        let check = |change: fn(&mut PodSandboxConfig), expected: [cri::NamespaceMode; 3]| {
            let mut config = PodSandboxConfig::default();
            change(&mut config);
            let options = namespaces(&config);
            assert_eq!([options.network(), options.pid(), options.ipc()], expected);
        };
        check(|_| {}, [Pod, Container, Pod]);
        check(|config| config.host_network = true, [Node, Container, Pod]);
        check(|config| config.share_process_namespace = true, [Pod, Pod, Pod]);
        check(|config| (config.host_pid, config.host_ipc) = (true, true), [Pod, Node, Node]);
    }

    #[test]
    fn addresses_are_checked() {
        let status = |ip: &str, more: &[&str]| cri::PodSandboxStatus {
            network: Some(cri::PodSandboxNetworkStatus {
                ip: ip.into(),
                additional_ips: more.iter().map(|ip| cri::PodIp { ip: (*ip).into() }).collect(),
            }),
            ..Default::default()
        };
        let texts = |status| {
            ips(&status).ok().map(|ips| ips.map(|ips| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(
            texts(status("10.0.0.2", &["fd00::2"])),
            Some(Some(vec!["10.0.0.2".into(), "fd00::2".into()]))
        );
        assert_eq!(texts(status("", &[])), Some(Some(vec![])));
        assert_eq!(texts(status("localhost", &[])), None);
    }
}
