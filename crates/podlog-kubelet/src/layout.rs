//! Where things are on disk: pods' directories, log directories, and the symlinks for log collectors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::pods::PodId;
use crate::runtime::ContainerId;

/// Longest file name; a longer symlink name is cut before its `.log`.
const NAME_MAX: usize = 255;
/// What the names of log directories begin with that are being removed. No pod's does.
const GOING: &str = ".going-";

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

    /// The directory of all pods' logs.
    pub(crate) fn all_logs(&self) -> &Path {
        &self.pod_logs
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
        self.instances(id, container).last().map_or(0, |highest| highest.saturating_add(1))
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

    /// The instances of a container that have left a log, by restart count, in order.
    pub(crate) fn instances(&self, id: &PodId, container: &str) -> BTreeSet<u32> {
        log_files(&self.pod_logs(id).join(container)).map(|(number, _)| number).collect()
    }

    /// An instance of a container is forgotten by the runtime: removes the symlink to its log. The log itself stays as long as
    /// the container has no more than `max_files`; of those that are forgotten, `attempt` and before, the oldest go first.
    pub(crate) fn forget_instance(
        &self,
        id: &PodId,
        container: &str,
        instance: &ContainerId,
        attempt: u32,
        max_files: usize,
    ) {
        let _ = fs::remove_file(self.links.join(link_name(id, container, instance)));
        let mut files: BTreeMap<u32, Vec<PathBuf>> = BTreeMap::new();
        for (number, path) in log_files(&self.pod_logs(id).join(container)) {
            files.entry(number).or_default().push(path);
        }
        let mut count: usize = files.values().map(Vec::len).sum();
        for forgotten in files.range(..=attempt).map(|(_, files)| files) {
            if count <= max_files {
                break;
            }
            forgotten.iter().for_each(|path| remove_logged(path, fs::remove_file));
            count -= forgotten.len();
        }
    }

    /// Removes what a pod left besides its logs: its own directory, and the symlinks into its log directory.
    pub(crate) fn remove_pod(&self, id: &PodId) {
        remove_logged(&self.pod(&id.uid), fs::remove_dir_all);
        let directory = self.pod_logs(id);
        for entry in fs::read_dir(&self.links).into_iter().flatten().flatten() {
            let points_here = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&directory));
            if points_here {
                remove_logged(&entry.path(), fs::remove_file);
            }
        }
    }

    /// Removes the logs of a pod, in one step for whoever makes the directory anew meanwhile.
    pub(crate) fn remove_logs(&self, id: &PodId) {
        let going = self.pod_logs.join(format!("{GOING}{}", id.uid));
        match fs::rename(self.pod_logs(id), &going) {
            Ok(()) => remove_logged(&going, fs::remove_dir_all),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(pod = %id, %error, "cannot remove the logs of a pod"),
        }
    }

    /// Removes what a kubelet left that was killed while it removed logs.
    pub(crate) fn finish_removals(&self) {
        for entry in fs::read_dir(&self.pod_logs).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(GOING.as_bytes()) {
                remove_logged(&entry.path(), fs::remove_dir_all);
            }
        }
    }
}

/// Files of the logs in a container's directory, with the number of their instance.
fn log_files(directory: &Path) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((log_number(entry.file_name().to_str()?)?, entry.path())))
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
pub(crate) fn log_number(name: &str) -> Option<u32> {
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
        let count = |path: &Path| fs::read_dir(path).unwrap().count();
        layout.forget_instance(&id(), "c", &ContainerId("aa".into()), 0, 3);
        assert_eq!((count(&logs), count(&root.path().join("containers"))), (2, 1));
        assert_eq!(layout.logged_pods(), [id()]);
        layout.remove_pod(&id());
        assert_eq!((count(&logs), count(&root.path().join("containers"))), (2, 0));
        fs::create_dir(root.path().join("pods/.going-u-0")).unwrap();
        layout.remove_logs(&id());
        assert!(layout.logged_pods().is_empty());
        layout.finish_removals();
        assert_eq!(count(&root.path().join("pods")), 0);
    }

    #[test]
    fn earlier_instances_stay_within_the_files_of_a_log() {
        for (forgotten, max_files, left) in [
            (2, 5, &[0, 1, 2, 3, 4][..]),
            (2, 4, &[1, 2, 3, 4]),
            (2, 3, &[2, 3, 4]),
            (2, 1, &[3, 4]),
            (0, 1, &[1, 2, 3, 4]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let layout = layout(root.path());
            layout.create_container_logs(&id(), "c").unwrap();
            for number in 0..5 {
                fs::write(layout.pod_logs(&id()).join(format!("c/{number}.log")), "").unwrap();
            }
            layout.forget_instance(&id(), "c", &ContainerId("aa".into()), forgotten, max_files);
            let instances: Vec<u32> = layout.instances(&id(), "c").into_iter().collect();
            assert_eq!(instances, left, "{forgotten} {max_files}");
        }
    }

    #[test]
    fn link_names_are_cut() {
        let long = "x".repeat(300);
        let name = link_name(&id(), "c", &ContainerId(long));
        assert_eq!(name.len(), 255);
        assert!(name.starts_with("web_prod_c-x") && name.ends_with("x.log"));
    }
}
