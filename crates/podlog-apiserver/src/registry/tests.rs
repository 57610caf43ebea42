//! The life of objects.

use std::sync::Arc;

use podlog_api::resource::{Resource, by_api_version};
use podlog_api::{ApiError, Object, Reason};
use serde_json::{Value, json};

use super::*;
use crate::store::RedbStore;

fn kind(api_version: &str, kind: &str) -> &'static Resource {
    by_api_version(api_version, kind).unwrap()
}

/// A registry with a namespace `default` and its service account.
async fn registry() -> Registry {
    let registry = Registry::new(Arc::new(RedbStore::in_memory().unwrap()));
    let create = |r, ns, value| registry.create(r, ns, Object::new(value));
    create(kind("v1", "Namespace"), "", json!({"metadata": {"name": "default"}})).await.unwrap();
    create(kind("v1", "ServiceAccount"), "default", json!({"metadata": {"name": "default"}})).await.unwrap();
    registry
}

fn pod(name: &str) -> Object {
    Object::new(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "i"}]}}))
}

fn code(result: Result<Object, ApiError>) -> (u16, Reason, String) {
    let error = result.expect_err("must be refused");
    (error.code, error.reason, error.message)
}

#[tokio::test]
async fn the_server_fills_in_metadata() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let sent = json!({"metadata": {"generateName": "web-", "uid": "mine", "labels": {"a": "b"}, "managedFields": []},
        "data": {"k": "v"}});
    let made = registry.create(maps, "default", Object::new(sent)).await.unwrap();
    assert_eq!((made.kind(), made.api_version(), made.namespace()), ("ConfigMap", "v1", "default"));
    assert!(made.name().starts_with("web-") && made.name().len() == 9, "{}", made.name());
    assert_eq!(made.uid().len(), 36);
    assert!(made.text("/metadata/creationTimestamp").ends_with('Z'));
    assert_eq!(made.resource_version(), registry.store().revision().to_string());
    assert_eq!(registry.get(maps, "default", made.name()).unwrap(), made);
    let owners = made.array("/metadata/managedFields");
    let expected = json!({"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:a": {}}}});
    assert_eq!(
        (owners.len(), &owners[0]["manager"], &owners[0]["fieldsV1"]),
        (1, &json!("podlog"), &expected)
    );
}

#[tokio::test]
async fn creation_is_refused() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let object = |metadata: Value| Object::new(json!({"metadata": metadata}));
    registry.create(maps, "default", object(json!({"name": "taken"}))).await.unwrap();
    let rows = [
        (json!({"name": "taken"}), "default", 409, r#"configmaps "taken" already exists"#),
        (json!({"name": "x"}), "nowhere", 404, r#"namespaces "nowhere" not found"#),
        (
            json!({"name": "x", "namespace": "other"}),
            "default",
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({}),
            "default",
            422,
            r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#,
        ),
    ];
    for (metadata, namespace, status, message) in rows {
        let refused = code(registry.create(maps, namespace, object(metadata)).await);
        assert_eq!((refused.0, &*refused.2), (status, message));
    }
}

#[tokio::test]
async fn updates_retry_and_skip_what_does_not_change() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let object = Object::new(json!({"metadata": {"name": "c"}, "data": {"n": "0"}}));
    registry.create(maps, "default", object).await.unwrap();
    let writers = (0..8).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let add = |object: &mut Object| {
                let n: u32 = object.text("/data/n").parse().unwrap();
                object.0["data"]["n"] = json!((n + 1).to_string());
                Ok(())
            };
            registry.update_with(maps, "default", "c", Part::Main, add).await.unwrap();
        })
    });
    futures_util::future::join_all(writers).await;
    assert_eq!(registry.get(maps, "default", "c").unwrap().text("/data/n"), "8");
    let before = registry.store().revision();
    registry.update_with(maps, "default", "c", Part::Main, |_| Ok(())).await.unwrap();
    assert_eq!(registry.store().revision(), before, "nothing changed, nothing is written");
    let stale = registry
        .update_with(maps, "default", "c", Part::Main, |object| {
            object.metadata_mut().insert("resourceVersion".into(), json!("1"));
            Ok(())
        })
        .await;
    assert_eq!(
        code(stale).2,
        "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
}

