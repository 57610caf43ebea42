//! The directory of manifests, or the one file, and its pods now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::manifest::pod;

/// How often the files are looked at: whether they have changed costs a few system calls.
const LOOK: Duration = Duration::from_secs(1);
/// Largest manifest that is read.
const MAX_BYTES: u64 = 3 << 20;

/// Manifests of static pods.
pub(crate) struct Directory {
    path: PathBuf,
    node: String,
    look: Duration,
    /// What each file asks for. A file that has become wrong goes on asking for what it asked for last.
    pods: BTreeMap<PathBuf, Arc<Pod>>,
    /// The files as they were read last.
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
            self.stamps = Some(stamps);
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
            // The moment at which it was seen is no change.
            Ok(new) => Some(old.filter(|old| old.metadata.uid == new.metadata.uid).unwrap_or(Arc::new(new))),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the manifest of a static pod is not usable");
                old
            }
        }
    }
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
type Stamps = Vec<(PathBuf, u64, u64, Option<SystemTime>)>;

fn stamps(path: &Path) -> Stamps {
    let stamp = |file: PathBuf| {
        let metadata = fs::metadata(&file).ok()?;
        Some((file, metadata.ino(), metadata.len(), metadata.modified().ok()))
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
