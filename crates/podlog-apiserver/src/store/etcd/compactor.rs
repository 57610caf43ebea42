//! Compacts etcd now and then, by all servers together once an interval, as `k8s.io/apiserver/pkg/storage/etcd3/compact.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use podlog_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use podlog_proto::etcd::request_op::Request;
use podlog_proto::etcd::response_op::Response;
use podlog_proto::etcd::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::client::{CallError, Client};
use super::storage::{Shared, revision_of, signed, unsigned};

/// Upstream's key: its value is the revision up to which is compacted, its version counts the rounds. Whoever raises the
/// version compacts; who comes second learns the version.
const KEY: &[u8] = b"compact_rev_key";

/// What one server knows of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) version: i64,
    /// The newest revision when this was learned: old enough to go when the next round comes.
    pub(super) revision: u64,
}

/// Compacts for ever, each time what was there an interval ago.
pub(super) async fn run(shared: Arc<Shared>, interval: Duration) {
    let mut round = Round::default();
    loop {
        tokio::time::sleep(interval).await;
        match compact(&shared.client, round).await {
            Ok(next) => round = next,
            Err(error) => tracing::warn!(%error, "cannot compact etcd"),
        }
    }
}

/// One round: compacts, unless somebody else has done so since.
pub(super) async fn compact(client: &Client, round: Round) -> Result<Round, CallError> {
    let key = Bytes::from_static(KEY);
    let value = Bytes::from(round.revision.to_string());
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::Version(round.version)),
    };
    let put = Request::RequestPut(PutRequest { key: key.clone(), value, lease: 0 });
    let read = Request::RequestRange(RangeRequest { key, ..RangeRequest::default() });
    let operation = |request| vec![RequestOp { request: Some(request) }];
    let request = TxnRequest { compare: vec![compare], success: operation(put), failure: operation(read) };
    let response = client.txn(request).await?.message;
    let revision = revision_of(response.header.as_ref());
    if !response.succeeded {
        let found = response.responses.into_iter().next().and_then(|operation| operation.response);
        let version = match found {
            Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.version),
            _ => 0,
        };
        return Ok(Round { version, revision });
    }
    // In the first round nobody knows what is old.
    if round.revision > 0 {
        client.compact(signed(round.revision)).await?;
        tracing::debug!(revision = round.revision, "compacted etcd");
    }
    Ok(Round { version: round.version + 1, revision })
}

/// The revision up to which somebody has compacted, if anybody said so.
pub(super) async fn last_compacted(client: &Client) -> Result<Option<u64>, CallError> {
    let request = RangeRequest { key: Bytes::from_static(KEY), ..RangeRequest::default() };
    let found = client.range(request).await?.kvs.into_iter().next();
    let value = found.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
    Ok(value.map(unsigned).filter(|&revision| revision > 0))
}