#[tokio::test]
async fn parts_are_kept_apart() {
    let registry = registry().await;
    let deployments = kind("apps/v1", "Deployment");
    let labels = json!({"app": "d"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let sent = json!({"metadata": {"name": "d"}, "status": {"replicas": 9},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}});
    let made = registry.create(deployments, "default", Object::new(sent)).await.unwrap();
    assert_eq!((made.integer("/metadata/generation"), made.integer("/status/replicas")), (Some(1), None));
    let both = |object: &mut Object| {
        let n = object.integer("/spec/replicas").unwrap_or(0) + 1;
        object.0["spec"]["replicas"] = json!(n);
        object.0["status"]["replicas"] = json!(n);
        Ok(())
    };
    let main = registry.update_with(deployments, "default", "d", Part::Main, both).await.unwrap();
    let counts = |o: &Object| {
        (o.integer("/metadata/generation"), o.integer("/spec/replicas"), o.integer("/status/replicas"))
    };
    assert_eq!(counts(&main), (Some(2), Some(2), None));
    let status = registry.update_with(deployments, "default", "d", Part::Status, both).await.unwrap();
    assert_eq!(counts(&status), (Some(2), Some(2), Some(3)));
    let scale = scale::of(&status);
    let mut changed = scale.clone();
    changed.0["spec"] = json!({"replicas": 7});
    let scaled = registry
        .update_with(deployments, "default", "d", Part::Main, |o| scale::apply(deployments, o, &changed))
        .await
        .unwrap();
    assert_eq!(counts(&scaled), (Some(3), Some(7), Some(3)));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let object = Object::new(json!({"metadata": {"name": "c", "finalizers": ["a/b"]}}));
    registry.create(maps, "default", object).await.unwrap();
    let marked = registry.delete(maps, "default", "c", DeleteOptions::default()).await.unwrap();
    assert!(marked.is_deleting());
    assert!(registry.get(maps, "default", "c").unwrap().is_deleting());
    let free = |object: &mut Object| {
        object.metadata_mut().remove("finalizers");
        Ok(())
    };
    registry.update_with(maps, "default", "c", Part::Main, free).await.unwrap();
    assert_eq!(registry.find(maps, "default", "c").unwrap(), None);
}

#[tokio::test]
async fn preconditions_protect_the_wrong_object() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let made =
        registry.create(maps, "default", Object::new(json!({"metadata": {"name": "c"}}))).await.unwrap();
    let options = DeleteOptions {
        preconditions: Preconditions { uid: Some("other".into()), resource_version: None },
        ..DeleteOptions::default()
    };
    let refused = code(registry.delete(maps, "default", "c", options).await);
    assert_eq!(refused.0, 409);
    assert_eq!(
        refused.2,
        format!(
            "Operation cannot be fulfilled on configmaps \"c\": Precondition failed: UID in precondition: other, UID in object \
             meta: {}",
            made.uid()
        )
    );
}

