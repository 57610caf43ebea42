//! Objects of stores from before keys were laid out as Kubernetes lays them out: `/registry/<plural>[.<group>]/…`.

use std::collections::BTreeSet;

use podlog_api::resource::{self, Resource};

use super::keys;
use crate::store::{Change, Expected, KeyValue, Range, Store, StoreError, Write};

/// Moves what lies under keys of before to where it is looked for; says how many objects. What is there already stays: a
/// migration that was interrupted goes on.
pub(crate) async fn adopt_old_keys(store: &dyn Store) -> Result<usize, StoreError> {
    let mut moved = 0;
    let mut seen = BTreeSet::new();
    for kind in resource::all().iter().filter(|kind| kind.is_stored() && seen.insert(old_prefix(kind))) {
        let old = old_prefix(kind);
        if old == keys::prefix(kind, None) {
            continue;
        }
        for found in store.range(&Range { prefix: old.clone(), ..Range::default() })?.items {
            if let Some(name) = old_name(kind, &found.key) {
                let new = format!("{}{name}", keys::prefix(kind, None));
                rename(store, found, new).await?;
                moved += 1;
            }
        }
    }
    if moved > 0 {
        tracing::warn!(
            objects = moved,
            "the store is of an older podlog: its objects were moved to their new keys"
        );
    }
    Ok(moved)
}

fn old_prefix(kind: &Resource) -> String {
    let name = if kind.kind == "Event" { "events".into() } else { kind.qualified() };
    format!("/registry/{name}/")
}

/// Namespace and name, if the key is an old one: `services` are a part of the path in the new layout too.
fn old_name<'a>(kind: &Resource, key: &'a str) -> Option<&'a str> {
    let rest = key.strip_prefix(&old_prefix(kind))?;
    (rest.split('/').count() == if kind.namespaced { 2 } else { 1 }).then_some(rest)
}

async fn rename(store: &dyn Store, old: KeyValue, key: String) -> Result<(), StoreError> {
    let change = Change::Put(old.value);
    let put = Write { key, expected: Expected::Absent, beside: None, change, ttl: None };
    match store.write(put).await {
        Ok(_) | Err(StoreError::Conflict(_)) => {}
        Err(error) => return Err(error),
    }
    let expected = Expected::ModRevision(old.mod_revision);
    store.write(Write { key: old.key, expected, beside: None, change: Change::Delete, ttl: None }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RedbStore;

    async fn put(store: &RedbStore, key: &str, value: &'static str) {
        let change = Change::Put(value.into());
        let expected = Expected::Absent;
        store.write(Write { key: key.into(), expected, beside: None, change, ttl: None }).await.unwrap();
    }

    #[tokio::test]
    async fn stores_of_before_are_moved_once_and_others_left_alone() {
        let store = RedbStore::in_memory().unwrap();
        for (key, value) in [
            ("/registry/deployments.apps/prod/web", "moved"),
            ("/registry/nodes/n1", "moved"),
            ("/registry/services/prod/web", "moved"),
            ("/registry/leases.coordination.k8s.io/kube-node-lease/n1", "interrupted"),
            ("/registry/leases/kube-node-lease/n1", "newer"),
            ("/registry/pods/prod/web", "stays"),
            ("/registry/services/specs/prod/other", "stays"),
        ] {
            put(&store, key, value).await;
        }
        assert_eq!(adopt_old_keys(&store).await.unwrap(), 4);
        assert_eq!(adopt_old_keys(&store).await.unwrap(), 0);
        let all = store.range(&Range { prefix: "/registry/".into(), ..Range::default() }).unwrap();
        let found: Vec<(&str, &[u8])> = all.items.iter().map(|kv| (kv.key.as_str(), &kv.value[..])).collect();
        let expected: [(&str, &[u8]); 6] = [
            ("/registry/deployments/prod/web", b"moved"),
            ("/registry/leases/kube-node-lease/n1", b"newer"),
            ("/registry/minions/n1", b"moved"),
            ("/registry/pods/prod/web", b"stays"),
            ("/registry/services/specs/prod/other", b"stays"),
            ("/registry/services/specs/prod/web", b"moved"),
        ];
        assert_eq!(found, expected);
    }
}
