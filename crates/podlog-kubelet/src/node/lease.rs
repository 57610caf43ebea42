//! The node's heartbeat: a Lease of its name in `kube-node-lease`, renewed four times in its life
//! (`component-helpers/apimachinery/lease`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::objects::api_message;

const NAMESPACE: &str = "kube-node-lease";
/// Pause after an attempt that failed.
const RETRY: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 5;

/// Renews the lease until shutdown.
pub(super) async fn keep(client: kube::Client, node: String, life: Duration, shutdown: CancellationToken) {
    let api = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let nodes = Api::<Node>::all(client);
    let mut ticks = interval(life / 4);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let attempts = async {
            for attempt in 1..=ATTEMPTS {
                match renew(&api, &nodes, &node, life).await {
                    Ok(()) => return,
                    Err(error) if attempt == ATTEMPTS => {
                        tracing::warn!(node, error = api_message(&error), "cannot renew the node's lease");
                    }
                    Err(_) => sleep(RETRY).await,
                }
            }
        };
        if shutdown.run_until_cancelled(attempts).await.is_none() {
            return;
        }
    }
}

async fn renew(api: &Api<Lease>, nodes: &Api<Node>, node: &str, life: Duration) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({ "spec": { "holderIdentity": node, "renewTime": now } }));
    match api.patch(node, &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    let owner = nodes.get_opt(node).await?.map(|found| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: found.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: i32::try_from(life.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
