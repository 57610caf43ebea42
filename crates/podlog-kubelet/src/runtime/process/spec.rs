//! From a CRI container configuration to what capture runs.

use std::path::Path;

use podlog_container::{self as container, Log, Process, User};
use podlog_driver::FileLimits;

use crate::runtime::{
    ContainerConfig, EnvVar, LogPolicy, Mount, PodSandboxConfig, Propagation, RuntimeError, SecurityContext,
};

/// `PATH` of a container that has none, as containerd sets it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who podlog runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What capture runs for a container.
///
/// # Errors
/// [`RuntimeError::CreateContainer`] when that cannot be run as a process of this host.
pub(super) fn process(
    sandbox: &PodSandboxConfig,
    config: &ContainerConfig,
    limits: FileLimits,
    policy: LogPolicy,
    own: Ids,
) -> Result<Process, RuntimeError> {
    let refuse = |why: String| RuntimeError::CreateContainer(format!("container {:?} {why}", config.name));
    if config.command.is_empty() {
        let why = "has no command, and the process runtime uses no images: give the container a command, or run it on a kubelet with a container runtime";
        return Err(refuse(why.to_owned()));
    }
    let security = &config.security;
    check_user(security, own).map_err(refuse)?;
    Ok(Process {
        argv: config.command.iter().chain(&config.args).cloned().collect(),
        env: environment(sandbox, config),
        cwd: config.working_dir.clone(),
        user: User {
            uid: security.run_as_user,
            gid: security.run_as_group,
            supplemental_groups: security.supplemental_groups.clone(),
        },
        no_new_privileges: security.no_new_privileges,
        umask: None,
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        hostname: (!sandbox.host_network && !sandbox.hostname.is_empty()).then(|| sandbox.hostname.clone()),
        readonly_rootfs: security.readonly_rootfs,
        mounts: config.mounts.iter().map(mount).collect::<Result<_, _>>().map_err(refuse)?,
        log: policy.of(&config.name, &sandbox.annotations).map_err(refuse)?.apply(Log {
            path: sandbox.log_directory.join(&config.log_path),
            max_bytes: limits.max_bytes,
            max_files: limits.max_files,
            ..Log::default()
        }),
    })
}

/// Only root can become somebody else. Told before the start, so that the pod says what is wrong with it.
fn check_user(security: &SecurityContext, own: Ids) -> Result<(), String> {
    let refuse =
        |what, id| Err(format!("asks for {what} {id}: podlog runs as user {} and not as root", own.uid));
    match (security.run_as_user, security.run_as_group) {
        _ if own.uid == 0 => Ok(()),
        (Some(uid), _) if uid != own.uid => refuse("runAsUser", uid),
        (_, Some(gid)) if gid != own.gid => refuse("runAsGroup", gid),
        _ => Ok(()),
    }
}

