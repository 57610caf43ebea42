//! What every namespace holds: the service account `default`, and the authority to trust the API server by.
//!
//! As `pkg/controller/serviceaccount` and `pkg/controller/certificates/rootcacertpublisher`.

use jiff::Timestamp;
use podlog_api::{ApiError, Object, resource::Resource};
use serde_json::json;

use super::{
    action::Action,
    kinds,
    objects::*,
    runner::{Change, Controller, Key},
};
use crate::registry::Part;

const SERVICE_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// The controller of what every namespace holds.
pub(crate) struct NamespaceDefaults {
    /// PEM.
    pub(crate) root_ca_pem: String,
}

impl Controller for NamespaceDefaults {
    fn name(&self) -> &'static str {
        "namespace-defaults"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![kinds::namespaces(), kinds::service_accounts(), kinds::config_maps()]
    }

    fn keys(&self, change: &Change<'_>, _: &dyn Objects) -> Result<Vec<Key>, ApiError> {
        let object = change.object;
        Ok(match (change.resource.kind, object.name()) {
            ("Namespace", name) if !change.is_deletion => vec![Key::named("", name)],
            ("ServiceAccount", SERVICE_ACCOUNT) if change.is_deletion => {
                vec![Key::named("", object.namespace())]
            }
            ("ConfigMap", ROOT_CA) => vec![Key::named("", object.namespace())],
            _ => Vec::new(),
        })
    }

    fn reconcile(&self, key: &Key, objects: &dyn Objects, _: Timestamp) -> Result<Vec<Action>, ApiError> {
        let namespace = objects.find(kinds::namespaces(), "", &key.name)?;
        if namespace.is_none_or(|namespace| namespace.is_deleting()) {
            return Ok(Vec::new());
        }
        let account = objects.find(kinds::service_accounts(), &key.name, SERVICE_ACCOUNT)?;
        let map = objects.find(kinds::config_maps(), &key.name, ROOT_CA)?;
        Ok(complete(&key.name, &self.root_ca_pem, account.as_ref(), map.as_ref()))
    }
}

fn complete(
    namespace: &str,
    root_ca_pem: &str,
    account: Option<&Object>,
    map: Option<&Object>,
) -> Vec<Action> {
    let named = |kind: &str, name: &str| {
        Object::new(
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}),
        )
    };
    let mut actions = Vec::new();
    if account.is_none() {
        let object = named("ServiceAccount", SERVICE_ACCOUNT);
        actions.push(Action::Create { resource: kinds::service_accounts(), object, told: None });
    }
    let data = json!({"ca.crt": root_ca_pem});
    match map {
        Some(known) => {
            let mut right = known.clone();
            right.0["data"] = data;
            actions.extend(Action::update(kinds::config_maps(), Part::Main, known, right));
        }
        None => {
            let mut object = named("ConfigMap", ROOT_CA);
            object.0["data"] = data;
            actions.push(Action::Create { resource: kinds::config_maps(), object, told: None });
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_made_right() {
        let map = |data: &str| Object::new(json!({"metadata": {"name": ROOT_CA}, "data": {"ca.crt": data}}));
        let account = Object::new(json!({}));
        let rows = [
            (None, None, 2),
            (Some(&account), Some(map("pem")), 0),
            (Some(&account), Some(map("old")), 1),
            (None, Some(map("pem")), 1),
        ];
        for (account, map, expected) in rows {
            assert_eq!(complete("ns", "pem", account, map.as_ref()).len(), expected);
        }
    }
}
