//! containerd with its CRI service, as a kubelet uses it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use podlog_proto::cri::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RunPodSandboxRequest, StartContainerRequest, runtime_service_client::RuntimeServiceClient,
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::usage;

#[expect(dead_code, reason = "tests use all of it")]
#[expect(clippy::print_stderr, reason = "it says what is missing")]
#[path = "../../tests/support/containerd.rs"]
mod machine;

use machine::{IMAGE, Machine};

/// A container whose output a containerd of its own writes to its log.
pub(crate) struct Containerd {
    machine: Machine,
    /// CPU time that containerd had used before the container was started.
    before: Duration,
}

impl Containerd {
    /// Whether there is what it needs.
    pub(crate) fn is_installed() -> bool {
        let is_there = |program: &str| {
            let mut version = Command::new(program);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        ["containerd", "ctr", "runc", "busybox"].into_iter().all(is_there)
            && rustix::process::geteuid().is_root()
    }

    /// Runs a program of the host below `directory`; returns where its log is, too.
    pub(crate) fn start(directory: &Path, argv: &[String]) -> anyhow::Result<(Containerd, PathBuf)> {
        let machine = Machine::start().context("containerd cannot be started")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut client = connect(&runtime, &machine)?;
        let log = directory.join("logs/app/0.log");
        fs::create_dir_all(log.parent().context("a log without a directory")?)?;
        let sandbox = sandbox(&directory.join("logs"));
        let request = RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
        let pod_sandbox_id = runtime.block_on(client.run_pod_sandbox(request))?.into_inner().pod_sandbox_id;
        let request = CreateContainerRequest {
            pod_sandbox_id,
            config: Some(container(directory, argv)?),
            sandbox_config: Some(sandbox),
        };
        let container_id = runtime.block_on(client.create_container(request))?.into_inner().container_id;
        let mut containerd = Containerd { machine, before: Duration::ZERO };
        containerd.before = containerd.time()?;
        runtime.block_on(client.start_container(StartContainerRequest { container_id }))?;
        Ok((containerd, log))
    }

    /// containerd and its shims: they are known by the path of its socket, or of its configuration.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let (socket, config) = (self.machine.socket(), self.machine.path().join("config.toml"));
        let by = |path: &Path| usage::processes_with_argument(path.as_os_str().as_encoded_bytes());
        [by(&socket), by(&config)].concat()
    }

    /// CPU time since the container was started.
    pub(crate) fn time(&self) -> anyhow::Result<Duration> {
        let total: Duration =
            self.processes().into_iter().map(usage::process_time).sum::<anyhow::Result<_>>()?;
        Ok(total.saturating_sub(self.before))
    }
}

fn connect(runtime: &Runtime, machine: &Machine) -> anyhow::Result<RuntimeServiceClient<Channel>> {
    let path = machine.socket();
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost");
    Ok(RuntimeServiceClient::new(runtime.block_on(channel.connect_with_connector(connect))?))
}

fn sandbox(logs: &Path) -> PodSandboxConfig {
    let node = i32::from(NamespaceMode::Node);
    let namespaces = NamespaceOption { network: node, ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "bench".to_owned(),
            uid: "bench".to_owned(),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        log_directory: logs.display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that sees the host's libraries, the program and the directory of the test.
fn container(directory: &Path, argv: &[String]) -> anyhow::Result<ContainerConfig> {
    let program = &crate::container::directory()?;
    let mount = |container: &Path, host: &Path| Mount {
        container_path: container.display().to_string(),
        host_path: host.display().to_string(),
        ..Default::default()
    };
    let libraries =
        ["/lib", "/lib64"].map(|path| mount(Path::new(path), &Path::new("/usr").join(&path[1..])));
    let same = [Path::new("/usr"), program, directory].map(|path| mount(path, path));
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: argv.to_vec(),
        log_path: "app/0.log".to_owned(),
        mounts: libraries.into_iter().chain(same).collect(),
        ..Default::default()
    })
}