#[tokio::test]
async fn a_namespace_goes_when_it_has_been_finalized() {
    let registry = registry().await;
    let namespaces = kind("v1", "Namespace");
    let made =
        registry.create(namespaces, "", Object::new(json!({"metadata": {"name": "n"}}))).await.unwrap();
    assert_eq!(made.label("kubernetes.io/metadata.name"), Some("n"));
    assert_eq!(made.text("/status/phase"), "Active");
    let marked = registry.delete(namespaces, "", "n", DeleteOptions::default()).await.unwrap();
    assert_eq!(marked.text("/status/phase"), "Terminating");
    let late =
        registry.create(kind("v1", "ConfigMap"), "n", Object::new(json!({"metadata": {"name": "c"}}))).await;
    assert_eq!(
        code(late).2,
        "configmaps \"c\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    assert_eq!(code(registry.delete(namespaces, "", "n", DeleteOptions::default()).await).0, 409);
    let finalize = |object: &mut Object| {
        object.0["spec"]["finalizers"] = json!([]);
        Ok(())
    };
    registry.update_with(namespaces, "", "n", Part::Finalize, finalize).await.unwrap();
    assert_eq!(registry.find(namespaces, "", "n").unwrap(), None);
    let protected = code(registry.delete(namespaces, "", "default", DeleteOptions::default()).await);
    assert_eq!(protected.2, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn pods_get_an_account_a_token_and_a_node() {
    let registry = registry().await;
    let pods = binding::pods();
    let made = registry.create(pods, "default", pod("web")).await.unwrap();
    assert_eq!(made.text("/spec/serviceAccountName"), "default");
    assert_eq!((made.text("/status/phase"), made.text("/status/qosClass")), ("Pending", "BestEffort"));
    let volume = made.text("/spec/volumes/0/name");
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(made.text("/spec/containers/0/volumeMounts/0/name"), volume);
    assert_eq!(made.array("/spec/tolerations").len(), 2);

    let mut without = pod("quiet");
    without.0["spec"]["automountServiceAccountToken"] = json!(false);
    assert!(registry.create(pods, "default", without).await.unwrap().array("/spec/volumes").is_empty());
    let mut unknown = pod("lost");
    unknown.0["spec"]["serviceAccountName"] = json!("nobody");
    assert_eq!(
        code(registry.create(pods, "default", unknown).await).2,
        "pods \"lost\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
    );

    let context = WriteContext::default();
    let another = Preconditions { uid: Some("another".into()), resource_version: None };
    let refused = code(registry.bind(&context, "default", "web", "n1", &another).await);
    assert_eq!(
        refused.2,
        format!(
            "Operation cannot be fulfilled on pods \"web\": Precondition failed: UID in precondition: another, UID in object meta: {}",
            made.uid()
        )
    );
    let this = Preconditions { uid: Some(made.uid().into()), resource_version: None };
    let bound = registry.bind(&context, "default", "web", "n1", &this).await.unwrap();
    assert_eq!(bound.text("/spec/nodeName"), "n1");
    assert_eq!(bound.text("/status/conditions/0/type"), "PodScheduled");
    assert_eq!(code(registry.bind(&context, "default", "web", "n2", &this).await).0, 409);
    let marked = registry.delete(pods, "default", "web", DeleteOptions::default()).await.unwrap();
    assert_eq!(marked.integer("/metadata/deletionGracePeriodSeconds"), Some(30));
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    registry.delete(pods, "default", "web", at_once).await.unwrap();
    assert_eq!(registry.find(pods, "default", "web").unwrap(), None);
}

#[tokio::test]
async fn watches_tell_what_happened() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let (_, from) = registry.list(maps, None).unwrap();
    let mut watch = registry.watch(maps, from);
    registry.create(maps, "default", Object::new(json!({"metadata": {"name": "c"}}))).await.unwrap();
    let change = |object: &mut Object| {
        object.0["data"] = json!({"a": "b"});
        Ok(())
    };
    registry.update_with(maps, "default", "c", Part::Main, change).await.unwrap();
    let last = registry.delete(maps, "default", "c", DeleteOptions::default()).await.unwrap();
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::Added(o) if o.name() == "c"));
    assert!(
        matches!(watch.next().await.unwrap(), WatchEvent::Modified { object, previous } if object.text("/data/a") == "b" && previous.at("/data").is_none())
    );
    let WatchEvent::Deleted(gone) = watch.next().await.unwrap() else { panic!("not a deletion") };
    assert_eq!(gone.resource_version(), last.resource_version());
    registry.store().compact(registry.store().revision()).await.unwrap();
    let late = registry.watch(maps, 1).next().await.unwrap_err();
    assert_eq!((late.code, late.reason), (410, Reason::Expired));
}

