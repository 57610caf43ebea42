use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::objects::Kind;
use crate::objects::fake::FakeObjects;

struct Bench {
    root: tempfile::TempDir,
    objects: FakeObjects,
    volumes: PodVolumes,
    node: NodeFacts,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let objects = FakeObjects::default();
        objects.put(Kind::ConfigMap, "cfg", &[("a.txt", "one"), ("b.txt", "two")]);
        objects.put(Kind::Secret, "sec", &[("password", "s3cret")]);
        let volumes = PodVolumes::new(root.path().join("pods/u-1"));
        let node = NodeFacts {
            name: "n".into(),
            ip: [127, 0, 0, 1].into(),
            labels: Default::default(),
            api_server: Some("127.0.0.1:1".parse().unwrap()),
            allocatable: BTreeMap::new(),
        };
        Bench { root, objects, volumes, node }
    }

    async fn set_up(&mut self, volume: Value) -> Result<PathBuf, String> {
        self.set_up_at(volume, Timestamp::now()).await
    }

    async fn set_up_at(&mut self, volume: Value, now: Timestamp) -> Result<PathBuf, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "prod", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c"}], "volumes": [volume]},
        }))
        .unwrap();
        let sources = Sources { pod: &pod, node: &self.node, objects: &self.objects, now };
        let paths = self.volumes.set_up(&sources).await.map_err(|(_, error)| error.full())?;
        Ok(paths["v"].clone())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn visible(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_appear_with_their_modes() {
    let mut bench = Bench::new();
    let path = bench
        .set_up(json!({"configMap": {"name": "cfg", "defaultMode": 0o640, "items": [
            {"key": "a.txt", "path": "x/a"}, {"key": "b.txt", "path": "b", "mode": 0o600}]}}))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(path.join("x/a")).unwrap(), "one");
    assert_eq!((mode(&path.join("x/a")), mode(&path.join("b"))), (0o640, 0o600));
    assert_eq!(visible(&path), ["b", "x"]);
    assert_eq!(fs::read_link(path.join("b")).unwrap(), Path::new("..data/b"));
    assert_eq!(mode(path.parent().unwrap()), 0o700, "only the kubelet gets into it on the host");
}

#[tokio::test]
async fn updates_swap_all_files_at_once() {
    let mut bench = Bench::new();
    let volume = json!({"configMap": {"name": "cfg"}});
    let path = bench.set_up(volume.clone()).await.unwrap();
    let first = fs::read_link(path.join("..data")).unwrap();
    bench.set_up(volume.clone()).await.unwrap();
    assert_eq!(fs::read_link(path.join("..data")).unwrap(), first, "unchanged files are not written again");
    bench.objects.put(Kind::ConfigMap, "cfg", &[("b.txt", "changed"), ("c.txt", "new")]);
    bench.set_up(volume).await.unwrap();
    assert_eq!(visible(&path), ["b.txt", "c.txt"]);
    assert_eq!(fs::read_to_string(path.join("b.txt")).unwrap(), "changed");
    assert!(!path.join(first).exists(), "the old directory is removed");
}

#[tokio::test]
async fn every_plugin_works_and_says_what_is_missing() {
    for (volume, file, expected) in [
        (json!({"secret": {"secretName": "sec"}}), "password", Ok("s3cret")),
        (
            json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            "l",
            Ok("app=\"web\""),
        ),
        (
            json!({"projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {"name": "cfg", "items": [{"key": "a.txt", "path": "ca.crt"}]}}]}}),
            "token",
            Ok("token-1"),
        ),
        (json!({"configMap": {"name": "none"}}), "", Err(r#"configmap "none" not found"#)),
        (json!({"secret": {"secretName": "none"}}), "", Err(r#"secret "none" not found"#)),
        (
            json!({"configMap": {"name": "cfg", "items": [{"key": "z", "path": "z"}]}}),
            "",
            Err("configmap references non-existent config key: z"),
        ),
        (
            json!({"configMap": {"name": "cfg", "items": [{"key": "a.txt", "path": "../z"}]}}),
            "",
            Err("invalid path: ../z must be relative and stay in the volume"),
        ),
        (
            json!({"hostPath": {"path": "/proc/version", "type": "Directory"}}),
            "",
            Err("hostPath type check failed: /proc/version is not a directory"),
        ),
        (json!({"nfs": {"server": "s", "path": "/"}}), "", Err("no volume plugin matched name: v")),
    ] {
        let mut bench = Bench::new();
        let found = bench.set_up(volume.clone()).await;
        let found = found.map(|path| fs::read_to_string(path.join(file)).unwrap());
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{volume}");
    }
}

#[tokio::test]
async fn optional_objects_may_be_missing() {
    let mut bench = Bench::new();
    let path = bench.set_up(json!({"configMap": {"name": "none", "optional": true}})).await.unwrap();
    assert_eq!(visible(&path), Vec::<String>::new());
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire() {
    let mut bench = Bench::new();
    let volume = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1000}}]}});
    let now = Timestamp::now();
    for (seconds, expected) in [(0, "token-1"), (700, "token-1"), (900, "token-2")] {
        let at = now + jiff::SignedDuration::from_secs(seconds);
        let path = bench.set_up_at(volume.clone(), at).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("t")).unwrap(), expected, "after {seconds} s");
    }
}

#[tokio::test]
async fn an_empty_dir_survives_and_goes_with_the_pod() {
    let mut bench = Bench::new();
    let path = bench.set_up(json!({"emptyDir": {}})).await.unwrap();
    assert_eq!(mode(&path), 0o777);
    fs::write(path.join("kept"), "x").unwrap();
    bench.set_up(json!({"emptyDir": {}})).await.unwrap();
    assert!(path.join("kept").exists());
    let directory = bench.root.path().join("pods/u-1");
    remove_volumes(&directory).unwrap();
    remove_volumes(&directory).unwrap();
    assert!(!path.exists());
}

#[test]
fn sub_paths_stay_inside() {
    let root = tempfile::tempdir().unwrap();
    let volume = root.path().join("v");
    fs::create_dir_all(volume.join("in")).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
    std::os::unix::fs::symlink("in", volume.join("link")).unwrap();
    let real = fs::canonicalize(&volume).unwrap();
    for (sub_path, expected) in [
        ("", Some(volume.clone())),
        ("in", Some(real.join("in"))),
        ("link", Some(real.join("in"))),
        ("new/deep", Some(real.join("new/deep"))),
        ("../x", None),
        ("/etc", None),
        ("out", None),
        ("out/passwd", None),
        ("out/podlog-new", None),
    ] {
        assert_eq!(resolve_sub_path(&volume, sub_path).ok(), expected, "{sub_path}");
    }
    assert!(!Path::new("/etc/podlog-new").exists());
    for made in ["new", "new/deep"] {
        assert_eq!(
            mode(&volume.join(made)),
            0o2777,
            "{made}: any user writes where any may write to the volume"
        );
    }
}
