//! conmon and runc, as a container runtime uses them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use serde_json::json;

use crate::container::eventually;

/// A container that conmon logs in its format `k8s-file`.
pub(crate) struct Conmon {
    id: String,
    pid: u32,
}

impl Conmon {
    /// Both programs are there, and runc may make containers.
    pub(crate) fn is_installed() -> bool {
        let is_there = |program| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        };
        is_there("conmon") && is_there("runc") && rustix::process::geteuid().is_root()
    }

    pub(crate) fn start(directory: &Path, log: &Path, argv: &[String]) -> anyhow::Result<Conmon> {
        let id = format!("podlog-bench-{}-{}", std::process::id(), argv.len() + log.as_os_str().len());
        let bundle = directory.join("bundle");
        make_bundle(&bundle, directory, argv)?;
        let (said, pid_file) = (bundle.join("sync"), bundle.join("conmon.pid"));
        let (exits, sockets) = (bundle.join("exits"), bundle.join("sockets"));
        fs::create_dir(&exits)?;
        fs::create_dir(&sockets)?;
        // conmon reports on a descriptor that a shell gives its number.
        let status = Command::new("/bin/sh")
            .args(["-c", r#"said=$1; shift; exec env _OCI_SYNCPIPE=3 conmon "$@" 3>"$said""#, "sh"])
            .arg(&said)
            .args(["-c", &id, "-u", &id, "-n", "bench", "-r"])
            .arg(which("runc")?)
            .arg("-b")
            .arg(&bundle)
            .arg("--exit-dir")
            .arg(&exits)
            .arg("--socket-dir-path")
            .arg(&sockets)
            .arg("-P")
            .arg(&pid_file)
            .arg("-p")
            .arg(bundle.join("container.pid"))
            .args(["--log-level", "warn", "-l"])
            .arg(format!("k8s-file:{}", log.display()))
            .stdin(Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "conmon: {status}");
        // Before it has said so, there is no container to start.
        eventually("conmon's container", || {
            fs::read_to_string(&said).ok()?.contains("\"pid\"").then_some(())
        })?;
        let pid = fs::read_to_string(&pid_file)?.trim().parse().context("conmon's pid")?;
        let conmon = Conmon { id, pid };
        let status = Command::new("runc").args(["start", &conmon.id]).status()?;
        anyhow::ensure!(status.success(), "runc start: {status}");
        Ok(conmon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Conmon {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["kill", &self.id, "KILL"]).status();
        let gone = || (!Path::new(&format!("/proc/{}", self.pid)).exists()).then_some(());
        let _ = eventually("the end of conmon", gone);
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).status();
    }
}

/// A bundle whose root holds the host's libraries and the directory of the test.
fn make_bundle(bundle: &Path, directory: &Path, argv: &[String]) -> anyhow::Result<()> {
    let root = bundle.join("rootfs");
    for name in ["usr", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.join(name))?;
    }
    let status = Command::new("runc").arg("spec").current_dir(bundle).status()?;
    anyhow::ensure!(status.success(), "runc spec: {status}");
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let process = &mut config["process"];
    process["terminal"] = json!(false);
    process["args"] = json!(argv);
    // The limits of the default may be higher than what the machine allows.
    process.as_object_mut().context("process")?.remove("rlimits");
    config["root"]["readonly"] = json!(false);
    let namespaces = config["linux"]["namespaces"].as_array_mut().context("namespaces")?;
    namespaces.retain(|namespace| !matches!(namespace["type"].as_str(), Some("network" | "cgroup")));
    let program = &crate::container::directory()?;
    let mounts = config["mounts"].as_array_mut().context("mounts")?;
    for path in [Path::new("/usr"), program, directory] {
        mounts.push(json!({ "destination": path, "source": path, "type": "bind", "options": ["rbind"] }));
    }
    Ok(fs::write(&path, serde_json::to_vec(&config)?)?)
}

fn which(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists());
    found.with_context(|| format!("no {name}"))
}
