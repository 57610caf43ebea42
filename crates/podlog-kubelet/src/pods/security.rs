//! Who a container runs as, and what it may do: its own settings over the pod's.
//!
//! Rules as `pkg/kubelet/kuberuntime/security_context.go`.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile};

use super::context::Context;
use super::spec::PodId;
use crate::go;
use crate::runtime::{Image, Images, Seccomp, SecurityContext};

/// Where `localhostProfile` begins, below the kubelet's directory.
const SECCOMP_PROFILES: &str = "seccomp";

/// Whether the container has all of the host's capabilities and devices.
pub(super) fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.privileged).unwrap_or(false)
}

/// Who the container runs as.
///
/// # Errors
/// The message of `CreateContainerConfigError` when it must not be root and would be.
pub(super) fn of(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
) -> Result<SecurityContext, String> {
    let asked = asked(pod, container, context.layout.root().join(SECCOMP_PROFILES));
    check_user(context, pod, container, &asked, image)?;
    Ok(with_user_of(image, asked))
}

/// What pod and container ask for.
fn asked(pod: &Pod, container: &Container, profiles: PathBuf) -> SecurityContext {
    let of_pod = of_pod(pod);
    let own = container.security_context.as_ref();
    let id = |own: Option<i64>, of_pod: Option<i64>| own.or(of_pod).and_then(|id| u32::try_from(id).ok());
    let groups = of_pod.and_then(|context| context.supplemental_groups.clone()).unwrap_or_default();
    let fs_group = of_pod.and_then(|context| context.fs_group);
    let capabilities = own.and_then(|own| own.capabilities.clone()).unwrap_or_default();
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(of_pod.and_then(|context| context.seccomp_profile.as_ref()));
    SecurityContext {
        run_as_user: id(own.and_then(|c| c.run_as_user), of_pod.and_then(|c| c.run_as_user)),
        run_as_group: id(own.and_then(|c| c.run_as_group), of_pod.and_then(|c| c.run_as_group)),
        supplemental_groups: groups
            .into_iter()
            .chain(fs_group)
            .filter_map(|group| u32::try_from(group).ok())
            .collect(),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        privileged: is_privileged(container),
        readonly_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
        run_as_username: String::new(),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp: profile.map_or(Seccomp::Unconfined, |profile| seccomp(profile, profiles)),
        unmasked_proc: own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked"),
    }
}

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref())
}

fn seccomp(profile: &SeccompProfile, profiles: PathBuf) -> Seccomp {
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Seccomp::RuntimeDefault,
        ("Localhost", Some(path)) => Seccomp::Localhost(profiles.join(path)),
        _ => Seccomp::Unconfined,
    }
}

/// Where nobody asks for a user, the image says who it is.
fn with_user_of(image: &Image, asked: SecurityContext) -> SecurityContext {
    if asked.run_as_user.is_some() {
        return asked;
    }
    let run_as_user = image.uid.and_then(|uid| u32::try_from(uid).ok());
    SecurityContext { run_as_user, run_as_username: image.username.clone(), ..asked }
}

/// Holds `runAsNonRoot`. Processes without an image run as the kubelet's user unless they say otherwise.
fn check_user(
    context: &Context,
    pod: &Pod,
    container: &Container,
    asked: &SecurityContext,
    image: &Image,
) -> Result<(), String> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    if own.or(of_pod(pod).and_then(|context| context.run_as_non_root)) != Some(true) {
        return Ok(());
    }
    let (pod, name) = (go::quote(&PodId::of(pod).to_string()), &container.name);
    let image_is_root = match context.runtime.images() {
        // An image that names nobody runs as root.
        Images::Used => image.uid.unwrap_or(0) == 0 && image.username.is_empty(),
        Images::Unused => rustix::process::geteuid().is_root(),
    };
    match asked.run_as_user {
        Some(0) => {
            Err(format!("container's runAsUser breaks non-root policy (pod: {pod}, container: {name})"))
        }
        None if image_is_root => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: {pod}, container: {name})"
        )),
        None if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root (pod: {pod}, \
             container: {name})",
            image.username
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::testing::pod;

    fn ask(of_pod: Value, own: Value) -> SecurityContext {
        let pod = pod(json!({
            "securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}],
        }));
        asked(&pod, &pod.spec.as_ref().unwrap().containers[0], PathBuf::from("/k/seccomp"))
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let both = ask(
            json!({"runAsUser": 1, "runAsGroup": 2, "supplementalGroups": [3], "fsGroup": 4,
                "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 5, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
        );
        let expected = SecurityContext {
            run_as_user: Some(5),
            run_as_group: Some(2),
            supplemental_groups: vec![3, 4],
            no_new_privileges: true,
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            seccomp: Seccomp::Localhost("/k/seccomp/a.json".into()),
            ..SecurityContext::default()
        };
        assert_eq!(both, expected);
        let of_pod =
            ask(json!({"seccompProfile": {"type": "RuntimeDefault"}}), json!({"procMount": "Unmasked"}));
        assert_eq!((of_pod.seccomp, of_pod.unmasked_proc), (Seccomp::RuntimeDefault, true));
    }

    #[test]
    fn the_image_says_who_it_is_when_nobody_else_does() {
        let image = Image { uid: Some(65_532), username: String::new(), ..Image::default() };
        let user = |own: Value| with_user_of(&image, ask(json!({}), own)).run_as_user;
        assert_eq!(user(json!({})), Some(65_532));
        assert_eq!(user(json!({"runAsUser": 7})), Some(7));
    }
}
