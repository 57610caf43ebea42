//! API server, kubelet and runtime, each a process of its own that can be killed alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};

use crate::cluster::{Backend, Column, PATIENCE, client_of, condition, log_max_bytes, settings};
use crate::nodes;
use crate::restarts::{Parts, Victim};
use crate::standalone::Process;

const NODE: &str = "node-a";
const PODS: &str = "/api/v1/namespaces/default/pods";
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Apart {
    column: Column,
    client: kube::Client,
    kubelet: Option<Process>,
    arguments: Vec<String>,
    // Behind the kubelet: dropping these removes what it uses.
    cluster: nodes::Cluster,
    backend: Backend,
}

impl Apart {
    pub(crate) async fn start(column: Column, backend: Backend) -> Self {
        let mut cluster = nodes::Cluster::start_for(PathBuf::new(), &[]);
        let flags = backend.flags();
        let arguments = cluster.kubelet(NODE, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        keep_more_logs(&cluster.path(&format!("{NODE}.yaml")));
        let client = client_of(Path::new(&cluster.administrator())).await;
        let (kubelet, _) = cluster.run(&arguments);
        Apart { column, client, kubelet: Some(kubelet), arguments, cluster, backend }
    }

    async fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Value, kube::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        self.client.request(request.body(body).unwrap()).await
    }

    /// What a request gives once it succeeds and its answer is as wanted.
    async fn insist(&self, method: &str, path: &str, body: &[u8], wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.request(method, path, body.to_vec()).await;
            if let Some(answer) = answer.as_ref().ok().filter(|answer| wanted(answer)) {
                return answer.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{method} {path}: {answer:?}{}", self.cluster.messages());
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The settings of the other tests, in the place of the defaults.
fn keep_more_logs(config: &Path) {
    let mut own: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let Value::Object(more) = settings(log_max_bytes()) else { return };
    own.as_object_mut().unwrap().extend(more);
    std::fs::write(config, own.to_string()).unwrap();
}

impl Parts for Apart {
    fn column(&self) -> Column {
        self.column
    }

    fn victims(&self) -> Vec<Victim> {
        let runtime = self.backend.is_apart().then_some(Victim::Runtime);
        [Victim::ApiServer, Victim::Kubelet].into_iter().chain(runtime).collect()
    }

    async fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::ApiServer => {
                self.cluster.kill_server();
                self.cluster.start_server();
            }
            Victim::Runtime => self.backend.restart(),
            Victim::Kubelet | Victim::Podlog | Victim::Both => {
                drop(self.kubelet.take());
                self.kubelet = Some(self.cluster.run(&self.arguments).0);
            }
        }
    }

    fn follower(&self, pod: &str) -> Command {
        self.cluster.podlog_command(&["logs", "-f", pod])
    }

    fn folder(&self) -> PathBuf {
        self.cluster.path("")
    }

    async fn run(&self, pod: &str, mut spec: Value) {
        for (key, value) in [("hostNetwork", json!(true)), ("nodeName", json!(NODE))] {
            spec[key] = value;
        }
        spec["terminationGracePeriodSeconds"] = json!(1);
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": pod}, "spec": spec});
        // The default service account is made a moment after its namespace.
        self.insist("POST", PODS, pod.to_string().as_bytes(), |_| true).await;
    }

    async fn ready(&self, pod: &str) -> Value {
        let is_ready = |pod: &Value| condition(pod, "Ready")["status"] == "True";
        self.insist("GET", &format!("{PODS}/{pod}"), b"", is_ready).await
    }

    async fn remove(&self, pod: &str) {
        self.insist("DELETE", &format!("{PODS}/{pod}"), b"", |_| true).await;
        let is_none = |pods: &Value| pods["items"].as_array().is_some_and(Vec::is_empty);
        self.insist("GET", PODS, b"", is_none).await;
    }
}