fn environment(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Vec<container::EnvVar> {
    let defaults = [
        Some(("PATH", DEFAULT_PATH)),
        (!sandbox.hostname.is_empty()).then_some(("HOSTNAME", sandbox.hostname.as_str())),
        config.tty.then_some(("TERM", "xterm")),
    ];
    let given = config.envs.iter().map(|EnvVar { name, value }| (name.as_str(), value.as_str()));
    let variable =
        |(name, value): (&str, &str)| container::EnvVar { name: name.to_owned(), value: value.to_owned() };
    defaults.into_iter().flatten().chain(given).map(variable).collect()
}

fn mount(mount: &Mount) -> Result<container::Mount, String> {
    let target = &mount.container_path;
    if !target.is_absolute() || target == Path::new("/") {
        return Err(format!("has a mount at {:?}, which is not possible", target.display()));
    }
    let propagation = match mount.propagation {
        Propagation::Private => container::Propagation::Private,
        Propagation::HostToContainer => container::Propagation::HostToContainer,
        Propagation::Bidirectional => {
            let why = "with Bidirectional propagation, which the process runtime does not offer";
            return Err(format!("has a mount at {:?} {why}", target.display()));
        }
    };
    Ok(container::Mount {
        target: target.clone(),
        source: mount.host_path.clone(),
        readonly: mount.readonly,
        propagation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Ids = Ids { uid: 0, gid: 0 };
    const USER: Ids = Ids { uid: 1000, gid: 100 };

    fn config() -> ContainerConfig {
        ContainerConfig {
            name: "web".to_owned(),
            command: vec!["sh".to_owned()],
            ..ContainerConfig::default()
        }
    }

    fn build(config: &ContainerConfig, own: Ids) -> Result<Process, String> {
        let sandbox = PodSandboxConfig {
            hostname: "pod-0".to_owned(),
            log_directory: "/logs/ns_pod_uid".into(),
            ..PodSandboxConfig::default()
        };
        process(&sandbox, config, FileLimits::default(), LogPolicy::default(), own)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn refuses_what_cannot_be_run() {
        let mounted = |path: &str, propagation| {
            let mount =
                Mount { container_path: path.into(), host_path: "/tmp".into(), readonly: false, propagation };
            ContainerConfig { mounts: vec![mount], ..config() }
        };
        let user = |run_as_user, run_as_group| ContainerConfig {
            security: SecurityContext { run_as_user, run_as_group, ..SecurityContext::default() },
            ..config()
        };
        let no_command = "has no command, and the process runtime uses no images: give the container a command, or run it on a kubelet with a container runtime";
        let not_root = |what: &str| format!("asks for {what}: podlog runs as user 1000 and not as root");
        let bidirectional =
            "has a mount at \"/a\" with Bidirectional propagation, which the process runtime does not offer";
        for (config, own, expected) in [
            (config(), ROOT, None),
            (
                ContainerConfig { command: vec![], args: vec!["x".to_owned()], ..config() },
                ROOT,
                Some(no_command.to_owned()),
            ),
            (
                mounted("a", Propagation::Private),
                ROOT,
                Some("has a mount at \"a\", which is not possible".to_owned()),
            ),
            (
                mounted("/", Propagation::Private),
                ROOT,
                Some("has a mount at \"/\", which is not possible".to_owned()),
            ),
            (mounted("/a", Propagation::Bidirectional), ROOT, Some(bidirectional.to_owned())),
            (mounted("/a", Propagation::HostToContainer), ROOT, None),
            (user(Some(5), Some(6)), ROOT, None),
            (user(Some(1000), Some(100)), USER, None),
            (user(Some(5), None), USER, Some(not_root("runAsUser 5"))),
            (user(None, Some(6)), USER, Some(not_root("runAsGroup 6"))),
        ] {
            let expected = expected.map(|why| format!("container \"web\" {why}"));
            assert_eq!(build(&config, own).err(), expected);
        }
    }

    #[test]
    fn given_environment_wins() {
        let envs = vec![EnvVar { name: "HOSTNAME".to_owned(), value: "mine".to_owned() }];
        let process = build(&ContainerConfig { envs, tty: true, ..config() }, ROOT).expect("process");
        let env: Vec<_> = process.env.iter().map(|var| (var.name.as_str(), var.value.as_str())).collect();
        assert_eq!(
            env,
            [("PATH", DEFAULT_PATH), ("HOSTNAME", "pod-0"), ("TERM", "xterm"), ("HOSTNAME", "mine")]
        );
        assert_eq!(process.hostname.as_deref(), Some("pod-0"));
    }

    #[test]
    fn a_pod_chooses_what_is_kept_of_its_logs() {
        let annotated = |value: &str| PodSandboxConfig {
            annotations: [("podlog.dev/log-policy".to_owned(), value.to_owned())].into(),
            ..PodSandboxConfig::default()
        };
        let policy = |value| {
            process(&annotated(value), &config(), FileLimits::default(), LogPolicy::default(), ROOT)
                .map(|process| process.log.back_pressure)
                .map_err(|error| error.to_string())
        };
        assert_eq!(policy("drop-oldest"), Ok(container::BackPressure::DropOldest));
        let why = "container \"web\" has the annotation podlog.dev/log-policy: \"some\" is none of block, drop-newest and drop-oldest";
        assert_eq!(policy("some"), Err(why.to_owned()));
    }

    #[test]
    fn log_path_is_absolute() {
        let config = ContainerConfig { log_path: "web/3.log".into(), ..config() };
        assert_eq!(build(&config, ROOT).expect("process").log.path, Path::new("/logs/ns_pod_uid/web/3.log"));
    }
}
