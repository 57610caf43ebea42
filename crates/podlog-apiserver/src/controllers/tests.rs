//! All controllers together, over a real registry.

use std::sync::Arc;
use std::time::Duration;

use podlog_api::{ApiError, Object, Reason, resource::Resource};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{ControllerConfig, kinds, objects::*, spawn_all};
use crate::registry::{DeleteOptions, Part, Propagation, Registry};
use crate::store::RedbStore;

struct Cluster {
    registry: Registry,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Cluster {
    async fn start() -> Self {
        let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
        let shutdown = CancellationToken::new();
        let config = ControllerConfig { root_ca_pem: "pem".into(), ..ControllerConfig::default() };
        let tasks = spawn_all(&registry, config, &shutdown);
        let cluster = Cluster { registry, shutdown, tasks };
        for namespace in ["default", "ns"] {
            cluster.create(kinds::namespaces(), "", json!({"metadata": {"name": namespace}})).await;
            cluster.eventually(|| cluster.exists(kinds::service_accounts(), namespace, "default")).await;
        }
        cluster
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join_all().await;
    }

    async fn create(&self, resource: &'static Resource, namespace: &str, object: Value) -> Object {
        self.registry.create(resource, namespace, Object::new(object)).await.unwrap()
    }

    async fn node(&self, name: &str) {
        let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]});
        self.create(kinds::nodes(), "", json!({"metadata": {"name": name}})).await;
        self.set_status(kinds::nodes(), "", name, status).await.unwrap();
        self.eventually(|| self.get(kinds::nodes(), "", name).array("/spec/taints").is_empty()).await;
    }

    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Object {
        self.registry.get(resource, namespace, name).unwrap()
    }

    fn exists(&self, resource: &'static Resource, namespace: &str, name: &str) -> bool {
        self.registry.find(resource, namespace, name).unwrap().is_some()
    }

    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Object> {
        self.registry.list(resource, Some(namespace)).unwrap().0
    }

    async fn set_status(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<Object, ApiError> {
        let change = |object: &mut Object| {
            object.0["status"] = status.clone();
            Ok(())
        };
        self.registry.update_with(resource, namespace, name, Part::Status, change).await
    }

    async fn change(
        &self,
        resource: &'static Resource,
        name: &str,
        change: impl Fn(&mut Object) + Send + Sync,
    ) {
        let change = |object: &mut Object| {
            change(object);
            Ok(())
        };
        self.registry.update_with(resource, "ns", name, Part::Main, change).await.unwrap();
    }

    async fn delete(&self, resource: &'static Resource, namespace: &str, name: &str, policy: Propagation) {
        let options = DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
        self.registry.delete(resource, namespace, name, options).await.unwrap();
    }

    /// Plays the kubelet until a condition holds: pods with a node run, deleted ones end.
    async fn eventually(&self, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "never happened:\n{}", self.describe());
            self.play_kubelet().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What there is, for a test that fails.
    fn describe(&self) -> String {
        let kinds = [kinds::deployments(), kinds::replica_sets(), kinds::jobs(), kinds::pods()];
        let objects = kinds.into_iter().flat_map(|kind| self.list(kind, "ns"));
        let events = self.list(kinds::events(), "ns");
        let events =
            events.iter().map(|event| format!("{} {}", event.text("/reason"), event.text("/message")));
        objects.map(|object| object.0.to_string()).chain(events).collect::<Vec<_>>().join("\n")
    }

    async fn play_kubelet(&self) {
        for pod in self.list(kinds::pods(), "ns") {
            if pod.text("/spec/nodeName").is_empty() {
                continue;
            }
            let result = if pod.is_deleting() {
                let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                self.registry.delete(kinds::pods(), "ns", pod.name(), options).await
            } else if pod.text("/status/phase") == "Pending" {
                let ready =
                    json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
                let phase = if pod.label("job-name").is_some() { "Succeeded" } else { "Running" };
                let status = json!({"phase": phase, "conditions": [ready]});
                self.set_status(kinds::pods(), "ns", pod.name(), status).await
            } else {
                continue;
            };
            // Somebody else may have removed it meanwhile.
            assert!(result.is_ok() || result.is_err_and(|error| error.reason == Reason::NotFound));
        }
    }

    fn has_event(&self, reason: &str) -> bool {
        self.list(kinds::events(), "ns").iter().any(|event| event.text("/reason") == reason)
    }
}

fn deployment(replicas: i64) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}}}})
}

