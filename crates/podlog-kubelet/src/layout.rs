//! Where things are on disk: pods' directories, log directories, and the symlinks for log collectors.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::pods::PodId;
use crate::runtime::ContainerId;

/// Longest file name; a longer symlink name is cut before its `.log`.
const NAME_MAX: usize = 255;

/// The directories of one kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `<root>/pods/<uid>`: volumes and termination messages.
    root: PathBuf,
    /// `<pod-logs-dir>/<namespace>_<pod>_<uid>/<container>/<restart>.log`.
    pod_logs: PathBuf,
    /// Symlinks `<pod>_<namespace>_<container>-<id>.log`.
    links: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf, pod_logs: PathBuf, links: PathBuf) -> Self {
        Layout { root, pod_logs, links }
    }

    /// Makes the directories that are always there.
    pub(crate) fn create(&self) -> Result<(), (PathBuf, io::Error)> {
        let create = |path: &Path, mode: u32| {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|error| (path.to_owned(), error))
        };
        create(&self.root.join("pods"), 0o700)?;
        create(&self.pod_logs, 0o755)?;
        create(&self.links, 0o755)
    }

    /// The kubelet's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The pod's own directory.
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Uids of pods that have a directory.
    pub(crate) fn pods(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The pod's log directory.
    pub(crate) fn pod_logs(&self, id: &PodId) -> PathBuf {
        self.pod_logs.join(format!("{}_{}_{}", id.namespace, id.name, id.uid))
    }

    /// Pods that have a log directory.
    pub(crate) fn logged_pods(&self) -> Vec<PodId> {
        let entries = fs::read_dir(&self.pod_logs).into_iter().flatten().flatten();
        entries.filter_map(|entry| parse_log_directory(entry.file_name().to_str()?)).collect()
    }

    /// A container's log file relative to the pod's log directory.
    pub(crate) fn log_path(container: &str, attempt: u32) -> PathBuf {
        PathBuf::from(container).join(format!("{attempt}.log"))
    }

    /// Makes the directory of a container's logs.
    pub(crate) fn create_container_logs(&self, id: &PodId, container: &str) -> io::Result<()> {
        let path = self.pod_logs(id).join(container);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
    }

    /// Restart count for a container of which no record survives: one more than the highest number among its log files.
    pub(crate) fn next_attempt(&self, id: &PodId, container: &str) -> u32 {
        let entries = fs::read_dir(self.pod_logs(id).join(container)).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| log_number(entry.file_name().to_str()?));
        numbers.max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// Makes the file for a container's termination message.
    pub(crate) fn create_termination_file(
        &self,
        uid: &str,
        container: &str,
        attempt: u32,
    ) -> io::Result<PathBuf> {
        let directory = self.pod(uid).join("containers").join(container);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = directory.join(attempt.to_string());
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Links a container's log for collectors that look into one directory.
    pub(crate) fn link(&self, id: &PodId, container: &str, instance: &ContainerId, log: &Path) {
        let path = self.links.join(link_name(id, container, instance));
        match symlink(log, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                tracing::warn!(path = %path.display(), %error, "cannot link a container's log");
            }
            _ => {}
        }
    }

    /// Removes the log files of one instance of a container: the current one, rotated ones, and the symlink.
    pub(crate) fn remove_instance_logs(
        &self,
        id: &PodId,
        container: &str,
        instance: &ContainerId,
        attempt: u32,
    ) {
        let _ = fs::remove_file(self.links.join(link_name(id, container, instance)));
        let prefix = format!("{attempt}.log");
        let directory = self.pod_logs(id).join(container);
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                remove_logged(&entry.path(), fs::remove_file);
            }
        }
    }

    /// Removes all that a pod left: its own directory, its log directory, and the symlinks into it.
    pub(crate) fn remove_pod(&self, id: &PodId) {
        remove_logged(&self.pod(&id.uid), fs::remove_dir_all);
        let directory = self.pod_logs(id);
        for entry in fs::read_dir(&self.links).into_iter().flatten().flatten() {
            let points_here = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&directory));
            if points_here {
                remove_logged(&entry.path(), fs::remove_file);
            }
        }
        remove_logged(&directory, fs::remove_dir_all);
    }
}

fn remove_logged(path: &Path, remove: impl Fn(PathBuf) -> io::Result<()>) {
    match remove(path.to_owned()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
        _ => {}
    }
}

/// `<pod>_<namespace>_<container>-<id>.log`, at most 255 bytes.
fn link_name(id: &PodId, container: &str, instance: &ContainerId) -> String {
    let mut name = format!("{}_{}_{container}-{}", id.name, id.namespace, instance.0);
    name.truncate(name.floor_char_boundary(NAME_MAX - ".log".len()));
    name + ".log"
}

/// `<namespace>_<pod>_<uid>`; none of the three holds an underscore.
fn parse_log_directory(name: &str) -> Option<PodId> {
    let mut parts = name.splitn(3, '_').map(str::to_owned);
    Some(PodId { namespace: parts.next()?, name: parts.next()?, uid: parts.next()? })
}

/// The number in `<number>.log` and `<number>.log.<suffix>`.
fn log_number(name: &str) -> Option<u32> {
    let (number, rest) = name.split_once(".log")?;
    (rest.is_empty() || rest.starts_with('.')).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PodId {
        PodId { namespace: "prod".into(), name: "web".into(), uid: "u-1".into() }
    }

    fn layout(root: &Path) -> Layout {
        let layout = Layout::new(root.join("kubelet"), root.join("pods"), root.join("containers"));
        layout.create().unwrap();
        layout
    }

    #[test]
    fn the_restart_count_survives_in_file_names() {
        for (files, expected) in [
            (&[][..], 0),
            (&["0.log"][..], 1),
            (&["0.log", "3.log.20260101-000000.gz", "2.log"], 4),
            (&["x.log", "5.log2", "1.txt"], 0),
        ] {
            let root = tempfile::tempdir().unwrap();
            let layout = layout(root.path());
            layout.create_container_logs(&id(), "c").unwrap();
            for file in files {
                fs::write(layout.pod_logs(&id()).join("c").join(file), "").unwrap();
            }
            assert_eq!(layout.next_attempt(&id(), "c"), expected, "{files:?}");
        }
    }

    #[test]
    fn links_and_logs_go_with_instance_and_pod() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        layout.create_container_logs(&id(), "c").unwrap();
        let logs = layout.pod_logs(&id()).join("c");
        for file in ["0.log", "0.log.20260101-000000", "1.log", "10.log"] {
            fs::write(logs.join(file), "").unwrap();
        }
        for (attempt, instance) in [(0, "aa"), (1, "bb")] {
            let log = layout.pod_logs(&id()).join(Layout::log_path("c", attempt));
            layout.link(&id(), "c", &ContainerId(instance.into()), &log);
        }
        assert!(root.path().join("containers/web_prod_c-aa.log").exists());
        layout.remove_instance_logs(&id(), "c", &ContainerId("aa".into()), 0);
        let count = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!((count(&logs), count(&root.path().join("containers"))), (2, 1));
        assert_eq!(layout.logged_pods(), [id()]);
        layout.remove_pod(&id());
        assert_eq!(count(&root.path().join("containers")), 0);
        assert!(layout.logged_pods().is_empty());
    }

    #[test]
    fn link_names_are_cut() {
        let long = "x".repeat(300);
        let name = link_name(&id(), "c", &ContainerId(long));
        assert_eq!(name.len(), 255);
        assert!(name.starts_with("web_prod_c-x") && name.ends_with("x.log"));
    }
}
