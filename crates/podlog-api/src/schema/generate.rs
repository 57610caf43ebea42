//! JSON schemas with descriptions, generated from `k8s-openapi` and thrown away by the caller.

use std::borrow::Cow;

use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    policy::v1 as policy, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// What a `$ref` starts with; the rest is the definition's name.
pub(crate) const REFERENCE_PREFIX: &str = "#/components/schemas/";

/// A kind's name and what adds its definitions to a generator.
struct Root {
    name: fn() -> Cow<'static, str>,
    add: fn(&mut SchemaGenerator) -> Schema,
}

const fn root<T: JsonSchema>() -> Root {
    Root { name: T::schema_name, add: SchemaGenerator::subschema_for::<T> }
}

/// What is read or written anywhere: the kinds of the table, of their subresources, and the common ones.
const ROOTS: &[Root] = &[
    root::<core::Binding>(),
    root::<core::ConfigMap>(),
    root::<core::Event>(),
    root::<core::Namespace>(),
    root::<core::Node>(),
    root::<core::Pod>(),
    root::<core::Secret>(),
    root::<core::Service>(),
    root::<core::ServiceAccount>(),
    root::<apps::ControllerRevision>(),
    root::<apps::DaemonSet>(),
    root::<apps::Deployment>(),
    root::<apps::ReplicaSet>(),
    root::<apps::StatefulSet>(),
    root::<authentication::SelfSubjectReview>(),
    root::<authentication::TokenRequest>(),
    root::<authentication::TokenReview>(),
    root::<authorization::LocalSubjectAccessReview>(),
    root::<authorization::SelfSubjectAccessReview>(),
    root::<authorization::SelfSubjectRulesReview>(),
    root::<authorization::SubjectAccessReview>(),
    root::<autoscaling::Scale>(),
    root::<batch::Job>(),
    root::<certificates::CertificateSigningRequest>(),
    root::<coordination::Lease>(),
    root::<discovery::EndpointSlice>(),
    root::<events::Event>(),
    root::<policy::Eviction>(),
    root::<rbac::ClusterRole>(),
    root::<rbac::ClusterRoleBinding>(),
    root::<rbac::Role>(),
    root::<rbac::RoleBinding>(),
    root::<extensions::CustomResourceDefinition>(),
    root::<meta::DeleteOptions>(),
    root::<meta::ListMeta>(),
    root::<meta::Patch>(),
    root::<meta::Status>(),
];

/// The definitions of all roots that `wanted` picks by name, with everything that they refer to, by name.
pub(crate) fn generate(wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    for root in ROOTS.iter().filter(|root| wanted(&(root.name)())) {
        (root.add)(&mut generator);
    }
    generator.take_definitions(false)
}
