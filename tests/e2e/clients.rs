//! Clients that nobody here wrote, against the real binary: every kubectl of the machine, Python's `kubernetes`,
//! `@kubernetes/client-node`, and Rust's `kube`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use futures_util::{AsyncReadExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::harness::{kubectl, text};
use crate::kubelets::{good, node, pod, wait_for_account};
use crate::scripted_kubelet::{LINES, ScriptedKubelet};
use crate::standalone::{Process, Site};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A server and a kubelet with the pod `web`, whose log is [`LINES`] long.
struct Scene {
    site: Site,
    url: String,
    _server: Process,
    _kubelet: ScriptedKubelet,
}

impl Scene {
    fn set(kubectl: PathBuf) -> Scene {
        let site = Site::prepare(kubectl);
        let (server, url) = site.server(&["--store", &site.file("store.redb")], &[]);
        let kubelet = ScriptedKubelet::start([127, 0, 0, 2], good(&site), &[]);
        kubelet.release();
        wait_for_account(&site, &url);
        site.create(&url, &[node("n", Some(kubelet.address)), pod("web", "n", &["counter"])]);
        Scene { site, url, _server: server, _kubelet: kubelet }
    }

    /// A kubeconfig of the administrator.
    fn kubeconfig(&self) -> PathBuf {
        let file = |name: &str| self.site.file(name);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority": file("ca.crt")}}],
            "users": [{"name": "u", "user": {"client-certificate": file("admin.crt"), "client-key": file("admin.key")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        let path = self.site.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

fn all_lines() -> String {
    (0..LINES).map(|number| format!("line {number}\n")).collect()
}

/// Every kubectl that can be found, newest first, with its version; those that say the same are one.
fn all_kubectls() -> Vec<(String, PathBuf)> {
    let beside = |path: &Path| -> Vec<PathBuf> {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_kubectl = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl"))
        };
        entries.filter(is_kubectl).collect()
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = kubectl().into_iter().collect();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).collect();
    // Some distributions put all versions where the name of the newest leads to.
    let real = in_path.iter().filter_map(|path| path.canonicalize().ok());
    candidates.extend(in_path.iter().cloned().chain(real).flat_map(|path| beside(&path)));
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for candidate in candidates {
        let Ok(output) = Command::new(&candidate).args(["version", "--client", "-o", "json"]).output() else {
            continue;
        };
        let version = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        let version = version["clientVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned();
        if !version.is_empty() && !found.iter().any(|(known, _)| *known == version) {
            found.push((version, candidate));
        }
    }
    found
}

#[test]
fn every_kubectl_of_the_machine_is_content() {
    let Some(kubectl) = kubectl() else { return };
    let scene = Scene::set(kubectl);
    let manifest = scene.site.file("map.yaml");
    let numbered: Vec<(usize, (String, PathBuf))> = all_kubectls().into_iter().enumerate().collect();
    eprintln!("kubectl: {:?}", numbered.iter().map(|(_, (version, _))| version).collect::<Vec<_>>());
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: '1'}\n")
        .unwrap();
    std::thread::scope(|scope| {
        for (number, (version, kubectl)) in &numbered {
            let (scene, manifest) = (&scene, &manifest);
            scope.spawn(move || walk(scene, version, kubectl, manifest, &format!("map-{number}")));
        }
    });
}

fn walk(scene: &Scene, version: &str, kubectl: &Path, template: &str, name: &str) {
    let manifest = format!("{template}.{name}");
    std::fs::write(&manifest, std::fs::read_to_string(template).unwrap().replace("NAME", name)).unwrap();
    let (map, all) = (format!("configmap/{name}"), all_lines());
    let rows: &[(&str, &str)] = &[
        (&format!("apply -f {manifest}"), &format!("{map} created\n")),
        (
            &format!("apply --server-side --force-conflicts -f {manifest}"),
            &format!("{map} serverside-applied\n"),
        ),
        (&format!("patch {map} -p {{\"data\":{{\"b\":\"2\"}}}}"), &format!("{map} patched\n")),
        (&format!("get {map} -o jsonpath={{.data}}"), r#"{"a":"1","b":"2"}"#),
        // A list, and a watch from there.
        (&format!("wait --for=jsonpath={{.data.b}}=2 {map} --timeout=20s"), &format!("{map} condition met")),
        (&format!("diff -f {manifest}"), ""),
        ("get pods web -o name", "pod/web\n"),
        ("logs web", &all),
        ("logs web -f", &all),
        ("auth can-i get pods --subresource=log", "yes\n"),
        ("auth whoami -o jsonpath={.status.userInfo.username}", "admin"),
        (&format!("delete {map}"), &format!("configmap \"{name}\" deleted")),
    ];
    let run = |arguments: &str| -> Output {
        let mut command =
            scene.site.kubectl_of(kubectl, &scene.url, &arguments.split(' ').collect::<Vec<_>>());
        command.stdin(Stdio::null()).output().unwrap()
    };
    // This one asks for a beta version, which Kubernetes 1.36 no longer has either.
    let is_known = |arguments: &str| !(version.starts_with("v1.27.") && arguments.starts_with("auth whoami"));
    for (arguments, expected) in rows.iter().filter(|(arguments, _)| is_known(arguments)) {
        let output = run(arguments);
        // A difference is what `diff` finds, and says with 1.
        let fine =
            output.status.success() || arguments.starts_with("diff") && output.status.code() == Some(1);
        assert!(fine, "{version} {arguments}: {}", text(&output.stderr));
        assert!(
            text(&output.stdout).starts_with(expected),
            "{version} {arguments}: {}",
            text(&output.stdout)
        );
    }
    let token = text(&run("create token default --duration=10m").stdout);
    let refused = run(&format!("--token={} --client-certificate= --client-key= logs web", token.trim()));
    let refused = text(&refused.stderr);
    assert!(
        token.starts_with("ey") && refused.contains("system:serviceaccount:default:default"),
        "{version}: {refused}"
    );
}

/// The folder of a tool that `.ci/clients` installs; `None` is said loudly.
fn tool(name: &str) -> Option<PathBuf> {
    let path = Path::new(ROOT).join("target/tools").join(name);
    if !path.exists() {
        eprintln!("SKIPPED, NOT TESTED: no {}. Run .ci/clients", path.display());
        return None;
    }
    Some(path)
}

fn is_content(mut command: Command) {
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("is content"), "{said}{}", text(&output.stderr));
}

#[test]
fn python_is_content() {
    let (Some(kubectl), Some(python)) = (kubectl(), tool("python/bin/python")) else { return };
    let scene = Scene::set(kubectl);
    let mut command = Command::new(python);
    command.arg(format!("{ROOT}/tests/clients/walk.py")).arg(scene.kubeconfig());
    is_content(command);
}

#[test]
fn node_is_content() {
    let (Some(kubectl), Some(folder)) = (kubectl(), tool("node")) else { return };
    let scene = Scene::set(kubectl);
    let mut command = Command::new("node");
    command
        .arg(format!("{ROOT}/tests/clients/walk.mjs"))
        .arg(scene.kubeconfig())
        .arg(folder.canonicalize().unwrap());
    is_content(command);
}

#[test]
fn rust_is_content() {
    let Some(kubectl) = kubectl() else { return };
    let scene = Scene::set(kubectl);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(walk_in_rust(&scene.kubeconfig())).unwrap();
}

async fn walk_in_rust(kubeconfig: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    assert!(
        pods.list(&ListParams::default())
            .await?
            .items
            .iter()
            .any(|pod| pod.metadata.name.as_deref() == Some("web"))
    );

    let name = "from-rust";
    let created = maps
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}}))?)
        .await?;
    let version = created.metadata.resource_version.unwrap();
    let fields = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(maps.watch(&fields, &version).await?);
    maps.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "1"}}))).await?;
    let wanted =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"b": "2"}});
    let applied = maps.patch(name, &PatchParams::apply("rust").force(), &Patch::Apply(wanted)).await?;
    assert_eq!(applied.data.unwrap().len(), 2);
    maps.delete(name, &Default::default()).await?;
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Modified(_) => seen.push("MODIFIED"),
            WatchEvent::Deleted(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["MODIFIED"; 2]);

    assert_eq!(pods.logs("web", &LogParams::default()).await?, all_lines());
    let mut followed = String::new();
    let follow = LogParams { follow: true, ..LogParams::default() };
    pods.log_stream("web", &follow).await?.read_to_string(&mut followed).await?;
    assert_eq!(followed, all_lines());

    let me: Api<SelfSubjectReview> = Api::all(client.clone());
    let me = me.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    assert_eq!(me.status.unwrap().user_info.unwrap().username.as_deref(), Some("admin"));
    let may: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let asked =
        json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "subresource": "log"}}});
    assert!(
        may.create(&PostParams::default(), &serde_json::from_value(asked)?).await?.status.unwrap().allowed
    );
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client);
    let token =
        accounts.create_token_request("default", &PostParams::default(), &TokenRequest::default()).await?;
    assert!(token.status.unwrap().token.unwrap().starts_with("ey"));
    Ok(())
}
