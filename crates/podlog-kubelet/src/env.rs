//! A container's environment: literal values with `$(VAR)` references, fields of the pod, resources, ConfigMaps and
//! Secrets.
//!
//! Rules and texts as `makeEnvironmentVariables` of `pkg/kubelet/kubelet_pods.go`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar as ApiEnvVar, EnvVarSource, Pod, ResourceFieldSelector,
};

use crate::go;
use crate::objects::{Data, Kind, ObjectError, ObjectSource};
use crate::pods::{PodId, pod_ip};
use crate::runtime::EnvVar;
use podlog_api::quantity::Quantity;

/// Why a container's environment cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Field(String),
}

/// Facts about the node that environments and volumes refer to.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    /// Labels that the node was given.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ip: IpAddr,
    /// Where containers find the API; `None` where there is none.
    pub(crate) api_server: Option<SocketAddr>,
    /// Allocatable resources: what a container without limits may use.
    pub(crate) allocatable: BTreeMap<String, String>,
}

/// The outcome: the environment, and what had to be left out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Environment {
    pub(crate) vars: Vec<EnvVar>,
    /// Texts for `InvalidEnvironmentVariableNames` events.
    pub(crate) warnings: Vec<String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.vars.iter_mut().find(|var| var.name == name) {
            Some(var) => var.value = value,
            None => self.vars.push(EnvVar { name: name.to_owned(), value }),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|var| var.name == name).map(|var| var.value.as_str())
    }

    /// Replaces `$(VAR)` by its value; what is not known stays as it is.
    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.get(name).map(str::to_owned))
    }
}

/// Makes a container's environment.
pub(crate) async fn environment(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts,
    source: &dyn ObjectSource,
) -> Result<Environment, EnvError> {
    let mut objects = Objects { source, namespace: PodId::of(pod).namespace, known: HashMap::new() };
    let services = node.api_server.map(service_vars).unwrap_or_default();
    let mut environment = Environment::default();
    for from in container.env_from.iter().flatten() {
        env_from(&mut environment, &mut objects, from).await?;
    }
    for var in container.env.iter().flatten() {
        if let Some(value) =
            value_of(pod, container, node, var, &environment, &services, &mut objects).await?
        {
            environment.set(&var.name, value);
        }
    }
    for (name, value) in services {
        if environment.get(name).is_none() {
            environment.set(name, value);
        }
    }
    Ok(environment)
}

/// Objects that were fetched for one environment.
struct Objects<'a> {
    source: &'a dyn ObjectSource,
    namespace: String,
    known: HashMap<(Kind, String), Data>,
}

impl Objects<'_> {
    /// The object; `None` when it is missing and that is allowed.
    async fn get(&mut self, kind: Kind, name: &str, optional: bool) -> Result<Option<&Data>, ObjectError> {
        let key = (kind, name.to_owned());
        if !self.known.contains_key(&key) {
            match self.source.data(kind, &self.namespace, name).await {
                Ok(data) => drop(self.known.insert(key.clone(), data)),
                Err(ObjectError::NotFound { .. }) if optional => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.known.get(&key))
    }

    async fn key(
        &mut self,
        kind: Kind,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<String>, ObjectError> {
        let namespace = self.namespace.clone();
        let Some(data) = self.get(kind, name, optional).await? else { return Ok(None) };
        match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(ObjectError::NoKey { kind, namespace, name: name.to_owned(), key: key.to_owned() }),
        }
    }
}

async fn env_from(
    environment: &mut Environment,
    objects: &mut Objects<'_>,
    from: &EnvFromSource,
) -> Result<(), EnvError> {
    let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, map.optional),
        (None, Some(secret)) => (Kind::Secret, &secret.name, secret.optional),
        (None, None) => return Ok(()),
    };
    let namespace = objects.namespace.clone();
    let Some(data) = objects.get(kind, name, optional.unwrap_or(false)).await? else { return Ok(()) };
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut invalid = Vec::new();
    for (key, value) in data {
        let variable = format!("{prefix}{key}");
        if is_env_name(&variable) {
            environment.set(&variable, String::from_utf8_lossy(value).into_owned());
        } else {
            invalid.push(key.as_str());
        }
    }
    if !invalid.is_empty() {
        let word = if kind == Kind::ConfigMap { "configMap" } else { "secret" };
        environment.warnings.push(format!(
            "Keys [{}] from the EnvFrom {word} {namespace}/{name} were skipped since they are considered invalid \
             environment variable names.",
            invalid.join(", ")
        ));
    }
    Ok(())
}

