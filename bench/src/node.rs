//! A kubelet to be measured: in this process or in one of its own, with pods from manifests.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use podlog_api::Compatibility;
use podlog_driver::FileLimits;
use podlog_kubelet::{
    Kubelet, KubeletOptions,
    config::{AuthorizationMode, KubeletConfiguration},
    runtime::{
        ContainerRuntime, LogPolicy,
        process::{ProcessRuntime, ProcessRuntimeConfig},
    },
};
use podlog_serving::ServerTls;
use serde_json::json;

use crate::{container::program, followers::raise_open_files, site::Site};

/// For all pods to run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Path of the log of the first pod.
pub(crate) const LOG: &str = "/containerLogs/default/web-bench/c";

/// A kubelet without an API server: so many pods that run a command, the first of them `web`.
pub(crate) async fn start(
    site: &Site,
    pods: usize,
    command: &[String],
    runtime: Arc<dyn ContainerRuntime>,
) -> anyhow::Result<Kubelet> {
    let manifests = site.folder.join("manifests");
    fs::create_dir_all(&manifests)?;
    for pod in 0..pods {
        let name = if pod == 0 { "web".to_owned() } else { format!("web-{pod}") };
        let containers = json!([{"name": "c", "image": "host", "command": command}]);
        let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": containers}});
        fs::write(manifests.join(format!("{name}.json")), manifest.to_string())?;
    }
    let mut config = KubeletConfiguration { static_pod_path: Some(manifests), ..Default::default() };
    config.authentication.webhook_enabled = false;
    config.authorization.mode = AuthorizationMode::AlwaysAllow;
    let options = KubeletOptions {
        node_name: "bench".into(),
        node_ip: None,
        node_labels: Default::default(),
        listen: ([127, 0, 0, 1], 0).into(),
        healthz: None,
        root_dir: site.folder.join("kubelet"),
        pod_logs_dir: site.folder.join("pods"),
        container_links_dir: site.folder.join("containers"),
        config,
        compatibility: Compatibility::default(),
        serving: ServerTls::load(site.pair("server"))?,
        client_ca: Some(site.ca()),
        api_server: None,
    };
    Ok(Kubelet::start(options, runtime).await?)
}

/// Runs a kubelet with the process runtime until its standard input ends.
#[derive(clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    pods: usize,
    /// What each pod runs.
    #[arg(last = true)]
    command: Vec<String>,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        raise_open_files();
        podlog_serving::install_crypto_provider();
        tokio::runtime::Runtime::new()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let containers = ProcessRuntime::open(ProcessRuntimeConfig {
            root: self.folder.join("run"),
            capture_command: vec![program()?.into()],
            log_limits: FileLimits::default(),
            log_policy: LogPolicy::default(),
        })?;
        let site = Site { folder: self.folder };
        let kubelet = start(&site, self.pods, &self.command, containers.clone()).await?;
        let deadline = Instant::now() + PATIENCE;
        while containers.list_containers(None).await?.len() < self.pods {
            anyhow::ensure!(Instant::now() < deadline, "the pods do not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writeln!(std::io::stdout(), "{}", kubelet.local_addr())?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        kubelet.shutdown().await;
        for container in containers.list_containers(None).await? {
            containers.stop_container(&container.id, Duration::ZERO).await?;
        }
        Ok(())
    }
}

/// A kubelet in a process of its own, and its pods.
pub(crate) struct KubeletProcess {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl KubeletProcess {
    pub(crate) fn start(site: &Site, pods: usize, command: &[String]) -> anyhow::Result<KubeletProcess> {
        let mut kubelet = Command::new(std::env::current_exe()?);
        kubelet.arg("serve-kubelet").arg("--folder").arg(&site.folder);
        kubelet.args(["--pods", &pods.to_string(), "--"]).args(command);
        let mut child = kubelet.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the kubelet did not start")?;
        Ok(KubeletProcess { address, child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// It ends with its standard input, and its containers with it.
impl Drop for KubeletProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
