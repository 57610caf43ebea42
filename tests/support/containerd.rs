//! A containerd of the test's own, with an image made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Both for containers and, sleeping, for sandboxes.
pub(crate) const IMAGE: &str = "localhost/podlog-test:1";

/// Programs that the test needs; all are in Debian.
const NEEDED: &[&str] = &["containerd", "ctr", "runc", "busybox", "tar", "sha256sum"];

pub(crate) struct Machine {
    containerd: Child,
    folder: tempfile::TempDir,
}

impl Machine {
    /// Starts; `None`, and says so, where that cannot be.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |program: &&&str| {
            let found = Command::new("sh").args(["-c", "command -v \"$0\""]).arg(program).output();
            found.is_ok_and(|output| output.status.success())
        };
        if let Some(missing) = NEEDED.iter().find(|program| !is_there(program)) {
            eprintln!(
                "SKIPPED: no {missing} here: nothing is shown about containerd (apt-get install containerd runc busybox-static)"
            );
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: containerd needs root: nothing is shown about it");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        fs::create_dir_all(folder.path().join("cni")).expect("a folder");
        fs::write(folder.path().join("config.toml"), config(folder.path())).expect("a file");
        let machine = Machine { containerd: spawn(folder.path()), folder };
        machine.wait_ready();
        machine.import_image(IMAGE, "2147483647");
        Some(machine)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Kills containerd as a power cut would, and starts another one on the same directories.
    pub(crate) fn restart(&mut self) {
        self.containerd.kill().expect("kill");
        self.containerd.wait().expect("wait");
        self.containerd = spawn(self.folder.path());
        self.wait_ready();
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("containerd.sock")
    }

    /// containerd's own client, to its end.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        command.output().expect("run ctr")
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ctr(&["version"]).status.success() {
            assert!(Instant::now() < deadline, "containerd does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("containerd.log")).unwrap_or_default()
    }

    /// Unmounts what containers had: the folder could not be removed otherwise.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(self.path())) {
            let _ = Command::new("umount").args(["--lazy", point]).status();
        }
    }

    /// One layer: a static busybox under every name it answers to. It sleeps for so many seconds, unless it is told something else.
    pub(crate) fn import_image(&self, name: &str, seconds: &str) {
        let image = self.path().join("image");
        let root = self.path().join("root-of-image");
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "run"] {
            fs::create_dir_all(root.join(dir)).expect("a folder");
        }
        run(Command::new("sh").arg("-c").arg("cp \"$(command -v busybox)\" bin/busybox").current_dir(&root));
        run(Command::new("bin/busybox").args(["--install", "-s", "bin"]).current_dir(&root));
        for applet in fs::read_dir(root.join("bin")).expect("a folder").flatten() {
            if applet.file_name() != "busybox" {
                fs::remove_file(applet.path()).expect("a link");
                std::os::unix::fs::symlink("busybox", applet.path()).expect("a link");
            }
        }
        let blobs = image.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let layer = self.path().join("layer.tar");
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."));
        let layer = add_blob(&blobs, &fs::read(&layer).expect("a file"));
        let config = json!({"architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/sleep", seconds], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
        let config = add_blob(&blobs, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": of_type(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [of_type(layer, "application/vnd.oci.image.layer.v1.tar")]});
        let mut manifest = of_type(add_blob(&blobs, manifest.to_string().as_bytes()), MANIFEST);
        manifest["annotations"] = json!({"io.containerd.image.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(image.join("index.json"), index.to_string()).expect("a file");
        fs::write(image.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())
            .expect("a file");
        let archive = self.path().join("image.tar");
        run(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg("."));
        let imported = self.ctr(&["images", "import", &archive.display().to_string()]);
        assert!(imported.status.success(), "{imported:?} {}", self.log());
    }
}

/// Media type of an image's manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn add_blob(blobs: &Path, data: &[u8]) -> Value {
    let path = blobs.join("new");
    fs::write(&path, data).expect("a file");
    let output = Command::new("sha256sum").arg(&path).output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    let digest = text.split(' ').next().expect("a digest");
    fs::rename(&path, blobs.join(digest)).expect("a file");
    json!({"digest": format!("sha256:{digest}"), "size": data.len()})
}

fn of_type(mut descriptor: Value, media: &str) -> Value {
    descriptor["mediaType"] = media.into();
    descriptor
}

fn run(command: &mut Command) {
    let output = command.output().expect("run");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{folder}/cni"
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
    )
}

fn spawn(folder: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("containerd.log"));
    let log = log.expect("a file");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(folder.join("config.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("run containerd")
}

impl Drop for Machine {
    fn drop(&mut self) {
        let listed = self.ctr(&["containers", "list", "--quiet"]);
        for id in String::from_utf8_lossy(&listed.stdout).lines() {
            // The shim ends with its task.
            self.ctr(&["tasks", "delete", "--force", id]);
        }
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        self.unmount();
    }
}
