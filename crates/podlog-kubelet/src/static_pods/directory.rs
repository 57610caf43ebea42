//! The directory of manifests, or the one file, and its pods now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::manifest::{SEEN, annotation, pod};

/// How often the files are looked at: whether they have changed costs a few system calls.
const LOOK: Duration = Duration::from_secs(1);
/// A file that was changed no longer ago may be changed again without that being seen: some file systems count whole seconds.
const UNSETTLED: Duration = Duration::from_secs(2);
/// Largest manifest that is read.
const MAX_BYTES: u64 = 3 << 20;

/// Manifests of static pods.
pub(crate) struct Directory {
    path: PathBuf,
    node: String,
    look: Duration,
    /// What each file asks for. A file that has become wrong goes on asking for what it asked for last.
    pods: BTreeMap<PathBuf, Arc<Pod>>,
    /// The files as they were read last; `None` where they may be others by now.
    stamps: Option<Stamps>,
}

impl Directory {
    /// `look` is how often it is looked at, once a second or more.
    pub(crate) fn new(path: PathBuf, node: String, look: Duration) -> Self {
        Directory { path, node, look, pods: BTreeMap::new(), stamps: None }
    }

    /// Hands in all pods, now and whenever files have changed, until `shutdown`.
    pub(crate) async fn run(mut self, pods: mpsc::Sender<Vec<Arc<Pod>>>, shutdown: CancellationToken) {
        let mut ticks = interval(self.look.min(LOOK));
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let look = tokio::task::spawn_blocking(move || (self.has_changed(), self));
            let has_changed;
            (has_changed, self) = match look.await {
                Ok(looked) => looked,
                Err(error) => return tracing::error!(%error, "reading static pods failed"),
            };
            if has_changed && pods.send(self.pods.values().cloned().collect()).await.is_err() {
                return;
            }
        }
    }

    /// Looks, and reads the files if they are not what they were.
    fn has_changed(&mut self) -> bool {
        let stamps = stamps(&self.path);
        let has_changed = self.stamps.as_ref() != Some(&stamps);
        if has_changed {
            self.read();
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let settled = since_epoch.saturating_sub(UNSETTLED);
            self.stamps = stamps.iter().all(|stamp| stamp.changed < settled).then_some(stamps);
        }
        has_changed
    }

    fn read(&mut self) {
        let mut pods: BTreeMap<PathBuf, Arc<Pod>> = BTreeMap::new();
        for file in files(&self.path) {
            let old = self.pods.remove(&file);
            let Some(pod) = self.read_file(&file, old) else { continue };
            let name = (&pod.metadata.namespace, &pod.metadata.name);
            if pods.values().any(|other| (&other.metadata.namespace, &other.metadata.name) == name) {
                tracing::warn!(file = %file.display(), "another manifest has a pod of this name: ignored");
                continue;
            }
            pods.insert(file, pod);
        }
        self.pods = pods;
    }

    fn read_file(&self, file: &Path, old: Option<Arc<Pod>>) -> Option<Arc<Pod>> {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the manifest of a static pod");
                return old;
            }
        };
        match pod(&text, file, &self.node, Timestamp::now()) {
            Ok(new) => Some(old.filter(|old| is_same(old, &new)).unwrap_or(Arc::new(new))),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the manifest of a static pod is not usable");
                old
            }
        }
    }
}

/// Whether nothing has changed but the moment at which it was seen.
fn is_same(old: &Pod, new: &Pod) -> bool {
    let mut seen_before = new.clone();
    let moment = annotation(old, SEEN).map(str::to_owned);
    if let (Some(annotations), Some(moment)) = (&mut seen_before.metadata.annotations, moment) {
        annotations.insert(SEEN.to_owned(), moment);
    }
    *old == seen_before
}

/// The files of a directory that may be manifests, by name; or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no static pods");
            return Vec::new();
        }
    };
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths.filter(|path| !is_hidden(path) && path.is_file()).collect();
    paths.sort();
    paths
}

fn read_text(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MAX_BYTES {
        return Err(io::Error::other("it is larger than 3 MiB"));
    }
    fs::read_to_string(file)
}

/// What tells one state of the directory from the next.
type Stamps = Vec<Stamp>;

#[derive(PartialEq)]
struct Stamp {
    file: PathBuf,
    number: u64,
    bytes: u64,
    /// Since 1970. Unlike the time of modification, nobody sets it.
    changed: Duration,
}

fn stamps(path: &Path) -> Stamps {
    let stamp = |file: PathBuf| {
        let metadata = fs::metadata(&file).ok()?;
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        let changed =
            Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).unwrap_or_default());
        Some(Stamp { number: metadata.ino(), bytes: metadata.len(), changed, file })
    };
    files(path).into_iter().filter_map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}"
        )
    }

    /// A uid that the manifest itself gives stays what it is when the rest changes.
    #[test]
    fn whoever_gives_a_uid_may_change_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path().into(), "n".into(), LOOK);
        let mut read = |image: &str| {
            let text = manifest("a", image).replace("name: a}", "name: a, uid: given}");
            fs::write(folder.path().join("a.yaml"), text).unwrap();
            directory.has_changed();
            directory.pods.values().next().unwrap().clone()
        };
        let [first, second, third] = ["one", "two", "two"].map(&mut read);
        assert_eq!(
            (first.metadata.uid.as_deref(), &first.metadata.uid),
            (Some("given"), &second.metadata.uid)
        );
        assert_eq!(second.spec.as_ref().unwrap().containers[0].image.as_deref(), Some("two"));
        assert!(Arc::ptr_eq(&second, &third));
    }

    #[test]
    fn a_file_that_is_changed_twice_at_once_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(folder.path().into(), "n".into(), LOOK);
        for _ in 0..20 {
            for image in ["one", "two"] {
                fs::write(folder.path().join("a.yaml"), manifest("a", image)).unwrap();
                directory.has_changed();
                let pod = directory.pods.values().next().unwrap();
                assert_eq!(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), Some(image));
            }
        }
    }

    #[tokio::test]
    async fn pods_follow_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        let put = |name: &str, text: &str| {
            let temporary = manifests.join(format!(".{name}"));
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, manifests.join(name)).unwrap();
        };
        put("b.yaml", &manifest("b", "x"));
        let directory = Directory::new(manifests.clone(), "n".into(), Duration::from_millis(5));
        let (sender, mut receiver) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(directory.run(sender, shutdown.clone()));
        let mut pods = async |expected: &[&str]| loop {
            let pods = timeout(Duration::from_secs(20), receiver.recv()).await.expect("a list").unwrap();
            let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
            if names == expected {
                return pods;
            }
        };
        let first = pods(&["b-n"]).await;
        put("a.yaml", &manifest("a", "x"));
        let second = pods(&["a-n", "b-n"]).await;
        assert!(Arc::ptr_eq(&first[0], &second[1]), "what has not changed stays");
        put("b.yaml", "{nonsense");
        put("c.yaml", &manifest("a", "other"));
        let third = pods(&["a-n", "b-n"]).await;
        assert!(Arc::ptr_eq(&second[1], &third[1]), "a file that is wrong changes nothing");
        fs::remove_file(manifests.join("a.yaml")).unwrap();
        let fourth = pods(&["b-n", "a-n"]).await;
        assert_ne!(fourth[1].metadata.uid, second[0].metadata.uid);
        shutdown.cancel();
        task.await.unwrap();
    }
}