fn available(deployment: &Object) -> i64 {
    status_count(deployment, "availableReplicas")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_roll_out_and_go() {
    let cluster = Cluster::start().await;
    cluster.create(kinds::deployments(), "ns", deployment(3)).await;
    cluster.eventually(|| cluster.has_event("FailedScheduling")).await;
    let pods = cluster.list(kinds::pods(), "ns");
    let why = pods.iter().find_map(|pod| condition(pod, "PodScheduled")).unwrap();
    assert_eq!(why["message"], "no nodes available to schedule pods");

    cluster.node("n1").await;
    let web = || cluster.get(kinds::deployments(), "ns", "web");
    cluster.eventually(|| available(&web()) == 3 && holds(&web(), "Available")).await;
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"] {
        cluster.eventually(|| cluster.has_event(reason)).await;
    }

    cluster
        .change(kinds::deployments(), "web", |web| {
            web.0["spec"]["template"]["spec"]["containers"][0]["image"] = json!("2");
        })
        .await;
    let progressed = || condition(&web(), "Progressing").map(|c| c["reason"].clone());
    cluster
        .eventually(|| {
            let web = web();
            status_count(&web, "observedGeneration") == web.integer("/metadata/generation").unwrap()
                && status_count(&web, "updatedReplicas") == 3
                && status_count(&web, "replicas") == 3
                && available(&web) == 3
        })
        .await;
    cluster.eventually(|| progressed() == Some(json!("NewReplicaSetAvailable"))).await;
    let images: Vec<Object> = cluster.list(kinds::pods(), "ns").into_iter().filter(is_pod_active).collect();
    assert!(images.iter().all(|pod| pod.text("/spec/containers/0/image") == "2"), "{images:?}");
    assert_eq!(web().annotation("deployment.kubernetes.io/revision"), Some("2"));

    cluster.delete(kinds::deployments(), "ns", "web", Propagation::Foreground).await;
    cluster.eventually(|| !cluster.exists(kinds::deployments(), "ns", "web")).await;
    assert!(
        cluster.list(kinds::pods(), "ns").is_empty() && cluster.list(kinds::replica_sets(), "ns").is_empty()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_propagate() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    for (policy, left) in [(Propagation::Background, 0), (Propagation::Orphan, 2)] {
        cluster.create(kinds::deployments(), "ns", deployment(2)).await;
        let web = || cluster.get(kinds::deployments(), "ns", "web");
        cluster.eventually(|| available(&web()) == 2).await;
        cluster.delete(kinds::deployments(), "ns", "web", policy).await;
        cluster.eventually(|| !cluster.exists(kinds::deployments(), "ns", "web")).await;
        let sets = || cluster.list(kinds::replica_sets(), "ns");
        cluster.eventually(|| sets().len() == usize::from(left > 0)).await;
        cluster.eventually(|| cluster.list(kinds::pods(), "ns").len() == left).await;
        assert!(sets().iter().all(|set| controller_of(set).is_none()));
    }
    // A new deployment adopts the orphans.
    let web = cluster.create(kinds::deployments(), "ns", deployment(2)).await;
    let sets = || cluster.list(kinds::replica_sets(), "ns");
    cluster.eventually(|| sets().len() == 1 && sets().iter().all(|set| is_controlled_by(set, &web))).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_furnished_and_emptied() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.eventually(|| cluster.exists(kinds::config_maps(), "ns", "kube-root-ca.crt")).await;
    let map = cluster.get(kinds::config_maps(), "ns", "kube-root-ca.crt");
    assert_eq!(map.0["data"], json!({"ca.crt": "pem"}));
    cluster.delete(kinds::config_maps(), "ns", "kube-root-ca.crt", Propagation::Background).await;
    cluster.eventually(|| cluster.exists(kinds::config_maps(), "ns", "kube-root-ca.crt")).await;

    cluster.create(kinds::deployments(), "ns", deployment(2)).await;
    let web = || cluster.get(kinds::deployments(), "ns", "web");
    cluster.eventually(|| available(&web()) == 2).await;
    cluster.delete(kinds::namespaces(), "", "ns", Propagation::Background).await;
    cluster.eventually(|| !cluster.exists(kinds::namespaces(), "", "ns")).await;
    for resource in
        [kinds::pods(), kinds::deployments(), kinds::replica_sets(), kinds::events(), kinds::config_maps()]
    {
        assert_eq!(cluster.list(resource, "ns"), [], "{}", resource.plural);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_tainted_nodes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pod = |name: &str, tolerations: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": tolerations}});
    cluster.create(kinds::pods(), "ns", pod("goes", json!([]))).await;
    cluster.create(kinds::pods(), "ns", pod("stays", json!([{"operator": "Exists"}]))).await;
    let runs = |name: &str| cluster.get(kinds::pods(), "ns", name).text("/status/phase") == "Running";
    cluster.eventually(|| runs("goes") && runs("stays")).await;
    let taint = |node: &mut Object| {
        node.map_mut("spec").insert("taints".into(), json!([{"key": "fire", "effect": "NoExecute"}]));
        Ok(())
    };
    cluster.registry.update_with(kinds::nodes(), "", "n1", Part::Main, taint).await.unwrap();
    cluster.eventually(|| !cluster.exists(kinds::pods(), "ns", "goes")).await;
    assert!(runs("stays") && cluster.has_event("TaintManagerEviction"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_complete_and_go_with_their_pods() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"parallelism": 2, "completions": 3, "template": template});
    cluster.create(kinds::jobs(), "ns", json!({"metadata": {"name": "sum"}, "spec": spec})).await;
    let job = || cluster.get(kinds::jobs(), "ns", "sum");
    cluster.eventually(|| holds(&job(), "Complete")).await;
    assert_eq!((status_count(&job(), "succeeded"), cluster.list(kinds::pods(), "ns").len()), (3, 3));
    cluster.eventually(|| cluster.has_event("Completed")).await;
    cluster.delete(kinds::jobs(), "ns", "sum", Propagation::Background).await;
    cluster.eventually(|| cluster.list(kinds::pods(), "ns").is_empty()).await;
    cluster.stop().await;
}