/// Printable ASCII without `=`, the relaxed rule since 1.34.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

async fn value_of(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts,
    var: &ApiEnvVar,
    environment: &Environment,
    services: &[(&'static str, String)],
    objects: &mut Objects<'_>,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &var.value_from else {
        let lookup = |name: &str| {
            let service = services.iter().find(|(service, _)| *service == name);
            environment.get(name).map(str::to_owned).or_else(|| service.map(|(_, value)| value.clone()))
        };
        return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), lookup)));
    };
    referred(pod, container, node, from, objects).await
}

async fn referred(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts,
    from: &EnvVarSource,
    objects: &mut Objects<'_>,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &from.field_ref {
        return field_value(pod, node, &field.field_path).map(Some).map_err(EnvError::Field);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, Some(container), node, resource).map(Some).map_err(EnvError::Field);
    }
    if let Some(map) = &from.config_map_key_ref {
        let optional = map.optional.unwrap_or(false);
        return Ok(objects.key(Kind::ConfigMap, &map.name, &map.key, optional).await?);
    }
    if let Some(secret) = &from.secret_key_ref {
        let optional = secret.optional.unwrap_or(false);
        return Ok(objects.key(Kind::Secret, &secret.name, &secret.key, optional).await?);
    }
    Ok(None)
}

/// The value of a field of the pod, as in a `fieldRef`.
pub(crate) fn field_value(pod: &Pod, node: &NodeFacts, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((field, key)) = subscript(path) {
        let map = match field {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("fieldPath {} does not support subscript", go::quote(path))),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let id = PodId::of(pod);
    Ok(match path {
        "metadata.name" => id.name,
        "metadata.namespace" => id.namespace,
        "metadata.uid" => id.uid,
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => node.ip.to_string(),
        "status.podIP" => pod_ip(pod, node.ip).to_string(),
        "status.podIPs" => all_pod_ips(pod).unwrap_or_else(|| node.ip.to_string()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// All addresses that the pod's status names, with commas.
fn all_pod_ips(pod: &Pod) -> Option<String> {
    let ips = pod.status.as_ref()?.pod_ips.as_deref().filter(|ips| !ips.is_empty())?;
    Some(ips.iter().map(|ip| ip.ip.as_str()).collect::<Vec<_>>().join(","))
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go::quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a container's limit or request, as in a `resourceFieldRef`.
pub(crate) fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    node: &NodeFacts,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = if name.is_empty() {
        Cow::Borrowed(container.ok_or_else(|| "container name required for resourceFieldRef".to_owned())?)
    } else {
        let found = crate::pods::find_container(pod, name);
        found.map(|(container, _)| container).ok_or_else(|| format!("container {name} not found"))?
    };
    let divisor = match selector.divisor.as_ref().map(|quantity| quantity.0.as_str()) {
        None | Some("" | "0") => Quantity::whole(1),
        Some(text) => Quantity::parse(text).ok_or_else(|| format!("invalid divisor {text}"))?,
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let amount = match list {
        "limits" => resources
            .and_then(|r| r.limits.as_ref())
            .and_then(|map| map.get(resource))
            .map(|quantity| quantity.0.clone())
            .or_else(|| node.allocatable.get(resource).cloned()),
        "requests" => resources
            .and_then(|r| r.requests.as_ref().and_then(|map| map.get(resource)))
            .or_else(|| resources.and_then(|r| r.limits.as_ref().and_then(|map| map.get(resource))))
            .map(|quantity| quantity.0.clone()),
        _ => return Err(unsupported()),
    };
    let amount = amount.as_deref().and_then(Quantity::parse).unwrap_or_default();
    Ok(amount.divided_by(divisor).to_string())
}

/// The variables of the `kubernetes` service, which stands for the API server.
fn service_vars(address: SocketAddr) -> Vec<(&'static str, String)> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let url = format!("tcp://{address}");
    vec![
        ("KUBERNETES_SERVICE_HOST", host.clone()),
        ("KUBERNETES_SERVICE_PORT", port.clone()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port.clone()),
        ("KUBERNETES_PORT", url.clone()),
        ("KUBERNETES_PORT_443_TCP", url),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".into()),
        ("KUBERNETES_PORT_443_TCP_PORT", port),
        ("KUBERNETES_PORT_443_TCP_ADDR", host),
    ]
}

/// Replaces `$(NAME)` by what `lookup` finds and `$$` by `$`; the rest stays as it is
/// (`third_party/forked/golang/expansion`).
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