#[tokio::test]
async fn dry_runs_leave_no_trace() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    let context = WriteContext { dry_run: true, ..WriteContext::default() };
    let before = registry.store().revision();
    let made =
        registry.create_as(&context, maps, "default", Object::new(json!({"metadata": {"name": "c"}}))).await;
    assert!(!made.unwrap().uid().is_empty());
    assert_eq!(registry.find(maps, "default", "c").unwrap(), None);
    assert_eq!(registry.store().revision(), before);
}

/// As `--storage-media-type=application/vnd.kubernetes.protobuf`, its default, leaves it behind; the bytes are kubectl's.
#[tokio::test]
async fn what_kubernetes_own_server_wrote_in_protobuf_is_read_and_becomes_json() {
    use crate::store::{Change, Expected, Write};
    let registry = registry().await;
    let deployments = kind("apps/v1", "Deployment");
    let value = &include_bytes!("../../../podlog-api/src/protobuf/samples/deployment.bin")[..];
    let write = Write {
        key: "/registry/deployments/prod/d".into(),
        expected: Expected::Absent,
        beside: None,
        change: Change::Put(value.into()),
        ttl: None,
    };
    registry.store().write(write).await.unwrap();
    let read = registry.get(deployments, "prod", "d").unwrap();
    assert_eq!((read.integer("/spec/replicas"), read.label("app")), (Some(2), Some("d")));
    assert_eq!(registry.list(deployments, None).unwrap().0, std::slice::from_ref(&read));
    let swap = |object: &mut Object| {
        object.0["spec"]["replicas"] = json!(3);
        Ok(())
    };
    registry.update_with(deployments, "prod", "d", Part::Main, swap).await.unwrap();
    let stored = registry.store().get("/registry/deployments/prod/d").unwrap().unwrap();
    let stored: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!((&stored["spec"]["replicas"], &stored["kind"]), (&json!(3), &json!("Deployment")));
}

#[tokio::test]
async fn batches_are_no_longer_than_wanted_and_leave_nothing_out() {
    let registry = registry().await;
    let maps = kind("v1", "ConfigMap");
    for name in ["a", "b", "c", "d", "e"] {
        let object = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(1000)}});
        registry.create(maps, "default", Object::new(object)).await.unwrap();
    }
    for (bytes, expected) in [(1, vec![1; 5]), (2000, vec![2, 2, 1]), (100_000, vec![5])] {
        let (mut place, mut lengths, mut names) = (Place::default(), Vec::new(), String::new());
        loop {
            let (batch, _) = registry.batch(maps, Some("default"), &mut place, bytes).unwrap();
            if batch.is_empty() {
                break;
            }
            lengths.push(batch.len());
            names.extend(batch.iter().map(|stored| stored.key.rsplit('/').next().unwrap()));
        }
        assert_eq!((lengths, names.as_str()), (expected, "abcde"), "{bytes}");
    }
}

/// What becomes of a namespace while somebody decides about an object in it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Nothing,
    Labelled,
    Marked,
    Gone,
    MadeAnew,
}

/// Allows everything, when it has let something happen.
struct Decides(Registry, Meanwhile);

#[async_trait::async_trait]
impl Authorizer for Decides {
    async fn authorize(
        &self,
        _: &UserInfo,
        _: &podlog_api::Attributes,
    ) -> Result<podlog_api::Decision, podlog_serving::AuthzError> {
        let (registry, namespaces) = (&self.0, kind("v1", "Namespace"));
        let change = async |part, change: fn(&mut Object)| {
            let change = |object: &mut Object| {
                change(object);
                Ok(())
            };
            registry.update_with(namespaces, "", "n", part, change).await.unwrap();
        };
        if self.1 == Meanwhile::Labelled {
            change(Part::Main, |n| n.0["metadata"]["labels"]["a"] = json!("b")).await;
        }
        if matches!(self.1, Meanwhile::Marked | Meanwhile::Gone | Meanwhile::MadeAnew) {
            registry.delete(namespaces, "", "n", DeleteOptions::default()).await.unwrap();
        }
        if matches!(self.1, Meanwhile::Gone | Meanwhile::MadeAnew) {
            change(Part::Finalize, |n| n.0["spec"]["finalizers"] = json!([])).await;
        }
        if self.1 == Meanwhile::MadeAnew {
            let namespace = Object::new(json!({"metadata": {"name": "n"}}));
            registry.create(namespaces, "", namespace).await.unwrap();
        }
        Ok(podlog_api::Decision::Allow(String::new()))
    }
}

#[tokio::test]
async fn nothing_is_left_behind_in_a_namespace_that_went_while_it_was_made() {
    for (meanwhile, expected) in [
        (Meanwhile::Nothing, 0),
        (Meanwhile::Labelled, 0),
        (Meanwhile::Marked, 403),
        (Meanwhile::Gone, 404),
        (Meanwhile::MadeAnew, 404),
    ] {
        let registry = registry().await;
        let namespace = Object::new(json!({"metadata": {"name": "n"}}));
        registry.create(kind("v1", "Namespace"), "", namespace).await.unwrap();
        let context = WriteContext {
            user: Some(UserInfo { username: "mallory".into(), ..UserInfo::default() }),
            authorizer: Some(Arc::new(Decides(registry.clone(), meanwhile))),
            ..WriteContext::default()
        };
        let bindings = kind("rbac.authorization.k8s.io/v1", "RoleBinding");
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"});
        let binding = Object::new(json!({"metadata": {"name": "b"}, "roleRef": role}));
        let made = registry.create_as(&context, bindings, "n", binding).await;
        assert_eq!(made.as_ref().err().map_or(0, |error| error.code), expected, "{meanwhile:?}: {made:?}");
        assert_eq!(registry.find(bindings, "n", "b").unwrap().is_some(), made.is_ok(), "{meanwhile:?}");
    }
}

/// Lets one signer's requests be approved; while it is asked about the first, that request becomes another signer's.
struct OneSigner(Registry);

#[async_trait::async_trait]
impl Authorizer for OneSigner {
    async fn authorize(
        &self,
        _: &UserInfo,
        right: &podlog_api::Attributes,
    ) -> Result<podlog_api::Decision, podlog_serving::AuthzError> {
        let podlog_api::Attributes::Resource { name, .. } = right else { panic!("{right:?}") };
        if name != "small.test/signer" {
            return Ok(podlog_api::Decision::NoOpinion(String::new()));
        }
        let requests = kind("certificates.k8s.io/v1", "CertificateSigningRequest");
        self.0.delete(requests, "", "r", DeleteOptions::default()).await.unwrap();
        self.0.create(requests, "", signing_request("great.test/signer")).await.unwrap();
        Ok(podlog_api::Decision::Allow(String::new()))
    }
}

fn signing_request(signer: &str) -> Object {
    use base64::Engine;
    let pem = base64::engine::general_purpose::STANDARD.encode(include_str!("../http/tests/master.csr"));
    let spec = json!({"signerName": signer, "request": pem, "usages": ["client auth"]});
    Object::new(json!({"metadata": {"name": "r"}, "spec": spec}))
}

#[tokio::test]
async fn what_is_approved_is_what_was_decided_about() {
    let registry = registry().await;
    let requests = kind("certificates.k8s.io/v1", "CertificateSigningRequest");
    registry.create(requests, "", signing_request("small.test/signer")).await.unwrap();
    let context = WriteContext {
        user: Some(UserInfo { username: "approver".into(), ..UserInfo::default() }),
        authorizer: Some(Arc::new(OneSigner(registry.clone()))),
        ..WriteContext::default()
    };
    let approve = |object: &mut Object| {
        object.0["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]});
        Ok(())
    };
    let done = registry.update_as(&context, requests, "", "r", Part::Approval, approve).await;
    assert_eq!(
        code(done).2,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with \
         signerName \"great.test/signer\""
    );
    assert!(registry.get(requests, "", "r").unwrap().array("/status/conditions").is_empty());
}
